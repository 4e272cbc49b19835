"""Experts through their real packages, which no registry has: named by environment variables, skipped where absent.

RELIEV3R_MOGE and RELIEV3R_UTILS3D: checkouts of github.com/microsoft/MoGe (0744441) and of EasternJournalist/utils3d
(3fab839); RELIEV3R_DA3: the folder src of ByteDance-Seed/Depth-Anything-3 (2c21ea8); RELIEV3R_PACKAGES: a folder with
addict, einops and omegaconf where they are not installed; RELIEV3R_ANYCALIB: of javrtg/AnyCalib (cc0399c); RELIEV3R_COTRACKER: of facebookresearch/co-tracker; RELIEV3R_PI3: of
yyfz/Pi3 (9fa3ddb). Installed packages are used as they are. The weights are random, so what is tested is the interface:
calls, shapes, conventions, guards; of pi^3 the numbers.
"""

import importlib.util
import os
import sys
from pathlib import Path

import pytest


def needs(package: str, *variables: str) -> None:
    """Make ``package`` importable from the checkouts that the variables name, or skip with the reason."""
    for variable in variables:
        for folder in os.environ.get(variable, "").split(os.pathsep):
            if folder and Path(folder).is_dir() and folder not in sys.path:
                sys.path.append(folder)
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed; name its checkout in {' and '.join(variables)}")


@pytest.fixture(scope="session")
def moge() -> None:
    needs("moge", "RELIEV3R_MOGE")
    needs("utils3d", "RELIEV3R_UTILS3D")


@pytest.fixture(scope="session")
def da3() -> None:
    for package in ("addict", "einops", "omegaconf"):
        needs(package, "RELIEV3R_PACKAGES")
    needs("depth_anything_3", "RELIEV3R_DA3")


@pytest.fixture(scope="session")
def anycalib() -> None:
    needs("anycalib", "RELIEV3R_ANYCALIB")


@pytest.fixture(scope="session")
def cotracker() -> None:
    needs("cotracker", "RELIEV3R_COTRACKER")


@pytest.fixture(scope="session")
def pi3() -> None:
    needs("pi3", "RELIEV3R_PI3")

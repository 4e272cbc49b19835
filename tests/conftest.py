"""Shape checks of jaxtyping are on in the tests (and only there: they would break torch.compile)."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import settings
from jaxtyping import install_import_hook

from browser import CHROMIUM, REASON, Browser

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # a test never reaches for the network
torch.set_num_threads(1)  # networks and images this small only wait for a second thread
hook = install_import_hook("reliev3r", "shape_checks.checker")

# a busy machine is no failure, and a few dozen examples find what there is to find
settings.register_profile("here", deadline=None, max_examples=30, derandomize=True)
settings.load_profile("here")

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def browser(tmp_path_factory) -> Iterator[Browser]:
    """A real one; tests that look at a page skip where there is none."""
    if CHROMIUM is None:
        pytest.skip(REASON)
    opened = Browser(tmp_path_factory.mktemp("browser"))
    yield opened
    opened.close()


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real captures; tests that need it skip where it is absent."""
    if not SHARED.is_dir():
        pytest.skip(f"no real captures at {SHARED}")
    return SHARED

"""Experts through their real packages, which no registry has: named by environment variables, skipped where absent.

RELIEV3R_MOGE and RELIEV3R_UTILS3D: checkouts of github.com/microsoft/MoGe (0744441 for MoGe-2, 74fbce0 for MoGe-3) and
of EasternJournalist/utils3d (3fab839); RELIEV3R_DA3: the folder src of ByteDance-Seed/Depth-Anything-3 (2c21ea8);
RELIEV3R_ANYCALIB: javrtg/AnyCalib (cc0399c); RELIEV3R_COTRACKER: facebookresearch/co-tracker; RELIEV3R_TAPNET:
google-deepmind/tapnet (c2cbab8); RELIEV3R_PI3: yyfz/Pi3 (9fa3ddb). RELIEV3R_PACKAGES: a folder with addict, einops and
omegaconf where they are not installed. Installed packages are used as they are. The weights are random, so what is
tested is the interface: calls, shapes, conventions, guards; of pi^3 the numbers.
"""

import importlib.util
import os
import sys
import types
from pathlib import Path

import pytest
import torch


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


@pytest.fixture
def tapnet(monkeypatch) -> None:
    """Where torchvision is missing, its EncoderBlock is built of what it is made of, with its names of weights."""
    needs("einops", "RELIEV3R_PACKAGES")
    needs("tapnet", "RELIEV3R_TAPNET")
    if importlib.util.find_spec("torchvision") is None:
        for name in ("torchvision", "torchvision.models", "torchvision.models.vision_transformer"):
            monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
        block = sys.modules["torchvision.models.vision_transformer"]
        block.EncoderBlock = EncoderBlock
        sys.modules["torchvision.models"].vision_transformer = block


class EncoderBlock(torch.nn.Module):
    """torchvision's block of a vision transformer, without dropout."""

    def __init__(self, num_heads, hidden_dim, mlp_dim, dropout, attention_dropout):
        super().__init__()
        assert not dropout
        assert not attention_dropout
        self.ln_1, self.ln_2 = torch.nn.LayerNorm(hidden_dim, eps=1e-6), torch.nn.LayerNorm(hidden_dim, eps=1e-6)
        self.self_attention = torch.nn.MultiheadAttention(hidden_dim, num_heads, batch_first=True)
        layers = (torch.nn.Linear(hidden_dim, mlp_dim), torch.nn.GELU(), torch.nn.Identity())
        self.mlp = torch.nn.Sequential(*layers, torch.nn.Linear(mlp_dim, hidden_dim), torch.nn.Identity())

    def forward(self, tokens):
        x = self.ln_1(tokens)
        tokens = tokens + self.self_attention(x, x, x, need_weights=False)[0]
        return tokens + self.mlp(self.ln_2(tokens))


@pytest.fixture(scope="session")
def pi3() -> None:
    needs("pi3", "RELIEV3R_PI3")

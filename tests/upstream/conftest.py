"""Experts through their real packages, which few registries have: named by environment variables, skipped where absent.

RELIEV3R_MOGE and RELIEV3R_UTILS3D: checkouts of github.com/microsoft/MoGe (0744441 for MoGe-2, 74fbce0 for MoGe-3) and
of EasternJournalist/utils3d (3fab839); RELIEV3R_DA3: the folder src of ByteDance-Seed/Depth-Anything-3 (2c21ea8);
RELIEV3R_ANYCALIB: javrtg/AnyCalib (cc0399c); RELIEV3R_COTRACKER: facebookresearch/co-tracker; RELIEV3R_TAPNET:
google-deepmind/tapnet (c2cbab8); RELIEV3R_PI3: yyfz/Pi3 (9fa3ddb); RELIEV3R_DINOV3: facebookresearch/dinov3 (adc2544).
RELIEV3R_PACKAGES: folders with addict, einops, omegaconf, romav2 (2.0.1) and lomatch (1.0.0) where they are not
installed. Installed packages are used as they are. The weights are random, so what is tested is the interface: calls,
shapes, conventions, guards; of pi^3 the numbers.
"""

import importlib.util
import os
import sys
import types
from functools import partial
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


@pytest.fixture(scope="session")
def dinov3() -> None:
    needs("dinov3", "RELIEV3R_DINOV3")


@pytest.fixture(scope="module")
def torchvision():
    """Where it is missing, its VGGs are built of what they are made of, with its names of weights."""
    if importlib.util.find_spec("torchvision") is not None:
        yield
        return
    with pytest.MonkeyPatch.context() as patch:
        for name in ("torchvision", "torchvision.models", "torchvision.transforms"):
            patch.setitem(sys.modules, name, types.ModuleType(name))
        package, models, transforms = (sys.modules[f"torchvision{part}"] for part in ("", ".models", ".transforms"))
        package.models, package.transforms, transforms.Normalize = models, transforms, Normalize
        models.vgg11_bn, models.vgg13_bn, models.vgg19_bn = (
            partial(Vgg, counts) for counts in ((1, 1, 2, 2, 2), (2, 2, 2, 2, 2), (2, 2, 4, 4, 4))
        )
        yield


class Vgg(torch.nn.Module):
    """torchvision's VGG with batch norm, without its classifier; ``counts``: convolutions before each halving."""

    def __init__(self, counts, weights=None):
        super().__init__()
        assert weights is None
        layers, channels = [], 3
        for count, width in zip(counts, (64, 128, 256, 512, 512)):
            for _ in range(count):
                layers += [torch.nn.Conv2d(channels, width, 3, padding=1), torch.nn.BatchNorm2d(width)]
                layers.append(torch.nn.ReLU(inplace=True))
                channels = width
            layers.append(torch.nn.MaxPool2d(2))
        self.features = torch.nn.Sequential(*layers)


class Normalize(torch.nn.Module):
    """torchvision's transform of the same name."""

    def __init__(self, mean, std):
        super().__init__()
        self.mean, self.std = (torch.tensor(values)[:, None, None] for values in (mean, std))

    def forward(self, images):
        return (images - self.mean.to(images)) / self.std.to(images)


@pytest.fixture(scope="module")
def romav2(dinov3, torchvision) -> None:
    needs("einops", "RELIEV3R_PACKAGES")
    needs("romav2", "RELIEV3R_PACKAGES")


@pytest.fixture(scope="module")
def loma(torchvision) -> None:
    needs("einops", "RELIEV3R_PACKAGES")
    needs("loma", "RELIEV3R_PACKAGES")

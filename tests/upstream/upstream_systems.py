"""Baselines through their real code: checkouts below RELIEV3R_UPSTREAM, run by the interpreter that has their packages.

RELIEV3R_UPSTREAM (searched with its folder src) holds checkouts under their repositories' names;
RELIEV3R_UPSTREAM_PYTHON (default: this interpreter) is an interpreter with torch and what those need. The weights are
random, so what is tested is the interface: construction, calls, shapes, conventions. Skips name what is missing.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from reliev3r.baselines.host import run_baseline
from reliev3r.baselines.registry import ADAPTERS
from reliev3r.data.capture import load_capture
from reliev3r.synthetic.capture import SynthConfig, write_capture

_PROLOGUE = """
import sys, types
import numpy as np, torch
package = types.ModuleType("reliev3r_adapters")
package.__path__ = [sys.argv[1]]
sys.modules["reliev3r_adapters"] = package
repo, out = sys.argv[2:4]
"""


class System:
    """One upstream system on this machine."""

    def __init__(self, name: str, repository: str, *modules: str):
        self.name, self.repo = name, _checkout(repository)
        self.python = os.environ.get("RELIEV3R_UPSTREAM_PYTHON", sys.executable)
        probe = "import importlib.util, sys; print(*[m for m in sys.argv[1:] if not importlib.util.find_spec(m)])"
        missing = subprocess.run(
            [self.python, "-c", probe, *modules], capture_output=True, text=True, check=True
        ).stdout.strip()
        if missing:
            pytest.skip(f"{self.python} lacks {missing}, which {name} needs; set RELIEV3R_UPSTREAM_PYTHON")

    def script(self, text: str, out: Path | None = None) -> str:
        """What a few statements print in that interpreter, with ``repo``, ``out`` and the adapters' package at hand."""
        command = [self.python, "-c", _PROLOGUE + text, str(ADAPTERS), str(self.repo), str(out)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=280)
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout.strip()

    def run(self, folder: Path, **options):
        """``run_baseline`` on four views of a small synthetic room."""
        room = folder / "room"
        if not room.exists():
            write_capture(room, SynthConfig(views=4, width=160, height=120, span=40, supersample=1))
        options = {"log": folder / f"{self.name}.log", "timeout_s": 1500, **options}
        return run_baseline(self.name, load_capture(room), python=self.python, repo=self.repo, **options)


def _checkout(repository: str) -> Path:
    named = os.environ.get("RELIEV3R_UPSTREAM")
    if named is None:
        pytest.skip(f"no checkout of {repository}: name the folder that holds it in RELIEV3R_UPSTREAM")
    root = Path(named)
    for folder in (root / repository, root / "src" / repository):
        if folder.is_dir():
            return folder
    pytest.skip(f"no checkout of {repository} in {root}; name its parent folder in RELIEV3R_UPSTREAM")


def check(result, size: tuple[int, int]) -> None:
    """Four views, maps of this (height, width), cameras that are rigid with the first as the world, all finite."""
    prediction = result.prediction
    assert prediction.depth.shape == (4, *size)
    assert prediction.rays.shape == (4, *size, 3)
    for value in (prediction.depth, prediction.rays, prediction.conf, prediction.world_from_cam):
        assert value.isfinite().all()
    assert (prediction.depth > 0).all()
    assert ((prediction.conf > 0) & (prediction.conf < 2)).all()
    rotation = prediction.world_from_cam[:, :3, :3].double()
    torch.testing.assert_close(rotation @ rotation.mT, torch.eye(3).double().expand(4, 3, 3), atol=1e-5, rtol=0)
    torch.testing.assert_close(prediction.world_from_cam[0], torch.eye(4))
    assert result.meta["seconds"] > 0
    assert result.meta["peak_rss_bytes"] > 1e8


def differ(a, b) -> bool:
    """Whether two reconstructions come from other weights."""
    return not torch.allclose(a.prediction.depth, b.prediction.depth, rtol=1e-3)


PARITY = """
from PIL import Image
import os, tempfile
rng, worst = np.random.default_rng(0), 0.0
for sizes in {sizes}:
    with tempfile.TemporaryDirectory() as folder:
        small = [rng.integers(0, 255, (h // 8, w // 8, 3), dtype=np.uint8) for w, h in sizes]
        images = [Image.fromarray(noise).resize(size, Image.BICUBIC) for noise, size in zip(small, sizes)]
        images = [np.asarray(image) for image in images]
        paths = [os.path.join(folder, str(index) + ".png") for index in range(len(images))]
        for path, image in zip(paths, images):
            Image.fromarray(image).save(path)
        theirs, ours = load(folder, paths).numpy(), adapter.prepare(images, None)[0]["image"]
        assert theirs.shape == ours.shape, (sizes, theirs.shape, ours.shape)
        worst = max(worst, float(np.abs(theirs - ours).max()))
print(worst)
"""
SIZES = [[(517, 333)] * 2, [(600, 800)] * 2, [(480, 480)] * 2, [(1000, 301)] * 2, [(131, 97)] * 2]
MIXED = [[(300, 400), (300, 380)], [(360, 640), (640, 360)]]


TRANSFORMS = """
import importlib.util
if importlib.util.find_spec("torchvision") is None:
    class ToTensor:
        def __call__(self, image):
            return torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255
    class Normalize:
        def __init__(self, mean, std):
            self.mean, self.std = (torch.tensor(values)[:, None, None] for values in (mean, std))
        def __call__(self, image):
            return (image - self.mean) / self.std
    class CenterCrop:
        def __init__(self, size):
            self.size = size
        def __call__(self, image):
            (rows, columns), (height, width) = self.size, image.shape[-2:]
            top, left = round((height - rows) / 2), round((width - columns) / 2)
            return image[..., top : top + rows, left : left + columns]
    transforms = types.ModuleType("torchvision.transforms")
    transforms.ToTensor, transforms.Normalize, transforms.CenterCrop = ToTensor, Normalize, CenterCrop
    torchvision = types.ModuleType("torchvision")
    torchvision.transforms = transforms
    sys.modules["torchvision"], sys.modules["torchvision.transforms"] = torchvision, transforms
"""
"""Three transforms of torchvision's for loaders that need no more of it, where there is none."""


def assert_same_pixels(system: System, load: str, *, mixed: bool = True) -> None:
    """``prepare`` gives the pixels of upstream's own loader; ``load`` defines it as a function of folder, paths."""
    head = f"from reliev3r_adapters import shared, {system.name} as adapter\nshared.repair_torchvision()\n"
    text = head + load + PARITY.format(sizes=SIZES + (MIXED if mixed else []))
    assert float(system.script(text).splitlines()[-1]) < 1e-6

"""Upstream systems that behave, or misbehave in one way: adapters written to a folder, run by the real worker."""

import textwrap
from pathlib import Path

import numpy as np
from PIL import Image

from reliev3r.baselines.host import run_baseline
from reliev3r.data.capture import Capture, load_capture

_ADAPTER = """
import numpy as np

CARD = {{"min_views": {fewest}}}


def build(repo, weights, device, sizes):
{build}
    return None


def prepare(images, K):
    shape = np.array([len(images), 6, 8])
    return {{"shape": shape}}, np.array([[0.0, 0.0, image.shape[1], image.shape[0]] for image in images])


def run(model, inputs, device):
{run}
    return {{"depth": np.ones(tuple(inputs["shape"]))}}


def decode(raw, inputs):
    views = len(raw["depth"])
    K = np.tile([[8.0, 0, 4], [0, 8, 3], [0, 0, 1]], (views, 1, 1))
    result = {{"depth": raw["depth"], "K": K, "world_from_cam": np.tile(np.eye(4), (views, 1, 1))}}
{decode}
    return result
"""


def capture(folder: Path, views: int = 2) -> Capture:
    """Small pictures."""
    for view in range(views):
        pixels = np.random.default_rng(view).integers(0, 255, (24, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{view}.png")
    return load_capture(folder)


def run_fake(folder: Path, *, build: str = "", run: str = "", decode: str = "", fewest: int = 2, **options):
    """``run_baseline`` of an adapter with these statements in its functions."""
    bodies = {"build": build, "run": run, "decode": decode}
    bodies = {name: textwrap.indent(textwrap.dedent(body).strip() or "pass", "    ") for name, body in bodies.items()}
    adapters, images = folder / "adapters", folder / "images"
    adapters.mkdir(parents=True)
    images.mkdir()
    (adapters / "fake.py").write_text(_ADAPTER.format(fewest=fewest, **bodies))
    options = {"timeout_s": 60, **options}
    return run_baseline("fake", capture(images), adapters=adapters, log=folder / "log" / "fake.log", **options)

"""What is built around DA3MONO, with a stand-in of its class whose answers are known; tests/upstream has its own."""

import sys
from types import ModuleType

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from reliev3r.core.errors import UserError
from reliev3r.labels.expert import DepthExpert
from reliev3r.labels.registry import depth_expert


class Network(torch.nn.Module):
    """The upper half is sky, with a depth that is drawn at random; below, depth grows with brightness."""

    def __init__(self):
        super().__init__()
        self.gain = torch.nn.Parameter(torch.tensor(0.0))

    def forward(self, pixels):
        assert pixels.shape[:3] == (1, 1, 3)
        depth = 3 + self.gain * pixels.mean(2)
        sky = torch.zeros_like(depth)
        sky[..., : depth.shape[-2] // 2, :] = 0.3
        depth[sky > 0] = torch.rand(())
        return {"depth": depth, "sky": sky}


@pytest.fixture
def weights(tmp_path, monkeypatch):
    package, cfg, registry = (ModuleType(f"depth_anything_3{part}") for part in ("", ".cfg", ".registry"))
    cfg.load_config = lambda path: path
    cfg.create_object = {"yaml": Network()}.__getitem__
    registry.MODEL_REGISTRY = {"da3mono-large": "yaml"}
    for module in (package, cfg, registry):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    save_file({"model.gain": torch.tensor(0.5)}, tmp_path / "model.safetensors")
    return tmp_path / "model.safetensors"


def test_the_sky_is_invalid_and_depth_is_depth(weights, photos):
    expert = depth_expert(f"da3-mono:{weights}")
    assert isinstance(expert, DepthExpert)
    assert expert.ambiguity == "scale+shift"
    assert expert.fingerprint()["name"] == "da3-mono"
    before = torch.random.get_rng_state()
    found = expert.predict(np.full((30, 40, 3), 128, np.uint8), photos.frames[0], photos)
    assert torch.equal(before, torch.random.get_rng_state())
    assert found.depth.shape == (378, 504)
    assert not found.valid[:189].any()
    assert found.valid[189:].all()
    normalised = (128 / 255 - np.array([0.485, 0.456, 0.406])) / np.array([0.229, 0.224, 0.225])
    np.testing.assert_allclose(found.depth[189:], 3 + 0.5 * normalised.mean(), rtol=1e-5)


def test_what_is_missing_is_told_in_one_line(weights, photos, monkeypatch):
    def predict(file):
        depth_expert(f"da3-mono:{file}").predict(photos.image(0), photos.frames[0], photos)

    with pytest.raises(UserError, match=r"not found; get it with `hf download depth-anything/DA3MONO-LARGE"):
        predict("nowhere.safetensors")
    save_file({"model.other": torch.tensor(0.5)}, weights)
    with pytest.raises(UserError, match="its weights do not fill"):
        predict(weights)
    weights.write_bytes(b"x")
    with pytest.raises(UserError, match="not readable as weights"):
        predict(weights)
    monkeypatch.setitem(sys.modules, "depth_anything_3.cfg", None)
    with pytest.raises(UserError, match=r"needs its package .* pip install addict .*Depth-Anything-3@2c21ea8"):
        predict(weights)

"""From images and a checkpoint to a reconstruction."""

import pytest
import torch

import builders
from reliev3r.core.errors import UserError
from reliev3r.data.capture import load_capture
from reliev3r.runs.reconstruct import reconstruct
from reliev3r.synthetic.capture import SynthConfig, write_capture


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    """(capture, checkpoint)."""
    root = tmp_path_factory.mktemp("forward")
    write_capture(root / "room", SynthConfig(views=3, width=64, height=48, supersample=1))
    builders.network(patch_size=8).save_pretrained(root / "checkpoint")
    return root / "room", root / "checkpoint"


def test_half_precision_is_near_and_said(scene) -> None:
    room, checkpoint = scene
    exact = reconstruct(room, checkpoint, image_size=64, precision="fp32")[0]
    half = reconstruct(room, str(checkpoint), image_size=64, precision="bf16")[0]
    assert (exact.meta["precision"], half.meta["precision"]) == ("float32", "bf16")
    for name in ("depth", "world_from_cam"):
        one, other = getattr(exact.prediction, name), getattr(half.prediction, name)
        assert other.dtype == torch.float32
        assert 0 < (one - other).norm() / one.norm() < 0.02
    assert exact.meta["checkpoint_sha256"] == half.meta["checkpoint_sha256"]


def test_systems_of_others_are_asked_for_by_name(scene, tmp_path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(UserError, match="vggt"):
        reconstruct(scene[0], f"vggt:{tmp_path}")


def test_unknown_intrinsics_that_nothing_predicts(scene, tmp_path) -> None:
    for frame in load_capture(scene[0]).frames:
        (tmp_path / frame.path.name).write_bytes(frame.path.read_bytes())
    with pytest.raises(UserError, match="--intrinsics"):
        reconstruct(tmp_path, scene[1])

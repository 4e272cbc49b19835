"""Networks of others without their packages: what is told, how files are read, and how outputs become predictions."""

import copy
import json
import math
import re
import sys

import pytest
import safetensors.torch
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from reliev3r.cli import main
from reliev3r.core.errors import UserError
from reliev3r.core.types import Prediction, Views
from reliev3r.geometry.camera import K_from_fov, ray_map
from reliev3r.geometry.rigid import invert, rigid_from, so3_exp
from reliev3r.model.foreign import base, da3, mapanything
from reliev3r.model.load import FOREIGN, ForeignNetwork, load_model

PACKAGES = {"vggt": "vggt", "vggt-omega": "vggt_omega", "mapanything": "mapanything", "da3": "depth_anything_3"}


@pytest.mark.parametrize("kind", sorted(FOREIGN))
def test_a_missing_package_is_told_with_the_remedy(kind, tmp_path, monkeypatch, capsys) -> None:
    for name in [PACKAGES[kind], *(name for name in sys.modules if name.startswith(f"{PACKAGES[kind]}."))]:
        monkeypatch.setitem(sys.modules, name, None)
    needs = f"^{kind}:here needs the package {PACKAGES[kind]} .*pip install .*git"
    with pytest.raises(UserError, match=needs) as caught:
        load_model(f"{kind}:here")
    assert "\n" not in str(caught.value)
    save_file({"weight": torch.ones(1)}, tmp_path / "model.safetensors")
    (tmp_path / "footage").mkdir()
    arguments = ["--model", f"{kind}:{tmp_path}", str(tmp_path / "footage"), "--out", str(tmp_path / "o")]
    assert main(["adapt", *arguments]) == 2
    assert re.search(r"pip install (--no-deps )?git", capsys.readouterr().err)


def test_a_configuration_that_is_missing_or_damaged_is_named(tmp_path) -> None:
    files = [tmp_path / "model.safetensors"]
    with pytest.raises(UserError, match="hf download some/where"):
        base.read_config(files, "some/where")
    for text, reason in (("{", "not readable as JSON"), ("[1]", "no settings")):
        (tmp_path / "config.json").write_text(text)
        with pytest.raises(UserError, match=reason):
            base.read_config(files, "some/where")


class Shared(nn.Module):
    """One layer under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.b = nn.Linear(2, 2)
        self.a, self.alone = self.b, nn.Linear(2, 2)


@pytest.mark.parametrize("stored", ["a", "b"])
def test_a_shared_weight_is_found_under_either_name(stored) -> None:
    network, given = Shared(), Shared()
    tensors = {n: v for n, v in given.state_dict().items() if n.startswith((stored, "alone"))}
    base.load_exactly(network, tensors, "here")
    assert all(torch.equal(v, given.state_dict()[n]) for n, v in network.state_dict().items())


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"alone.bias": None}, "alone.bias is missing"),
        ({"alone.bias": torch.ones(3)}, "alone.bias is missing or has another shape"),
        ({"more": torch.ones(1)}, "holds more"),
    ],
)
def test_weights_that_do_not_fit_are_named(change, reason) -> None:
    tensors = {**Shared().state_dict(), **change}
    with pytest.raises(UserError, match=reason):
        base.load_exactly(Shared(), {name: value for name, value in tensors.items() if value is not None}, "here")


class Plain(ForeignNetwork):
    system, prefix = "Plain", "plain"

    def predict_batch(self, views: Views) -> Prediction:
        raise NotImplementedError

    def trunk(self) -> nn.ModuleList:
        return nn.ModuleList([self.network])


def test_a_shared_weight_has_one_name_while_it_is_trained_and_in_the_file(tmp_path) -> None:
    network, other = Plain(Shared()), Plain(Shared())
    state = network.state_dict()
    assert set(state) == {name for name, _ in network.named_parameters()}
    assert set(state) == {"network.b.weight", "network.b.bias", "network.alone.weight", "network.alone.bias"}
    for copied in (other, copy.deepcopy(other)):
        copied.load_state_dict(state)
        assert all(torch.equal(value, state[name]) for name, value in copied.state_dict().items())
    network.save_pretrained(tmp_path)
    safetensors.torch.load_model(Shared(), str(tmp_path / "model.safetensors"), strict=True)


def test_what_is_not_run_is_written_back(tmp_path) -> None:
    config = {"size": "small", "limit": math.inf}
    rest = {"head.weight": torch.arange(3.0)}
    Plain(nn.Linear(2, 2), rest=rest, config=config).save_pretrained(tmp_path)
    saved = load_file(tmp_path / "model.safetensors")
    assert set(saved) == {"weight", "bias", "head.weight"}
    assert torch.equal(saved["head.weight"], rest["head.weight"])
    assert json.loads((tmp_path / "config.json").read_text()) == config


def test_what_inference_must_match_is_written_beside_the_weights_and_read_back(tmp_path) -> None:
    network, again = Plain(nn.Linear(2, 2)), Plain(nn.Linear(2, 2))
    again.recall(tmp_path / "model.safetensors")  # upstream's own weights say nothing
    assert (again.image_size, again.precision) == (518, "auto")
    network.describe(image_size=224, precision="fp32", facts={"Adapted to": "a walk"})
    network.save_pretrained(tmp_path)
    again.recall(tmp_path / "model.safetensors")
    assert (again.image_size, again.precision) == (224, "fp32")
    card = (tmp_path / "README.md").read_text()
    assert "license: other" in card
    assert "- **Adapted to:** a walk" in card
    for wrong in ("{}", "[]", '{"image_size": "x", "precision": "fp32"}', '{"image_size": 224, "precision": "int4"}'):
        (tmp_path / "reliev3r.json").write_text(wrong)
        with pytest.raises(UserError, match=r"reliev3r.json: "):
            again.recall(tmp_path / "model.safetensors")


def test_depth_and_rays_are_those_of_the_points() -> None:
    depth = 1 + torch.rand(1, 2, 6, 8)
    rays = ray_map(K_from_fov(1.2, 6, 8).expand(1, 2, 3, 3), 6, 8)
    points = rays * depth[..., None]
    got_depth, got_rays = mapanything.depth_and_rays(points)
    torch.testing.assert_close(got_depth, depth)
    torch.testing.assert_close(got_rays, rays)
    points[0, 0, 0, 0, 2] = -1.0  # behind the camera
    got_depth, got_rays = mapanything.depth_and_rays(points)
    assert 0 < got_depth[0, 0, 0, 0] < 0.01
    assert got_rays.isfinite().all()


def test_da3_cameras_are_turned_round_and_their_focal_length_is_finite() -> None:
    world_from_cam = rigid_from(so3_exp(torch.randn(1, 3, 3)), torch.randn(1, 3, 3))
    K = K_from_fov(0.8, 28, 42).expand(1, 3, 3, 3)
    got_K, got = da3.cameras(invert(world_from_cam)[..., :3, :], K, 28, 42)
    torch.testing.assert_close(got, world_from_cam, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(got_K, K)
    closed = K * torch.tensor([[1e7, 1, 1], [1, 1e7, 1], [1, 1, 1]])
    assert da3.cameras(invert(world_from_cam)[..., :3, :], closed, 28, 42)[0].max() < 42 * 101


def test_paths_to_other_weights_are_taken_out_of_a_configuration() -> None:
    config = {"a": {"pretrained_checkpoint_path": "/evil.pth", "b": 1}, "pretrained_checkpoint_path": "x"}
    expected = {"a": {"pretrained_checkpoint_path": None, "b": 1}, "pretrained_checkpoint_path": None}
    assert mapanything._without_checkpoints(config) == expected

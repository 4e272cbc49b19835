"""The auxiliary global-point branch of the network."""

import dataclasses

import pytest
import torch

from reliev3r.core.types import Views
from reliev3r.model.load import load_network
from reliev3r.model.network import PRESETS, NetworkConfig, Reliev3R

SMALLEST = NetworkConfig(
    dim=32, heads=2, encoder_depth=1, decoder_depth=2, patch_size=4, encoder_grid=4, head_dim=32, head_heads=2,
    head_depth=1, camera_dim=16,
)  # fmt: skip


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def network(seed: int = 0, **changes) -> Reliev3R:
    torch.manual_seed(seed)
    return Reliev3R(dataclasses.replace(SMALLEST, **changes))


def views() -> Views:
    g = torch.Generator().manual_seed(0)
    K = torch.tensor([[20.0, 0, 10], [0, 20.0, 8], [0, 0, 1]]).expand(2, 3, 3, 3)
    return Views(image=torch.rand(2, 3, 3, 16, 20, generator=g), K=K)


@pytest.mark.parametrize("guided", [False, True])
def test_points_a_pixel_for_training_alone(guided: bool) -> None:
    model = network(global_points=True, guided=guided)
    points = model.train()(views()).global_points
    assert points.shape == (2, 3, 16, 20, 3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert model(views()).global_points.dtype == torch.float32
    assert model.eval()(views()).global_points is None
    assert network(guided=guided).train()(views()).global_points is None


def test_the_first_view_is_special_to_this_branch_and_to_nothing_else() -> None:
    model, seen = network(global_points=True).train(), views()
    with torch.no_grad():
        plain = model(seen)
        last_two = model(dataclasses.replace(seen, image=seen.image[:, [0, 2, 1]]))
        turned = model(dataclasses.replace(seen, image=seen.image[:, [2, 0, 1]]))
    torch.testing.assert_close(last_two.global_points, plain.global_points[:, [0, 2, 1]], atol=1e-5, rtol=0)
    torch.testing.assert_close(turned.world_from_cam, plain.world_from_cam[:, [2, 0, 1]], atol=1e-5, rtol=0)
    torch.testing.assert_close(turned.depth, plain.depth[:, [2, 0, 1]], atol=1e-5, rtol=1e-5)
    assert (turned.global_points - plain.global_points[:, [2, 0, 1]]).abs().max() > 1e-5


def test_each_view_reads_its_own_tokens_and_the_first_ones() -> None:
    head = network(global_points=True).global_head
    assert head is not None
    features = torch.randn(6, 4 + 20, 64, requires_grad=True)
    rope = (torch.ones(24, 16), torch.zeros(24, 16))
    points = head(features, torch.rand(6, 3, 16, 20), rope=rope, registers=4, views=3)
    (points[5, ..., 0].sum() + points[5, ..., 2].square().sum()).backward()  # sample 1, view 2
    reached = features.grad.abs().sum((1, 2)) > 0
    assert reached.tolist() == [False, False, False, True, False, True]


def test_presets_and_other_weights_do_not_change(tmp_path) -> None:
    assert not any(preset.global_points for preset in PRESETS.values())
    plain, branch = network(3, match_dim=8).state_dict(), network(3, match_dim=8, global_points=True)
    assert all(name.startswith("global_head.") for name in set(branch.state_dict()) - set(plain))
    assert all(torch.equal(branch.state_dict()[name], value) for name, value in plain.items())
    branch.save_pretrained(tmp_path / "checkpoint")
    with torch.no_grad():
        loaded = load_network(tmp_path / "checkpoint").train()(views()).global_points
        assert torch.equal(loaded, branch.train()(views()).global_points)

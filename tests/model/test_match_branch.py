import dataclasses
import math

import pytest
import torch

import builders
from reliev3r.core.types import Tracks, Views
from reliev3r.losses.matching import CorrespondenceConfig, correspondence_loss
from reliev3r.model.load import load_network
from reliev3r.model.network import PRESETS, Reliev3R

SMALLEST = dataclasses.replace(builders.SMALLEST, decoder_depth=4)
SIZE = 32


def network(seed: int = 0, **changes) -> Reliev3R:
    return builders.network(seed, **{"decoder_depth": 4, **changes})


def shifted_crops(scenes: int = 2, views: int = 3, tracks: int = 24) -> tuple[Views, Tracks]:
    """Crops of one random picture a scene, and points that are seen in all of them."""
    g = torch.Generator().manual_seed(0)
    coarse = torch.rand(scenes, 3, 16, 16, generator=g)
    picture = torch.nn.functional.interpolate(coarse, size=48, mode="bilinear", align_corners=False)
    shift = torch.randint(0, 17, (scenes, views, 2), generator=g)
    image = torch.stack([
        torch.stack([picture[s, :, y : y + SIZE, x : x + SIZE] for x, y in shift[s].tolist()]) for s in range(scenes)
    ])  # fmt: skip
    uv = 16 + 16 * torch.rand(scenes, 1, tracks, 2, generator=g) - shift[:, :, None]
    K = torch.tensor([[30.0, 0, 16], [0, 30.0, 16], [0, 0, 1]]).expand(scenes, views, 3, 3)
    return Views(image=image, K=K), Tracks(uv=uv, weight=torch.ones(scenes, views, tracks))


def test_descriptors_are_unit_vectors_a_patch_and_for_training_alone() -> None:
    model, (views, _) = network(match_dim=6), shifted_crops()
    descriptors = model.train()(views).descriptors
    assert descriptors.shape == (2, 3, 8, 8, 6)
    torch.testing.assert_close(descriptors.norm(dim=-1), torch.ones(2, 3, 8, 8))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert model(views).descriptors.dtype == torch.float32
    assert model.eval()(views).descriptors is None
    assert network().train()(views).descriptors is None


def test_the_branch_reads_patch_tokens_of_its_layer_in_their_order() -> None:
    # what lies behind the layer has no part in it; what changes in one corner shows there most
    model, (views, _) = network(match_dim=6, match_layer=1), shifted_crops()
    model.train()(views).descriptors[..., 0].sum().backward()
    trained = {name for name, p in model.named_parameters() if p.grad is not None and p.grad.abs().max() > 0}
    assert any(name.startswith("decoder.1.") for name in trained)
    assert any(name.startswith("encoder.") for name in trained)
    assert not any(name.startswith(("decoder.2.", "decoder.3.", "depth_", "camera_", "conf_")) for name in trained)
    changed = views.image.clone()
    changed[0, 1, :, -4:, :4] = 1 - changed[0, 1, :, -4:, :4]
    with torch.no_grad():
        gap = model(views).descriptors - model(dataclasses.replace(views, image=changed)).descriptors
    size = gap.norm(dim=-1)
    assert divmod(int(size[0, 1].argmax()), 8) == (7, 0)
    assert size[0, 1].max() == size.max()
    assert size[0, 0].max() > 0  # the layer sees all views of a sample
    assert size[1].max() == 0  # and of no other


def test_presets_and_other_weights_do_not_change() -> None:
    for config in PRESETS.values():
        assert config.match_dim == 0
    for preset in ("tiny", "large"):
        with torch.device("meta"):
            plain = Reliev3R(dataclasses.replace(PRESETS[preset], cameras="regressed")).state_dict()
            branch = Reliev3R(dataclasses.replace(PRESETS[preset], cameras="regressed", match_dim=64)).state_dict()
        assert not any(name.startswith("match_head") for name in plain)
        assert set(branch) - set(plain) == {
            f"match_head.{layer}.{kind}" for layer in ("norm", "fc1", "fc2") for kind in ("weight", "bias")
        }
    plain, branch = network(3).state_dict(), network(3, match_dim=8).state_dict()
    assert all(torch.equal(branch[name], value) for name, value in plain.items())


def test_the_branch_is_saved_with_the_network(tmp_path) -> None:
    model, (views, _) = network(5, match_dim=8), shifted_crops()
    model.save_pretrained(tmp_path / "checkpoint")
    loaded = load_network(tmp_path / "checkpoint").train()
    with torch.no_grad():
        assert torch.equal(loaded(views).descriptors, model.train()(views).descriptors)


@pytest.mark.parametrize("layer", [-1, 4])
def test_a_layer_that_does_not_exist_is_refused(layer: int) -> None:
    with pytest.raises(ValueError, match="match_layer must be in 0 to 3"):
        dataclasses.replace(SMALLEST, match_layer=layer)


def test_thirty_steps_bring_a_fresh_network_far_below_chance() -> None:
    model, (views, tracks) = network(match_dim=16), shifted_crops()
    model.train()
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(31):
        values, weight = correspondence_loss(model(views), tracks, CorrespondenceConfig())
        loss = (values * weight).sum() / weight.sum()
        losses.append(float(loss.detach()))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    chance = math.log(tracks.weight.shape[-1])
    assert losses[0] > 0.7 * chance
    assert losses[-1] < 0.5 * chance

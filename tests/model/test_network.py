import dataclasses
import json

import pytest
import torch
from safetensors.torch import load_file, save_file

import builders
from reliev3r.core.errors import UserError
from reliev3r.core.types import Views
from reliev3r.geometry.camera import K_from_fov
from reliev3r.model.heads import confidence, set_initial_focal
from reliev3r.model.load import load_network
from reliev3r.model.network import PRESETS, Reliev3R
from reliev3r.model.transformer import apply_rope, rope_tables

SMALLEST = dataclasses.replace(builders.SMALLEST, decoder_depth=4)


def network(seed: int = 0, **changes) -> Reliev3R:
    return builders.network(seed, **{"decoder_depth": 4, **changes}).eval()


def parameter_counts(model: torch.nn.Module) -> dict[str, int]:
    parts = {name: sum(p.numel() for p in child.parameters()) for name, child in model.named_children()}
    own = {name: p.numel() for name, p in model.named_parameters(recurse=False)}
    return {**own, **parts, "total": sum(p.numel() for p in model.parameters())}


def views(count: int = 4, height: int = 12, width: int = 20, *, known: bool = True) -> Views:
    return builders.views(count, (height, width), known=known)


@pytest.mark.parametrize("preset", ["base", "large"])
def test_parameter_counts_equal_the_references(preset: str) -> None:
    # pi^3's shared parts, from shared/reference/pi3.md; our depth head has one channel where pi^3 has three
    with torch.device("meta"):
        counts = parameter_counts(Reliev3R(PRESETS[preset]))
    reference = {
        "base": {"encoder": 86_582_784, "decoder": 170_151_936},
        "large": {
            "register_token": 5_120, "encoder": 304_371_712, "decoder": 453_547_008, "depth_decoder": 66_128_896,
            "conf_decoder": 66_128_896, "conf_head": 200_900, "camera_decoder": 65_604_096, "camera_head": 2_107_404,
        },
    }[preset]  # fmt: skip
    assert {name: counts[name] for name in reference} == reference


def test_the_point_head_gives_pi3s_totals() -> None:
    for preset, total in (("base", 455_938_588), ("large", 958_696_732)):
        with torch.device("meta"):
            model = Reliev3R(dataclasses.replace(PRESETS[preset], shape="point"))
        assert parameter_counts(model)["total"] == total


def test_presets_have_the_promised_sizes() -> None:
    for preset, low, high in (("tiny", 1.5e6, 3e6), ("small", 25e6, 36e6), ("base", 440e6, 460e6)):
        with torch.device("meta"):
            assert low < parameter_counts(Reliev3R(PRESETS[preset]))["total"] < high


def test_prediction_has_its_shapes_and_ranges() -> None:
    with torch.no_grad():
        p = network()(views(3))
    assert p.depth.shape == (1, 3, 12, 20)
    assert (p.depth > 0).all()
    assert (p.conf > 0).all()
    assert (p.conf < 2).all()
    rotation = p.world_from_cam[..., :3, :3]
    torch.testing.assert_close(rotation @ rotation.mT, torch.eye(3).expand_as(rotation), atol=1e-5, rtol=0)
    torch.testing.assert_close(torch.det(rotation), torch.ones(1, 3))
    torch.testing.assert_close(p.K, views(3).K, atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize("extras", [{}, {"camera_contrast": True, "guided": True, "fov": "shared"}])
def test_shuffled_views_permute_the_prediction(extras) -> None:
    model = network(3, **extras)
    # away from the near-constant initial state, so that the views really differ
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
        order = [2, 0, 3, 1]
        straight, shuffled = model(views()), model(views().select_views(order))
    expected = straight.select_views(order)
    assert (expected.world_from_cam[0, 0] - expected.world_from_cam[0, 1]).abs().max() > 1e-3
    for field in ("depth", "conf", "world_from_cam", "rays"):
        torch.testing.assert_close(getattr(shuffled, field), getattr(expected, field), atol=1e-4, rtol=1e-4)


def test_one_sample_does_not_see_another() -> None:
    model, a, b = network(), views(2), views(2).map(lambda x: x.flip(-1))
    both = Views(image=torch.cat([a.image, b.image]), K=torch.cat([a.K, a.K]))
    with torch.no_grad():
        torch.testing.assert_close(model(both).depth[:1], model(a).depth, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("height", "width", "count"), [(4, 4, 1), (16, 8, 2), (8, 28, 7)])
def test_any_multiple_of_the_patch_and_any_number_of_views(height: int, width: int, count: int) -> None:
    with torch.no_grad():
        assert network()(views(count, height, width)).depth.shape == (1, count, height, width)


def test_other_sizes_and_unknown_intrinsics_are_refused() -> None:
    with pytest.raises(ValueError, match="patch size 4"):
        network()(views(2, 10, 20))
    with pytest.raises(ValueError, match="intrinsics are unknown"):
        network()(views(known=False))


def test_field_of_view_head() -> None:
    model = network(fov="shared")
    set_initial_focal(model.camera_head, 1.3)
    with torch.no_grad():
        K = model(views(known=False)).K
    torch.testing.assert_close(K[0, :, 0, 0], torch.full((4,), 1.3 * 20), rtol=1e-4, atol=1e-3)
    with torch.no_grad():
        model.camera_head.fc_fov.weight.normal_()
        shared = model(views(known=False)).K[0, :, 0, 0]
    assert shared.std() < 1e-4 * shared.mean()
    # known intrinsics win over predicted ones
    with torch.no_grad():
        torch.testing.assert_close(model(views()).K, views().K, atol=1e-3, rtol=1e-4)


def test_point_head_needs_no_intrinsics() -> None:
    with torch.no_grad():
        p = network(shape="point")(views(known=False))
    assert p.rays.shape == (1, 4, 12, 20, 3)
    assert (p.rays[..., 2] == 1).all()


def test_same_seed_same_weights() -> None:
    a, b, c = network(5).state_dict(), network(5).state_dict(), network(6).state_dict()
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert any(not torch.equal(a[name], c[name]) for name in a)


def test_saved_and_loaded_network_is_the_same(tmp_path) -> None:
    model = network(7, fov="per_view")
    model.save_pretrained(tmp_path / "checkpoint")
    loaded = load_network(tmp_path / "checkpoint").eval()
    assert loaded.config == model.config
    with torch.no_grad():
        torch.testing.assert_close(loaded(views()).depth, model(views()).depth, atol=0, rtol=0)


def test_checkpoints_that_do_not_fit_are_named(tmp_path) -> None:
    with pytest.raises(UserError, match="not found"):
        load_network(tmp_path / "nothing")
    folder = tmp_path / "checkpoint"
    network().save_pretrained(folder)
    weights = load_file(folder / "model.safetensors")
    weights.pop("register_token")
    save_file(weights, folder / "model.safetensors")
    with pytest.raises(UserError, match="cannot be loaded"):
        load_network(folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "depht": 3}))
    with pytest.raises(UserError, match="cannot be loaded"):
        load_network(folder)


def test_checkpoints_of_the_time_of_the_global_point_branch_load_unless_they_have_it(tmp_path) -> None:
    model = network(7)
    model.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "global_points": False}))
    assert load_network(tmp_path).config == model.config
    (tmp_path / "config.json").write_text(json.dumps({**config, "global_points": True}))
    with pytest.raises(UserError, match=r"global-point branch.*set global_points to false") as refused:
        load_network(tmp_path)
    assert "\n" not in str(refused.value)


def test_config_that_cannot_work_is_refused() -> None:
    with pytest.raises(ValueError, match="even"):
        dataclasses.replace(SMALLEST, decoder_depth=3)
    with pytest.raises(ValueError, match="multiple of 4"):
        dataclasses.replace(SMALLEST, dim=36)


def test_rope_depends_on_relative_positions_only() -> None:
    cos, sin = rope_tables(6, 7, registers=1, views=1, head_dim=16, base=100.0, device=torch.device("cpu"))
    assert (cos[0] == 1).all()
    assert (sin[0] == 0).all()
    generator = torch.Generator().manual_seed(0)
    q, k = (torch.randn(1, 1, 1, 16, generator=generator).expand(1, 1, 43, 16) for _ in range(2))
    scores = (apply_rope(q, (cos, sin)) @ apply_rope(k, (cos, sin)).mT)[0, 0, 1:, 1:].reshape(6, 7, 6, 7)
    torch.testing.assert_close(scores[0, 0, 2, 3], scores[3, 1, 5, 4], atol=1e-5, rtol=1e-5)
    assert (scores[0, 0, 2, 3] - scores[0, 0, 3, 2]).abs() > 1e-4


def test_camera_contrast_tells_similar_views_apart() -> None:
    # five nearly identical images: a fresh plain network gives them nearly the same camera, with contrast it does not
    base = torch.rand(1, 1, 3, 12, 20, generator=torch.Generator().manual_seed(2))
    noise = 0.02 * torch.randn(1, 5, 3, 12, 20, generator=torch.Generator().manual_seed(3))
    similar = Views(image=(base + noise).clamp(0, 1), K=K_from_fov(1.0, 12, 20).expand(1, 5, 3, 3))
    spread = {}
    for contrast in (False, True):
        with torch.no_grad():
            spread[contrast] = network(camera_contrast=contrast)(similar).world_from_cam[0, :, :3, 3].std(0).mean()
    assert spread[True] > 5 * spread[False]
    with torch.no_grad():
        alone = network(camera_contrast=True)(similar.select_views([0]))
    assert torch.isfinite(alone.world_from_cam).all()


@pytest.mark.parametrize("guided", [False, True])
def test_every_parameter_gets_a_gradient(guided: bool) -> None:
    model = network(guided=guided).train()
    p = model(views())
    (p.depth.sum() + p.conf.sum() + (p.world_from_cam * torch.randn(4, 4)).sum()).backward()
    missing = [name for name, parameter in model.named_parameters() if parameter.grad is None]
    assert missing == []


def test_confidence_and_depth_stay_inside_their_bounds_however_large_the_logits() -> None:
    """W of exactly 0 made -log W infinite on real captures; W of exactly 2 has no gradient."""
    logits = torch.tensor([-1e4, -200.0, -20.0, 0.0, 20.0, 200.0, 1e4])
    conf = confidence(logits)
    assert bool((conf > 0).all())
    assert bool((conf < 2).all())
    assert conf[3].item() == 1
    assert torch.isfinite(conf.log()).all()


def test_confidence_at_its_bound_can_come_back_but_goes_no_further() -> None:
    logits = torch.tensor([9.0, 9.0, -9.0, -9.0, 1.0, 1.0], requires_grad=True)
    (confidence(logits) * torch.tensor([1.0, -1.0, 1.0, -1.0, 1.0, -1.0])).sum().backward()
    assert (logits.grad != 0).tolist() == [True, False, False, True, True, True]

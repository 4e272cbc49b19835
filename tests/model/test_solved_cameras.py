"""Networks that solve their cameras: what they are made of, what they give, how they are kept."""

import dataclasses
import math

import pytest
import torch
from jaxtyping import TypeCheckError

import builders
from reliev3r.core.errors import UserError
from reliev3r.model.load import load_network
from reliev3r.model.matching import MatchBranch, local_contrast
from reliev3r.model.network import PRESETS, NetworkConfig, Reliev3R
from reliev3r.model.predict import predict, predict_depth

SOLVED = {"cameras": "solved", "feature_dim": 16}


def test_training_gives_features_and_no_cameras() -> None:
    network, views = builders.network(**SOLVED), builders.views(3, (16, 24))
    found = network(views)
    assert not found.has_cameras
    assert found.features.shape == (1, 3, 16, 8, 12)
    assert torch.equal(found.world_from_cam, torch.eye(4).expand(1, 3, 4, 4))
    lengths = found.features.norm(dim=2)
    torch.testing.assert_close(lengths, torch.full_like(lengths, (1 / 0.07) ** 0.5))


def test_evaluation_gives_cameras_and_no_features() -> None:
    network, views = builders.network(**SOLVED).eval(), builders.views(3, (16, 24))
    found = network(views)
    assert found.has_cameras
    assert found.features is None
    assert found.reached.shape == (1, 3)
    assert torch.isfinite(found.world_from_cam).all()
    assert torch.isfinite(found.depth).all()
    assert (found.depth > 0).all()


def test_depth_alone_solves_nothing() -> None:
    network, views = builders.network(**SOLVED), builders.views(3, (16, 24))
    depth = predict_depth(network, views.map(lambda x: x[0]))
    assert depth.shape == (3, 16, 24)
    assert network.training
    with torch.no_grad():
        torch.testing.assert_close(depth, network.eval().without_cameras(views).depth[0])


def test_a_field_of_view_needs_a_head_but_no_poses() -> None:
    plain, with_fov = builders.network(**SOLVED), builders.network(**SOLVED, fov="shared")
    assert plain.camera_head is None
    assert with_fov.camera_head.fc_rot is None
    found = with_fov.eval()(builders.views(3, (16, 24), known=False))
    assert float(found.K[0, 0, 0, 0]) == pytest.approx(0.9 * 24, rel=1e-4)
    loss = with_fov.train()(builders.views(3, (16, 24), known=False))
    (loss.rays.sum() + loss.depth.sum() + loss.conf.sum() + loss.features.sum()).backward()
    assert all(p.grad is not None for p in with_fov.parameters())  # DDP asks for a gradient of every weight


def test_every_weight_of_a_solving_network_is_taught() -> None:
    network = builders.network(**SOLVED)
    found = network(builders.views(3, (16, 24)))
    (found.depth.sum() + found.conf.sum() + found.features[0, 0].sum()).backward()
    assert all(p.grad is not None for p in network.parameters())


def test_it_is_kept_and_read_again(tmp_path) -> None:
    network, views = builders.network(**SOLVED).eval(), builders.views(3, (16, 24)).map(lambda x: x[0])
    network.save_pretrained(tmp_path)
    again = load_network(tmp_path)
    assert again.config == network.config
    torch.testing.assert_close(predict(again, views).depth, predict(network, views).depth)
    assert "solved from its own matches" in (tmp_path / "README.md").read_text()


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"cameras": "guessed"}, "cameras"),
        ({"cameras": "solved", "feature_dim": 20}, "feature_dim"),
        ({"cameras": "solved", "match_dim": 8}, "match_dim"),
    ],
)
def test_sizes_that_cannot_be_are_told(changes, told) -> None:
    with pytest.raises((ValueError, TypeCheckError), match=told):
        NetworkConfig(**{**dataclasses.asdict(builders.SMALLEST), **changes})


def test_small_presets_solve_and_large_ones_regress() -> None:
    assert {name: preset.cameras for name, preset in PRESETS.items()} == {
        "tiny": "solved", "small": "solved", "base": "regressed", "large": "regressed",
    }  # fmt: skip


def test_images_of_any_size_have_features() -> None:
    network = builders.network(**SOLVED).eval()
    image = torch.rand(2, 3, 21, 30)
    features = network.image_features(image)
    assert features.shape == (2, 16, 11, 15)
    with pytest.raises(UserError, match="no matching branch"):
        builders.network().image_features(image)


def test_features_do_not_hear_light_and_exposure_much() -> None:
    """The local contrast of an image is that of a darker and flatter one, where there is contrast at all."""
    image = torch.rand(1, 3, 24, 32, generator=torch.Generator().manual_seed(0))
    bright, dark = local_contrast(4 * image), local_contrast(4 * (0.6 * image + 0.1))
    assert float((bright - dark).abs().mean()) < 0.02
    assert float(local_contrast(torch.ones(1, 3, 24, 32)).abs().max()) < 1e-5


def test_a_branch_moves_with_the_image() -> None:
    torch.manual_seed(0)
    branch, image = MatchBranch(16).eval(), torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        whole, part = branch(image), branch(image[..., 16:])
    # Far from the borders; the norms see the whole image, so not exactly.
    cosine = torch.nn.functional.cosine_similarity(whole[..., 8:][..., 12:20, 14:26], part[..., 12:20, 14:26], dim=1)
    assert float(cosine.min()) > 0.98
    assert math.isclose(float(whole[0, :, 3, 5].square().sum()), 1 / 0.07, rel_tol=1e-4)


def test_a_network_of_a_regressed_head_reads_as_before() -> None:
    with torch.device("meta"):
        names = set(Reliev3R(dataclasses.replace(PRESETS["base"])).state_dict())
    assert not any("match_branch" in name for name in names)
    assert "camera_head.fc_rot.weight" in names

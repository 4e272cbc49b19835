"""Refinement recovers exact cameras from poor ones, and never replaces good ones by worse."""

import dataclasses
import math

import pytest
import torch

import small_scene
from reliev3r.geometry.rigid import relative, rotation_angle, so3_exp
from reliev3r.sfm import bundle_pycolmap as adjust
from reliev3r.sfm.heldout_error import heldout_error, observation_errors
from reliev3r.sfm.lens import LensPrior
from reliev3r.sfm.refine import refine_cameras

VIEWS = 8


def perturbed(views=VIEWS, *, degrees=3.0, share=0.05, focal=1.0, seed=0):
    """The true reconstruction with every camera turned and moved in a random direction."""
    generator = torch.Generator().manual_seed(seed)

    def directions():
        return torch.nn.functional.normalize(torch.randn(views, 3, generator=generator, dtype=torch.float64), dim=-1)

    reconstruction = small_scene.reconstruction(views)
    cameras = small_scene.arc(views)
    cameras[:, :3, :3] = so3_exp(math.radians(degrees) * directions()) @ cameras[:, :3, :3]
    cameras[:, :3, 3] += share * 4 * directions()  # the wall is 4 away
    rays = reconstruction.prediction.rays.clone()
    rays[..., :2] /= focal
    prediction = dataclasses.replace(reconstruction.prediction, rays=rays)
    return dataclasses.replace(reconstruction, prediction=prediction).with_cameras(cameras)


def tracks_of(cameras, *, count=400, noise_px=0.5, false_share=0.1, longest=6, seed=0):
    points = small_scene.wall_points(count, seed=seed)
    return small_scene.observe(
        points, cameras, noise_px=noise_px, false_share=false_share, longest=longest, seed=seed + 1
    )


def rotation_errors(reconstruction, true=None):
    """Degrees between all ordered pairs of views."""
    estimated = relative(reconstruction.prediction.world_from_cam.double())[..., :3, :3]
    true = relative(small_scene.arc(VIEWS) if true is None else true)[..., :3, :3]
    return rotation_angle(estimated.mT @ true).rad2deg()


def error_of(reconstruction, tracks):
    K, cameras = reconstruction.K_original, reconstruction.prediction.world_from_cam
    return heldout_error(*observation_errors(tracks, K, cameras, reconstruction.sizes))


def cut(tracks, views, keep=0):
    """The tracks with all but ``keep`` observations of some views removed."""
    weight = tracks.weight.clone()
    for view in views:
        weight[view, weight[view].nonzero()[keep:, 0]] = 0
    return dataclasses.replace(tracks, weight=weight)


@pytest.fixture(scope="module")
def recovered():
    start = perturbed()
    tracks, heldout = (
        tracks_of(small_scene.arc(VIEWS), count=1500),
        tracks_of(small_scene.arc(VIEWS), count=150, seed=9),
    )
    return start, refine_cameras(start, tracks, heldout)


def test_recovers_cameras_from_three_degrees_and_false_tracks(recovered):
    start, result = recovered
    assert result.kept
    assert result.unrefined_views == ()
    assert rotation_errors(start).median() > 2
    assert rotation_errors(result.reconstruction).mean() < 0.1  # the noise allows no more
    assert rotation_errors(result.reconstruction).max() < 0.15
    assert result.after.median_px < 0.6 < 10 < result.before.median_px
    assert "refined" in result.reason


def test_result_stays_in_the_gauge_of_the_prediction(recovered):
    start, result = recovered
    shift = (result.reconstruction.prediction.world_from_cam - start.prediction.world_from_cam)[:, :3, 3]
    assert shift.norm(dim=-1).max() < 0.5  # 0.2 of perturbation each, not an arbitrary frame or scale


def test_depth_follows_the_refined_points():
    start = perturbed()
    factors = torch.linspace(0.7, 1.5, VIEWS)[:, None, None]
    scaled = dataclasses.replace(start.prediction, depth=start.prediction.depth * factors)
    tracks = tracks_of(small_scene.arc(VIEWS), noise_px=0.1)
    flat = small_scene.observe(small_scene.wall_points(300, relief=0.01), small_scene.arc(VIEWS), longest=6)
    both = dataclasses.replace(
        tracks, uv=torch.cat([tracks.uv, flat.uv], 1), weight=torch.cat([tracks.weight, flat.weight], 1)
    )
    before = dataclasses.replace(start, prediction=scaled)
    refined = refine_cameras(before, both, tracks_of(small_scene.arc(VIEWS), count=150, seed=9))
    ratio = (refined.reconstruction.prediction.depth / small_scene.reconstruction(VIEWS).prediction.depth).mean((1, 2))
    assert (ratio / ratio.mean() - 1).abs().max() < 0.06  # one scale for all views; the relief biases it a little
    assert torch.equal(refined.reconstruction.prediction.conf, start.prediction.conf)


def test_focal_length_is_refined_where_it_was_estimated():
    start = perturbed(focal=1.2)
    tracks, heldout = tracks_of(small_scene.arc(VIEWS)), tracks_of(small_scene.arc(VIEWS), count=150, seed=9)
    heard = []
    result = refine_cameras(
        start, tracks, heldout, lens=LensPrior(camera_of=(0,) * VIEWS, focal_sigma=0.2),
        progress=lambda done, total, what: heard.append((done, total, what)),
    )  # fmt: skip
    assert heard[0][:2] == (1, 24)
    assert all(0 < done <= total for done, total, _ in heard)
    assert float(heard[-1][2].split()[1]) < float(heard[0][2].split()[1])  # pixels
    K = result.reconstruction.K_original
    assert start.K_original[0, 0, 0].item() == pytest.approx(720, abs=0.1)
    assert result.kept
    # fx = 600, fy = 610; the prior of 720, a fifth off, draws a little
    torch.testing.assert_close(K[:, 0, 0], torch.full((VIEWS,), 605.0).double(), atol=12, rtol=0)
    torch.testing.assert_close(K[:, :2, 2], small_scene.K[:2, 2].expand(VIEWS, 2), atol=0.01, rtol=0)
    fixed = refine_cameras(start, tracks, heldout)
    assert torch.equal(fixed.reconstruction.K_original, start.K_original)


def test_worse_on_heldout_tracks_is_not_kept():
    truth = small_scene.reconstruction(VIEWS)
    bent = perturbed(degrees=2.0).prediction.world_from_cam.double()
    result = refine_cameras(truth, tracks_of(bent), tracks_of(small_scene.arc(VIEWS), count=150, seed=9))
    assert not result.kept
    assert result.reconstruction is truth
    assert "held-out" in result.reason
    assert result.after.median_px > result.before.median_px


@pytest.mark.parametrize("count", [0, 1, 30, 150])
def test_few_tracks_change_nothing(count):
    start = perturbed()
    result = refine_cameras(start, tracks_of(small_scene.arc(VIEWS), count=count), None)
    assert not result.kept
    assert result.reconstruction is start
    assert result.reason.startswith("not refined because")


def test_a_solver_that_fails_is_reported_not_raised(monkeypatch):
    def broken(*_, **__):
        raise RuntimeError("ceres gave up")

    monkeypatch.setattr(adjust, "_solve", broken)
    start = perturbed()
    result = refine_cameras(start, tracks_of(small_scene.arc(VIEWS)), None)
    assert result.reconstruction is start
    assert result.reason == "not refined because ceres gave up"


def test_a_view_without_tracks_moves_with_its_neighbour():
    start = perturbed()
    tracks = cut(tracks_of(small_scene.arc(VIEWS), count=600), [3], keep=5)
    result = refine_cameras(start, tracks, cut(tracks_of(small_scene.arc(VIEWS), count=150, seed=9), [3]))
    assert result.kept
    assert result.unrefined_views == ("frame3",)
    assert "frame3" in result.reason
    others = [0, 1, 2, 4, 5, 6, 7]
    assert rotation_errors(result.reconstruction)[others][:, others].max() < 0.25
    before = relative(start.prediction.world_from_cam.double())[3, :, :3, :3]
    after = relative(result.reconstruction.prediction.world_from_cam.double())[3, :, :3, :3]
    assert rotation_angle(before.mT @ after)[others].rad2deg().min() < 0.01  # rigid to the nearest one


def test_unconnected_parts_are_refined_each_in_its_own_place():
    start = perturbed()
    cameras = small_scene.arc(VIEWS)
    tracks = tracks_of(cameras, count=800)
    weight = tracks.weight.clone()
    even = torch.arange(weight.shape[1]) % 2 == 0
    weight[:4, even] = 0
    weight[4:, ~even] = 0
    result = refine_cameras(start, dataclasses.replace(tracks, weight=weight), None)
    errors = rotation_errors(result.reconstruction)
    assert result.kept
    assert errors[:4, :4].max() < 0.3
    assert errors[4:, 4:].max() < 0.3
    between = (result.reconstruction.prediction.world_from_cam - start.prediction.world_from_cam)[:, :3, 3]
    assert between.norm(dim=-1).max() < 0.5


def test_a_spoilt_view_shows_in_the_heldout_error():
    truth = small_scene.reconstruction(VIEWS)
    heldout = tracks_of(small_scene.arc(VIEWS), count=300, false_share=0, noise_px=0)
    cameras = small_scene.arc(VIEWS)
    cameras[5, :3, :3] = so3_exp(torch.tensor([0.0, 0.1, 0.0], dtype=torch.float64)) @ cameras[5, :3, :3]
    good, bad = error_of(truth, heldout), error_of(truth.with_cameras(cameras), heldout)
    assert good.median_px < 0.01
    assert good.not_worse_than(bad)
    assert not bad.not_worse_than(good)
    assert bad.views_px > 1
    assert bad.not_worse_than(bad)


def test_points_behind_cameras_count_as_the_diagonal():
    truth = small_scene.reconstruction(2)
    heldout = small_scene.observe(small_scene.wall_points(50), small_scene.arc(2))
    turned = small_scene.arc(2)
    turned[:, :3, :3] = turned[:, :3, :3] @ torch.diag(torch.tensor([-1.0, 1.0, -1.0]).double())  # looks backwards
    error = error_of(truth.with_cameras(turned), heldout)
    assert error.median_px <= math.hypot(*small_scene.SIZE)
    assert error.median_px > 50

"""The three protocols: perfect and disturbed predictions, what each is blind to and what it must see."""

import dataclasses
import math

import pytest
import torch
from plane_scene import disturbed, make_truth, moved, perfect

import small_scene
from reliev3r.core.errors import UserError
from reliev3r.evaluation.protocols import score
from reliev3r.evaluation.scores import DEFINITIONS, Scores
from reliev3r.evaluation.tables import make_row
from reliev3r.geometry.rigid import invert, rigid_from, so3_exp

PROTOCOLS = list(DEFINITIONS)


def figures(scores):
    """All numbers of the scores by name, extras included."""
    named = {**dataclasses.asdict(scores), **scores.extras}
    return {name: value for name, value in named.items() if isinstance(value, float)}


def assert_same(one, two, tolerance=1e-6, without=()):
    a, b = figures(one), figures(two)
    assert a.keys() == b.keys()
    for name in a.keys() - set(without):
        assert a[name] == pytest.approx(b[name], rel=tolerance, abs=tolerance), name


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_the_truth_scores_perfectly(protocol):
    truth = make_truth()
    result = score(perfect(truth), truth, protocol)
    assert result.protocol == protocol
    assert result.views == 5
    assert result.auc30 == 100
    assert result.depth_tau == 1
    assert result.depth_rel == pytest.approx(0, abs=1e-9)
    assert result.ate == pytest.approx(0, abs=1e-9)
    assert result.rotation_median_deg == pytest.approx(0, abs=1e-5)
    assert result.translation_median_deg == pytest.approx(0, abs=1e-5)
    if protocol == "pi3":
        assert result.point_rel is None
        assert result.point_tau is None
        assert result.extras["accuracy_mean"] == pytest.approx(0, abs=1e-9)
        assert result.extras["normal_consistency_median"] == pytest.approx(1)
    else:
        assert result.point_rel == pytest.approx(0, abs=1e-9)
        assert result.point_tau == 1


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("scale", [0.01, 40.0])
def test_no_protocol_sees_a_similarity_of_the_prediction(protocol, scale):
    truth = make_truth()
    prediction = disturbed(truth)
    assert_same(score(moved(prediction, scale=scale), truth, protocol), score(prediction, truth, protocol))


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_expressing_the_prediction_in_its_own_view_0_changes_nothing(protocol):
    truth = make_truth()
    prediction = disturbed(truth)
    cameras = prediction.world_from_cam
    own = dataclasses.replace(prediction, world_from_cam=invert(cameras[0]) @ cameras)
    assert_same(score(own, truth, protocol), score(prediction, truth, protocol))


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_rigid_motion_of_the_truth_changes_nothing(protocol):
    truth = make_truth()
    by = rigid_from(so3_exp(torch.tensor([1.0, -0.4, 2.0]).double()), torch.tensor([3.0, 1.0, -8.0]).double())
    other = dataclasses.replace(truth, world_from_cam=by @ truth.world_from_cam)
    assert_same(score(disturbed(truth), other, protocol), score(disturbed(truth), truth, protocol))


@pytest.mark.parametrize("protocol", ["strict", "mapanything"])
def test_the_unit_of_the_truth_changes_nothing(protocol):
    truth = make_truth()
    cameras = truth.world_from_cam.clone()
    cameras[:, :3, 3] *= 1000
    other = dataclasses.replace(truth, depth=truth.depth * 1000, world_from_cam=cameras)
    assert_same(score(disturbed(truth), other, protocol), score(disturbed(truth), truth, protocol))


def test_the_order_of_the_views_does_not_matter_to_strict():
    truth = make_truth()
    prediction = disturbed(truth)
    before = score(prediction, truth, "strict")
    for order in ([0, 3, 1, 4, 2], [2, 0, 4, 1, 3]):
        after = score(prediction.select_views(order), truth.select_views(order), "strict")
        # points are measured from view 0, so that one view must keep its place
        assert_same(after, before, without=() if order[0] == 0 else ("point_rel", "point_tau"))


def test_a_wrong_scale_in_one_view_is_seen_and_told_from_a_wrong_shape():
    truth = make_truth(views=4)
    prediction = perfect(truth)
    depth = prediction.depth.clone()
    depth[3] *= 1.5
    result = score(dataclasses.replace(prediction, depth=depth), truth, "strict")
    assert result.depth_rel == pytest.approx(0.5 / 4)
    assert result.depth_tau == pytest.approx(3 / 4)
    assert result.extras["depth_rel_scale_per_view"] == pytest.approx(0, abs=1e-9)
    assert result.auc30 == 100


def test_pixels_without_truth_do_not_count():
    truth = make_truth()
    prediction = disturbed(truth)
    spoiled = dataclasses.replace(prediction, depth=torch.where(truth.valid, prediction.depth, 1e6))
    for protocol in PROTOCOLS:
        assert_same(score(spoiled, truth, protocol), score(prediction, truth, protocol))


def test_every_view_counts_alike_however_few_pixels_it_has():
    truth = make_truth(views=2)
    valid = truth.valid.clone()
    valid[1] = False
    valid[1, 0, 0] = True
    depth = truth.depth.clone()
    depth[1] *= 1.04
    result = score(dataclasses.replace(perfect(truth), depth=depth), dataclasses.replace(truth, valid=valid), "strict")
    # any scale between costs both views 4 % in sum: (|s - 1| + |1.04 s - 1|) / 2 is least at s = 1 / 1.04
    assert result.depth_rel == pytest.approx((1 - 1 / 1.04) / 2, rel=1e-6)


def test_tau_of_strict_sees_a_direction_that_mapanything_does_not():
    """Points turned about view 0 by 20 degrees keep their norms: inliers there, outliers here."""
    truth = make_truth(views=2)
    cameras = truth.world_from_cam.clone()
    cameras[1] = cameras[0]
    truth = dataclasses.replace(truth, world_from_cam=cameras)
    turned = cameras.clone()
    turned[1, :3, :3] = cameras[1, :3, :3] @ so3_exp(torch.tensor([0.0, 0.0, math.radians(20)]).double())
    prediction = dataclasses.replace(perfect(truth), world_from_cam=turned)
    assert score(prediction, truth, "mapanything").point_tau == 1
    assert score(prediction, truth, "strict").point_tau < 0.9


def test_mirrored_cameras_fail_only_where_the_sign_counts():
    """Depth turned inside out: every baseline points the other way, all rotations are right."""
    truth = make_truth()
    mirrored = truth.world_from_cam.clone()
    mirrored[:, :3, 3] *= -1
    prediction = dataclasses.replace(perfect(truth), world_from_cam=mirrored)
    assert score(prediction, truth, "mapanything").auc30 == 100
    assert score(prediction, truth, "pi3").auc30 == 100
    assert score(prediction, truth, "strict").auc30 == 0


def test_mapanything_by_hand():
    """One view along z: depths 1 and 3 against 1 and 1."""
    truth = make_truth(views=1, height=1, width=2)
    K = torch.tensor([[[1e9, 0, 1], [0, 1e9, 0.5], [0, 0, 1]]]).double()
    truth = dataclasses.replace(
        truth, depth=torch.ones(1, 1, 2).double(), valid=torch.ones(1, 1, 2, dtype=torch.bool), K=K
    )
    prediction = dataclasses.replace(perfect(truth), depth=torch.tensor([[[1.0, 3.0]]]).double())
    result = score(prediction, truth, "mapanything")
    # divided by the mean distance 2: 0.5 and 1.5 against 1 and 1
    assert result.point_rel == pytest.approx(0.5)
    assert result.depth_rel == pytest.approx(0.5)
    assert result.point_tau == result.depth_tau == 0
    assert result.auc30 is None
    assert result.ate is None


def test_ate_units():
    truth = make_truth()
    cameras = truth.world_from_cam.clone()
    cameras[:, :3, 3] += 0.1 * torch.randn(5, 3, generator=torch.Generator().manual_seed(0)).double()
    prediction = dataclasses.replace(perfect(truth), world_from_cam=cameras)
    centres = truth.world_from_cam[:, :3, 3]
    extent = (centres - centres.mean(0)).square().sum(-1).mean().sqrt().item()
    metres = score(prediction, truth, "pi3").ate
    assert score(prediction, truth, "strict").ate == pytest.approx(metres / extent)


def test_ate_of_cameras_alone_under_mapanything():
    """RayZer and COLMAP predict no points; three cameras on a line, the last of them twice as far as it should be."""
    truth = make_truth(views=3)
    poses = torch.eye(4).double().repeat(3, 1, 1)
    poses[:, 0, 3] = torch.tensor([0.0, 1.0, 2.0])
    truth = dataclasses.replace(truth, world_from_cam=poses)
    cameras = poses.clone()
    cameras[2, 0, 3] = 4.0
    prediction = dataclasses.replace(perfect(truth), world_from_cam=cameras)
    result = score(prediction, truth, "mapanything", predicts_depth=False)
    # 0 1 4 over 2.5 against 0 1 2 over 1.5, each about its mean: -2/3 -4/15 14/15 against -2/3 0 2/3
    assert result.ate == pytest.approx((0 + 4 / 15 + 4 / 15) / 3)
    assert result.point_rel is None
    no_depth = dataclasses.replace(truth, valid=torch.zeros_like(truth.valid))
    assert score(prediction, no_depth, "mapanything").ate == pytest.approx(result.ate)
    still = dataclasses.replace(truth, world_from_cam=torch.eye(4).double().repeat(3, 1, 1))
    assert score(prediction, still, "mapanything", predicts_depth=False).ate is None


def test_the_other_unit_of_such_an_ate_is_told():
    reconstruction = small_scene.reconstruction()
    points = Scores(protocol="mapanything", point_rel=0.1, ate=0.1, views=4)
    poses = Scores(protocol="mapanything", ate=0.1, views=4)
    assert "in another unit" in "".join(make_row("rayzer", reconstruction, poses).notes)
    assert "in another unit" not in "".join(make_row("ours", reconstruction, points).notes)


def test_pi3_depth_with_scale_and_with_scale_and_shift():
    truth = make_truth()
    prediction = dataclasses.replace(perfect(truth), depth=0.5 * truth.depth + 1)
    result = score(prediction, truth, "pi3")
    assert result.extras["depth_rel_scale_shift"] == pytest.approx(0, abs=1e-6)
    assert result.extras["depth_tau_scale_shift"] == 1
    assert result.depth_rel > 0.02


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_system_without_depth_gets_crosses_not_zeros(protocol):
    truth = make_truth()
    result = score(perfect(truth), truth, protocol, predicts_depth=False)
    assert result.auc30 == 100
    assert (result.point_rel, result.point_tau, result.depth_rel, result.depth_tau, result.extras) == (
        None,
        None,
        None,
        None,
        {},
    )


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_truth_without_depth_scores_poses_alone(protocol):
    truth = make_truth()
    truth = dataclasses.replace(truth, valid=torch.zeros_like(truth.valid))
    result = score(disturbed(truth), truth, protocol)
    assert 0 < result.auc30 < 100
    assert result.depth_rel is None


@pytest.mark.parametrize("lost", [1, 0])
def test_a_failed_camera_is_180_degrees_and_counted(lost):
    truth = make_truth()
    found = torch.ones(5, dtype=torch.bool)
    found[lost] = False
    cameras = truth.world_from_cam.clone()
    cameras[lost] = torch.nan
    lost_by_nan = dataclasses.replace(perfect(truth), world_from_cam=cameras)
    for protocol in PROTOCOLS:
        told = score(perfect(truth), truth, protocol, found=found, predicts_depth=False)
        assert told.views_without_camera == 1
        assert told.auc30 == pytest.approx(60)  # 6 of 10 pairs are left
        seen = score(lost_by_nan, truth, protocol)
        assert seen.depth_rel is None  # its points have no place
        assert_same(told, dataclasses.replace(seen, extras={}))


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_collapsed_prediction_has_finite_scores(protocol):
    truth = make_truth()
    prediction = dataclasses.replace(
        perfect(truth),
        depth=torch.ones_like(truth.depth),
        world_from_cam=torch.eye(4).double().repeat(5, 1, 1),
    )
    result = score(prediction, truth, protocol)
    assert all(math.isfinite(value) for value in figures(result).values())
    assert result.auc30 < 10
    if protocol == "strict":
        assert result.ate == pytest.approx(1)  # no better than one point


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_no_camera_at_all_is_no_crash(protocol):
    truth = make_truth()
    result = score(perfect(truth), truth, protocol, found=torch.zeros(5, dtype=torch.bool), predicts_depth=False)
    assert result.auc30 == 0
    assert result.ate is None
    assert result.views_without_camera == 5


def test_non_finite_depth_is_refused():
    truth = make_truth()
    depth = truth.depth.clone()
    depth[0, 0, 0] = torch.inf
    with pytest.raises(UserError, match="not finite"):
        score(dataclasses.replace(perfect(truth), depth=depth), truth, "strict")


def test_a_coarser_prediction_is_resized_but_not_under_mapanything():
    truth = make_truth(height=24, width=32)
    coarse = make_truth(height=12, width=16)
    depth = 1 / torch.nn.functional.avg_pool2d(1 / truth.depth, 2)  # inverse depth of a plane is linear in the pixel
    prediction = dataclasses.replace(perfect(coarse), depth=depth, world_from_cam=truth.world_from_cam)
    for protocol in ("strict", "pi3"):
        result = score(prediction, truth, protocol)
        assert result.depth_rel < 2e-3
        assert result.depth_tau == 1
    assert score(prediction, truth, "strict").point_rel < 3e-3
    with pytest.raises(UserError, match="5 x 12 x 16"):
        score(prediction, truth, "mapanything")

"""Truth-free quality: zero for what is right, alarms for what is wrong, and the angle of the training loss."""

import dataclasses
import math

import pytest
import torch
from plane_scene import disturbed, exact_tracks, make_truth, moved, perfect

from reliev3r.core.types import Prediction, Tracks
from reliev3r.evaluation.heldout_quality import assess
from reliev3r.geometry.camera import ray_map
from reliev3r.geometry.rigid import rigid_from, so3_exp
from reliev3r.losses.tracks import heldout_angles, heldout_depths

FINE = {"height": 90, "width": 120}
"""Pixels small enough for bilinear depth of a plane to be exact to 0.01 degrees."""


def two_views(distance=1.0, turn_deg=0.0):
    """Two 4x4-pixel cameras side by side, the second one ``distance`` to the right; depth 2 everywhere."""
    rotation = so3_exp(torch.tensor([[0.0, 0.0, 0.0], [0.0, math.radians(turn_deg), 0.0]]).double())
    centres = torch.tensor([[0.0, 0.0, 0.0], [distance, 0.0, 0.0]]).double()
    K = torch.tensor([[4.0, 0, 2], [0, 4.0, 2], [0, 0, 1]]).double().expand(2, 3, 3)
    ones = torch.ones(2, 4, 4).double()
    return Prediction(depth=2 * ones, rays=ray_map(K, 4, 4), conf=ones, world_from_cam=rigid_from(rotation, centres))


def test_angles_by_hand():
    """Both views see the track in their middle: each predicts a point 1 aside from the other's ray at depth 2."""
    tracks = Tracks(uv=torch.full((2, 1, 2), 2.0).double(), weight=torch.ones(2, 1).double())
    angles = heldout_angles(two_views(), tracks)
    assert angles.tolist() == pytest.approx([math.degrees(math.atan2(1, 2))] * 2)


def test_depths_by_hand():
    """The second view's depth is 2 % larger; a camera further back sees the same point further away."""
    tracks = Tracks(uv=torch.full((2, 1, 2), 2.0).double(), weight=torch.ones(2, 1).double())
    prediction = two_views()
    assert heldout_depths(prediction, tracks).tolist() == pytest.approx([0, 0])
    deeper = prediction.depth * torch.tensor([1.0, 1.02]).double()[:, None, None]
    found = heldout_depths(dataclasses.replace(prediction, depth=deeper), tracks)
    assert found.tolist() == pytest.approx([math.log(1.02)] * 2)
    prediction.world_from_cam[1, 2, 3] = -1.0  # each now sees the other's point at 1 or 3, its own at 2
    assert sorted(heldout_depths(prediction, tracks).tolist()) == pytest.approx([math.log(1.5), math.log(2)])


def test_a_right_prediction_agrees_on_depth_whatever_its_scale():
    truth = make_truth(**FINE)
    assert heldout_depths(perfect(truth), exact_tracks(truth)).median() < 1e-3
    before, after = (
        heldout_depths(disturbed(truth), exact_tracks(truth)),
        heldout_depths(moved(disturbed(truth)), exact_tracks(truth)),
    )
    assert torch.allclose(before, after, atol=1e-6)


def test_a_right_prediction_has_no_angle_and_no_alarm():
    truth = make_truth(**FINE)
    tracks = exact_tracks(truth)
    quality = assess(perfect(truth), tracks)
    seen = tracks.visible.sum(0)
    assert quality.heldout_pairs == int((seen * (seen - 1)).sum()) > 50
    assert quality.mean_angle_deg < 0.02
    assert quality.share_below_1_deg == 1
    assert quality.baseline_to_depth > 0.1
    assert quality.alarms == ()


def test_angles_do_not_see_a_similarity():
    truth = make_truth(**FINE)
    prediction, tracks = disturbed(truth), exact_tracks(truth)
    before, after = heldout_angles(prediction, tracks), heldout_angles(moved(prediction), tracks)
    assert before.median() > 1
    assert torch.allclose(before, after, atol=1e-6)


def test_angles_equal_the_training_loss():
    reprojection = pytest.importorskip("reliev3r.losses.tracks")
    truth = make_truth(**FINE)
    prediction, tracks = disturbed(truth), exact_tracks(truth)
    residual, weight = reprojection.reprojection_loss(prediction, tracks, reprojection.ReprojectionConfig(form="angle"))
    expected = residual[weight > 0].rad2deg().sort().values
    assert torch.allclose(heldout_angles(prediction, tracks).sort().values, expected, atol=1e-4)


def test_unseen_observations_are_left_out():
    truth = make_truth(**FINE)
    tracks = exact_tracks(truth)
    uv = torch.where(tracks.visible[..., None], tracks.uv, torch.full_like(tracks.uv, 3.0))
    assert torch.equal(
        heldout_angles(perfect(truth), dataclasses.replace(tracks, uv=uv)), heldout_angles(perfect(truth), tracks)
    )


def test_known_intrinsics_can_be_given():
    truth = make_truth(**FINE)
    tracks = exact_tracks(truth)
    prediction = dataclasses.replace(perfect(truth), rays=perfect(truth).rays * torch.tensor([2.0, 2.0, 1.0]))
    assert heldout_angles(prediction, tracks, truth.K).max() < 0.1
    assert heldout_angles(prediction, tracks).median() > 1


def test_cameras_in_one_point_raise_the_alarm():
    truth = make_truth(**FINE)
    cameras = truth.world_from_cam.clone()
    cameras[:, :3, 3] *= 1e-3
    quality = assess(dataclasses.replace(perfect(truth), world_from_cam=cameras), exact_tracks(truth))
    assert quality.baseline_to_depth < 0.01
    assert any("collapsed into one point" in alarm and "move sideways" in alarm for alarm in quality.alarms)


def test_equal_rotations_raise_the_alarm_only_where_matches_contradict_them():
    middle = Tracks(uv=torch.full((2, 1, 2), 2.0).double(), weight=torch.ones(2, 1).double())
    quality = assess(two_views(), middle)
    assert quality.rotation_spread_deg == pytest.approx(0, abs=1e-5)
    assert any("same direction" in alarm for alarm in quality.alarms)
    # the true disparity of that depth: 1 to the side at depth 2 is 2 pixels
    uv = torch.tensor([[[3.0, 2.0]], [[1.0, 2.0]]]).double()
    assert assess(two_views(), Tracks(uv=uv, weight=middle.weight)).alarms == ()
    assert assess(two_views(turn_deg=30), middle).rotation_spread_deg == pytest.approx(30)


def test_disagreeing_views_raise_the_alarm():
    truth = make_truth(**FINE)
    quality = assess(disturbed(truth), exact_tracks(truth))
    assert quality.median_angle_deg > 2
    assert any("do not agree" in alarm and "train longer" in alarm for alarm in quality.alarms)


@pytest.mark.parametrize(("conf", "word"), [(0.005, "0 everywhere"), (1.995, "upper bound")])
def test_saturated_confidence_raises_the_alarm(conf, word):
    truth = make_truth(**FINE)
    for prediction, expected in ((disturbed(truth), True), (perfect(truth), conf < 1)):
        prediction = dataclasses.replace(prediction, conf=torch.full_like(prediction.conf, conf))
        quality = assess(prediction, exact_tracks(truth))
        assert any(word in alarm for alarm in quality.alarms) == expected
        assert quality.confident_share == float(conf > 1)


def test_no_heldout_tracks_is_said_and_not_hidden():
    truth = make_truth(**FINE)
    tracks = exact_tracks(truth)
    blind = dataclasses.replace(tracks, weight=torch.zeros_like(tracks.weight))
    for none in (blind, tracks.select_tracks([])):
        quality = assess(perfect(truth), none)
        assert (quality.heldout_pairs, quality.mean_angle_deg, quality.share_below_1_deg) == (0, None, None)
        assert any("nothing independent" in alarm for alarm in quality.alarms)


def test_a_single_view_is_no_crash():
    truth = make_truth(views=1)
    quality = assess(perfect(truth), exact_tracks(truth))
    assert quality.baseline_to_depth == 0
    assert quality.alarms

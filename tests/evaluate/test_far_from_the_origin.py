"""Georeferenced truth (UTM) scores like truth at the origin, and what is no pose is refused."""

import dataclasses
import json

import pytest
import torch
from plane_scene import disturbed, make_truth
from test_protocols import PROTOCOLS, assert_same, figures
from tiny_captures import true_reconstruction, write_tiny

from reliev3r.core.errors import UserError
from reliev3r.data.capture import load_capture
from reliev3r.evaluation.protocols import score
from reliev3r.evaluation.run import evaluate_reconstruction

UTM = (4.5e5, 5.4e6, 300.0)
"""Metres: float32 has steps of half a metre there."""


def rewritten(root, change):
    """The capture with each true pose changed in place."""
    content = json.loads((root / "cameras.json").read_text())
    for frame in content["frames"]:
        change(frame["cam_to_world"])
    (root / "cameras.json").write_text(json.dumps(content))
    return root


def to_utm(pose):
    for row, metres in zip(pose, UTM):
        row[3] += metres


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_perfect_prediction_scores_as_at_the_origin(tmp_path, protocol) -> None:
    near, far = write_tiny(tmp_path / "near", views=5), rewritten(write_tiny(tmp_path / "far", views=5), to_utm)
    prediction = true_reconstruction(load_capture(near))
    at_origin = evaluate_reconstruction(prediction, near, protocol)
    assert_same(evaluate_reconstruction(prediction, far, protocol), at_origin, tolerance=1e-5)
    assert at_origin.auc30 == 100
    assert figures(at_origin)["depth_rel"] == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_prediction_that_lies_there_too_scores_the_same(protocol) -> None:
    truth = make_truth()
    prediction = disturbed(truth)
    shift = torch.zeros(4, 4, dtype=torch.float64)
    shift[:3, 3] = torch.tensor(UTM, dtype=torch.float64)
    far, there = (dataclasses.replace(each, world_from_cam=each.world_from_cam + shift) for each in (truth, prediction))
    assert_same(score(there, far, protocol), score(prediction, truth, protocol), tolerance=1e-5)


def test_what_training_by_truth_reads_is_near_the_origin(tmp_path) -> None:
    near, far = write_tiny(tmp_path / "near"), rewritten(write_tiny(tmp_path / "far"), to_utm)
    one, other = (true_reconstruction(load_capture(root)).prediction.world_from_cam for root in (near, far))
    assert torch.equal(one[0, :3, 3], torch.zeros(3))
    torch.testing.assert_close(other, one, rtol=0, atol=1e-6)


def mirror(pose):
    for row in pose:
        row[0] = -row[0]


def enlarge(pose):
    for row in pose[:3]:
        row[:3] = [2 * value for value in row[:3]]


@pytest.mark.parametrize("change", [mirror, enlarge])
def test_a_matrix_that_is_no_rigid_motion_is_refused(tmp_path, change) -> None:
    root = write_tiny(tmp_path / "room")
    prediction = true_reconstruction(load_capture(root))
    with pytest.raises(UserError, match="frame '000': the pose is no rotation"):
        evaluate_reconstruction(prediction, rewritten(root, change))

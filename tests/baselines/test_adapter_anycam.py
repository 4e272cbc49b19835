"""AnyCam: what its pose network would say of a known room is decoded into that room."""

import numpy as np
import pytest
from known_room import assert_perfect, room
from scipy.spatial.transform import Rotation

from reliev3r.baselines.adapters import anycam

SIZE = 64
CANDIDATES = 0.75 * np.geomspace(0.2, 7, 32) + 0.25 * np.linspace(0.2, 7, 32)


def raw_of(known, *, right, likely=0, bend=0.0):
    """Relative poses x_next = P x, of the video and of the reversed one; only candidate ``right`` is right.

    ``bend`` turns the forward steps one way and the backward ones so that their mean is right again.
    """
    cameras = known.cameras
    cameras[:, :3, 3] *= anycam.DEPTH_SCALE
    turn = Rotation.from_rotvec([0, bend, 0]).as_matrix()
    steps = np.linalg.inv(cameras[1:]) @ cameras[:-1]
    there, back = steps.copy(), steps.copy()
    there[:, :3, :3], back[:, :3, :3] = steps[:, :3, :3] @ turn, steps[:, :3, :3] @ turn.T
    poses = np.tile(np.eye(4), (2, len(cameras), len(CANDIDATES), 1, 1))
    poses[:, :, :, 0, 3] = 0.3  # the last entry and the other candidates say something else
    poses[0, :-1, right] = there
    poses[1, :-1, right] = np.linalg.inv(back)[::-1]
    probabilities = np.full(len(CANDIDATES), 0.01)
    probabilities[likely] = 1 - probabilities.sum() + 0.01
    return {
        "poses": poses.astype(np.float32),
        "focal_candidates": CANDIDATES,
        "focal_probs": probabilities,
        "depth": known.truth.depth.numpy() * anycam.DEPTH_SCALE,
    }


def nearest(known):
    return int(np.abs(CANDIDATES - 2 * float(known.truth.K[0, 0, 0]) / SIZE).argmin())


def test_a_known_room_comes_back_from_the_candidate_of_the_true_focal_length():
    known = room(anycam, size=SIZE)
    raw = raw_of(known, right=nearest(known), likely=20)
    decoded = anycam.decode(raw, known.inputs)
    assert_perfect(known.scores(decoded))
    np.testing.assert_allclose(decoded["K"], known.truth.K, rtol=1e-6)


def test_both_directions_of_time_are_averaged():
    known = room(anycam, size=SIZE)
    decoded = anycam.decode(raw_of(known, right=nearest(known), bend=0.05), known.inputs)
    assert_perfect(known.scores(decoded))


def test_without_intrinsics_the_likeliest_candidate_counts():
    known = room(anycam, focal=False, size=SIZE)
    assert "K" not in known.inputs
    raw = raw_of(known, right=11, likely=11)
    decoded = anycam.decode(raw, known.inputs)
    assert known.scores(decoded).auc30 > 99.9
    mean = (raw["focal_probs"] * CANDIDATES).sum()
    np.testing.assert_allclose(decoded["K"][:, 0, 0], mean * SIZE / 2)


@pytest.mark.parametrize("size", [(240, 320), (320, 240)])
def test_intrinsics_follow_the_square(size):
    K = np.array([[300.0, 0, size[1] / 2], [0, 300, size[0] / 2], [0, 0, 1]])
    inputs, regions = anycam.prepare([np.zeros((*size, 3), np.uint8)] * 2, np.stack([K, K]))
    scale = anycam.SIZE / 240
    expected = [[300 * scale, 0, 168], [0, 300 * scale, 168], [0, 0, 1]]
    np.testing.assert_allclose(inputs["K"][1], expected)
    assert regions[0, 2:].tolist() == [240, 240]

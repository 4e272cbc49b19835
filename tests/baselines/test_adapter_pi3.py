"""pi^3 and Pi3X: what their heads would say of a known room is decoded into that room."""

import numpy as np
import pytest
from known_room import assert_perfect, room
from scipy.spatial.transform import Rotation

from reliev3r.baselines.adapters import pi3, pi3x

SIZE = {"pixels": 4000}


def raw_of(known):
    """Upstream's convention: cam-to-world in a frame of its own, points z times (x, y, 1), confidence as logits."""
    frame = np.eye(4)
    frame[:3, :3], frame[:3, 3] = Rotation.from_rotvec([0.4, -0.9, 2.0]).as_matrix(), [3.0, -1.0, 0.5]
    scale = 0.3
    cameras = frame @ known.cameras
    cameras[:, :3, 3] *= scale
    return {
        "local_points": (scale * known.points_cam).astype(np.float32),
        "camera_poses": cameras.astype(np.float32),
        "conf": np.linspace(-30, 30, known.truth.depth.numel()).reshape(*known.truth.depth.shape, 1),
    }


@pytest.fixture(scope="module")
def known():
    return room(pi3, **SIZE)


def test_a_known_room_comes_back(known):
    decoded = pi3.decode(raw_of(known), known.inputs)
    assert_perfect(known.scores(decoded))
    np.testing.assert_array_equal(decoded["world_from_cam"][0], np.eye(4))
    assert (np.diff(decoded["conf"].ravel()) >= 0).all()
    assert 0 < decoded["conf"].min() < decoded["conf"].max() < 1


def test_world_to_camera_poses_would_not_pass(known):
    raw = raw_of(known)
    raw["camera_poses"] = np.linalg.inv(raw["camera_poses"])
    assert known.scores(pi3.decode(raw, known.inputs)).auc30 < 95


def test_half_precision_rotations_are_made_orthonormal(known):
    raw = raw_of(known)
    raw["camera_poses"] = raw["camera_poses"].astype(np.float16)
    rotation = pi3.decode(raw, known.inputs)["world_from_cam"][:, :3, :3]
    np.testing.assert_allclose(rotation @ rotation.swapaxes(1, 2), np.tile(np.eye(3), (4, 1, 1)), atol=1e-12)


def test_pi3x_has_the_same_conventions():
    assert (pi3x.prepare, pi3x.run, pi3x.decode) == (pi3.prepare, pi3.run, pi3.decode)


@pytest.mark.parametrize(
    ("height", "width", "expected"), [(480, 640, (434, 574)), (333, 517, (392, 630)), (301, 1000, (266, 924))]
)
def test_sizes_are_upstreams(height, width, expected):
    inputs, regions = pi3.prepare([np.zeros((height, width, 3), np.uint8)], None)
    assert inputs["image"].shape == (1, 3, *expected)
    np.testing.assert_array_equal(regions, [[0, 0, width, height]])

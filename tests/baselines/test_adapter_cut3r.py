"""CUT3R: its pose7 and camera-frame points of a known room are decoded into that room."""

import numpy as np
import pytest
from known_room import assert_perfect, room
from scipy.spatial.transform import Rotation

from reliev3r.baselines.adapters import cut3r

SIZE = {"side": 64}


def raw_of(known):
    """Upstream's convention: cam-to-world as translation and quaternion wxyz; view 0 is predicted too."""
    frame = np.eye(4)
    frame[:3, :3], frame[:3, 3] = Rotation.from_rotvec([0.02, -0.01, 0.03]).as_matrix(), [0.01, 0.02, -0.01]
    cameras = frame @ known.cameras
    xyzw = Rotation.from_matrix(cameras[:, :3, :3]).as_quat()
    return {
        "pts3d_in_self_view": known.points_cam.astype(np.float32),
        "camera_pose": np.concatenate([cameras[:, :3, 3], xyzw[:, [3, 0, 1, 2]]], axis=-1).astype(np.float32),
        "conf_self": 1 + known.truth.depth.numpy(),
    }


@pytest.fixture(scope="module")
def known():
    return room(cut3r, **SIZE)


def test_a_known_room_comes_back(known):
    assert known.inputs["image"].shape == (4, 3, 48, 64)
    decoded = cut3r.decode(raw_of(known), known.inputs)
    assert_perfect(known.scores(decoded))
    np.testing.assert_array_equal(decoded["world_from_cam"][0], np.eye(4))


def test_the_other_order_of_quaternions_would_not_pass(known):
    raw = raw_of(known)
    raw["camera_pose"][:, 3:] = raw["camera_pose"][:, [4, 5, 6, 3]]
    assert known.scores(cut3r.decode(raw, known.inputs)).auc30 < 95


def test_points_behind_the_camera_stay_where_they_are_sideways(known):
    raw = raw_of(known)
    raw["pts3d_in_self_view"][0, 0, 0] = [0.3, -0.2, -1.0]
    decoded = cut3r.decode(raw, known.inputs)
    assert (decoded["depth"] > 0).all()
    point = decoded["rays"][0, 0, 0] * decoded["depth"][0, 0, 0]
    np.testing.assert_allclose(point, [0.3, -0.2, 0], atol=1e-5)


@pytest.mark.parametrize(
    ("height", "width", "expected"), [(480, 640, (384, 512)), (480, 480, (384, 512)), (333, 517, (320, 512))]
)
def test_sizes_are_upstreams(height, width, expected):
    inputs, regions = cut3r.prepare([np.zeros((height, width, 3), np.uint8)], None)
    assert inputs["image"].shape == (1, 3, *expected)
    assert regions[0, 2] == width
    np.testing.assert_allclose(regions[0, 1] + 0.5 * regions[0, 3], 0.5 * height, atol=1)


def test_mixed_aspect_ratios_are_refused():
    with pytest.raises(ValueError, match="several aspect ratios"):
        cut3r.prepare([np.zeros((480, 640, 3), np.uint8), np.zeros((640, 480, 3), np.uint8)], None)

"""MapAnything: its camera-frame points and poses of a known room are decoded into that room."""

import numpy as np
import pytest
from known_room import assert_perfect, room
from scipy.spatial.transform import Rotation

from reliev3r.baselines.adapters import mapanything

SIZE = {"side": 84}


def raw_of(known):
    """Upstream's convention: cam-to-world; view 0 is predicted too."""
    frame = np.eye(4)
    frame[:3, :3] = Rotation.from_rotvec([0.02, -0.01, 0.03]).as_matrix()
    return {
        "pts3d_cam": known.points_cam.astype(np.float32),
        "camera_poses": (frame @ known.cameras).astype(np.float32),
        "conf": 1 + known.truth.depth.numpy(),
    }


@pytest.fixture(scope="module")
def known():
    return room(mapanything, width=330, height=200, **SIZE)  # between two of upstream's aspect ratios: cut


def test_a_known_room_comes_back(known):
    assert known.regions[0, 2] < 330
    decoded = mapanything.decode(raw_of(known), known.inputs)
    assert_perfect(known.scores(decoded))
    np.testing.assert_array_equal(decoded["world_from_cam"][0], np.eye(4))


def test_world_to_camera_poses_would_not_pass(known):
    raw = raw_of(known)
    raw["camera_poses"] = np.linalg.inv(raw["camera_poses"])
    assert known.scores(mapanything.decode(raw, known.inputs)).auc30 < 95


@pytest.mark.parametrize(
    ("height", "width", "expected"), [(480, 640, (392, 518)), (1080, 1920, (294, 518)), (800, 600, (518, 392))]
)
def test_sizes_are_upstreams(height, width, expected):
    image = np.full((height, width, 3), 255, np.uint8)
    inputs, regions = mapanything.prepare([image], None)
    assert inputs["image"].shape == (1, 3, *expected)
    np.testing.assert_allclose(inputs["image"][0, :, 5, 5], (1 - mapanything.MEAN) / mapanything.STD, rtol=1e-5)
    assert (regions[0, 2:] <= [width, height]).all()
    np.testing.assert_allclose(regions[0, :2] + 0.5 * regions[0, 2:], [0.5 * width, 0.5 * height], atol=2.5)

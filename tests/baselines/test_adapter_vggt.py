"""VGGT: the pose encoding and depth of a known room are decoded into that room."""

import numpy as np
import pytest
from known_room import assert_perfect, room
from scipy.spatial.transform import Rotation

from reliev3r.baselines.adapters import vggt

SIZE = {"side": 84}


def raw_of(known):
    """Upstream's convention: cam_from_world as translation, quaternion xyzw, vertical and horizontal field of view."""
    scale, K = 0.4, known.truth.K.double().numpy()
    height, width = known.truth.depth.shape[-2:]
    cam_from_world = np.linalg.inv(known.cameras)
    quaternion = Rotation.from_matrix(cam_from_world[:, :3, :3]).as_quat() * np.array([[1], [-1], [2.0], [0.7]])
    fov = 2 * np.arctan(np.stack([0.5 * height / K[:, 1, 1], 0.5 * width / K[:, 0, 0]], axis=-1))
    return {
        "pose_enc": np.concatenate([scale * cam_from_world[:, :3, 3], quaternion, fov], axis=-1).astype(np.float32),
        "depth": (scale * known.truth.depth.numpy())[..., None],
        "depth_conf": 1 + known.truth.depth.numpy(),
    }


@pytest.fixture(scope="module")
def known():
    return room(vggt, **SIZE)


def test_a_known_room_comes_back(known):
    decoded = vggt.decode(raw_of(known), known.inputs)
    assert_perfect(known.scores(decoded))
    np.testing.assert_allclose(decoded["K"], known.truth.K, rtol=1e-5)
    np.testing.assert_array_equal(decoded["world_from_cam"][0], np.eye(4))


def test_an_upright_capture_is_cut_and_still_right():
    known = room(vggt, width=90, height=120, **SIZE)
    assert known.inputs["image"].shape[-2:] == (84, 84)
    assert known.regions[0, 1] > 10
    assert_perfect(known.scores(vggt.decode(raw_of(known), known.inputs)))


def test_camera_to_world_poses_would_not_pass(known):
    raw = raw_of(known)
    raw["pose_enc"][:, :3] = 0.4 * known.cameras[:, :3, 3]
    raw["pose_enc"][:, 3:7] = Rotation.from_matrix(known.cameras[:, :3, :3]).as_quat()
    assert known.scores(vggt.decode(raw, known.inputs)).auc30 < 95


def test_a_field_of_view_of_zero_stays_finite(known):
    raw = raw_of(known)
    raw["pose_enc"][1, 7:] = 0
    decoded = vggt.decode(raw, known.inputs)
    assert np.isfinite(decoded["K"]).all()
    assert np.isfinite(decoded["rays"]).all()


def test_lower_images_are_padded_and_their_regions_reach_beyond_them():
    images = [np.zeros((300, 400, 3), np.uint8), np.zeros((200, 400, 3), np.uint8)]
    inputs, regions = vggt.prepare(images, None)
    assert inputs["image"].shape == (2, 3, 392, 518)
    assert (inputs["image"][1, :, [0, -1]] == 1).all()
    assert (inputs["image"][1, :, 196] == 0).all()
    above, pixel = (392 - 252) // 2, 200 / 252  # of the 252 rows that the picture fills
    np.testing.assert_allclose(regions, [[0, 0, 400, 300], [0, -above * pixel, 400, 392 * pixel]])


@pytest.mark.parametrize(("height", "width", "expected"), [(480, 640, (392, 518)), (301, 1000, (154, 518))])
def test_sizes_are_upstreams(height, width, expected):
    inputs, regions = vggt.prepare([np.zeros((height, width, 3), np.uint8)], None)
    assert inputs["image"].shape == (1, 3, *expected)
    np.testing.assert_allclose(regions, [[0, 0, width, height]])

"""Depth Anything 3: its depth, K and cam_from_world of a known room are decoded into that room."""

import numpy as np
import pytest
from known_room import assert_perfect, room
from scipy.spatial.transform import Rotation

from reliev3r.baselines.adapters import da3

SIZE = {"side": 84}


def raw_of(known):
    """Upstream's convention: cam_from_world in the frame of a view that it chooses."""
    frame = np.eye(4)
    frame[:3, :3], frame[:3, 3] = Rotation.from_rotvec([0.2, -0.1, 0.3]).as_matrix(), [1, 2, 3]
    scale = np.diag([0.4, 0.4, 0.4, 1])
    extrinsics = scale @ np.linalg.inv(frame @ known.cameras) @ np.linalg.inv(scale)
    return {
        "depth": 0.4 * known.truth.depth.numpy(),
        "depth_conf": 1 + known.truth.depth.numpy(),
        "extrinsics": extrinsics[:, :3].astype(np.float32),
        "intrinsics": known.truth.K.numpy().astype(np.float32),
    }


@pytest.fixture(scope="module")
def known():
    return room(da3, **SIZE)


def test_a_known_room_comes_back(known):
    assert known.inputs["image"].shape == (4, 3, 70, 84)  # 63 rows lie between two multiples: up
    decoded = da3.decode(raw_of(known), known.inputs)
    assert_perfect(known.scores(decoded))
    np.testing.assert_array_equal(decoded["world_from_cam"][0], np.eye(4))


def test_camera_to_world_poses_would_not_pass(known):
    raw = raw_of(known)
    raw["extrinsics"] = known.cameras[:, :3]
    assert known.scores(da3.decode(raw, known.inputs)).auc30 < 95


def test_focal_lengths_without_end_stay_finite(known):
    raw = raw_of(known)
    raw["intrinsics"][1, [0, 1], [0, 1]] = 1e9
    decoded = da3.decode(raw, known.inputs)
    assert decoded["K"].max() < 84 * 101
    assert np.abs(decoded["rays"][1]).max() > 0


def test_images_of_other_shapes_are_cut_to_the_smallest():
    images = [np.full((300, 400, 3), 255, np.uint8), np.zeros((400, 300, 3), np.uint8)]
    inputs, regions = da3.prepare(images, None)
    assert inputs["image"].shape == (2, 3, 378, 378)
    np.testing.assert_allclose(inputs["image"][0, :, 5, 5], (1 - da3.MEAN) / da3.STD, rtol=1e-5)
    np.testing.assert_allclose(regions, [[50, 0, 300, 300], [0, 50, 300, 300]])

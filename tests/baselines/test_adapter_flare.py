"""FLARE: what its pose and depth heads would say of a known room is decoded into that room."""

import numpy as np
import pytest
import torch
from known_room import assert_perfect, room
from scipy.spatial.transform import Rotation

from reliev3r.baselines.adapters import flare

SIZE = {"long_side": 64}


def raw_of(known, *, moved=True):
    """Upstream's convention: cam-to-world of any frame; points at the scale of translations of mean length 1."""
    frame = np.eye(4)
    if moved:  # view 0 is predicted too, and is not exactly the identity
        frame[:3, :3] = Rotation.from_rotvec([0.01, -0.02, 0.015]).as_matrix()
    cameras = frame @ known.cameras
    size = np.linalg.norm(cameras[:, :3, 3], axis=-1).mean()
    return {
        "points": known.points_cam / size,
        "conf": 1 + np.random.default_rng(0).random(known.truth.depth.shape),
        "R": cameras[:, :3, :3],
        "T": 5.3 * cameras[:, :3, 3],  # its length means nothing
    }


def test_a_known_room_comes_back():
    known = room(flare, **SIZE)
    assert known.inputs["img"].shape == (4, 3, 48, 64)
    decoded = flare.decode(raw_of(known), known.inputs)
    assert_perfect(known.scores(decoded))
    np.testing.assert_array_equal(decoded["world_from_cam"][0], np.eye(4))


def test_world_to_camera_poses_would_not_pass():
    known = room(flare, **SIZE)
    raw = raw_of(known, moved=False)
    raw["T"] = -(np.swapaxes(raw["R"], 1, 2) @ raw["T"][..., None])[..., 0]
    raw["R"] = np.swapaxes(raw["R"], 1, 2)
    assert known.scores(flare.decode(raw, known.inputs)).auc30 < 95


def test_upright_images_become_squares():
    inputs, regions = flare.prepare([np.zeros((640, 480, 3), np.uint8)], None)
    assert inputs["img"].shape == (1, 3, 448, 448)
    np.testing.assert_allclose(regions, [[0, 80, 480, 480]], atol=1)


def test_stand_in_for_pytorch3d_turns_quaternions_of_any_length():
    wxyz = torch.randn(7, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    expected = Rotation.from_quat(wxyz.numpy()[:, [1, 2, 3, 0]]).as_matrix()
    np.testing.assert_allclose(flare._matrix_from_quaternion(wxyz), expected, atol=1e-12)


@pytest.mark.parametrize("views", [2, 3])
def test_few_views_are_enough(views):
    known = room(flare, views=views, **SIZE)
    assert_perfect(known.scores(flare.decode(raw_of(known), known.inputs)))

"""RayZer: what its pose estimator would say of a known room is decoded into that room's cameras."""

import numpy as np
from known_room import assert_perfect, room

from reliev3r.baselines.adapters import rayzer


def raw_of(known):
    """Cam-to-world with the middle view as the world, at any scale; intrinsics as shares of the image."""
    cameras = np.linalg.inv(known.cameras[len(known.cameras) // 2]) @ known.cameras
    cameras[:, :3, 3] *= 0.21
    K = known.truth.K.numpy()
    fxfycxcy = np.stack([K[:, 0, 0], K[:, 1, 1], K[:, 0, 2], K[:, 1, 2]], axis=-1) / 32
    return {"c2w": cameras.astype(np.float32), "fxfycxcy": fxfycxcy}


def test_known_cameras_come_back():
    known = room(rayzer, views=5, size=32)
    decoded = rayzer.decode(raw_of(known), known.inputs)
    assert "depth" not in decoded
    scores = known.scores(decoded)
    assert_perfect(scores)
    assert scores.ate < 1e-4
    assert scores.depth_rel is None
    np.testing.assert_allclose(decoded["K"], known.truth.K, rtol=1e-6)
    np.testing.assert_array_equal(decoded["world_from_cam"][0], np.eye(4))

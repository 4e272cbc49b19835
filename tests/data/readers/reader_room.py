"""How what a reader reads of the rendered room compares with it."""

from __future__ import annotations

import numpy as np

from reliev3r.data.truth import Scene


def reprojection_errors(scene: Scene) -> np.ndarray:
    """|z projected - z read| / z at the covisible pixels of all pairs of views, read through the scene alone.

    Covisible: inside the other image and within 5 % of its depth there (the rest is hidden), at least a third of
    all pixels of neighbours, which is asserted.
    """
    truth, names = scene.truth, scene.capture.names
    cameras = [truth.camera(name) for name in names]
    depths = [np.asarray(truth.depth(name), np.float64) for name in names]
    errors = []
    for i, (camera, depth) in enumerate(zip(cameras, depths)):
        assert depth.shape == (camera.size[1], camera.size[0])
        v, u = np.nonzero(depth > 0)
        z = depth[v, u]
        pixels = np.stack([u + 0.5, v + 0.5, np.ones(len(u))])
        local = np.linalg.inv(camera.K.numpy()) @ pixels * z
        world = camera.world_from_cam.numpy() @ np.concatenate([local, np.ones((1, len(u)))])
        for j, (other, map_) in enumerate(zip(cameras, depths)):
            if i == j:
                continue
            seen = (np.linalg.inv(other.world_from_cam.numpy()) @ world)[:3]
            uv = other.K.numpy() @ seen
            uv = uv[:2] / np.where(uv[2:] > 1e-6, uv[2:], np.inf)
            read, inside = _bilinear(map_, uv)
            inside &= seen[2] > 1e-6
            error = np.abs(seen[2] - read)[inside] / seen[2][inside]
            covisible = error < 0.05
            if abs(i - j) == 1:
                assert covisible.sum() > len(u) / 3, f"views {names[i]} and {names[j]} share too little"
            errors.append(error[covisible])
    return np.concatenate(errors)


def assert_consistent(scene: Scene) -> None:
    """Depth read is the same surface in all views: median relative error below 0.5 %."""
    assert np.median(reprojection_errors(scene)) < 0.005


def assert_poses(scene: Scene, expected: np.ndarray, *, similarity: bool = False, atol: float = 1e-5) -> None:
    """Poses equal ``expected`` [v, 4, 4] relative to the first camera; with ``similarity`` up to one scale too."""
    found = np.stack([scene.truth.camera(name).world_from_cam.numpy() for name in scene.capture.names])
    assert found.dtype == np.float64
    assert np.allclose(np.linalg.det(found[:, :3, :3]), 1.0, atol=1e-5)
    found, expected = np.linalg.inv(found[0]) @ found, np.linalg.inv(expected[0]) @ expected
    if similarity:
        found, expected = found.copy(), expected.copy()
        found[:, :3, 3] /= np.linalg.norm(found[-1, :3, 3])
        expected[:, :3, 3] /= np.linalg.norm(expected[-1, :3, 3])
    np.testing.assert_allclose(found, expected, atol=atol)


def _bilinear(depth: np.ndarray, uv: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Depth at uv (inverse depth is linear on planes), and whether all four neighbours are known."""
    height, width = depth.shape
    x, y = np.nan_to_num(uv[0] - 0.5, nan=-9, posinf=-9, neginf=-9), np.nan_to_num(uv[1] - 0.5, nan=-9)
    x0, y0 = np.floor(x).astype(int), np.floor(y).astype(int)
    inside = (x0 >= 0) & (y0 >= 0) & (x0 < width - 1) & (y0 < height - 1)
    x0, y0 = x0.clip(0, width - 2), y0.clip(0, height - 2)
    a, b = x - x0, y - y0
    near = np.stack([depth[y0, x0], depth[y0, x0 + 1], depth[y0 + 1, x0], depth[y0 + 1, x0 + 1]])
    inside &= (near > 0).all(0)
    weights = np.stack([(1 - a) * (1 - b), a * (1 - b), (1 - a) * b, a * b])
    return 1 / (weights / np.where(near > 0, near, 1)).sum(0), inside

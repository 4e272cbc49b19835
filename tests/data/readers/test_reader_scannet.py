import logging

import numpy as np
import pytest
from layouts import pinhole, save
from reader_room import assert_consistent, assert_poses

from reliev3r.core.errors import UserError
from reliev3r.data.readers import find_reader, open_scene

DEPTH_K = pinhole(80, 81, 47, 37.5)
"""Of the depth camera, corner convention: another lens at the same place."""


def write_matrix(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(" ".join(f"{x:.6f}" for x in row) for row in value) + "\n")


def as_stored(K):
    """4 x 4, pixel centres at integers."""
    stored = np.eye(4)
    stored[:3, :3] = K - [[0, 0, 0.5], [0, 0, 0.5], [0, 0, 0]]
    return stored


@pytest.fixture(scope="module")
def depth_views(room):
    return room.by(DEPTH_K, (96, 72)).depth


@pytest.fixture
def scan(tmp_path, room, depth_views):
    folder = tmp_path / "scene0000_00"
    for k in range(4):
        save(folder / "color" / f"{10 * k}.jpg", room.rgb[k], quality=95)
        save(folder / "depth" / f"{10 * k}.png", np.rint(1000 * depth_views[k]).astype(np.uint16))
        write_matrix(folder / "pose" / f"{10 * k}.txt", room.world_from_cam[k])
    save(folder / "color" / "15.jpg", room.rgb[0])  # tracking was lost
    save(folder / "depth" / "15.png", np.zeros((72, 96), np.uint16))
    write_matrix(folder / "pose" / "15.txt", np.full((4, 4), -np.inf))
    for name, value in [("color", as_stored(room.K)), ("depth", as_stored(DEPTH_K))]:
        write_matrix(folder / "intrinsic" / f"intrinsic_{name}.txt", value)
        write_matrix(folder / "intrinsic" / f"extrinsic_{name}.txt", np.eye(4))
    return tmp_path


def test_it_is_read_back(scan, room, caplog):
    assert find_reader(scan)[0] == "scannet"
    with caplog.at_level(logging.WARNING):
        scene = open_scene(scan)
    assert "left out 1 of 5 frames without a finite pose" in caplog.text
    assert scene.capture.names == ("0", "10", "20", "30")
    np.testing.assert_allclose(scene.capture.frames[0].K, room.K, atol=1e-6)
    assert_poses(scene, room.world_from_cam)
    depth = scene.truth.depth("20")
    error = np.abs(depth - room.depth[2]) / room.depth[2]
    assert np.median(error[depth > 0]) < 0.005  # looked up where the other lens saw the pixel
    unmoved = np.abs(depth - np.asarray(room.depth[0])) / room.depth[0]
    assert np.median(unmoved[depth > 0]) > 0.01
    assert_consistent(scene)


def test_registered_depth_of_another_resolution(scan, room):
    """Without calibration of its own the map covers the image."""
    folder = scan / "scene0000_00"
    (folder / "intrinsic" / "intrinsic_depth.txt").unlink()
    half = np.rint(1000 * room.depth[1, ::2, ::2]).astype(np.uint16)
    save(folder / "depth" / "10.png", half)
    assert np.array_equal(open_scene(scan).truth.depth("10"), half.astype(np.float32) / np.float32(1000))


def test_damage_is_named(scan):
    folder = scan / "scene0000_00"
    write_matrix(folder / "intrinsic" / "extrinsic_depth.txt", np.diag([1, 1, 1, 1.0]) + 0.05 * np.eye(4, k=3))
    with pytest.raises(UserError, match=r"extrinsic_depth\.txt: not the identity"):
        open_scene(scan)
    (folder / "intrinsic" / "extrinsic_depth.txt").unlink()
    (folder / "depth" / "10.png").write_bytes(b"\x89PNG")
    with pytest.raises(UserError, match=r"10\.png: truncated or not an image"):
        open_scene(scan).truth.depth("10")
    (folder / "pose" / "10.txt").unlink()
    with pytest.raises(UserError, match=r"10\.txt: not found"):
        open_scene(scan)
    (folder / "intrinsic" / "intrinsic_color.txt").unlink()
    with pytest.raises(UserError, match=r"intrinsic_color\.txt: not found"):
        open_scene(scan)


def test_a_rotated_image_is_refused(scan, room):
    save(scan / "scene0000_00" / "color" / "20.jpg", room.rgb[2].transpose(1, 0, 2))
    with pytest.raises(UserError, match=r"20\.jpg: is 72x96, but its intrinsics are for 96x72"):
        open_scene(scan)

import logging

import cv2
import numpy as np
import pytest
from layouts import brown, pinhole, quaternion_line, rays, save
from reader_room import assert_consistent, assert_poses

from reliev3r.core.errors import UserError
from reliev3r.data.readers import find_reader, open_scene

TIMES = [1305031102.175304, 1305031102.211214, 1305031102.243211, 1305031102.275326]
FREIBURG1 = (0.2624, -0.9531, -0.0054, 0.0026, 1.1633)


def corners(fx, fy, cx, cy, width):
    """A calibration at 640 pixels, centres at integers, in corner convention at ``width``."""
    return np.diag([width / 640, width / 640, 1]) @ pinhole(fx, fy, cx + 0.5, cy + 0.5)


def write(folder, rgb, depth, poses):
    lines = {"rgb": ["# color images"], "depth": ["# depth maps"], "groundtruth": ["# ground truth trajectory"]}
    for k, time in enumerate(TIMES):
        stamp, depth_stamp = f"{time:.6f}", f"{time - 0.004:.6f}"
        save(folder / "rgb" / f"{stamp}.png", rgb[k])
        save(folder / "depth" / f"{depth_stamp}.png", np.rint(5000 * depth[k]).astype(np.uint16))
        lines["rgb"].append(f"{stamp} rgb/{stamp}.png")
        lines["depth"].append(f"{depth_stamp} depth/{depth_stamp}.png")
        # the pose that belongs to it, between two that do not
        for offset, pose in [(-0.012, np.eye(4)), (0.003, poses[k]), (0.015, np.eye(4))]:
            lines["groundtruth"].append(f"{time + offset:.4f} {quaternion_line(pose)}")
    for name, content in lines.items():
        (folder / f"{name}.txt").write_text("\n".join(content) + "\n")
    return folder


@pytest.fixture(scope="module")
def default_views(room):
    seen = room.by(corners(525, 525, 319.5, 239.5, 96), (96, 72))
    return seen.rgb, seen.depth


@pytest.fixture
def desk(tmp_path, room, default_views):
    return write(tmp_path / "rgbd_dataset_office", *default_views, room.world_from_cam)


def test_the_default_calibration(desk, room, default_views):
    assert find_reader(desk)[0] == "tum"
    scene = open_scene(desk.parent)
    assert scene.name == "rgbd_dataset_office"
    assert scene.capture.K_source == "TUM's ROS default calibration"
    assert scene.capture.frames[0].rectification is None
    np.testing.assert_allclose(scene.capture.frames[0].K, pinhole(78.75, 78.75, 48, 36))
    assert np.array_equal(scene.capture.image(3), default_views[0][3])
    assert_poses(scene, room.world_from_cam)
    assert np.abs(scene.truth.depth(scene.capture.names[2]) - default_views[1][2]).max() < 2e-4
    assert_consistent(scene)


def test_distortion_is_taken_out(tmp_path, room):
    width, height = 160, 120
    K = corners(517.3, 516.5, 318.6, 255.3, width)
    rgb, depth = room.through(rays(K, (width, height), brown(*FREIBURG1)))
    scene = open_scene(write(tmp_path / "rgbd_dataset_freiburg1_xyz", rgb, depth, room.world_from_cam))
    assert scene.capture.K_source == "TUM's freiburg1"
    frame = scene.capture.frames[1]
    assert (frame.width, frame.height) == (width, height)
    assert_poses(scene, room.world_from_cam)
    assert_consistent(scene)
    expected = room.view(1).by(frame.K, (width, height))
    read = scene.truth.depth(frame.name)
    assert (read > 0).all()  # the pinhole sees only what the lens saw
    assert np.median(np.abs(read - expected.depth[0]) / expected.depth[0]) < 0.005
    smooth = [
        cv2.GaussianBlur(image, (0, 0), 2.0).astype(int) for image in (scene.capture.image(1), rgb[1], expected.rgb[0])
    ]
    difference, stored = (np.abs(image - smooth[2]).mean() for image in smooth[:2])  # resampling is not the question
    assert difference < 0.4 * stored


def test_what_has_no_partner_in_time(desk, caplog):
    file = desk / "groundtruth.txt"
    lines = file.read_text().splitlines()
    file.write_text("\n".join(line for line in lines if line.startswith(("1305031102.16", "1305031102.17"))) + "\n")
    with pytest.raises(UserError, match=r"1 of 4 frames have a finite pose"):
        open_scene(desk)
    file.write_text("\n".join(lines[:-4]) + "\n")  # without those near the last image
    (desk / "depth.txt").write_text("\n".join((desk / "depth.txt").read_text().splitlines()[:3]))
    with caplog.at_level(logging.WARNING):
        scene = open_scene(desk)
    assert "left out 1 of 4" in caplog.text
    assert scene.truth.depth(scene.capture.names[0]) is not None
    assert scene.truth.depth(scene.capture.names[2]) is None  # its map is not listed


def test_damage_is_named(desk):
    (desk / "rgb" / "1305031102.175304.png").unlink()
    with pytest.raises(UserError, match=r"1305031102\.175304\.png: not found"):
        open_scene(desk)
    (desk / "groundtruth.txt").write_text("1305031102.17 1 2 3\n")
    with pytest.raises(UserError, match=r"groundtruth\.txt: pose 1 is cut short"):
        open_scene(desk)
    (desk / "rgb.txt").write_text("# nothing\n")
    with pytest.raises(UserError, match=r"rgb\.txt: needs lines of a time and a path"):
        open_scene(desk)

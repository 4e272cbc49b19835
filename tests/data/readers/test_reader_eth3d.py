"""ETH3D: photographs as taken with the laser scan's depth, or undistorted without."""

import shutil

import cv2
import numpy as np
import pytest
from layouts import write_eth3d
from reader_room import assert_consistent, assert_poses

from reliev3r.core.errors import UserError
from reliev3r.data.readers import find_reader, list_scenes, open_scene
from reliev3r.data.readers.eth3d import DEPTH_IS_ELSEWHERE, SCAN
from reliev3r.data.truth import NO_DEPTH

UNKNOWN = (slice(30, 40), slice(20, 30))
NAMES = ("DSC_6488", "DSC_6489", "DSC_6490", "DSC_6491")


@pytest.fixture(scope="module")
def written(room, tmp_path_factory):
    folder = tmp_path_factory.mktemp("eth3d")
    write_eth3d(folder / "pipes", room, unknown=UNKNOWN)
    return folder


@pytest.fixture
def eth3d(written, tmp_path):
    return shutil.copytree(written, tmp_path / "multi_view_training")


def test_photographs_as_taken_and_their_depth_are_rectified_alike(room, eth3d) -> None:
    assert find_reader(eth3d)[0] == "eth3d"
    assert list_scenes(eth3d) == ["pipes"]
    scene = open_scene(eth3d)
    assert scene.capture.names == NAMES
    assert scene.truth.metric
    assert not scene.capture.ordered
    assert scene.caveats == (SCAN,)
    assert_poses(scene, room.world_from_cam[::-1])
    assert_consistent(scene)
    for i, name in enumerate(NAMES):
        expected, depth = room.depth[::-1][i], scene.truth.depth(name)
        assert (depth[UNKNOWN] == 0).mean() > 0.7  # the lens moves the rectangle by some pixels
        known = depth > 0
        assert known.mean() > 0.75
        error = (depth / expected - 1)[known]
        assert np.median(np.abs(error)) < 3e-3  # by nearest neighbour, half a pixel off at most
        assert abs(np.median(error)) < 5e-4
        stored = np.fromfile(eth3d / "pipes/ground_truth_depth/dslr_images" / f"{name}.JPG", "<f4").reshape(72, 96)
        assert np.median(np.abs(stored / expected - 1)[known]) > 0.008  # as it lies there it is of another lens
        raw = cv2.imread(str(scene.capture.frames[i].path))[..., ::-1]
        inner = (slice(8, -8), slice(8, -8))
        off = [np.abs(image - room.rgb[::-1][i].astype(float))[inner].mean() for image in (scene.capture.image(i), raw)]
        assert off[0] < 0.6 * off[1]
        assert scene.capture.frames[i].rectification.lens["model"] == "THIN_PRISM_FISHEYE"


def test_undistorted_photographs_have_poses_only_and_say_so(room, eth3d) -> None:
    pipes = eth3d / "pipes"
    shutil.rmtree(pipes / "images" / "dslr_images")
    scene = open_scene(pipes)
    assert scene.name == "pipes"
    assert scene.caveats == (DEPTH_IS_ELSEWHERE,)
    assert_poses(scene, room.world_from_cam[::-1])
    assert scene.truth.depth("DSC_6491") is None
    assert scene.capture.frames[0].rectification is None
    shutil.rmtree(pipes / "ground_truth_depth")
    assert open_scene(pipes).caveats == (NO_DEPTH,)


def test_a_test_scene_has_no_depth_and_is_taken_undistorted(room, eth3d) -> None:
    shutil.rmtree(eth3d / "pipes" / "ground_truth_depth")
    scene = open_scene(eth3d)
    assert scene.capture.frames[0].path.parent.name == "dslr_images_undistorted"
    shutil.rmtree(eth3d / "pipes" / "dslr_calibration_undistorted")
    scene = open_scene(eth3d)
    assert scene.capture.frames[0].path.parent.name == "dslr_images"
    assert scene.caveats == (NO_DEPTH,)


def test_a_photograph_without_a_map_has_none(eth3d) -> None:
    (eth3d / "pipes" / "ground_truth_depth" / "dslr_images" / "DSC_6490.JPG").unlink()
    truth = open_scene(eth3d).truth
    assert truth.depth("DSC_6490") is None
    assert truth.depth("DSC_6491") is not None


def test_damage_is_named(eth3d) -> None:
    pipes = eth3d / "pipes"
    file = pipes / "ground_truth_depth" / "dslr_images" / "DSC_6490.JPG"
    content = file.read_bytes()
    for damaged in (b"", content[:-4], content + b"\0"):
        file.write_bytes(damaged)
        with pytest.raises(UserError, match=r"DSC_6490\.JPG: has \d+ bytes, not the 4 x 96 x 72"):
            open_scene(eth3d).truth.depth("DSC_6490")
    images = pipes / "dslr_calibration_jpg" / "images.txt"
    images.write_text(images.read_text().replace("dslr_images/DSC_6490", "../../DSC_6490"))
    with pytest.raises(UserError, match="lies outside"):
        open_scene(eth3d)
    images.write_text("1 2 3\n")
    with pytest.raises(UserError, match="not a readable COLMAP model"):
        open_scene(eth3d)
    shutil.rmtree(pipes / "images")
    with pytest.raises(UserError, match=r"pipes: needs images/dslr_images with dslr_calibration_jpg/images\.txt or"):
        open_scene(eth3d)

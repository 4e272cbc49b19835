"""COLMAP models and ScanNet++, whose poses are one: text as the format's documentation defines it, written by hand."""

import cv2
import numpy as np
import pycolmap
import pytest
from layouts import Room, brown, fisheye, write_model, write_scannetpp
from lenses import rays_as_colours, through
from reader_room import assert_consistent, assert_poses

from reliev3r.core.errors import UserError
from reliev3r.data.readers import list_scenes, open_scene

BROWN = (0.08, -0.02, 0.004, -0.003)
FISHEYE = (0.03, -0.01, 0.002, 0.0)


def write(folder, room: Room, *, rgb=None, names=None, binary=False, **camera) -> None:
    """images/ and sparse/0."""
    names = names or [f"IMG_{i}.png" for i in (8, 9, 10, 11)]
    for name, image in zip(names, room.rgb if rgb is None else rgb):
        (folder / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(folder / "images" / name), image[..., ::-1])
    write_model(folder / "sparse" / "0", room, names, **camera)
    if binary:
        model = pycolmap.Reconstruction(str(folder / "sparse" / "0"))
        for file in (folder / "sparse" / "0").iterdir():
            file.unlink()
        model.write_binary(str(folder / "sparse" / "0"))


@pytest.mark.parametrize("binary", [False, True])
def test_a_pinhole_model_comes_back(room, tmp_path, binary) -> None:
    write(tmp_path / "desk", room, binary=binary)
    assert list_scenes(tmp_path) == ["desk"]
    scene = open_scene(tmp_path / "desk")
    assert scene.capture.names == ("IMG_8", "IMG_9", "IMG_10", "IMG_11")
    assert_poses(scene, room.world_from_cam)
    for i, frame in enumerate(scene.capture.frames):
        np.testing.assert_array_equal(scene.capture.image(i), room.rgb[i])
        np.testing.assert_allclose(frame.K, room.K)
        assert frame.rectification is None
    assert scene.truth.depth("IMG_8") is None
    assert not scene.truth.metric
    assert any("structure from motion" in text for text in scene.caveats)


@pytest.mark.parametrize(
    ("model", "params", "distort"),
    [("OPENCV", BROWN, brown(*BROWN)), ("OPENCV_FISHEYE", FISHEYE, fisheye(*FISHEYE))],
)
def test_lenses_are_rectified_to_a_tenth_of_a_pixel(room, tmp_path, model, params, distort) -> None:
    ideal = rays_as_colours(room)
    rgb, _ = through(ideal, distort)
    write(tmp_path, room, rgb=rgb, model=model, params=params)
    scene = open_scene(tmp_path)
    seen = scene.capture.image(1).astype(float)
    inner = seen[..., 2] == 255
    assert inner.mean() > 0.5
    error = (seen - ideal.rgb[1])[inner]
    assert np.abs(error.mean(0)).max() < 0.2  # two levels are a pixel
    assert np.abs(error).max() <= 3
    assert scene.capture.frames[1].rectification.lens["model"] == model


def test_images_in_folders_that_share_names(room, tmp_path) -> None:
    write(tmp_path, room, names=["left/0.png", "left/1.png", "right/0.png", "right/1.png"])
    assert open_scene(tmp_path).capture.names == ("left_0", "left_1", "right_0", "right_1")


@pytest.mark.parametrize(
    ("file", "content", "word"),
    [
        ("sparse/0/images.txt", "1 0.5 nonsense\n\n", "not a readable COLMAP model"),
        ("sparse/0/points3D.txt", None, "has no points3D"),
        ("images/IMG_9.png", None, r"IMG_9\.png: not found"),
        ("images/IMG_9.png", "half", r"IMG_9\.png: truncated or not an image"),
    ],
)
def test_damage_is_told_in_one_line(room, tmp_path, file, content, word) -> None:
    write(tmp_path, room)
    if content is None:
        (tmp_path / file).unlink()
    else:
        (tmp_path / file).write_text(content)
    with pytest.raises(UserError, match=word) as caught:
        open_scene(tmp_path)
    assert "\n" not in str(caught.value)


def test_images_of_another_size_than_the_camera(room, tmp_path) -> None:
    write(tmp_path, room, rgb=[np.rot90(image).copy() for image in room.rgb])
    with pytest.raises(UserError, match="is 72x96, but its intrinsics are for 96x72"):
        open_scene(tmp_path)


# ScanNet++ -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def scannetpp(room, tmp_path):
    folder = tmp_path / "scannetpp" / "data" / "0a1b2c3d4e"
    write_scannetpp(folder, room, bad=[3])
    return folder


def test_scannetpp_depth_is_that_of_the_mesh(room, scannetpp, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert list_scenes(tmp_path / "scannetpp") == ["0a1b2c3d4e"]
    scene = open_scene(tmp_path / "scannetpp")
    assert scene.capture.names == ("DSC01001", "DSC01002", "DSC01003")  # the bad frame is left out
    assert scene.truth.metric
    assert_poses(scene, room.world_from_cam[:3])
    np.testing.assert_allclose(scene.truth.camera("DSC01001").world_from_cam, room.world_from_cam[0], atol=1e-9)
    before = sorted(scannetpp.rglob("*"))
    for i, name in enumerate(scene.capture.names):
        error = np.abs(scene.truth.depth(name) / room.depth[i] - 1)
        assert np.median(error) < 1e-3
        assert (error < 0.01).mean() > 0.98  # the rest are outlines of the balls
    assert_consistent(scene)
    assert sorted(scannetpp.rglob("*")) == before
    kept = list((tmp_path / "cache").rglob("*.png"))
    assert len(kept) == 3
    monkeypatch.setattr("reliev3r.data.readers._mesh.render_depth", None)  # not rendered again
    assert open_scene(tmp_path / "scannetpp").truth.depth("DSC01002").shape == (72, 96)


def test_scannetpp_damage(scannetpp) -> None:
    (scannetpp / "scans" / "mesh_aligned_0.05.ply").write_text("ply\nformat")
    with pytest.raises(UserError, match="not a readable triangle mesh"):
        open_scene(scannetpp).truth.depth("DSC01001")
    (scannetpp / "scans" / "mesh_aligned_0.05.ply").unlink()
    with pytest.raises(UserError, match=r"mesh_aligned_0.05\.ply: not found"):
        open_scene(scannetpp)

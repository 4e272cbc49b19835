"""COLMAP models and ScanNet++, whose poses are one: text as the format's documentation defines it, written by hand."""

import json

import cv2
import numpy as np
import pycolmap
import pytest
import trimesh
from lenses import brown, fisheye, rays_as_colours, through
from reader_room import Room, assert_consistent, assert_poses
from scipy.spatial.transform import Rotation

from reliev3r.core.errors import UserError
from reliev3r.data.readers import list_scenes, open_scene
from reliev3r.synthetic.scene import make_scene

BROWN = (0.08, -0.02, 0.004, -0.003)
FISHEYE = (0.03, -0.01, 0.002, 0.0)


def write_model(folder, room: Room, names, *, model="PINHOLE", params=(), pairs=True) -> None:
    """cameras.txt, images.txt, points3D.txt."""
    folder.mkdir(parents=True)
    K, (width, height) = room.K, room.size
    numbers = [K[0, 0], K[1, 1], K[0, 2], K[1, 2], *params]
    (folder / "cameras.txt").write_text(
        f"# cameras\n1 {model} {width} {height} {' '.join(map(repr, map(float, numbers)))}\n"
    )
    lines = ["# images"]
    for i, name in enumerate(names):
        cam_from_world = np.linalg.inv(room.world_from_cam[i])
        x, y, z, w = Rotation.from_matrix(cam_from_world[:3, :3]).as_quat()
        pose = " ".join(repr(float(p)) for p in (w, x, y, z, *cam_from_world[:3, 3]))
        lines += [f"{i + 1} {pose} 1 {name}", "10.0 12.0 -1"]
    (folder / "images.txt").write_text("\n".join(lines) + "\n")
    (folder / "points3D.txt").write_text("# none\n")


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


def room_mesh() -> trimesh.Trimesh:
    """The triangles of the room that the fixture renders: cubes exactly, balls of 5120 facets."""
    scene = make_scene(5, "masonry")
    parts = []
    for number, (pose, half) in enumerate(zip(scene.world_from_object.double().numpy(), scene.half.double().numpy())):
        unit = trimesh.creation.box((2, 2, 2)) if number <= scene.boxes else trimesh.creation.icosphere(subdivisions=4)
        corners = unit.vertices * half @ pose[:3, :3].T + pose[:3, 3]
        parts.append(trimesh.Trimesh(corners, unit.faces, process=False))
    return trimesh.util.concatenate(parts)


def write_scannetpp(root, room: Room, scene="0a1b2c3d4e"):
    """Poses of the nerfstudio file: OpenGL, in COLMAP's world with x and y exchanged and z turned."""
    dslr = root / "data" / scene / "dslr"
    names = [f"DSC0{i}.JPG" for i in range(1001, 1005)]
    write_model(dslr / "colmap", room, names, model="OPENCV_FISHEYE", params=FISHEYE)
    (dslr / "resized_undistorted_images").mkdir()
    frames = []
    for i, name in enumerate(names):
        cv2.imwrite(str(dslr / "resized_undistorted_images" / name), room.rgb[i][..., ::-1])
        pose = room.world_from_cam[i].copy()
        pose[:3, 1:3] *= -1
        pose = pose[[1, 0, 2, 3]]
        pose[2] *= -1
        frames.append({"file_path": name, "transform_matrix": pose.tolist(), "is_bad": i == 3})
    K, (width, height) = room.K, room.size
    content = {
        "camera_model": "PINHOLE", "fl_x": K[0, 0], "fl_y": K[1, 1], "cx": K[0, 2], "cy": K[1, 2], "w": width,
        "h": height, "frames": frames[1:], "test_frames": frames[:1],
    }  # fmt: skip
    (dslr / "nerfstudio").mkdir()
    (dslr / "nerfstudio" / "transforms_undistorted.json").write_text(json.dumps(content))
    (dslr.parent / "scans").mkdir()
    room_mesh().export(dslr.parent / "scans" / "mesh_aligned_0.05.ply")
    return dslr.parent


def test_scannetpp_depth_is_that_of_the_mesh(room, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = write_scannetpp(tmp_path / "scannetpp", room)
    assert list_scenes(tmp_path / "scannetpp") == ["0a1b2c3d4e"]
    scene = open_scene(tmp_path / "scannetpp")
    assert scene.capture.names == ("DSC01001", "DSC01002", "DSC01003")  # the bad frame is left out
    assert scene.truth.metric
    assert_poses(scene, room.world_from_cam[:3])
    np.testing.assert_allclose(scene.truth.camera("DSC01001").world_from_cam, room.world_from_cam[0], atol=1e-9)
    before = sorted(folder.rglob("*"))
    for i, name in enumerate(scene.capture.names):
        error = np.abs(scene.truth.depth(name) / room.depth[i] - 1)
        assert np.median(error) < 1e-3
        assert (error < 0.01).mean() > 0.98  # the rest are outlines of the balls
    assert_consistent(scene)
    assert sorted(folder.rglob("*")) == before
    kept = list((tmp_path / "cache").rglob("*.png"))
    assert len(kept) == 3
    monkeypatch.setattr("reliev3r.data.readers._mesh.render_depth", None)  # not rendered again
    assert open_scene(tmp_path / "scannetpp").truth.depth("DSC01002").shape == (72, 96)


def test_scannetpp_damage(room, tmp_path) -> None:
    folder = write_scannetpp(tmp_path, room)
    (folder / "scans" / "mesh_aligned_0.05.ply").write_text("ply\nformat")
    with pytest.raises(UserError, match="not a readable triangle mesh"):
        open_scene(folder).truth.depth("DSC01001")
    (folder / "scans" / "mesh_aligned_0.05.ply").unlink()
    with pytest.raises(UserError, match=r"mesh_aligned_0.05\.ply: not found"):
        open_scene(folder)

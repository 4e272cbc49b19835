"""Our own folder as a scene, finding formats, and converting any scene to it."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from layouts import Room, brown
from lenses import through
from reader_room import assert_consistent, assert_poses

from reliev3r.cli import main
from reliev3r.core.errors import UserError
from reliev3r.data.readers import READERS, find_reader, list_scenes, open_scene


def write(folder, room: Room, *, truth=True) -> None:
    """As docs/conventions.md says: integer pixel centres, millimetres."""
    (folder / "images").mkdir(parents=True)
    (folder / "depth").mkdir()
    K = room.K - np.array([[0, 0, 0.5], [0, 0, 0.5], [0, 0, 0]])
    frames = []
    for i in range(len(room)):
        cv2.imwrite(str(folder / "images" / f"{i}.png"), room.rgb[i][..., ::-1])
        cv2.imwrite(str(folder / "depth" / f"{i}.png"), np.rint(room.depth[i] * 1000).astype(np.uint16))
        frame = {"name": str(i), "image": f"images/{i}.png", "width": 96, "height": 72, "K": K.tolist()}
        frames.append(
            {**frame, "cam_to_world": room.world_from_cam[i].tolist(), "depth": f"depth/{i}.png"} if truth else frame
        )
    (folder / "cameras.json").write_text(json.dumps({"frames": frames}))


def write_transforms(folder, room: Room, *, unit: float) -> None:
    """A distorted nerfstudio capture with depth, in a unit of its own: ``unit`` of it are a metre."""
    rgb, depth = through(room, brown(0.05, 0.0, 0.0, 0.0))
    folder.mkdir()
    frames = []
    for i in range(len(room)):
        cv2.imwrite(str(folder / f"{i}.png"), rgb[i][..., ::-1])
        np.save(folder / f"{i}.npy", depth[i] * unit)
        pose = room.world_from_cam[i] * np.array([1.0, -1.0, -1.0, unit])
        pose[3] = [0, 0, 0, 1]
        frames.append({"file_path": f"{i}.png", "depth_file_path": f"{i}.npy", "transform_matrix": pose.tolist()})
    K = room.K
    content = {
        "camera_model": "OPENCV", "k1": 0.05, "fl_x": K[0, 0], "fl_y": K[1, 1], "cx": K[0, 2], "cy": K[1, 2],
        "w": 96, "h": 72, "depth_unit_scale_factor": 1.0, "frames": frames,
    }  # fmt: skip
    (folder / "transforms.json").write_text(json.dumps(content))


def test_a_capture_is_a_scene(room, tmp_path) -> None:
    write(tmp_path / "a", room)
    scene = open_scene(tmp_path)
    assert scene.name == "a"
    assert scene.truth.metric
    assert_poses(scene, room.world_from_cam)
    assert_consistent(scene)
    write(tmp_path / "b", room, truth=False)
    assert list_scenes(tmp_path) == ["a", "b"]
    assert open_scene(tmp_path, "b").truth is None
    with pytest.raises(UserError, match="has 2 scenes"):
        open_scene(tmp_path)
    with pytest.raises(UserError, match="no scene 'c'"):
        open_scene(tmp_path, "c")
    with pytest.raises(UserError, match="at least 2 views"):
        open_scene(tmp_path, "a", views=1)


def test_formats_are_found_or_named(room, tmp_path) -> None:
    write(tmp_path / "a", room)
    assert find_reader(tmp_path / "a") == ("capture", tmp_path / "a")
    write_transforms(tmp_path / "b", room, unit=1.0)
    assert find_reader(f"nerfstudio:{tmp_path / 'b'}")[0] == "nerfstudio"
    (tmp_path / "a" / "transforms.json").write_text((tmp_path / "b" / "transforms.json").read_text())
    (tmp_path / "none").mkdir()
    for spec, word in [
        (tmp_path / "none", "not recognised as one of dl3dv"),
        (f"bundler:{tmp_path}", "'bundler' is no format; known: dl3dv"),
        (tmp_path / "nowhere", "no such folder"),
        (f"colmap:{tmp_path / 'nowhere'}", "no such folder"),
    ]:
        with pytest.raises(UserError, match=word):
            find_reader(spec)
    with pytest.raises(UserError, match="no scene of format colmap"):
        list_scenes(f"colmap:{tmp_path / 'none'}")


def test_every_format_says_no_to_an_empty_folder(tmp_path) -> None:
    for reader in READERS.values():
        assert not reader.recognises(tmp_path)
        assert not reader.recognises(tmp_path / "nowhere")
        assert reader.scenes(tmp_path) == []


def test_large_datasets_are_recognised_by_a_few_folders_and_opened_by_one(room, tmp_path, monkeypatch) -> None:
    for number in range(40):
        (tmp_path / f"{number:064x}").mkdir()
        (tmp_path / f"{number:064x}" / "transforms.json").write_text("{}")
    looks = []
    is_file = Path.is_file
    monkeypatch.setattr(Path, "is_file", lambda path: looks.append(path) or is_file(path))
    assert READERS["dl3dv"].recognises(tmp_path)
    for name in ("capture", "colmap", "nerfstudio", "dl3dv-benchmark", "scannetpp"):
        looks.clear()
        READERS[name].recognises(tmp_path)
        assert len({path.parts[len(tmp_path.parts)] for path in looks if path.parent != tmp_path}) <= 10, name
    looks.clear()
    with pytest.raises(UserError, match=f"{5:064x}: has no folder of images"):
        READERS["dl3dv"].open(tmp_path, f"{5:064x}")
    assert {path.parent.name for path in looks} <= {f"{5:064x}", tmp_path.name}
    with pytest.raises(UserError, match="no scene of this format"):
        READERS["dl3dv"].open(tmp_path, "nowhere")


def test_converting_keeps_geometry_and_says_the_scale(room, tmp_path, capsys) -> None:
    write_transforms(tmp_path / "real", room, unit=0.01)
    assert main(["convert", str(tmp_path / "real"), "--out", str(tmp_path / "copy"), "--views", "3"]) == 0
    assert "scale counts as unknown" in capsys.readouterr().out
    scene, original = open_scene(tmp_path / "copy"), open_scene(tmp_path / "real", views=3)
    assert scene.capture.names == original.capture.names
    for i in range(3):
        np.testing.assert_array_equal(scene.capture.image(i), original.capture.image(i))
        np.testing.assert_allclose(scene.capture.frames[i].K, room.K)
    assert_poses(scene, room.world_from_cam[[0, 2, 3]], similarity=True)
    assert_consistent(scene)
    assert not scene.truth.metric
    assert scene.caveats == original.caveats
    content = json.loads((tmp_path / "copy" / "cameras.json").read_text())
    a, b = (each.truth.depth(scene.capture.names[0]) for each in (scene, original))
    np.testing.assert_allclose(a[b > 0], b[b > 0] * content["scale"], atol=6e-4)
    assert 30 < a.max() < 65.5


def test_converting_metric_scenes_changes_no_byte_of_the_images(room, tmp_path) -> None:
    write(tmp_path / "a", room)
    far = np.full((72, 96), 65535, np.uint16)
    cv2.imwrite(str(tmp_path / "a" / "depth" / "2.png"), far)
    assert main(["convert", f"capture:{tmp_path / 'a'}", "--out", str(tmp_path / "b")]) == 0
    for i in range(4):
        file = f"images/{i}.png"
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()
    scene = open_scene(tmp_path / "b")
    assert scene.truth.metric
    np.testing.assert_allclose(scene.truth.depth("0"), open_scene(tmp_path / "a").truth.depth("0"))
    assert not scene.truth.depth("2").any()  # beyond what a PNG holds
    assert main(["convert", str(tmp_path / "a"), "--out", str(tmp_path / "c"), "--no-truth"]) == 0
    bare = open_scene(tmp_path / "c")
    assert bare.truth is None
    assert bare.capture.has_K
    assert not (tmp_path / "c" / "depth").exists()


def test_a_failed_conversion_leaves_nothing(room, tmp_path, capsys) -> None:
    write(tmp_path / "a", room)
    (tmp_path / "a" / "depth" / "3.png").write_bytes(b"half")
    assert main(["convert", str(tmp_path / "a"), "--out", str(tmp_path / "b")]) == 2
    assert "3.png: truncated or not an image" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert main(["convert", str(tmp_path / "a"), "--out", str(tmp_path / "a")]) == 2


def test_the_verb_lists_formats_and_scenes(room, tmp_path, capsys) -> None:
    assert main(["datasets"]) == 0
    listed = capsys.readouterr().out
    assert all(name in listed and reader.title in listed for name, reader in READERS.items())
    write(tmp_path / "kitchen", room)
    assert main(["datasets", str(tmp_path)]) == 0
    assert capsys.readouterr().out.splitlines() == ["capture: our own capture folder, 1 scene", "  kitchen"]
    assert main(["datasets", str(tmp_path / "nowhere")]) == 2

"""Names and numbers as people's folders have them: hidden, of other encodings, leading outside, impossible."""

import json
import logging
import os

import numpy as np
import pytest
from PIL import Image

from reliev3r.core.errors import UserError
from reliev3r.core.files import inside, read_json
from reliev3r.data.capture import load_capture
from reliev3r.data.find_captures import find_captures
from reliev3r.data.image_folder import natural
from reliev3r.data.intrinsics import with_intrinsics
from reliev3r.data.readers import open_scene
from reliev3r.data.truth import CameraFile

TRUE = [[615.0, 0, 298], [0, 615.0, 247], [0, 0, 1]]
SIZE = (640, 480)


def images(folder, *names, size=(8, 8)) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        Image.new("RGB", size).save(folder / name)


@pytest.mark.parametrize("name", ["10²3.jpg", "a①2.jpg", "½.png", "٣٤.png", "9" * 5000 + ".png"])
def test_every_digit_of_the_world_is_sorted(name) -> None:
    assert sorted([name, "2.jpg", "10.jpg"], key=natural)
    assert natural("2.jpg") < natural("10.jpg")


def test_hidden_pictures_are_none(tmp_path) -> None:
    images(tmp_path / "images", "0.png", "1.png", "._0.png")
    images(tmp_path, "._x.png")
    assert [frame.file for frame in load_capture(tmp_path).frames] == ["images/0.png", "images/1.png"]
    images(tmp_path / "other", "._only.png")
    with pytest.raises(UserError, match="no captures in it"):
        find_captures(tmp_path / "other", tmp_path / "store")


def test_pictures_beside_images_are_told(tmp_path, caplog) -> None:
    images(tmp_path / "images", "0.png", "1.png")
    images(tmp_path, "plan.png", "preview.png")
    with caplog.at_level(logging.WARNING):
        assert load_capture(tmp_path).names == ("0", "1")
    assert "plan.png, preview.png" in caplog.text
    images(tmp_path, "a.png", "b.png")
    with pytest.raises(UserError, match="holds 4 images, and 2 in images/"):
        load_capture(tmp_path)


@pytest.mark.parametrize("name", ["a\u2028b.png".encode(), b"caf\xe9.png", b"a\nb.png", b"a\x1b[31m.png", b"\x80.jpg"])
def test_names_that_cannot_be_written_are_refused_by_name(tmp_path, name) -> None:
    images(tmp_path, "0.png")
    Image.new("RGB", (8, 8)).save(tmp_path / os.fsdecode(name))
    with pytest.raises(UserError, match="is not UTF-8 or has control characters") as told:
        load_capture(tmp_path)
    assert str(told.value).isascii()
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("name", ["Foto é.png", "写真.png", "Screenshot at 10.00 PM.png", "a b.png", "😀.png"])
def test_names_of_other_languages_are_fine(tmp_path, name) -> None:
    images(tmp_path, "0.png", name)
    assert len(load_capture(tmp_path).frames) == 2


@pytest.mark.parametrize(
    "name", ["../a", "/etc/passwd", "images/../../a", "..\\a", "a/../../b", "", "a\0b", 5, None, ["a"]]
)
def test_what_a_file_names_stays_in_its_folder(tmp_path, name) -> None:
    with pytest.raises(UserError, match=r"lies outside|is not the path of a file"):
        inside(tmp_path, name, "cameras.json: frame 'a'")


@pytest.mark.parametrize("name", ["a.png", "./a.png", "b/../a.png", "b\\..\\a.png"])
def test_paths_within_a_folder_are_found(tmp_path, name) -> None:
    assert inside(tmp_path, name, "x") == tmp_path / "a.png"
    assert inside(tmp_path, str(tmp_path / "a.png"), "x") == tmp_path / "a.png"


def posed(root, **changes) -> None:
    """A capture of two frames with true cameras; ``changes`` are to the first frame."""
    images(root / "images", "0.png", "1.png", size=SIZE)
    frames = [
        {"name": str(i), "image": f"images/{i}.png", "width": 640, "height": 480, "K": TRUE,
         "cam_to_world": np.eye(4).tolist()} for i in range(2)
    ]  # fmt: skip
    frames[0] |= changes
    (root / "cameras.json").write_text(json.dumps({"frames": frames}))


def test_depth_of_the_truth_stays_in_the_capture_too(tmp_path) -> None:
    posed(tmp_path / "a", depth="../secret.png")
    with pytest.raises(UserError, match="lies outside"):
        CameraFile(tmp_path / "a").depth("0")


@pytest.mark.parametrize("key", ["file_path", "depth_file_path"])
@pytest.mark.parametrize("where", ["../secret.png", "{root}/secret.png"])
def test_a_dataset_cannot_name_private_files(tmp_path, key, where) -> None:
    images(tmp_path, "secret.png", size=(320, 240))
    images(tmp_path / "set" / "images", "0.png", "1.png", size=(320, 240))
    frames = [{"file_path": f"images/{i}.png", "transform_matrix": np.eye(4).tolist()} for i in range(2)]
    frames[0][key] = where.format(root=tmp_path)
    content = {"fl_x": 300, "w": 320, "h": 240, "frames": frames}
    (tmp_path / "set" / "transforms.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match="lies outside"):
        open_scene(f"nerfstudio:{tmp_path / 'set'}")


@pytest.mark.parametrize("content", [b"\xef\xbb\xbf{}", b"{}"])
def test_a_byte_order_mark_is_no_content(tmp_path, content) -> None:
    (tmp_path / "a.json").write_bytes(content)
    assert read_json(tmp_path / "a.json") == {}


@pytest.mark.parametrize("content", [b"[" * 100_000, b"1" * 5000, b"\xff\xfe", b"{", b""])
def test_json_that_is_none_is_one_line(tmp_path, content) -> None:
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(UserError, match="not readable as JSON"):
        read_json(tmp_path / "a.json")


def scaled(by: float) -> list[list[float]]:
    return (np.diag([by, by, 1]) @ TRUE).tolist()


@pytest.mark.parametrize(
    ("K", "message"),
    [
        (scaled(2), "principal point .* outside"),
        (scaled(0.001), "it sees 1"),
        ([[0.96, 0, 0.47], [0, 1.28, 0.51], [0, 0, 1]], "it sees 179"),
        ([[1e6, 0, 320], [0, 1e6, 240], [0, 0, 1]], "it sees 0.0"),
        ([[615, 0, -40], [0, 615, 240], [0, 0, 1]], "principal point"),
        ([[10**400, 0, 320], [0, 615, 240], [0, 0, 1]], "not a matrix of numbers"),
    ],
)
def test_K_that_no_lens_has_on_this_image_is_refused(tmp_path, K, message) -> None:
    posed(tmp_path, K=K)
    with pytest.raises(UserError, match=message):
        load_capture(tmp_path)


def test_K_of_half_the_size_is_told(tmp_path, caplog) -> None:
    posed(tmp_path)
    with caplog.at_level(logging.WARNING):
        load_capture(tmp_path)
        assert not caplog.text
        posed(tmp_path, K=scaled(0.5))
        load_capture(tmp_path)
    assert "far from the centre of its 640x480 pixels" in caplog.text


def test_K_of_another_size_of_the_same_images_is_scaled(tmp_path) -> None:
    """Sizes that are stated say which pixels K is of; corner convention on both sides."""
    posed(tmp_path, width=320, height=240, K=scaled(0.5))
    K = load_capture(tmp_path).frames[0].K
    np.testing.assert_allclose(K, [[615, 0, 299], [0, 615, 248], [0, 0, 1]])
    posed(tmp_path, width=480, height=640)
    with pytest.raises(UserError, match="cropped or turned"):
        load_capture(tmp_path)
    (tmp_path / "K.json").write_text(json.dumps({"K": scaled(2), "width": 1280, "height": 960}))
    posed(tmp_path)
    capture = with_intrinsics(load_capture(tmp_path), str(tmp_path / "K.json"))
    assert capture.frames[0].K[0, 0] == pytest.approx(615)


def mirrored(T):
    return T @ np.diag([-1.0, 1, 1, 1])


def stretched(T):
    return T @ np.diag([2.0, 2, 2, 1])


def sheared(T):
    return T + np.eye(4, k=1) * 0.1


def projective(T):
    T[3, 0] = 0.5
    return T


@pytest.mark.parametrize("change", [mirrored, stretched, sheared, projective])
def test_true_poses_are_rotations_and_translations(tmp_path, change) -> None:
    posed(tmp_path, cam_to_world=change(np.eye(4)).tolist())
    with pytest.raises(UserError, match=r"frame '0'.*the pose is no rotation and translation"):
        CameraFile(tmp_path).camera("0")


BASE = {
    "fl_x": 300, "w": 320, "h": 240,
    "frames": [{"file_path": f"images/{i}.png", "transform_matrix": np.eye(4).tolist()} for i in range(2)],
}  # fmt: skip


def opened(root, **changes):
    images(root / "images", "0.png", "1.png", size=(320, 240))
    content = json.loads(json.dumps({**BASE, **changes}))
    (root / "transforms.json").write_text(json.dumps({k: v for k, v in content.items() if v != "absent"}))
    return open_scene(f"nerfstudio:{root}").capture


@pytest.mark.parametrize(
    "changes",
    [
        {"fl_x": "absent", "camera_angle_x": 0},
        {"fl_x": "absent", "camera_angle_x": 4},
        {"fl_x": "absent", "camera_angle_x": "wide"},
        {"fl_x": 0},
        {"fl_x": -300},
        {"fl_x": True},
        {"fl_x": None},
        {"fl_x": float("nan")},
        {"fl_x": 0.9},
        {"cx": float("inf")},
        {"cx": 900},
        {"w": float("inf")},
        {"w": 320.5},
        {"k1": "a"},
        {"k4": 0.5},
        {"k4": 0.5, "camera_model": "OPENCV"},
        {"k1": 0.1, "camera_model": "PINHOLE"},
        {"distortion_params": [0.1, 0, 0, 0.5, 0, 0]},
        {"distortion_params": 5},
        {"camera_model": 7},
        {"depth_unit_scale_factor": "mm", "frames": [{**f, "depth_file_path": "d.png"} for f in BASE["frames"]]},
        {"depth_unit_scale_factor": 0, "frames": [{**f, "depth_file_path": "d.png"} for f in BASE["frames"]]},
        {"frames": [{**f, "depth_file_path": 5} for f in BASE["frames"]]},
        {"frames": [{**f, "file_path": 5} for f in BASE["frames"]]},
        {"frames": [{**f, "fl_x": "x"} for f in BASE["frames"]]},
    ],
)
def test_values_that_cannot_be_are_one_line(tmp_path, changes) -> None:
    with pytest.raises(UserError) as told:
        opened(tmp_path, **changes)
    assert "transforms.json" in str(told.value)
    assert "\n" not in str(told.value)


def test_values_that_can_be_are_understood(tmp_path) -> None:
    assert opened(tmp_path / "text", fl_x="300").frames[0].K[0, 0] == 300
    assert opened(tmp_path / "zero", k4=0, k5=0.0).frames[0].rectification is None
    listed = opened(tmp_path / "listed", distortion_params=[0.1, 0.01, 0, 0, 0.001, 0.002])
    assert listed.frames[0].rectification.lens["distortion"] == (0.1, 0.01, 0.001, 0.002, 0.0)
    fisheye = opened(tmp_path / "ngp", is_fisheye=True, k1=0.01)
    assert fisheye.frames[0].rectification.lens["model"] == "OPENCV_FISHEYE"
    windows = opened(
        tmp_path / "win", frames=[{**f, "file_path": f["file_path"].replace("/", "\\")} for f in BASE["frames"]]
    )
    assert windows.names == ("0", "1")
    own = [{**BASE["frames"][0], "fl_x": 400}, {**BASE["frames"][1], "camera_angle_x": np.pi / 2}]
    assert [frame.K[0, 0] for frame in opened(tmp_path / "own", frames=own).frames] == pytest.approx([400, 160])

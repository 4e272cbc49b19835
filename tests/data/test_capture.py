import json
import logging

import numpy as np
import pytest
from PIL import Image

from reliev3r.core.errors import UserError
from reliev3r.data.capture import load_capture


def put(path, width=40, height=30, value=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (width, height), (value, value, value)).save(path)


def write_cameras(root, names=("a", "b", "c"), **changes):
    K = [[50.0, 0, 19.5], [0, 50.0, 14.5], [0, 0, 1]]
    frames = []
    for name in names:
        put(root / "images" / f"{name}.png")
        frame = {"name": name, "image": f"images/{name}.png", "width": 40, "height": 30, "K": K}
        frames.append({**frame, "cam_to_world": np.eye(4).tolist(), "depth": f"depth/{name}.png", **changes})
    (root / "cameras.json").write_text(json.dumps({"frames": frames}))


def test_folder_in_natural_order(tmp_path):
    for number in (10, 2, 1):
        put(tmp_path / f"img{number}.png", value=number)
    capture = load_capture(tmp_path)
    assert capture.names == ("img1", "img2", "img10")
    assert [frame.file for frame in capture.frames] == ["img1.png", "img2.png", "img10.png"]
    assert [int(capture.image(i)[0, 0, 0]) for i in range(3)] == [1, 2, 10]
    assert capture.frames[0].K is None
    assert capture.K_source is None
    assert not capture.has_K
    assert not capture.ordered


def test_images_below_a_folder_without_cameras(tmp_path):
    put(tmp_path / "images" / "a.jpg")
    put(tmp_path / "images" / "b.jpg")
    assert [frame.file for frame in load_capture(tmp_path).frames] == ["images/a.jpg", "images/b.jpg"]


def test_cameras_json_gives_K_with_corner_pixels_and_nothing_else(tmp_path):
    write_cameras(tmp_path)
    capture = load_capture(tmp_path)
    np.testing.assert_array_equal(capture.frames[0].K, [[50, 0, 20], [0, 50, 15], [0, 0, 1]])
    assert capture.K_source == "cameras.json"
    assert capture.has_K
    assert not capture.synthetic
    assert {"world_from_cam", "cam_to_world", "depth"}.isdisjoint(vars(capture.frames[0]))


def test_a_sequence_says_that_its_frames_have_an_order_in_time(tmp_path):
    write_cameras(tmp_path, names=("b", "a", "c"))
    assert not load_capture(tmp_path).ordered
    content = json.loads((tmp_path / "cameras.json").read_text())
    (tmp_path / "cameras.json").write_text(json.dumps({**content, "ordered": True}))
    capture = load_capture(tmp_path)
    assert capture.ordered
    assert capture.names == ("b", "a", "c")  # the file's order
    assert load_capture(tmp_path, views=2).ordered
    (tmp_path / "cameras.json").write_text(json.dumps({**content, "ordered": "yes"}))
    with pytest.raises(UserError, match='"ordered" must be true'):
        load_capture(tmp_path)


def test_synthetic_captures_say_so(tmp_path):
    write_cameras(tmp_path)
    content = json.loads((tmp_path / "cameras.json").read_text())
    (tmp_path / "cameras.json").write_text(json.dumps({**content, "synthetic": {"seed": 3}}))
    assert load_capture(tmp_path).synthetic


def test_views_are_evenly_spaced(tmp_path):
    for number in range(10):
        put(tmp_path / f"{number}.png")
    assert load_capture(tmp_path, views=4).names == ("0", "3", "6", "9")


def test_mixed_sizes_and_orientations_are_kept(tmp_path):
    put(tmp_path / "a.png", 40, 30)
    put(tmp_path / "b.png", 30, 60)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (40, 30)).save(tmp_path / "c.jpg", exif=exif)
    assert [(f.width, f.height) for f in load_capture(tmp_path).frames] == [(40, 30), (30, 60), (30, 40)]


def test_other_files_are_ignored_with_one_warning(tmp_path, caplog):
    for name in ("a.png", "b.png"):
        put(tmp_path / name)
    for name in ("notes.txt", "clip.mov", ".DS_Store"):
        (tmp_path / name).write_text("x")
    with caplog.at_level(logging.WARNING):
        assert len(load_capture(tmp_path).frames) == 2
    assert len(caplog.records) == 1
    assert "clip.mov, notes.txt" in caplog.text
    assert ".DS_Store" not in caplog.text


def test_broken_image_is_an_error_that_names_it(tmp_path):
    put(tmp_path / "a.png")
    (tmp_path / "b.jpg").write_bytes(b"\xff\xd8\xff")
    with pytest.raises(UserError, match=r"b\.jpg"):
        load_capture(tmp_path)


def test_missing_empty_and_single(tmp_path):
    with pytest.raises(UserError, match="nowhere: no such folder"):
        load_capture(tmp_path / "nowhere")
    with pytest.raises(UserError, match="no images"):
        load_capture(tmp_path)
    put(tmp_path / "a.png")
    with pytest.raises(UserError, match="only one image"):
        load_capture(tmp_path)
    with pytest.raises(UserError, match="is a single image; give the folder"):
        load_capture(tmp_path / "a.png")
    put(tmp_path / "b.png")
    with pytest.raises(UserError, match="at least 2 views"):
        load_capture(tmp_path, views=1)


def test_same_name_twice(tmp_path):
    put(tmp_path / "a.png")
    put(tmp_path / "A.jpg")
    with pytest.raises(UserError, match="two images are named 'a'"):
        load_capture(tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"width": 80}, r"is 40x30 when upright but cameras.json says 80x30"),
        ({"image": "../secret.png"}, "lies outside"),
        ({"image": "/etc/secret.png"}, "lies outside"),
        ({"image": None}, 'no "image"'),
        ({"name": "../a"}, "cannot name files"),
        ({"name": ".hidden"}, "cannot name files"),
        ({"name": "same"}, "two images are named 'same'"),
        ({"K": [[1, 2], [3, 4]]}, "K must be"),
        ({"K": [[50, 5, 20], [0, 50, 15], [0, 0, 1]]}, "K must be"),
        ({"K": [[float("nan"), 0, 20], [0, 50, 15], [0, 0, 1]]}, "K must be"),
        ({"K": "wide"}, "not a matrix of numbers"),
    ],
)
def test_malformed_cameras_json(tmp_path, changes, message):
    write_cameras(tmp_path, **changes)
    with pytest.raises(UserError, match=message):
        load_capture(tmp_path)


@pytest.mark.parametrize("content", ["{", "[]", '{"frames": {}}', '{"frames": [1, 2]}'])
def test_cameras_json_that_is_something_else(tmp_path, content):
    put(tmp_path / "images" / "a.png")
    (tmp_path / "cameras.json").write_text(content)
    with pytest.raises(UserError, match=r"cameras\.json"):
        load_capture(tmp_path)


def test_image_named_in_cameras_json_is_missing(tmp_path):
    write_cameras(tmp_path)
    (tmp_path / "images" / "b.png").unlink()
    with pytest.raises(UserError, match=r"b\.png: not found"):
        load_capture(tmp_path)


def test_frames_without_K_leave_it_unknown(tmp_path):
    write_cameras(tmp_path, K=None)
    capture = load_capture(tmp_path)
    assert capture.frames[0].K is None
    assert capture.K_source is None


def test_real_capture(shared_data):
    capture = load_capture(shared_data / "box_rgbd", views=12)
    assert len(capture.frames) == 12
    assert capture.names[0] == "000015"
    assert capture.names[-1] == "000113"
    assert capture.image(0).shape == (480, 640, 3)
    assert capture.frames[0].K[0, 2] == pytest.approx(298.942688)

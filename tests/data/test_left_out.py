"""Nothing that lies in a capture's folder is passed over without a word, and nothing is waited for."""

import json
import logging
import os

import numpy as np
import pytest
from PIL import Image

from reliev3r.core.arrays import read_npy, read_npz, read_torch
from reliev3r.core.errors import UserError
from reliev3r.core.files import file_hash, read_json
from reliev3r.data.capture import load_capture
from reliev3r.data.find_captures import find_captures
from reliev3r.data.images import image_size
from reliev3r.data.masks import read_mask
from reliev3r.data.readers import open_scene
from reliev3r.data.truth import CameraFile
from reliev3r.evaluation.systems import read_settings

SIZE = (40, 30)


def images(folder, *names) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        Image.new("RGB", SIZE).save(folder / name)


@pytest.fixture
def heard(caplog):
    caplog.set_level(logging.WARNING)
    return lambda: caplog.text


@pytest.mark.parametrize("read", [read_json, read_npy, read_npz, read_torch, file_hash, image_size, read_settings])
@pytest.mark.parametrize("what", ["a FIFO", "a device"])
def test_pipes_and_devices_are_not_waited_for(tmp_path, read, what) -> None:
    file = tmp_path / "a.png"
    os.mkfifo(file) if what == "a FIFO" else file.symlink_to("/dev/zero")
    with pytest.raises(UserError, match="is a pipe or a device"):
        read(file)


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: path.symlink_to("nowhere"),
                                  lambda path: path.symlink_to(path.name)])  # fmt: skip
def test_images_that_are_no_files_are_told(tmp_path, heard, make) -> None:
    images(tmp_path, "0.png", "1.png")
    make(tmp_path / "2.png")
    assert load_capture(tmp_path).names == ("0", "1")
    assert "ignored 1 image(s) that are no files" in heard()
    assert "2.png" in heard()


def test_images_in_folders_below_are_told(tmp_path, heard) -> None:
    """As cameras store them: a new folder after 999 photographs, in which the numbers begin anew."""
    images(tmp_path, "0.png", "1.png")
    images(tmp_path / "masks", "0.png", "1.png")
    images(tmp_path / "run", "overview.png")
    load_capture(tmp_path)
    assert not heard()
    images(tmp_path / "101CANON", "0.png", "1.png")
    assert load_capture(tmp_path).names == ("0", "1")
    assert "101CANON are not taken" in heard()


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: path.symlink_to("nowhere")])
def test_cameras_that_cannot_be_read_are_not_passed_over(tmp_path, make) -> None:
    images(tmp_path / "images", "0.png", "1.png")
    make(tmp_path / "cameras.json")
    with pytest.raises(UserError, match=r"cameras\.json"):
        load_capture(tmp_path)


@pytest.mark.parametrize(
    "names",
    [("caf\u00e9.png", "cafe\u0301.png"), ("stra\u00dfe.png", "STRASSE.png"), ("\u0130.png", "i\u0307.png")],
)
def test_names_that_some_system_does_not_tell_apart_are_refused(tmp_path, names) -> None:
    images(tmp_path / "set", *names)
    with pytest.raises(UserError, match="two images are named"):
        load_capture(tmp_path / "set")
    entries = [{"file_path": f"set/{name}", "transform_matrix": np.eye(4).tolist()} for name in names]
    (tmp_path / "transforms.json").write_text(json.dumps({"fl_x": 30, "frames": entries}))
    with pytest.raises(UserError, match="two images alike"):
        open_scene(f"nerfstudio:{tmp_path}")
    for name in names:
        images(tmp_path / "many" / name, "0.png", "1.png")
    with pytest.raises(UserError, match="are both named"):
        find_captures(tmp_path / "many", tmp_path / "store")


def test_a_decomposed_name_alone_is_fine(tmp_path) -> None:
    images(tmp_path, "cafe\u0301.png", "b.png")
    assert "cafe\u0301" in load_capture(tmp_path).names


@pytest.mark.parametrize("suffix", ["gif", "png", "webp", "tiff"])
def test_files_of_several_pictures_are_told(tmp_path, heard, suffix) -> None:
    images(tmp_path, "0.png")
    pictures = [Image.new("RGB", SIZE, colour) for colour in ("red", "green", "blue")]
    pictures[0].save(tmp_path / f"1.{suffix}", save_all=True, append_images=pictures[1:])
    capture = load_capture(tmp_path)
    assert np.abs(capture.image(1).astype(int) - (255, 0, 0)).max() < 20
    assert f"1.{suffix}" in heard()
    assert "of which the first is used" in heard()


def masked(folder, mask: Image.Image, name: str = "1.png", **options) -> None:
    images(folder / "images", "0.png", "1.png")
    (folder / "masks").mkdir()
    mask.save(folder / "masks" / name, **options)


HALF = np.zeros(SIZE[::-1], np.uint8)
HALF[:15] = 255


@pytest.mark.parametrize("name", ["mask_1.png", "1.jpg", "2.png"])
def test_masks_of_no_image_are_told(tmp_path, heard, name) -> None:
    masked(tmp_path, Image.fromarray(HALF), name)
    load_capture(tmp_path, views=2)
    assert f"not used: {name}" in heard()


@pytest.mark.parametrize("name", ["1.png", "1.png.png"])
def test_masks_of_images_are_not(tmp_path, heard, name) -> None:
    masked(tmp_path, Image.fromarray(HALF), name)
    assert load_capture(tmp_path).kept(1).sum() == 600
    assert not heard()


def test_a_mask_may_be_transparency_or_have_16_bits_or_be_turned(tmp_path) -> None:
    alpha = Image.merge("LA", (Image.new("L", SIZE, 255), Image.fromarray(HALF)))
    exif = Image.Exif()
    exif[0x0112] = 3
    alpha.save(tmp_path / "alpha.png")
    Image.fromarray(HALF.astype(np.uint16) * 257).save(tmp_path / "deep.png")
    Image.fromarray(HALF[::-1].copy()).save(tmp_path / "turned.png", exif=exif.tobytes())
    for name in ("alpha", "deep", "turned"):
        np.testing.assert_array_equal(read_mask(tmp_path / f"{name}.png", SIZE), HALF > 0)


@pytest.mark.parametrize("white", [1, 3, 100])
def test_a_map_of_labels_is_no_mask(tmp_path, white) -> None:
    Image.fromarray(HALF // 255 * white).save(tmp_path / "a.png")
    with pytest.raises(UserError, match=f"its values end at {white}; write 255"):
        read_mask(tmp_path / "a.png", SIZE)


def test_masks_of_a_nerfstudio_file_are_told(tmp_path, heard) -> None:
    images(tmp_path, "0.png", "1.png")
    pose = np.eye(4).tolist()
    entries = [{"file_path": f"{i}.png", "mask_path": f"m{i}.png", "transform_matrix": pose} for i in (0, 1)]
    (tmp_path / "transforms.json").write_text(json.dumps({"fl_x": 30, "frames": entries}))
    open_scene(f"nerfstudio:{tmp_path}")
    assert "its masks (mask_path) are not read" in heard()


@pytest.mark.parametrize("text", ['{"a": 1, "a": 1}', '{"frames": [{"K": 1, "K": 2}]}'])
def test_json_that_says_a_thing_twice_is_refused(tmp_path, text) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(UserError, match="stands twice in it"):
        read_json(tmp_path / "a.json")


def turned(folder, tag: int, K: list, **more) -> None:
    exif = Image.Exif()
    exif[0x0112] = tag
    (folder / "images").mkdir(parents=True)
    for index in (0, 1):
        Image.new("RGB", SIZE).save(folder / "images" / f"{index}.jpg", exif=exif.tobytes())
    frames = [{"image": f"images/{index}.jpg", "K": K, **more} for index in (0, 1)]
    (folder / "cameras.json").write_text(json.dumps({"frames": frames}))


@pytest.mark.parametrize("tag", [5, 6, 7, 8])
def test_a_K_of_stored_pixels_is_refused(tmp_path, tag) -> None:
    turned(tmp_path, tag, [[35, 0, 19.5], [0, 35, 14.5], [0, 0, 1]])
    with pytest.raises(UserError, match="EXIF turns it to 30x40 pixels, but its K is of the stored 40x30"):
        load_capture(tmp_path)


@pytest.mark.parametrize(("tag", "centre"), [(6, (14.5, 19.5)), (6, (12, 22)), (3, (19.5, 14.5)), (1, (14.5, 19.5))])
def test_a_K_of_upright_pixels_is_taken(tmp_path, tag, centre) -> None:
    turned(tmp_path, tag, [[35, 0, centre[0]], [0, 35, centre[1]], [0, 0, 1]])
    assert load_capture(tmp_path).frames[0].K[0, 2] == centre[0] + 0.5


def test_pixels_are_not_more_than_five_times_as_wide_as_high(tmp_path) -> None:
    turned(tmp_path, 1, [[1e30, 0, 19.5], [0, 35, 14.5], [0, 0, 1]])
    with pytest.raises(UserError, match=r"its focal lengths are 1e\+30 and 35"):
        load_capture(tmp_path)


@pytest.mark.parametrize("size", [(50, 50), (30, 40), (20, 18)])
def test_true_depth_of_another_shape_is_refused(tmp_path, size) -> None:
    """Of a crop, or of the stored pixels of a photograph that EXIF turns."""
    images(tmp_path / "images", "0.png", "1.png")
    (tmp_path / "depth").mkdir()
    Image.fromarray(np.ones(size[::-1], np.uint16)).save(tmp_path / "depth" / "0.png")
    frames = [{"image": f"images/{index}.png", "depth": "depth/0.png"} for index in (0, 1)]
    (tmp_path / "cameras.json").write_text(json.dumps({"frames": frames}))
    with pytest.raises(UserError, match=f"0.png: is {size[0]}x{size[1]}, but its image is 40x30"):
        CameraFile(tmp_path).depth("0")


def test_true_depth_may_be_smaller(tmp_path) -> None:
    images(tmp_path / "images", "0.png", "1.png")
    (tmp_path / "depth").mkdir()
    Image.fromarray(np.ones((15, 20), np.uint16)).save(tmp_path / "depth" / "0.png")
    frames = [{"image": f"images/{index}.png", "depth": "depth/0.png"} for index in (0, 1)]
    (tmp_path / "cameras.json").write_text(json.dumps({"frames": frames}))
    assert CameraFile(tmp_path).depth("0").shape == (15, 20)


@pytest.mark.parametrize(
    ("line", "told"), [("1.0 rgb/b.png", "same time"), ("nan rgb/b.png", "not finite"), ("inf rgb/b.png", "not finite")]
)
def test_times_that_are_none_or_stand_twice_are_refused(tmp_path, line, told) -> None:
    images(tmp_path / "rgb", "a.png", "b.png", "c.png")
    (tmp_path / "rgb.txt").write_text(f"1.0 rgb/a.png\n2.0 rgb/c.png\n{line}\n")
    (tmp_path / "groundtruth.txt").write_text("1.0 0 0 0 0 0 0 1\n2.0 1 0 0 0 0 0 1\n")
    with pytest.raises(UserError, match=told):
        open_scene(f"tum:{tmp_path}")


def test_true_K_of_another_size_is_scaled_as_everywhere(tmp_path) -> None:
    images(tmp_path / "images", "0.png", "1.png")
    K = [[70.0, 0, 39.5], [0, 70, 29.5], [0, 0, 1]]
    frames = [{"image": f"images/{i}.png", "width": 80, "height": 60, "K": K, "cam_to_world": np.eye(4).tolist()}
              for i in (0, 1)]  # fmt: skip
    (tmp_path / "cameras.json").write_text(json.dumps({"frames": frames}))
    camera = CameraFile(tmp_path).camera("0")
    assert camera.size == SIZE
    np.testing.assert_allclose(camera.K, load_capture(tmp_path).frames[0].K)
    np.testing.assert_allclose(camera.K, [[35, 0, 20], [0, 35, 15], [0, 0, 1]])


@pytest.mark.parametrize("size", [(12000, 3), (2, 400), (400, 1)])
def test_a_line_is_no_photograph(tmp_path, size) -> None:
    images(tmp_path, "0.png")
    Image.new("RGB", size).save(tmp_path / "1.png")
    with pytest.raises(UserError, match=f"{size[0]}x{size[1]} is too narrow"):
        load_capture(tmp_path)

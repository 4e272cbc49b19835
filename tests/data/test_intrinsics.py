import json
import logging
import math

import numpy as np
import pytest
from PIL import Image, TiffImagePlugin

from reliev3r.core.errors import UserError
from reliev3r.data.capture import load_capture
from reliev3r.data.intrinsics import cameras_of, focal_uncertainty, with_intrinsics

FOCAL, FOCAL_35MM, STORED_WIDTH, RESOLUTION, UNIT = 37386, 41989, 40962, 41486, 41488


def put(path, size=(40, 30), tags=None, orientation=1):
    exif = Image.Exif()
    exif[0x0112] = orientation
    for tag, value in (tags or {}).items():
        exif.get_ifd(0x8769)[tag] = TiffImagePlugin.IFDRational(value) if isinstance(value, float) else value
    Image.new("RGB", size).save(path, exif=exif)


def folder(tmp_path, *args, **kwargs):
    for name in ("a.jpg", "b.jpg"):
        put(tmp_path / name, *args, **kwargs)
    return load_capture(tmp_path)


def with_cameras(tmp_path, K=((50, 0, 19.5), (0, 50, 14.5), (0, 0, 1))):
    folder(tmp_path)
    frames = [{"name": n, "image": f"{n}.jpg", "width": 40, "height": 30, "K": K} for n in ("a", "b")]
    (tmp_path / "cameras.json").write_text(json.dumps({"frames": frames}))
    return load_capture(tmp_path)


def test_fov_is_horizontal(tmp_path):
    capture = with_intrinsics(folder(tmp_path), "fov:90")
    np.testing.assert_allclose(capture.frames[0].K, [[20, 0, 20], [0, 20, 15], [0, 0, 1]])
    assert capture.K_source == "fov:90"


@pytest.mark.parametrize("spec", ["fov:", "fov:wide", "fov:0", "fov:180", "fov:nan"])
def test_impossible_fov(tmp_path, spec):
    with pytest.raises(UserError, match="between 0 and 180"):
        with_intrinsics(folder(tmp_path), spec)


def test_fov_of_mixed_orientations_is_refused(tmp_path):
    put(tmp_path / "c.jpg", (30, 40))
    with pytest.raises(UserError, match="mixes upright and wide"):
        with_intrinsics(folder(tmp_path), "fov:60")


def test_exif_35mm_is_by_the_diagonal(tmp_path):
    capture = with_intrinsics(folder(tmp_path, tags={FOCAL_35MM: 26}), "exif")
    np.testing.assert_allclose(capture.frames[0].K[0, 0], 26 / math.hypot(36, 24) * 50)
    assert capture.K_source == "exif"


def test_a_crop_of_the_sensor_is_read_as_the_whole_sensor(tmp_path, caplog):
    """A drone's 20 mm lens (3.61 mm, so a small 4:3 sensor) in 16:9: 20 / 43.27 of the diagonal of 1600 x 1200."""
    caplog.set_level(logging.INFO)
    capture = with_intrinsics(folder(tmp_path, (1600, 900), {FOCAL: 3.61, FOCAL_35MM: 20}), "exif")
    np.testing.assert_allclose(capture.frames[0].K[0, 0], 20 / math.hypot(36, 24) * 2000)
    gap = math.log(2000 / math.hypot(1600, 900))  # to the other reading, which one maker in four means
    assert focal_uncertainty(capture) == pytest.approx(math.hypot(0.05, gap / 2))
    assert "whole sensor's: focal length 925 px (the picture's own: 849)" in caplog.text


@pytest.mark.parametrize(
    ("size", "focal", "equivalent", "area"),
    [
        ((40, 30), 4.0, 26, (40, 30)),  # a phone, not cropped
        ((60, 40), 40.0, 60, (60, 40)),  # a reflex camera, not cropped
        ((40, 30), 8.7, 23, (40, 30)),  # a phone whose sensor is as large as a 3:2 one of compacts
        ((900, 1600), 4.0, 26, (1200, 1600)),  # a phone's 16:9, upright
        ((60, 40), 4.0, 26, (60, 45)),  # its 3:2
        ((1600, 900), 20.0, 30, (1600, 1600 / 1.5)),  # a reflex camera's 16:9
        ((1600, 900), 14.0, 28, (1600, 1200)),  # Four Thirds
        ((300, 300), 4.0, 26, (400, 300)),  # square: the short side is whole
        ((1600, 900), None, 26, (1600, 1200)),
    ],
)
def test_exif_35mm_is_of_the_sensor(tmp_path, size, focal, equivalent, area):
    tags = {FOCAL_35MM: equivalent, **({FOCAL: focal} if focal else {})}
    capture = with_intrinsics(folder(tmp_path, size, tags), "exif")
    np.testing.assert_allclose(capture.frames[0].K[0, 0], equivalent / math.hypot(36, 24) * math.hypot(*area))
    assert (focal_uncertainty(capture) > 0.05) == (area != size)


@pytest.mark.parametrize(("pitch_focal", "read"), [(930.0, 2000.0), (850.0, math.hypot(1600, 900)), (1500.0, None)])
def test_pixel_pitch_tells_which_area_the_maker_meant(tmp_path, pitch_focal, read):
    """A pitch that fits neither (a digital zoom, or pixels of another size) says nothing."""
    tags = {FOCAL: 3.61, FOCAL_35MM: 20, RESOLUTION: pitch_focal / 3.61, UNIT: 4}
    capture = with_intrinsics(folder(tmp_path, (1600, 900), tags), "exif")
    np.testing.assert_allclose(capture.frames[0].K[0, 0], 20 / math.hypot(36, 24) * (read or 2000))
    assert (focal_uncertainty(capture) == 0.05) == (read is not None)


@pytest.mark.parametrize(("size", "orientation"), [((40, 30), 1), ((40, 30), 6)])
def test_exif_focal_plane_resolution(tmp_path, size, orientation):
    # 5 mm, 100 pixels per centimetre of a sensor 80 pixels wide, stored at half size: 5 * 10 / 2 = 25 pixels.
    tags = {FOCAL: 5.0, RESOLUTION: 100.0, UNIT: 3, STORED_WIDTH: 80}
    capture = with_intrinsics(folder(tmp_path, size, tags, orientation), "exif")
    np.testing.assert_allclose(capture.frames[0].K[0, 0], 25)
    assert capture.frames[0].K[0, 2] == capture.frames[0].width / 2


def test_exif_that_is_missing_or_zero_names_the_images(tmp_path):
    folder(tmp_path, tags={FOCAL_35MM: 26})
    put(tmp_path / "c.jpg", tags={FOCAL_35MM: 0})
    put(tmp_path / "d.jpg", tags={FOCAL: 5.0})
    with pytest.raises(UserError, match=r"EXIF of c\.jpg, d\.jpg;"):
        with_intrinsics(load_capture(tmp_path), "exif")


def test_default_is_own_then_exif_then_none(tmp_path):
    (tmp_path / "plain").mkdir()
    capture = with_intrinsics(folder(tmp_path / "plain"))
    assert capture.frames[0].K is None
    assert capture.K_source is None
    (tmp_path / "exif").mkdir()
    assert with_intrinsics(folder(tmp_path / "exif", tags={FOCAL_35MM: 26})).K_source == "exif"
    put(tmp_path / "exif" / "c.jpg")
    assert with_intrinsics(load_capture(tmp_path / "exif")).frames[0].K is None  # not all have it
    (tmp_path / "own").mkdir()
    capture = with_intrinsics(with_cameras(tmp_path / "own"))
    assert capture.K_source == "cameras.json"
    assert capture.frames[0].K[0, 0] == 50


def test_estimate_forgets_what_is_known(tmp_path):
    capture = with_intrinsics(with_cameras(tmp_path), "estimate")
    assert all(frame.K is None for frame in capture.frames)
    assert capture.K_source is None


def test_one_shared_K_is_scaled_to_the_images(tmp_path):
    file = tmp_path / "K.json"
    file.write_text(json.dumps({"K": [[100, 0, 39.5], [0, 100, 29.5], [0, 0, 1]], "width": 80, "height": 60}))
    capture = with_intrinsics(folder(tmp_path), str(file))
    np.testing.assert_allclose(capture.frames[1].K, [[50, 0, 20], [0, 50, 15], [0, 0, 1]])
    assert capture.K_source == "K.json"


def test_file_with_frames_is_matched_by_name(tmp_path):
    capture = folder(tmp_path)
    entry = {"width": 40, "height": 30}
    frames = [{"name": n, "K": [[f, 0, 19.5], [0, f, 14.5], [0, 0, 1]], **entry} for n, f in (("b", 70), ("a", 60))]
    file = tmp_path / "other.json"
    file.write_text(json.dumps({"frames": frames}))
    assert [frame.K[0, 0] for frame in with_intrinsics(capture, str(file)).frames] == [60, 70]
    file.write_text(json.dumps({"frames": frames[:1]}))
    with pytest.raises(UserError, match="no intrinsics for a;"):
        with_intrinsics(capture, str(file))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"K": [[1, 0, 0], [0, 1, 0], [0, 0, 1]]}, "width and height"),
        ({"K": [[1, 0, 0], [0, 1, 0], [0, 0, 1]], "width": 30, "height": 40}, "another aspect ratio"),
        ({"K": [[1, 0, 0], [0, 1, 0], [0, 0, 1]], "width": 0, "height": 0}, "width and height"),
        ({"width": 30, "height": 40}, "K is missing"),
        ({"frames": [{"K": 1}]}, "objects with a 'name'"),
        ([], '"frames" or one "K"'),
    ],
)
def test_files_that_do_not_fit(tmp_path, content, message):
    (tmp_path / "K.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=message):
        with_intrinsics(folder(tmp_path), str(tmp_path / "K.json"))


def test_unknown_spec_is_taken_for_a_file(tmp_path):
    with pytest.raises(UserError, match="no such file; give a JSON file, fov:DEG, exif or estimate"):
        with_intrinsics(folder(tmp_path), "guess")


def test_cameras_are_told_apart_by_model_zoom_and_size(tmp_path):
    def photo(name, model, focal, size=(40, 30)):
        exif = Image.Exif()
        exif[271], exif[272] = "Maker", model
        exif.get_ifd(0x8769)[FOCAL_35MM] = focal
        Image.new("RGB", size).save(tmp_path / name, exif=exif)

    photo("a.jpg", "One", 26)
    photo("b.jpg", "Two", 26)
    photo("c.jpg", "One", 26)
    photo("d.jpg", "One", 52)
    photo("e.jpg", "One", 26, (30, 40))  # held upright
    photo("f.jpg", "One", 26, (40, 40))
    assert cameras_of(load_capture(tmp_path)) == (0, 1, 0, 3, 0, 5)


def test_only_measured_intrinsics_are_certain(tmp_path):
    capture = folder(tmp_path, tags={FOCAL_35MM: 26})
    assert focal_uncertainty(with_intrinsics(capture, "exif")) == 0.05
    assert focal_uncertainty(with_intrinsics(capture, "fov:60")) is None
    assert focal_uncertainty(with_intrinsics(capture, "estimate")) == 0.2
    assert focal_uncertainty(with_intrinsics(with_cameras(tmp_path))) is None

import sys

import numpy as np
import pytest
from PIL import Image

from reliev3r.core.errors import UserError
from reliev3r.data.images import image_size, read_image

RED, GREEN = [255, 0, 0], [0, 255, 0]


@pytest.fixture
def picture() -> np.ndarray:
    """40 x 30 with a red left half and a green right half."""
    image = np.zeros((30, 40, 3), np.uint8)
    image[:, :20], image[:, 20:] = RED, GREEN
    return image


@pytest.mark.parametrize("suffix", ["png", "tif", "bmp", "webp"])
def test_lossless_formats_come_back_as_they_were(tmp_path, picture, suffix):
    Image.fromarray(picture).save(tmp_path / f"a.{suffix}", lossless=True)
    np.testing.assert_array_equal(read_image(tmp_path / f"a.{suffix}"), picture)


@pytest.mark.parametrize(("orientation", "turns"), [(1, 0), (3, 2), (6, -1), (8, 1)])
def test_exif_orientation_is_applied(tmp_path, picture, orientation, turns):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(picture).save(tmp_path / "a.png", exif=exif)
    upright = np.rot90(picture, turns)  # 6: the stored picture must be turned clockwise by 90 degrees
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), upright)
    assert image_size(tmp_path / "a.png") == (upright.shape[1], upright.shape[0])


def test_grey_is_repeated(tmp_path):
    Image.fromarray(np.full((8, 9), 77, np.uint8)).save(tmp_path / "a.jpg")
    assert (read_image(tmp_path / "a.jpg") == 77).all()
    assert read_image(tmp_path / "a.jpg").shape == (8, 9, 3)


def test_transparency_shows_white(tmp_path):
    pixels = np.zeros((2, 3, 4), np.uint8)
    pixels[0, :] = [10, 20, 30, 255]
    pixels[1, :] = [0, 0, 0, 127]
    Image.fromarray(pixels).save(tmp_path / "a.png")
    result = read_image(tmp_path / "a.png")
    assert (result[0] == [10, 20, 30]).all()
    assert (result[1] == 128).all()  # 127/255 of black over white


def test_palette_with_transparent_entry_shows_white(tmp_path):
    image = Image.new("P", (2, 1))
    image.putpalette([0, 0, 0, 200, 100, 50])
    image.putpixel((1, 0), 1)
    image.save(tmp_path / "a.png", transparency=0)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), [[[255, 255, 255], [200, 100, 50]]])


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_16_bit_is_scaled_not_clipped(tmp_path, suffix):
    Image.fromarray(np.array([[0, 257, 32896, 65535]], np.uint16)).save(tmp_path / f"a.{suffix}")
    np.testing.assert_array_equal(read_image(tmp_path / f"a.{suffix}")[0, :, 0], [0, 1, 128, 255])


def test_16_bit_colour_is_scaled(tmp_path):
    import cv2

    cv2.imwrite(str(tmp_path / "a.png"), np.array([[[0, 32896, 65535]]], np.uint16))  # BGR
    np.testing.assert_allclose(read_image(tmp_path / "a.png"), [[[255, 128, 0]]], atol=1)


def test_cmyk_becomes_rgb(tmp_path):
    Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(tmp_path / "a.jpg", quality=100)
    np.testing.assert_allclose(read_image(tmp_path / "a.jpg")[4, 4], RED, atol=3)


def test_truncated_jpeg_names_the_file(tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.jpg")
    content = (tmp_path / "a.jpg").read_bytes()
    (tmp_path / "a.jpg").write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match=r"a\.jpg: truncated"):
        read_image(tmp_path / "a.jpg")


def test_text_with_an_image_suffix_names_the_file(tmp_path):
    (tmp_path / "a.png").write_text("hello")
    for read in (read_image, image_size):
        with pytest.raises(UserError, match=r"a\.png: .*not an image"):
            read(tmp_path / "a.png")


def test_floating_point_pixels_are_refused(tmp_path):
    Image.fromarray(np.ones((4, 4), np.float32)).save(tmp_path / "a.tif")
    with pytest.raises(UserError, match=r"a\.tif: floating-point"):
        read_image(tmp_path / "a.tif")


def test_missing_file(tmp_path):
    with pytest.raises(UserError, match=r"b\.jpg: not found"):
        read_image(tmp_path / "b.jpg")


def test_heic_is_read_upright(tmp_path, picture):
    heif = pytest.importorskip("pillow_heif", reason="pip install 'reliev3r[heif]'")
    heif.register_heif_opener()
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(picture).save(tmp_path / "a.heic", quality=95, exif=exif.tobytes())
    upright = np.rot90(picture, -1)
    assert image_size(tmp_path / "a.heic") == (30, 40)
    assert np.abs(read_image(tmp_path / "a.heic").astype(int) - upright).mean() < 12


def test_heic_without_its_package_names_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    (tmp_path / "a.heic").write_bytes(b"\0\0\0\x18ftypheic")
    with pytest.raises(UserError, match=r"a\.heic: HEIC .*reliev3r\[heif\]"):
        image_size(tmp_path / "a.heic")

"""Downloads that broke off and counts that lie: pycolmap would read past the end of the file, or take all memory."""

import numpy as np
import pycolmap
import pytest

from reliev3r.core.errors import UserError
from reliev3r.data.readers._colmap_files import check_model_files


@pytest.fixture
def model(tmp_path):
    made = pycolmap.Reconstruction()
    for number, name in enumerate(("PINHOLE", "OPENCV", "SIMPLE_RADIAL"), 1):
        made.add_camera_with_trivial_rig(pycolmap.Camera.create_from_model_name(number, name, 50.0, 80, 60))
    for number in range(1, 4):
        uv = np.arange(6.0).reshape(3, 2)
        image = pycolmap.Image(name=f"{number}.jpg", keypoints=uv, camera_id=number, image_id=number)
        made.add_image_with_trivial_frame(image, pycolmap.Rigid3d())
    for number in range(3):
        seen = [pycolmap.TrackElement(image, number) for image in (1, 2)]
        made.add_point3D(np.ones(3), pycolmap.Track(seen), np.zeros(3, np.uint8))
    made.write(str(tmp_path))
    return tmp_path


def test_what_pycolmap_writes_is_whole(model) -> None:
    check_model_files(model)


@pytest.mark.parametrize("name", ["cameras", "images", "points3D", "rigs", "frames"])
def test_every_cut_is_found(model, name) -> None:
    file = model / f"{name}.bin"
    whole = file.read_bytes()
    for length in range(len(whole)):
        file.write_bytes(whole[:length])
        with pytest.raises(UserError, match=f"{name}.bin: damaged"):
            check_model_files(model)


@pytest.mark.parametrize("name", ["cameras", "images", "points3D", "rigs", "frames"])
@pytest.mark.parametrize("count", [0, 1, 2**32, 2**60, 2**64 - 1])
def test_counts_that_lie_are_found(model, name, count) -> None:
    file = model / f"{name}.bin"
    file.write_bytes(count.to_bytes(8, "little") + file.read_bytes()[8:])
    with pytest.raises(UserError, match=f"{name}.bin: damaged"):
        check_model_files(model)


def test_a_name_without_an_end_and_a_model_that_is_none(model) -> None:
    file = model / "images.bin"
    whole = file.read_bytes()
    file.write_bytes(whole.replace(b".jpg\0", b".jpgx"))
    with pytest.raises(UserError, match="damaged"):
        check_model_files(model)
    file.write_bytes(whole)
    cameras = model / "cameras.bin"
    cameras.write_bytes(cameras.read_bytes()[:12] + b"\x63\0\0\0" + cameras.read_bytes()[16:])
    with pytest.raises(UserError, match="damaged"):
        check_model_files(model)


def test_a_name_that_is_no_utf8_is_told_by_name(model) -> None:
    file = model / "images.bin"
    file.write_bytes(file.read_bytes().replace(b"2.jpg\0", b"\xe9.jpg\0"))
    with pytest.raises(UserError, match=r"an image's name \(b'\\xe9\.jpg'\) is not UTF-8"):
        check_model_files(model)

"""Pixels against cameras, from outside: painted points are found where the exported cameras put them, EXIF or not."""

import dataclasses
import os
import stat

import numpy as np
import pycolmap
import pytest
import torch
from PIL import Image

import small_scene
from painted_photos import COLOURS, POINTS, painted, photographs, pixel_of, reconstructed
from reliev3r.core.errors import UserError
from reliev3r.core.files import read_json
from reliev3r.data.capture import load_capture
from reliev3r.data.convert import convert_scene
from reliev3r.data.readers import open_scene
from reliev3r.export.images import write_images
from reliev3r.export.write import export_reconstruction


def assert_colmap_sees_them(folder, names) -> None:
    model = pycolmap.Reconstruction(str(folder / "sparse" / "0"))
    assert {image.name.split(".")[0] for image in model.images.values()} == set(names)
    for image in model.images.values():
        camera = model.cameras[image.camera_id]
        stored = pycolmap.Bitmap.read(str(folder / "images" / image.name), True)
        assert (camera.width, camera.height) == (stored.width, stored.height)
        for point, colour in zip(POINTS, COLOURS, strict=True):
            expected = camera.img_from_cam(image.cam_from_world() * point)
            np.testing.assert_allclose(painted(stored.to_array(), colour), expected, atol=1)


def assert_nerfstudio_sees_them(folder, names) -> None:
    frames = read_json(folder / "transforms.json")["frames"]
    assert len(frames) == len(names)
    for frame in frames:
        pixels = np.asarray(Image.open(folder / frame["file_path"]).convert("RGB"))  # EXIF is not applied
        assert pixels.shape[:2] == (frame["h"], frame["w"])
        pose = np.array(frame["transform_matrix"]) @ np.diag([1.0, -1, -1, 1])
        K = np.array([[frame["fl_x"], 0, frame["cx"]], [0, frame["fl_y"], frame["cy"]], [0, 0, 1]])
        for point, colour in zip(POINTS, COLOURS, strict=True):
            np.testing.assert_allclose(painted(pixels, colour), pixel_of(point, K, pose), atol=1)


NAMES = [f"frame{view}" for view in range(4)]


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp"])
@pytest.mark.parametrize("orientations", [(1, 1, 1, 1), (6, 8, 3, 1), (2, 4, 5, 7)])
def test_a_point_is_painted_where_the_cameras_see_it(tmp_path, suffix, orientations) -> None:
    photographs(tmp_path / "photos", orientations, suffix)
    export_reconstruction(reconstructed(tmp_path / "photos", 4), None, tmp_path / "out")
    assert_colmap_sees_them(tmp_path / "out", NAMES)
    assert_nerfstudio_sees_them(tmp_path / "out", NAMES)
    again = load_capture(tmp_path / "out")  # a folder of results is a capture
    assert again.names == tuple(NAMES)
    for index, frame in enumerate(again.frames):
        np.testing.assert_allclose(frame.K, small_scene.K, atol=0.01)
        expected = pixel_of(POINTS[0], small_scene.K.numpy(), small_scene.arc(4)[index].numpy())
        np.testing.assert_allclose(painted(again.image(index), COLOURS[0]), expected, atol=1)
    back = open_scene(f"nerfstudio:{tmp_path / 'out'}")  # and a dataset
    assert convert_scene(back, tmp_path / "copy").is_dir()


def test_what_others_can_read_is_not_copied(tmp_path) -> None:
    photographs(tmp_path / "photos", (1, 6, 1, 1), "jpg")
    export_reconstruction(reconstructed(tmp_path / "photos", 4), None, tmp_path / "out")
    linked = [
        (tmp_path / "out" / "images" / f"{name}.jpg").samefile(tmp_path / "photos" / f"{name}.jpg") for name in NAMES
    ]
    assert linked == [True, False, True, True]


@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_grey_photographs_get_three_channels(tmp_path, suffix) -> None:
    """gsplat cuts every picture to ``[..., :3]``: of one channel that leaves three columns."""
    photographs(tmp_path / "photos", (1, 1), suffix)
    for file in (tmp_path / "photos").iterdir():
        Image.open(file).convert("L").save(file)
    capture = load_capture(tmp_path / "photos")
    for name in write_images(capture, capture.names, tmp_path / "out"):
        assert Image.open(tmp_path / "out" / name).mode == "RGB"
    assert Image.open(tmp_path / "photos" / f"frame0.{suffix}").mode == "L"


def test_copies_stand_alone_also_where_links_were(tmp_path) -> None:
    photographs(tmp_path / "photos", (1, 1), "jpg")
    original = tmp_path / "photos" / "frame0.jpg"
    capture = load_capture(tmp_path / "photos")
    for copy in (False, True, True):
        write_images(capture, capture.names, tmp_path / "out", copy=copy)
        written = tmp_path / "out" / "images" / "frame0.jpg"
        assert os.path.samefile(original, written) != copy
    assert written.read_bytes() == original.read_bytes()


def test_the_mode_of_the_originals_stays(tmp_path) -> None:
    photographs(tmp_path / "photos", (1, 6, 1, 1), "jpg")
    (tmp_path / "photos" / "frame0.jpg").chmod(0o400)
    export_reconstruction(reconstructed(tmp_path / "photos", 4), None, tmp_path / "out")
    export_reconstruction(reconstructed(tmp_path / "photos", 4), None, tmp_path / "out", overwrite=True)
    assert stat.S_IMODE((tmp_path / "photos" / "frame0.jpg").stat().st_mode) == 0o400
    assert not [path for path in (tmp_path / "out" / "images").iterdir() if path.name.startswith(".")]


def test_another_disk_gets_copies(tmp_path, monkeypatch) -> None:
    def refused(*_args, **_kwargs):
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refused)
    photographs(tmp_path / "photos", (1, 1, 1, 1), "jpg")
    export_reconstruction(reconstructed(tmp_path / "photos", 4), None, tmp_path / "out")
    copy = tmp_path / "out" / "images" / "frame0.jpg"
    assert copy.read_bytes() == (tmp_path / "photos" / "frame0.jpg").read_bytes()
    assert not copy.samefile(tmp_path / "photos" / "frame0.jpg")


def test_a_single_file_for_nerfstudio_has_its_images_beside_it_through_links_too(tmp_path) -> None:
    photographs(tmp_path / "photos", (6, 1, 1, 1), "jpg")
    (tmp_path / "disk" / "far").mkdir(parents=True)
    (tmp_path / "short").symlink_to(tmp_path / "disk" / "far")
    target = tmp_path / "short" / "transforms.json"
    export_reconstruction(reconstructed(tmp_path / "photos", 4), None, target)
    assert_nerfstudio_sees_them(tmp_path / "short", NAMES)
    with pytest.raises(UserError, match=r"transforms\.json: exists already"):
        export_reconstruction(reconstructed(tmp_path / "photos", 4), None, target)


def test_the_photographs_themselves_are_never_replaced(tmp_path) -> None:
    photographs(tmp_path / "images", (6, 1, 1, 1), "jpg")
    before = (tmp_path / "images" / "frame0.jpg").read_bytes()
    scene = reconstructed(tmp_path, 4)
    with pytest.raises(UserError, match="images: exists already"):
        export_reconstruction(scene, None, tmp_path)
    with pytest.raises(UserError, match="is the photograph itself"):
        export_reconstruction(scene, None, tmp_path, overwrite=True)
    assert (tmp_path / "images" / "frame0.jpg").read_bytes() == before


def test_frames_of_a_video_are_put_beside_the_cameras(tmp_path) -> None:
    import av

    with av.open(str(tmp_path / "clip.mp4"), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 640, 480, "yuv420p"
        for value in range(6):
            picture = np.full((480, 640, 3), 40 * value, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    names = ("000000", "000002", "000003", "000005")
    scene = dataclasses.replace(small_scene.reconstruction(4), names=names)
    export_reconstruction(scene, None, tmp_path / "out", capture=tmp_path / "clip.mp4")
    for name, frame in zip(names, read_json(tmp_path / "out" / "transforms.json")["frames"], strict=True):
        value = np.asarray(Image.open(tmp_path / "out" / frame["file_path"])).mean()
        assert value == pytest.approx(40 * int(name), abs=4)
    late = dataclasses.replace(scene, names=(*names[:3], "000009"))
    with pytest.raises(UserError, match="ends before frame 000009"):
        export_reconstruction(late, None, tmp_path / "late", capture=tmp_path / "clip.mp4")


def test_views_that_were_not_found_have_no_image_either(tmp_path) -> None:
    photographs(tmp_path / "photos", (6, 6, 6, 6), "jpg")
    scene = reconstructed(tmp_path / "photos", 4)
    scene = dataclasses.replace(scene, found=torch.tensor([True, True, False, True]))
    export_reconstruction(scene, None, tmp_path / "out")
    left = ["frame0", "frame1", "frame3"]
    assert_colmap_sees_them(tmp_path / "out", left)
    assert sorted(path.stem for path in (tmp_path / "out" / "images").iterdir()) == left

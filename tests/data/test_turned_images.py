"""Photographs that lie on their side: size, pixels, K and pose come from one place, whatever the format and the tag."""

import json
import struct

import numpy as np
import pytest
from PIL import Image

from reliev3r.core.errors import UserError
from reliev3r.data.capture import load_capture
from reliev3r.data.convert import convert_scene
from reliev3r.data.images import image_size, is_turned, read_image
from reliev3r.data.readers import open_scene

SHAPE = (30, 40)
UPRIGHT = {
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(a, 2).swapaxes(0, 1),
    8: lambda a: np.rot90(a, 1),
}
"""What EXIF's values mean (TIFF 6.0, page 36): row 0 and column 0 of what is stored lie at ... of the upright image."""


def blocks(seed: int = 0) -> np.ndarray:
    """A picture without any symmetry that survives JPEG."""
    colours = np.random.default_rng(seed).integers(0, 255, (3, 4, 3), np.uint8)
    return np.kron(colours, np.ones((10, 10, 1), np.uint8))


def save(path, pixels: np.ndarray, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, exif=exif.tobytes(), quality=100)


def alike(a: np.ndarray, b: np.ndarray) -> bool:
    return a.shape == b.shape and float(np.abs(a.astype(int) - b).mean()) < 12


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif"])
@pytest.mark.parametrize("orientation", [*range(10), 255, 65535])
def test_size_and_pixels_agree_in_every_format(tmp_path, suffix, orientation) -> None:
    file, stored = tmp_path / f"a.{suffix}", blocks()
    save(file, stored, orientation)
    upright = UPRIGHT.get(orientation, lambda a: a)(stored)
    assert alike(read_image(file), upright)
    assert alike(read_image(file, upright=False), stored)
    assert image_size(file) == upright.shape[1::-1]
    assert image_size(file, upright=False) == stored.shape[1::-1]
    assert is_turned(file) == (orientation in UPRIGHT)


def tag(kind: int, count: int, value: bytes) -> bytes:
    """EXIF of one orientation tag of any type."""
    head = b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<H", 1)
    return head + struct.pack("<HHI4s", 0x0112, kind, count, value) + b"\0" * 4


@pytest.mark.filterwarnings("ignore")  # Pillow tells of damaged tags
@pytest.mark.parametrize(
    "exif",
    [
        tag(2, 2, b"6\0\0\0"),  # text
        tag(7, 4, b"\x06\0\0\0"),  # bytes of no type
        tag(5, 1, b"\xff\xff\xff\x7f"),  # a fraction that lies outside the file
        b"Exif\0\0II*\0\x08\0\0\0\xff\xff",  # a table without its rows
        b"Exif\0\0rubbish",
    ],
)
def test_tags_that_are_no_orientation_mean_upright(tmp_path, exif) -> None:
    file, stored = tmp_path / "a.jpg", blocks()
    Image.fromarray(stored).save(file, exif=exif, quality=100)
    assert image_size(file) == (40, 30)
    assert alike(read_image(file), stored)
    assert not is_turned(file)


K = [[50.0, 0, 17.0], [0, 55.0, 12.0], [0, 0, 1]]


def dataset(folder, kind: str, orientation: int):
    """Two photographs with cameras of their stored pixels, as COLMAP and nerfstudio make them."""
    stored = [blocks(seed) for seed in range(2)]
    for index, pixels in enumerate(stored):
        save(folder / "images" / f"{index}.png", pixels, orientation)
    poses = np.tile(np.eye(4), (2, 1, 1))
    poses[1, 0, 3] = 0.5
    if kind == "nerfstudio":
        numbers = {"w": 40, "h": 30, "fl_x": 50, "fl_y": 55, "cx": 17, "cy": 12}
        frames = [
            {"file_path": f"images/{i}.png", "transform_matrix": (pose @ np.diag([1.0, -1, -1, 1])).tolist()}
            for i, pose in enumerate(poses)
        ]
        (folder / "transforms.json").write_text(json.dumps({**numbers, "frames": frames}))
    else:
        model = folder / "sparse" / "0"
        model.mkdir(parents=True)
        (model / "cameras.txt").write_text("1 PINHOLE 40 30 50 55 17 12\n")
        lines = [f"{i + 1} 1 0 0 0 {-pose[0, 3]} 0 0 1 {i}.png\n\n" for i, pose in enumerate(poses)]
        (model / "images.txt").write_text("".join(lines))
        (model / "points3D.txt").write_text("")
    return f"{kind}:{folder}", stored, poses


@pytest.mark.parametrize("kind", ["nerfstudio", "colmap"])
@pytest.mark.parametrize("orientation", [1, 2, 3, 4, 6, 8])
def test_cameras_of_datasets_belong_to_stored_pixels(tmp_path, kind, orientation) -> None:
    spec, stored, poses = dataset(tmp_path / "set", kind, orientation)
    scene = open_scene(spec)
    for index, frame in enumerate(scene.capture.frames):
        assert alike(scene.capture.image(index), stored[index])
        assert (frame.width, frame.height) == (40, 30)
        np.testing.assert_allclose(frame.K, K)
        np.testing.assert_allclose(scene.truth.camera(frame.name).world_from_cam, poses[index], atol=1e-12)
    again = load_capture(convert_scene(scene, tmp_path / "copy"))
    for index, frame in enumerate(again.frames):
        assert alike(again.image(index), stored[index])
        np.testing.assert_allclose(frame.K, K)


def test_a_capture_of_our_own_is_upright(tmp_path) -> None:
    """docs/conventions.md: K of cameras.json is of the upright image."""
    for index in range(2):
        save(tmp_path / "images" / f"{index}.jpg", blocks(index), 6)
    frames = [{"image": f"images/{i}.jpg", "width": 30, "height": 40, "K": K} for i in range(2)]
    (tmp_path / "cameras.json").write_text(json.dumps({"frames": frames}))
    capture = load_capture(tmp_path)
    assert alike(capture.image(0), UPRIGHT[6](blocks(0)))
    frames[0] |= {"width": 40, "height": 30}
    (tmp_path / "cameras.json").write_text(json.dumps({"frames": frames}))
    with pytest.raises(UserError, match="is 30x40 when upright but"):
        load_capture(tmp_path)

"""What the tests of the readers write with: renderings of the room by other cameras, EXR and PFM files, lenses."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from scipy.spatial.transform import Rotation

from reliev3r.synthetic.render import render
from reliev3r.synthetic.scene import make_scene


def rendered(world_from_cam: np.ndarray, K: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """The room of the fixture by pinhole cameras of another kind: (rgb uint8 [v, h, w, 3], z float64 [v, h, w])."""
    poses = torch.from_numpy(world_from_cam).float()
    width, height = size
    views, truth = render(
        make_scene(5, "masonry"),
        torch.from_numpy(K).float().expand(len(poses), 3, 3),
        poses,
        (height, width),
        supersample=1,
    )
    return (views.image.movedim(1, -1) * 255).round().to(torch.uint8).numpy(), truth.depth.double().numpy()


def pinhole(fx: float, fy: float, cx: float, cy: float) -> np.ndarray:
    return np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1.0]])


def through_lens(
    world_from_cam: np.ndarray, xy: np.ndarray, turn: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """What a lens sees that sends the ray (x, y, 1) of its camera to each pixel: (rgb [v, h, w, 3], z [v, h, w]).

    ``turn`` is the rotation cam_from_lens where the lens's camera is turned. Looked up in a wide-angle rendering:
    colours bilinearly, inverse depth too (it is linear on planes).
    """
    half = float(np.abs(xy).max()) * 1.05
    K, size = pinhole(72 / half, 72 / half, 72, 72), (144, 144)
    rotation = np.eye(4)
    rotation[:3, :3] = np.eye(3) if turn is None else turn
    rgb, z = rendered(world_from_cam @ rotation, K, size)
    x, y = xy[..., 0] * K[0, 0] + 71.5, xy[..., 1] * K[0, 0] + 71.5
    x0, y0 = np.floor(x).astype(int), np.floor(y).astype(int)
    a, b = x - x0, y - y0

    def look(maps: np.ndarray) -> np.ndarray:
        weights = [(1 - a) * (1 - b), a * (1 - b), (1 - a) * b, a * b]
        corners = [maps[:, y0, x0], maps[:, y0, x0 + 1], maps[:, y0 + 1, x0], maps[:, y0 + 1, x0 + 1]]
        return sum(
            np.moveaxis(np.moveaxis(c, (1, 2), (-2, -1)) * w, (-2, -1), (1, 2)) for c, w in zip(corners, weights)
        )

    return look(rgb.astype(np.float64)).round().astype(np.uint8), 1 / look(1 / z)


def inverse(distort: Callable[[np.ndarray], np.ndarray], target: np.ndarray) -> np.ndarray:
    """x with distort(x) = target, by fixed-point iteration; asserts that it was found."""
    x = target.copy()
    for _ in range(200):
        x = x + 0.7 * (target - distort(x))
    assert np.abs(distort(x) - target).max() < 1e-9
    return x


def save(path: Path, pixels: np.ndarray, **options: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)


def quaternion_line(pose: np.ndarray) -> str:
    """x y z qx qy qz qw"""
    return " ".join(f"{value:.9f}" for value in [*pose[:3, 3], *Rotation.from_matrix(pose[:3, :3]).as_quat()])


def write_exr(path: Path, channels: dict[str, np.ndarray]) -> None:
    """Uncompressed scan lines of OpenEXR 2: a header of typed attributes, a table of offsets, one block a line."""
    height, width = next(iter(channels.values())).shape
    names = sorted(channels)

    def attribute(name: str, kind: str, value: bytes) -> bytes:
        return name.encode() + b"\0" + kind.encode() + b"\0" + struct.pack("<i", len(value)) + value

    box = struct.pack("<4i", 0, 0, width - 1, height - 1)
    entries = [n.encode() + b"\0" + struct.pack("<4i", 1 if channels[n].itemsize == 2 else 2, 0, 1, 1) for n in names]
    header = struct.pack("<2i", 20000630, 2)
    header += attribute("channels", "chlist", b"".join(entries) + b"\0")
    header += attribute("compression", "compression", b"\0")
    header += attribute("dataWindow", "box2i", box) + attribute("displayWindow", "box2i", box)
    header += attribute("lineOrder", "lineOrder", b"\0")
    header += attribute("pixelAspectRatio", "float", struct.pack("<f", 1))
    header += attribute("screenWindowCenter", "v2f", struct.pack("<2f", 0, 0))
    header += attribute("screenWindowWidth", "float", struct.pack("<f", 1)) + b"\0"
    lines = [b"".join(channels[n][y].tobytes() for n in names) for y in range(height)]
    blocks = [struct.pack("<2i", y, len(line)) + line for y, line in enumerate(lines)]
    offsets = len(header) + 8 * height + np.cumsum([0] + [len(block) for block in blocks[:-1]])
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(header + offsets.astype("<u8").tobytes() + b"".join(blocks))


def write_pfm(path: Path, depth: np.ndarray) -> None:
    """Little endian (negative scale), the bottom row first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    height, width = depth.shape
    path.write_bytes(f"Pf\n{width} {height}\n-1.000000\n".encode() + np.flipud(depth).astype("<f4").tobytes())

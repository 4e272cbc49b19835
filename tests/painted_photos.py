"""Photographs of a wall with painted points, stored as a phone does that was held otherwise; EXIF says how."""

import dataclasses

import numpy as np
from PIL import Image

import small_scene
from reliev3r.data.capture import load_capture

POINTS = np.array([[0.0, 0.0, 4.0], [0.5, -0.3, 3.79], [-0.6, 0.4, 4.26]])
COLOURS = np.array([[255, 0, 255], [255, 255, 0], [0, 255, 255]])
STORE = {
    1: lambda a: a, 2: lambda a: a[:, ::-1], 3: lambda a: np.rot90(a, 2), 4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1), 6: lambda a: np.rot90(a, 1), 7: lambda a: np.rot90(a, 2).swapaxes(0, 1),
    8: lambda a: np.rot90(a, -1),
}  # fmt: skip
"""How an upright picture is stored under each of EXIF's orientations."""


def pixel_of(point: np.ndarray, K: np.ndarray, world_from_cam: np.ndarray) -> np.ndarray:
    homogeneous = K @ world_from_cam[:3, :3].T @ (point - world_from_cam[:3, 3])
    return homogeneous[:2] / homogeneous[2]


def photographs(folder, orientations, suffix: str) -> None:
    """The wall of ``small_scene`` with painted points, stored as a phone does that was held otherwise."""
    folder.mkdir(parents=True)
    cameras, K = small_scene.arc(len(orientations)).numpy(), small_scene.K.numpy()
    for view, orientation in enumerate(orientations):
        picture = np.full((480, 640, 3), 90, np.uint8)
        for point, colour in zip(POINTS, COLOURS, strict=True):
            column, row = np.floor(pixel_of(point, K, cameras[view])).astype(int)
            picture[row - 4 : row + 5, column - 4 : column + 5] = colour
        exif = Image.Exif()
        exif[0x0112] = orientation
        stored = Image.fromarray(np.ascontiguousarray(STORE[orientation](picture)))
        stored.save(folder / f"frame{view}.{suffix}", exif=exif.tobytes(), quality=95)


def reconstructed(folder, views: int):
    """The truth as if it had been predicted from these photographs."""
    capture = load_capture(folder)
    files = tuple(frame.file for frame in capture.frames)
    return dataclasses.replace(small_scene.reconstruction(views), capture=capture, image_files=files)


def painted(pixels: np.ndarray, colour: np.ndarray) -> np.ndarray:
    """Centre of what has a colour, in pixels from the corner."""
    rows, columns = np.nonzero(np.abs(pixels.astype(int) - colour).max(-1) < 60)
    assert len(rows) > 40
    return np.array([columns.mean() + 0.5, rows.mean() + 0.5])

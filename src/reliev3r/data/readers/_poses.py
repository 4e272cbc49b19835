"""Changes of camera axes, and checks of what datasets call a pose."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from reliev3r.core.errors import UserError

OPENGL_FROM_OPENCV: Float[np.ndarray, "4 4"] = np.diag([1.0, -1.0, -1.0, 1.0])
"""OpenGL cameras (nerfstudio, Blender) look along -z with y up: OpenCV's y and z change sign. Its own inverse."""

NED_FROM_OPENCV: Float[np.ndarray, "4 4"] = np.array(
    [[0, 0, 1, 0], [1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1]], np.float64
)
"""NED cameras (TartanAir, AirSim) have x forward, y right, z down: forward is OpenCV's z, right its x, down its y."""

REFLECTION: Float[np.ndarray, "4 4"] = np.diag([1.0, -1.0, 1.0, 1.0])
"""Makes a left-handed world right-handed. Which axis is mirrored does not matter: relative poses are the same."""


def matrix(value: Any, where: str, shape: tuple[int, int] = (4, 4)) -> Float[np.ndarray, "a b"]:
    """A float64 matrix of a file; a missing last row (0, 0, 0, 1) is added. It may be not finite.

    Raises:
        UserError: not numbers of that shape; ``where`` names the file and the frame.
    """
    try:
        array = np.array(value, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise UserError(f"{where}: not a matrix of numbers; restore the file") from error
    if shape == (4, 4) and array.shape == (3, 4):
        array = np.concatenate([array, [[0.0, 0.0, 0.0, 1.0]]])
    if array.shape != shape:
        raise UserError(f"{where}: a matrix of shape {array.shape}, not {shape[0]}x{shape[1]}; restore the file")
    return array


def checked_pose(pose: Float[np.ndarray, "4 4"], where: str) -> Float[np.ndarray, "4 4"]:
    """The pose, if it is not finite (the frame is left out later) or a rigid motion.

    Raises:
        UserError: a finite matrix that is no rigid motion within 1e-3: scaled, sheared or mirrored.
    """
    rotation = pose[:3, :3]
    if not np.isfinite(pose).all():
        return pose
    if np.abs(rotation @ rotation.T - np.eye(3)).max() > 1e-3 or np.linalg.det(rotation) < 0:
        raise UserError(f"{where}: the pose is no rotation and translation (scaled or mirrored?); restore the file")
    return pose


def read_matrix(file: Path, shape: tuple[int, int] = (4, 4)) -> Float[np.ndarray, "a b"]:
    """A whitespace-separated matrix of a text file.

    Raises:
        UserError: missing, or not numbers of that shape.
    """
    try:
        rows = [line.split() for line in file.read_text(encoding="utf8").splitlines() if line.strip()]
    except FileNotFoundError as error:
        raise UserError(f"{file}: not found; restore it from the dataset") from error
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{file}: not readable as text; restore it from the dataset") from error
    return matrix(rows, str(file), shape)


def pose_from_quaternion(q_xyzw: Any, translation: Any) -> Float[np.ndarray, "4 4"]:
    """A 4 x 4 pose of a quaternion (x, y, z, w) of any length above 0 and a translation."""
    x, y, z, w = np.asarray(q_xyzw, np.float64) / np.linalg.norm(np.asarray(q_xyzw, np.float64))
    pose = np.eye(4)
    pose[:3, :3] = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ]
    pose[:3, 3] = np.asarray(translation, np.float64)
    return pose

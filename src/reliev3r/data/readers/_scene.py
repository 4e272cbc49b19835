"""What readers share: frames as a dataset states them become a scene whose truth is read when it is asked for."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from reliev3r.core.cameras_json import alike, refuse_same_names, refuse_unwritable_name
from reliev3r.core.cameras_json import checked_pose as checked_pose
from reliev3r.core.errors import UserError
from reliev3r.data.capture import Capture, Frame
from reliev3r.data.images import image_size
from reliev3r.data.lenses import Rectification
from reliev3r.data.truth import Scene, TrueCamera, refuse_another_shape
from reliev3r.geometry.sampling import evenly_spaced

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, eq=False)
class Shot:
    """One frame of a dataset: paths and numbers; nothing of its image or depth map has been read."""

    name: str
    """Unique in the scene; names files, so without slashes."""
    image: Path
    K: Float[np.ndarray, "3 3"] | None
    """Of the pinhole (rectified) image, corner convention, float64."""
    world_from_cam: Float[np.ndarray, "4 4"] | None
    """OpenCV axes, float64; None, or not finite, where the dataset has none: such a frame is left out."""
    depth: Callable[[], Float[np.ndarray, "h w"]] | None = None
    """Reads z-depth of the pinhole image, float32, 0 where unknown."""
    stored_size: tuple[int, int] | None = None
    """(width, height) of the stored image that K belongs to: a file of another size is refused; None if not stated."""
    rectification: Rectification | None = None


class ShotTruth:
    """A :class:`reliev3r.data.truth.TruthSource` of shots."""

    def __init__(self, root: Path, shots: dict[str, Shot], sizes: dict[str, tuple[int, int]], *, metric: bool) -> None:
        self.root, self.metric = root, metric
        self._shots, self._sizes = shots, sizes

    def __str__(self) -> str:
        return str(self.root)

    def camera(self, name: str) -> TrueCamera:
        """As :class:`reliev3r.data.truth.TruthSource` says."""
        shot = self._shot(name)
        if shot.K is None or shot.world_from_cam is None:
            raise UserError(f"{self.root}: frame '{name}' has no pose or intrinsics, so nothing can be scored with it")
        pose = torch.from_numpy(np.asarray(shot.world_from_cam, np.float64))
        return TrueCamera(
            K=torch.from_numpy(np.asarray(shot.K, np.float64)), world_from_cam=pose, size=self._sizes[name]
        )

    def depth(self, name: str) -> np.ndarray | None:
        """As :class:`reliev3r.data.truth.TruthSource` says."""
        shot = self._shot(name)
        depth = None if shot.depth is None else shot.depth()
        if depth is not None:
            refuse_another_shape(depth.shape, self._sizes[name], f"{self.root}: the depth of frame '{name}'")
        return depth

    def _shot(self, name: str) -> Shot:
        if name not in self._shots:
            raise UserError(f"{self.root}: has no frame '{name}'; score against the scene the prediction was made from")
        return self._shots[name]


def scene_of(
    name: str,
    root: Path,
    shots: Sequence[Shot],
    *,
    views: int | None,
    metric: bool,
    ordered: bool,
    K_source: str,
    caveats: tuple[str, ...] = (),
) -> Scene:
    """A scene of ``views`` evenly spaced frames among those that have a finite pose; their image headers are read.

    Raises:
        UserError: fewer than two frames, names that clash or cannot be written, an image that is missing, damaged or
            of another size than stated.
    """
    if views is not None and views < 2:
        raise UserError(f"views={views}: a reconstruction needs at least 2 views")
    posed = [shot for shot in shots if shot.world_from_cam is not None and np.isfinite(shot.world_from_cam).all()]
    if len(posed) < len(shots):
        logger.warning("%s: left out %d of %d frames without a finite pose", root, len(shots) - len(posed), len(shots))
    if len(posed) < 2:
        raise UserError(f"{root}: {len(posed)} of {len(shots)} frames have a finite pose; a scene needs at least 2")
    chosen = evenly_spaced(posed, views)
    for shot in chosen:
        refuse_unwritable_name(shot.name, root)
    refuse_same_names((shot.name for shot in chosen), root)
    frames = tuple(_frame(root, shot) for shot in chosen)
    sizes = {frame.name: (frame.width, frame.height) for frame in frames}
    truth = ShotTruth(root, {shot.name: shot for shot in chosen}, sizes, metric=metric)
    source = K_source if all(shot.K is not None for shot in chosen) else None
    capture = Capture(root=root, frames=frames, ordered=ordered, K_source=source)
    return Scene(name=name, capture=capture, truth=truth, caveats=caveats)


def frame_names(files: Sequence[str], where: Path) -> list[str]:
    """Names of a scene's frames: stems of their files, or whole paths with _ for / where two stems are the same.

    Raises:
        UserError: two frames would have one name; ``where`` is the file that lists them.
    """
    names = [Path(file).stem for file in files]
    if len(set(map(alike, names))) < len(names):
        names = [Path(file).with_suffix("").as_posix().strip("./").replace("/", "_") for file in files]
    if len(set(map(alike, names))) < len(names):
        raise UserError(f"{where}: names an image twice, or two images alike; remove or rename one of them")
    return names


def _frame(root: Path, shot: Shot) -> Frame:
    width, height = image_size(shot.image, upright=False)
    if shot.stored_size is not None and (width, height) != tuple(shot.stored_size):
        raise UserError(
            f"{shot.image}: is {width}x{height}, but its intrinsics are for "
            f"{shot.stored_size[0]}x{shot.stored_size[1]} (rotated or resized?); restore the dataset's own image"
        )
    if shot.rectification is not None:
        width, height = shot.rectification.width, shot.rectification.height
    file = shot.image.relative_to(root).as_posix() if shot.image.is_relative_to(root) else shot.image.name
    return Frame(
        name=shot.name, file=file, path=shot.image, width=width, height=height, K=shot.K,
        rectification=shot.rectification, as_stored=True,
    )  # fmt: skip


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
    except (TypeError, ValueError, OverflowError) as error:
        raise UserError(f"{where}: not a matrix of numbers; restore the file") from error
    if shape == (4, 4) and array.shape == (3, 4):
        array = np.concatenate([array, [[0.0, 0.0, 0.0, 1.0]]])
    if array.shape != shape:
        raise UserError(f"{where}: a matrix of shape {array.shape}, not {shape[0]}x{shape[1]}; restore the file")
    return array


def read_matrix(file: Path, shape: tuple[int, int] = (4, 4)) -> Float[np.ndarray, "a b"]:
    """A whitespace-separated matrix of a text file.

    Raises:
        UserError: missing, or not numbers of that shape.
    """
    try:
        rows = [line.split() for line in file.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
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

"""Ground truth on a prediction's pixels, from wherever a dataset keeps it. Nothing that trains weakly imports this."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import cv2
import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from reliev3r.core.cameras_json import CAMERAS_JSON, PosedEntry, read_about, read_posed_frames
from reliev3r.core.errors import UserError
from reliev3r.core.files import inside
from reliev3r.core.types import Truth
from reliev3r.data.capture import Capture, resized
from reliev3r.data.images import affordable, image_size
from reliev3r.data.lenses import Rectification, rectification_of_entry
from reliev3r.geometry.camera import K_of_crop_resize

NO_DEPTH = "the dataset has no true depth"
"""A caveat of scenes; depth from elsewhere (``data.depth_truth``) takes it away."""


@dataclass(frozen=True, kw_only=True, eq=False)
class TrueCamera:
    """A frame's camera."""

    K: Float[Tensor, "3 3"]
    """In pixels of the upright (rectified) image, corner convention, float64."""
    world_from_cam: Float[Tensor, "4 4"]
    """OpenCV axes, float64."""
    size: tuple[int, int]
    """(width, height) of the image."""


@runtime_checkable
class TruthSource(Protocol):
    """Truth of a capture's frames by name, read when it is asked for."""

    @property
    def metric(self) -> bool:
        """Whether lengths are metres."""
        ...

    def camera(self, name: str) -> TrueCamera:
        """Camera of a frame.

        Raises:
            UserError: the frame is unknown, or has no pose or K.
        """
        ...

    def depth(self, name: str) -> Float[np.ndarray, "h w"] | None:
        """z-depth that covers the whole frame at any resolution, float32, 0 where unknown; None where there is none.

        Raises:
            UserError: a map that should be there is missing or unreadable.
        """
        ...


def load_truth(
    source: TruthSource | Path | str,
    names: Sequence[str],
    *,
    regions: Float[Tensor, "v 4"],
    size: tuple[int, int],
    image_sizes: Sequence[tuple[int, int]] | None = None,
) -> Truth:
    """Ground truth of the frames ``names`` on the ``size`` = (h, w) grid that covers ``regions``.

    ``source`` is a scene's, or the folder of a capture with ``cameras.json``. ``regions`` are (left, top, width,
    height) in original pixels (corner convention). K moves with the grid; depth is looked up at the centres of the
    grid's pixels (nearest) and valid where it is positive and inside the image. Frames without depth are allowed:
    nothing of theirs is valid, and only poses can be scored. With ``image_sizes`` (width, height), frames of another
    size are refused. The world's origin is moved to the first frame's camera while poses are still float64: float32
    has steps of half a metre at georeferenced coordinates.

    Raises:
        UserError: no cameras.json; a frame is missing, or has no K or no pose that is a rigid motion; a depth map is
            missing or unreadable.
    """
    if isinstance(source, Path | str):
        source = CameraFile(Path(source))
    K, poses, depths = [], [], []
    for index, name in enumerate(names):
        camera = source.camera(name)
        if image_sizes is not None and camera.size != tuple(image_sizes[index]):
            sizes = "{}x{}, the prediction was made from {}x{}".format(*camera.size, *image_sizes[index])
            raise UserError(f"{source}: frame '{name}' is {sizes}; score against the capture it was made from")
        left, top, width, height = regions[index].double().tolist()
        scale = (size[1] / width, size[0] / height)
        K.append(K_of_crop_resize(camera.K, offset=(left, top), scale=scale))
        poses.append(camera.world_from_cam)
        depths.append(_looked_up(source.depth(name), camera.size, (left, top, width, height), size))
    world_from_cam = torch.stack(poses)
    world_from_cam[:, :3, 3] -= world_from_cam[0, :3, 3].clone()
    depth = torch.from_numpy(np.stack(depths))
    valid = depth > 0
    return Truth(
        depth=torch.where(valid, depth, torch.ones_like(depth)),
        valid=valid,
        K=torch.stack(K).float(),
        world_from_cam=world_from_cam.float(),
        metric=source.metric,
    )


def checked_pose(pose: Float[np.ndarray, "4 4"], where: str) -> Float[np.ndarray, "4 4"]:
    """The pose, if it is a rigid motion, or not finite (readers leave such a frame out later).

    Raises:
        UserError: a finite matrix that is no rigid motion within 1e-3: scaled, sheared or mirrored.
    """
    rotation = pose[:3, :3]
    if not np.isfinite(pose).all():
        return pose
    if np.abs(rotation @ rotation.T - np.eye(3)).max() > 1e-3 or np.linalg.det(rotation) < 0:
        raise UserError(f"{where}: the pose is no rotation and translation (scaled or mirrored?); restore the file")
    return pose


def refuse_another_shape(shape: tuple[int, ...], image: tuple[int, int], what: str) -> None:
    """A depth map may be smaller than its ``image`` (width, height), by the same factor both ways up to two pixels.

    Raises:
        UserError: it is of another aspect ratio: of a crop, or of pixels that were turned.
    """
    height, width = shape
    if abs(width * image[1] - height * image[0]) > 2 * max(image):
        raise UserError(f"{what}: is {width}x{height}, but its image is {image[0]}x{image[1]}; restore the right one")


class CameraFile:
    """Truth of a capture folder: ``cameras.json`` and the depth maps (16-bit PNG, millimetres) that it names."""

    def __init__(self, root: Path) -> None:
        self.root, self.file = root, root / CAMERAS_JSON
        if not self.file.is_file():
            raise UserError(f"{self.file}: not found, so this capture has no ground truth to score against")

    def __str__(self) -> str:
        return str(self.file)

    @functools.cached_property
    def metric(self) -> bool:
        """Metres, unless the file says ``"metric": false`` (a converted scene of unknown unit)."""
        return read_about(self.file).metric

    @property
    def has_poses(self) -> bool:
        """Whether any frame has one: a capture without is a capture without truth."""
        return any(frame.world_from_cam is not None for frame in self._frames.values())

    @functools.cached_property
    def _frames(self) -> dict[str, PosedEntry]:
        return {frame.name: frame for frame in read_posed_frames(self.file)}

    def _frame(self, name: str) -> PosedEntry:
        if name not in self._frames:
            raise UserError(
                f"{self.file}: has no frame '{name}'; score against the capture the prediction was made from"
            )
        return self._frames[name]

    def camera(self, name: str) -> TrueCamera:
        """As :class:`TruthSource` says."""
        frame = self._frame(name)
        if frame.world_from_cam is None:
            raise UserError(f"{self.file}: this capture has no ground truth: poses are missing (frame '{name}')")
        if frame.K is None or frame.width is None or frame.height is None:
            raise UserError(f"{self.file}: frame '{name}' needs width, height, a 3x3 K and a 4x4 cam_to_world")
        if not np.isfinite(frame.world_from_cam).all():
            raise UserError(f"{self.file}: frame '{name}' has a pose that is not finite; leave the frame out")
        pose = checked_pose(frame.world_from_cam, f"{self.file}: frame '{name}'")
        stated, size = (frame.width, frame.height), self._size(frame)
        where = f"{self.file}: frame '{name}' is {size[0]}x{size[1]} when upright, but here stands"
        K = resized(stated, size, where) @ frame.K
        return TrueCamera(K=torch.tensor(K), world_from_cam=torch.tensor(pose), size=size)

    def depth(self, name: str) -> np.ndarray | None:
        """As :class:`TruthSource` says; metres."""
        entry = self._frame(name).depth
        if entry is None:
            return None
        file = inside(self.root, entry, str(self.file))
        stored = cv2.imread(str(affordable(file)), cv2.IMREAD_UNCHANGED) if file.is_file() else None
        if stored is None or stored.ndim != 2 or stored.dtype != np.uint16:
            raise UserError(f"{file}: not a readable 16-bit PNG depth map (named by cameras.json, frame '{name}')")
        refuse_another_shape(stored.shape, self._size(self._frame(name)), str(file))
        depth = stored.astype(np.float32) / 1000
        rectification = self._rectification(name)
        return depth if rectification is None else rectification.values(depth)

    def _size(self, frame: PosedEntry) -> tuple[int, int]:
        """(width, height) of the image as it is, which K and maps may be of another size of; as stated where it is
        gone."""
        file = self.root / str(frame.image)
        if file.is_file() or frame.width is None or frame.height is None:
            return image_size(file)
        return frame.width, frame.height

    def _rectification(self, name: str) -> Rectification | None:
        """Depth maps are of the image as it lies there, and are rectified as that is."""
        frame = self._frame(name)
        if not frame.lens:
            return None
        camera = self.camera(name)
        return rectification_of_entry(frame, camera.K.numpy(), camera.size, f"{self.file}: frame '{name}'")


def _looked_up(
    depth: np.ndarray | None,
    image_size: tuple[int, int],
    region: tuple[float, float, float, float],
    size: tuple[int, int],
) -> np.ndarray:
    """Depth at the centres of the grid's pixels, 0 where unknown. The map may have another resolution."""
    if depth is None:
        return np.zeros(size, np.float32)
    left, top, width, height = region
    u = left + (np.arange(size[1]) + 0.5) * width / size[1]
    v = top + (np.arange(size[0]) + 0.5) * height / size[0]
    column = np.floor(u * depth.shape[1] / image_size[0]).astype(int)
    row = np.floor(v * depth.shape[0] / image_size[1]).astype(int)
    inside = ((row >= 0) & (row < depth.shape[0]))[:, None] & ((column >= 0) & (column < depth.shape[1]))
    picked = depth[row.clip(0, depth.shape[0] - 1)[:, None], column.clip(0, depth.shape[1] - 1)]
    return np.where(inside, picked, 0).astype(np.float32)


@dataclass(frozen=True, kw_only=True, eq=False)
class Scene:
    """What a reader (``data.readers``) makes of one scene."""

    name: str
    """Unique in its dataset."""
    capture: Capture
    truth: TruthSource | None = None
    """Read when asked for; None where the dataset has none."""
    caveats: tuple[str, ...] = ()
    """What must stand beside numbers: where its truth comes from, what it cannot tell."""

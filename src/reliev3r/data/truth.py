"""Ground truth of a capture folder: the only reader of true poses and depth. Nothing that trains weakly imports it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from reliev3r.errors import UserError
from reliev3r.files import read_json
from reliev3r.geometry.camera import K_of_crop_resize, shift_pixel_convention
from reliev3r.types import Truth


def load_truth(
    capture_root: Path | str,
    names: Sequence[str],
    *,
    regions: Float[Tensor, "v 4"],
    size: tuple[int, int],
    image_sizes: Sequence[tuple[int, int]] | None = None,
) -> Truth:
    """Ground truth of the frames ``names`` on the ``size`` = (h, w) grid that covers ``regions``.

    ``regions`` are (left, top, width, height) in original pixels (corner convention). K moves with the grid; depth
    (metres, z) is looked up at the centres of the grid's pixels (nearest) and valid where it is positive and inside the
    image. Frames without depth are allowed: nothing of theirs is valid, and only poses can be scored. With
    ``image_sizes`` (width, height), frames of another size are refused.

    Raises:
        UserError: no cameras.json; a frame is missing, or has no pose or K; a depth map is missing or unreadable.
    """
    file = Path(capture_root) / "cameras.json"
    if not file.is_file():
        raise UserError(f"{file}: not found, so this capture has no ground truth to score against")
    content = read_json(file)
    try:
        frames = {frame["name"]: frame for frame in content["frames"]}
    except (TypeError, KeyError) as error:
        raise UserError(f"{file}: needs a list 'frames' of objects with a 'name'") from error

    K, poses, depths = [], [], []
    for index, name in enumerate(names):
        if name not in frames:
            raise UserError(f"{file}: has no frame '{name}'; score against the capture the prediction was made from")
        expected = tuple(image_sizes[index]) if image_sizes is not None else None
        frame_K, pose, image_size = _camera(frames[name], file, expected)
        left, top, width, height = regions[index].double().tolist()
        scale = (size[1] / width, size[0] / height)
        K.append(K_of_crop_resize(frame_K, offset=(left, top), scale=scale))
        poses.append(pose)
        depths.append(_depth(frames[name], Path(capture_root), image_size, (left, top, width, height), size))
    depth = torch.from_numpy(np.stack(depths))
    valid = depth > 0
    return Truth(
        depth=torch.where(valid, depth, torch.ones_like(depth)),
        valid=valid,
        K=torch.stack(K).float(),
        world_from_cam=torch.stack(poses).float(),
    )


def _camera(
    frame: dict[str, Any], file: Path, expected: tuple[int, ...] | None
) -> tuple[Tensor, Tensor, tuple[int, int]]:
    """K (corner convention), world_from_cam, (width, height) of one entry of cameras.json."""
    name = frame["name"]
    if frame.get("cam_to_world") is None:
        raise UserError(f"{file}: this capture has no ground truth: poses are missing (frame '{name}')")
    try:
        image_size = (int(frame["width"]), int(frame["height"]))
        K = torch.tensor(frame["K"], dtype=torch.float64).reshape(3, 3)
        pose = torch.tensor(frame["cam_to_world"], dtype=torch.float64).reshape(4, 4)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise UserError(f"{file}: frame '{name}' needs width, height, a 3x3 K and a 4x4 cam_to_world") from error
    if not (K.isfinite().all() and pose.isfinite().all()):
        raise UserError(f"{file}: frame '{name}' has a K or pose that is not finite; leave the frame out")
    if expected is not None and image_size != expected:
        sizes = f"{image_size[0]}x{image_size[1]}, the prediction was made from {expected[0]}x{expected[1]}"
        raise UserError(f"{file}: frame '{name}' is {sizes}; score against the capture the prediction was made from")
    return shift_pixel_convention(K, 0.5), pose, image_size  # the file's pixel centres are integers


def _depth(
    frame: dict[str, Any],
    root: Path,
    image_size: tuple[int, int],
    region: tuple[float, float, float, float],
    size: tuple[int, int],
) -> np.ndarray:
    """Depth in metres at the centres of the grid's pixels, 0 where unknown. The map may have another resolution."""
    if not frame.get("depth"):
        return np.zeros(size, np.float32)
    file = root / frame["depth"]
    stored = cv2.imread(str(file), cv2.IMREAD_UNCHANGED) if file.is_file() else None
    if stored is None or stored.ndim != 2 or stored.dtype != np.uint16:
        raise UserError(f"{file}: not a readable 16-bit PNG depth map (named by cameras.json, frame '{frame['name']}')")
    left, top, width, height = region
    u = left + (np.arange(size[1]) + 0.5) * width / size[1]
    v = top + (np.arange(size[0]) + 0.5) * height / size[0]
    column = np.floor(u * stored.shape[1] / image_size[0]).astype(int)
    row = np.floor(v * stored.shape[0] / image_size[1]).astype(int)
    inside = ((row >= 0) & (row < stored.shape[0]))[:, None] & ((column >= 0) & (column < stored.shape[1]))
    picked = stored[row.clip(0, stored.shape[0] - 1)[:, None], column.clip(0, stored.shape[1] - 1)]
    return np.where(inside, picked, 0).astype(np.float32) / 1000

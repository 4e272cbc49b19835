"""Synthetic captures: from one seed to images with exact ground truth, in memory or as a capture folder."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from reliev3r.core.cameras_json import CAMERAS_JSON, PosedEntry, write_frames
from reliev3r.core.errors import UserError
from reliev3r.core.files import atomic_directory
from reliev3r.core.progress import Progress
from reliev3r.core.types import Truth, Views
from reliev3r.geometry.camera import K_from_fov
from reliev3r.synthetic.path import PathConfig, PathKind, sample_path
from reliev3r.synthetic.render import render
from reliev3r.synthetic.scene import TextureFamily, make_scene


@dataclass(frozen=True, kw_only=True)
class SynthConfig:
    """A synthetic capture; everything about it follows from these settings."""

    seed: int = 0
    """Of the room and, independently, of the cameras."""
    views: int = 12
    width: int = 480
    height: int = 360
    fov: float = 65.0
    """Horizontal field of view in degrees."""
    texture: TextureFamily = "masonry"
    """Domain of textures and layouts: masonry (rectangles, furniture) or terrazzo (irregular cells, round things)."""
    path: PathKind = "smooth"
    """A walk along an arc, or independent viewpoints within it."""
    span: float = 75.0
    """Degrees of the arc around the middle of the room: sets the baselines."""
    overlap: float = 0.5
    """Share of a view's pixels that the next view sees too, at least."""
    supersample: int = 2
    """Rays per pixel, squared."""

    def __post_init__(self) -> None:
        if self.texture not in get_args(TextureFamily):
            raise UserError(f"texture {self.texture!r} is unknown; choose one of {', '.join(get_args(TextureFamily))}")
        if not 5 <= self.fov <= 150:
            raise UserError(f"a field of view of {self.fov:g} degrees is out of range; choose 5 to 150")
        if min(self.width, self.height) < 8:
            raise UserError(f"images of {self.width}x{self.height} pixels are too small; choose at least 8x8")
        if self.supersample < 1:
            raise UserError(f"{self.supersample} rays per pixel are too few; choose at least 1")
        _ = self.camera_path  # runs checks of its own

    @property
    def camera_path(self) -> PathConfig:
        """The part that places the cameras."""
        return PathConfig(kind=self.path, views=self.views, span=self.span, overlap=self.overlap)

    @property
    def K(self) -> Float[Tensor, "3 3"]:
        """Intrinsics of every view (corner convention)."""
        return K_from_fov(math.radians(self.fov), self.height, self.width)


def render_capture(
    config: SynthConfig,
    *,
    device: torch.device | str = "cpu",
    progress: Progress | None = None,
) -> tuple[Views, Truth]:
    """Render the capture: views [v ...] and exact ground truth in metres, on ``device``.

    The same settings give the same room and cameras on every device, and the same bytes on the same device.

    Raises:
        UserError: no camera path with the required overlap was found.
    """
    scene = make_scene(config.seed, config.texture)
    size = (config.height, config.width)
    world_from_cam = sample_path(scene, config.K, size, config.camera_path, seed=config.seed)
    K = config.K.expand(config.views, 3, 3)
    return render(scene.to(device), K, world_from_cam, size, supersample=config.supersample, progress=progress)


def write_capture(
    folder: Path | str,
    config: SynthConfig,
    *,
    device: torch.device | str = "cpu",
    progress: Progress | None = None,
) -> Path:
    """Render the capture into a new folder: ``images/*.png``, ``depth/*.png``, ``cameras.json``; returns the folder.

    ``cameras.json`` has K with pixel centres at integers (as all shared captures), ``cam_to_world`` in metres, and the
    settings under ``"synthetic"``. Depth is z in mm as uint16.

    Raises:
        UserError: the folder exists and is not empty, cannot be written, or no camera path was found.
    """
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder}: exists and is not an empty folder; choose another or remove it")
    with atomic_directory(folder) as temporary:  # first of all, so that a folder that cannot be written costs no time
        views, truth = render_capture(config, device=device, progress=progress)
        (temporary / "images").mkdir()
        (temporary / "depth").mkdir()
        frames = []
        for k in range(config.views):
            name = f"{k:06d}"
            image = (views.image[k].movedim(0, -1) * 255).round().to(torch.uint8).cpu().numpy()
            Image.fromarray(image).save(temporary / "images" / f"{name}.png")
            Image.fromarray(_millimetres(truth.depth[k], truth.valid[k])).save(temporary / "depth" / f"{name}.png")
            frames.append(
                PosedEntry(
                    name=name, image=f"images/{name}.png", width=config.width, height=config.height,
                    K=truth.K[k].double().cpu().numpy(),
                    world_from_cam=truth.world_from_cam[k].double().cpu().numpy(),
                    depth=f"depth/{name}.png",
                )
            )  # fmt: skip
        write_frames(temporary / CAMERAS_JSON, frames, synthetic=dataclasses.asdict(config))
    return folder


def _millimetres(depth: Tensor, valid: Tensor) -> np.ndarray:
    """Metres as uint16 millimetres, 0 where invalid."""
    millimetres = torch.where(valid, depth * 1000, torch.zeros_like(depth)).round()
    return millimetres.cpu().numpy().astype(np.uint16)

"""Augmentation of samples: crops and mirror images that move K, labels and tracks along, and photometric changes.

What is drawn comes from a CPU generator alone, the same number of draws for the same shapes and settings: a resumed run
repeats it. Geometry changes before colour does, and the photometric part sees nothing but the image.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from typing import TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from reliev3r.data.augment_geometry import Crop, Mirror, moved
from reliev3r.data.augment_photo import PhotoConfig, change_photo
from reliev3r.errors import UserError
from reliev3r.types import FullLabels, Labels, Views

L = TypeVar("L", bound=Labels)


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """How far samples are changed; pairs are the ends of a range."""

    zoom: tuple[float, float] = (1.0, 1.6)
    """The window is the largest of the wanted aspect over this factor (log-uniform)."""
    zoom_per_view: bool = False
    """A zoom of its own for every view, for networks that predict (or know) a focal length for each; else one for all
    views of a sample."""
    offset: float = 1.0
    """Share of its free play by which a window may leave the centre. Without ``Views.K`` windows stay centred: a field
    of view head assumes a centred principal point."""
    mirror: float = 0.5
    """Probability that a sample, all of its views together, is seen in a mirror."""
    photo: PhotoConfig = field(default_factory=PhotoConfig)

    def __post_init__(self) -> None:
        if not 1 <= self.zoom[0] <= self.zoom[1]:
            raise UserError(f"augment: zoom {self.zoom} is no range; give two factors, 1 <= low <= high")
        if not (0 <= self.offset <= 1 and 0 <= self.mirror <= 1):
            raise UserError(f"augment: offset {self.offset:g} and mirror {self.mirror:g} must lie within 0 and 1")

    @classmethod
    def none(cls) -> AugmentConfig:
        """Nothing changes; with a ``size``, the largest centred crop is resampled to it."""
        return cls(zoom=(1.0, 1.0), offset=0.0, mirror=0.0, photo=PhotoConfig.none())


def augment(
    views: Views,
    labels: L,
    config: AugmentConfig,
    generator: torch.Generator,
    *,
    size: tuple[int, int] | None = None,
) -> tuple[Views, L]:
    """A changed copy of a sample [*b v ...], whose geometry is as exact as before.

    Args:
        views: Any device; ``K`` may be ``None`` and stays so.
        labels: At the resolution of ``views``. Depth keeps its scale, ambiguity and trust: z does not change. Tracks
            that leave a view have weight 0 there. Cameras change in mirror images alone.
        config: What changes, how often and how far.
        generator: On the CPU.
        size: (height, width) of the result, that of ``views`` by default; other aspects are reached by cropping.

    Raises:
        ValueError: labels of another resolution than the views.
    """
    depth = labels.truth.depth if isinstance(labels, FullLabels) else labels.depth.depth
    if views.size != tuple(depth.shape[-2:]):
        raise ValueError(f"labels of {tuple(depth.shape[-2:])} pixels do not fit views of {views.size}")
    size = size or views.size
    batch = views.image.shape[:-3]
    windows = draw_windows(batch, views.size, size, config, generator, centred=views.K is None)
    mirrored = torch.rand(batch[:-1], generator=generator) < config.mirror
    crop = Crop(windows=windows, source=views.size, size=size)
    if not crop.is_identity:
        views, labels = moved(views, labels, crop)
    if mirrored.any():
        views, labels = moved(views, labels, Mirror(mirrored=mirrored, size=size))
    return dataclasses.replace(views, image=change_photo(views.image, config.photo, generator)), labels


def draw_windows(
    batch: torch.Size,
    source: tuple[int, int],
    size: tuple[int, int],
    config: AugmentConfig,
    generator: torch.Generator,
    *,
    centred: bool = False,
) -> Float[Tensor, "*b v 4"]:
    """(left, top, width, height) of a window for each view, inside the source (in its pixels), of ``size``'s aspect.

    ``source`` and ``size`` are (height, width), ``batch`` is (*b, v). float64 on the CPU.
    """
    height, width = source
    aspect = size[1] / size[0]
    largest = torch.tensor([min(width, height * aspect), min(height, width / aspect)], dtype=torch.float64)
    drawn = torch.rand(*batch, 3, generator=generator, dtype=torch.float64)
    share = drawn[..., :1] if config.zoom_per_view else drawn[..., :1, :1].expand(*batch, 1)
    low, high = (math.log(zoom) for zoom in config.zoom)
    extent = largest / torch.exp(low + share * (high - low))
    play = torch.tensor([width, height], dtype=torch.float64) - extent
    offset = 0.0 if centred else config.offset
    corner = 0.5 * play * (1 + offset * (2 * drawn[..., 1:] - 1))
    return torch.cat([corner, extent], dim=-1)

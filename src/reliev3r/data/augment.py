"""Augmentation of samples: crops and mirror images that move K, labels and tracks along, and photometric changes.

What is drawn comes from a CPU generator alone, the same number of draws for the same shapes and settings: a resumed run
repeats it. Geometry changes before colour does, and the photometric part sees nothing but the image.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from reliev3r.core.errors import UserError
from reliev3r.core.types import FullLabels, Labels, Views
from reliev3r.data.augment_colour import WorldConfig, change_world
from reliev3r.data.augment_geometry import Crop, Mirror, moved, resample, tent_weights
from reliev3r.geometry.rigid import so3_exp

L = TypeVar("L", bound=Labels)

_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601


@dataclass(frozen=True, kw_only=True)
class PhotoConfig:
    """How often a view is changed, and how far; changes are drawn uniformly from symmetric ranges or from pairs."""

    colour: float = 0.8
    """Probability of the five changes that follow, together."""
    brightness: float = 0.3
    """Factor 1 +- this on all channels, as ``contrast`` (about the mean grey) and ``saturation`` (about the grey)."""
    contrast: float = 0.3
    saturation: float = 0.3
    hue: float = 0.03
    """Turns about the grey axis."""
    gamma: float = 0.2
    """Exponent within exp(+- this)."""
    blur: float = 0.2
    """Probability."""
    blur_radius: tuple[float, float] = (1.0, 3.0)
    """Pixels of the tent: what shrinking by that factor and enlarging again does."""
    noise: float = 0.2
    """Probability."""
    noise_sigma: tuple[float, float] = (0.0, 0.03)
    """Standard deviation, of a range of colours of 1."""
    jpeg: float = 0.2
    """Probability."""
    jpeg_quality: tuple[int, int] = (30, 95)

    def __post_init__(self) -> None:
        if any(not 0 <= share <= 1 for share in (self.colour, self.blur, self.noise, self.jpeg)):
            raise UserError("augment: colour, blur, noise and jpeg are probabilities; give values from 0 to 1")
        if any(not 0 <= limit < 1 for limit in (self.brightness, self.contrast, self.saturation)):
            raise UserError("augment: brightness, contrast and saturation must lie within 0 and 1, 1 excluded")
        if not 1 <= self.jpeg_quality[0] <= self.jpeg_quality[1] <= 100:
            raise UserError(f"augment: jpeg_quality {self.jpeg_quality} is no range; give two numbers from 1 to 100")
        for name, (low, high), least in (
            ("blur_radius", self.blur_radius, 1),
            ("noise_sigma", self.noise_sigma, 0),
        ):
            if not least <= low <= high:
                raise UserError(f"augment: {name} {(low, high)} is no range; give {least} <= low <= high")

    @classmethod
    def none(cls) -> PhotoConfig:
        """Nothing changes."""
        return cls(colour=0.0, blur=0.0, noise=0.0, jpeg=0.0)


def change_photo(
    image: Float[Tensor, "*b 3 h w"], config: PhotoConfig, generator: torch.Generator
) -> Float[Tensor, "*b 3 h w"]:
    """Images in [0, 1], each changed by its own draw from the CPU ``generator``: colour, blur, noise, JPEG."""
    flat = image.reshape(-1, *image.shape[-3:])
    drawn = torch.rand(len(flat), 12, generator=generator)
    seed = int(torch.randint(2**62, (1,), generator=generator))
    chosen = drawn[:, :4] < torch.tensor([config.colour, config.blur, config.noise, config.jpeg])
    strength = drawn[:, 4:]

    def changed(column: int, function: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        """Those views alone that are changed: the others cost nothing."""
        rows = chosen[:, column].nonzero()[:, 0]
        at = rows.to(flat.device)
        return flat.index_copy(0, at, function(flat[at], strength[rows])) if len(rows) else flat

    flat = changed(0, lambda image, share: _coloured(image, share[:, :5], config))
    flat = changed(1, lambda image, share: _blurred(image, _between(share[:, 5], config.blur_radius)))
    flat = changed(2, lambda image, share: _noisy(image, _between(share[:, 6], config.noise_sigma), seed))
    if chosen[:, 3].any() and flat.device.type == "cpu":
        quality = _between(strength[:, 7], config.jpeg_quality).round().int().tolist()
        rows = zip(flat, chosen[:, 3].tolist(), quality, strict=True)
        flat = torch.stack([_jpeg(view, number) if hit else view for view, hit, number in rows])
    return flat.reshape(image.shape)


def _between(share: Tensor, ends: tuple[float, float]) -> Tensor:
    return ends[0] + share * (ends[1] - ends[0])


def _coloured(image: Tensor, share: Float[Tensor, "n 5"], config: PhotoConfig) -> Tensor:
    """Brightness, saturation and hue as one matrix, then contrast about the view's mean grey, then gamma."""
    limits = torch.tensor([config.brightness, config.contrast, config.saturation, config.hue, config.gamma])
    brightness, contrast, saturation, turn, gamma = ((2 * share - 1) * limits).unbind(-1)
    luma = torch.tensor(_LUMA)
    hue = so3_exp((2 * math.pi / math.sqrt(3)) * turn[:, None].expand(-1, 3))
    fade = saturation[:, None, None]
    matrix = (1 + brightness)[:, None, None] * ((1 + fade) * torch.eye(3) - fade * luma) @ hue
    image = torch.einsum("nij,njhw->nihw", matrix.to(image), image)
    mean = torch.einsum("nchw,c->n", image, luma.to(image) / image[0, 0].numel())[:, None, None, None]
    image = mean + (1 + contrast.to(image))[:, None, None, None] * (image - mean)
    return image.clamp(0, 1) ** gamma.exp().to(image)[:, None, None, None]


def _blurred(image: Tensor, radius: Float[Tensor, " n"]) -> Tensor:
    radius = radius.to(image)

    def kernel(count: int) -> Tensor:
        centres = torch.arange(count, dtype=image.dtype, device=image.device) + 0.5
        return tent_weights(centres.expand(len(image), -1), count, radius)

    return resample(image, kernel(image.shape[-2]), kernel(image.shape[-1]))


def _noisy(image: Tensor, sigma: Float[Tensor, " n"], seed: int) -> Tensor:
    generator = torch.Generator(image.device).manual_seed(seed)  # millions of numbers: made where they are needed
    noise = torch.randn(image.shape, generator=generator, device=image.device, dtype=image.dtype)
    return (image + sigma.to(image)[:, None, None, None] * noise).clamp(0, 1)


def _jpeg(image: Float[Tensor, "3 h w"], quality: int) -> Float[Tensor, "3 h w"]:
    import cv2  # here: a training that wants no JPEG does without it

    pixels = (image.flip(0).movedim(0, -1) * 255).round().clamp(0, 255).byte().numpy()
    coded = cv2.imdecode(cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, quality])[1], cv2.IMREAD_COLOR)
    return (torch.from_numpy(coded).movedim(-1, 0).flip(0) / 255).to(image)


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """How far samples are changed; pairs are the ends of a range."""

    zoom: tuple[float, float] = (1.0, 1.6)
    """The window is the largest of the wanted aspect over this factor (log-uniform)."""
    zoom_per_view: bool = False
    """A zoom of its own for every view, for networks that predict (or know) a focal length for each; else one for all
    views of a sample."""
    offset: float = 1.0
    """Share of its free play by which a window may leave the centre. Without ``Views.K`` it stays there."""
    mirror: float = 0.5
    """Probability that a sample, all of its views together, is seen in a mirror."""
    photo: PhotoConfig = field(default_factory=PhotoConfig)
    world: WorldConfig = field(default_factory=WorldConfig.none)

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

    Where the network is not shown K (``views.K`` is None), windows are what a field-of-view head can express: centred
    on the principal point, of square pixels, one focal length for all views of a sample but for ``zoom_per_view``. So
    K is hidden *before* augmentation, never after. What the labels know of K says where that is; without it, windows
    are centred on the image.

    Args:
        views: Any device; ``K`` may be ``None`` and stays so.
        labels: At the resolution of ``views``. Depth keeps its scale, ambiguity and trust: z does not change. Tracks
            that leave a view have weight 0 there. Cameras change in mirror images alone.
        config: What changes, how often and how far.
        generator: On the CPU.
        size: (height, width) of the result, that of ``views`` by default; other aspects are reached by cropping.

    Raises:
        ValueError: labels of another resolution than the views.
        UserError: K is hidden, and a principal point leaves no window around it.
    """
    depth = labels.truth.depth if isinstance(labels, FullLabels) else labels.depth.depth
    if views.size != tuple(depth.shape[-2:]):
        raise ValueError(f"labels of {tuple(depth.shape[-2:])} pixels do not fit views of {views.size}")
    size = size or views.size
    batch = views.image.shape[:-3]
    hidden = views.K is None
    K = (labels.truth.K if isinstance(labels, FullLabels) else labels.K) if hidden else None
    windows = draw_windows(batch, views.size, size, config, generator, centred=hidden, K=K)
    mirrored = torch.rand(batch[:-1], generator=generator) < config.mirror
    crop = Crop(windows=windows, source=views.size, size=size)
    if not crop.is_identity:
        views, labels = moved(views, labels, crop)
    if mirrored.any():
        views, labels = moved(views, labels, Mirror(mirrored=mirrored, size=size))
    image = change_world(views.image, config.world, generator)
    return dataclasses.replace(views, image=change_photo(image, config.photo, generator)), labels


def draw_windows(
    batch: torch.Size,
    source: tuple[int, int],
    size: tuple[int, int],
    config: AugmentConfig,
    generator: torch.Generator,
    *,
    centred: bool = False,
    K: Float[Tensor, "*b v 3 3"] | None = None,
) -> Float[Tensor, "*b v 4"]:
    """(left, top, width, height) of a window for each view, inside the source (in its pixels), of ``size``'s aspect.

    ``source`` and ``size`` are (height, width), ``batch`` is (*b, v). ``K``, where given, is what a centred window must
    make a field of view of (:func:`augment`). float64 on the CPU.

    Raises:
        UserError: ``K`` has a principal point that leaves no window around it.
    """
    height, width = source
    image = torch.tensor([width, height], dtype=torch.float64)
    drawn = torch.rand(*batch, 3, generator=generator, dtype=torch.float64)
    share = drawn[..., :1] if config.zoom_per_view else drawn[..., :1, :1].expand(*batch, 1)
    low, high = (math.log(zoom) for zoom in config.zoom)
    zoom = torch.exp(low + share * (high - low))
    if centred and K is not None:
        centre, largest = _around_principal_point(K.detach().cpu().double(), image, size)
        return torch.cat([centre - 0.5 * largest / zoom, largest / zoom], dim=-1)
    aspect = size[1] / size[0]
    extent = torch.tensor([min(width, height * aspect), min(height, width / aspect)], dtype=torch.float64) / zoom
    offset = 0.0 if centred else config.offset
    corner = 0.5 * (image - extent) * (1 + offset * (2 * drawn[..., 1:] - 1))
    return torch.cat([corner, extent], dim=-1)


def _around_principal_point(
    K: Float[Tensor, "*b v 3 3"], image: Float[Tensor, "2"], size: tuple[int, int]
) -> tuple[Float[Tensor, "*b v 2"], Float[Tensor, "*b v 2"]]:
    """(centre, extent) in pixels of the largest windows of ``size`` = (height, width) that one focal length describes:
    around the principal points, equal for all views of a sample in units of their focal lengths."""
    focal, centre = K[..., [0, 1], [0, 1]], K[..., :2, 2]
    free = 2 * torch.minimum(centre, image - centre)
    if (free < LEAST_WINDOW * image).any():
        raise UserError(
            f"a principal point lies too far from the centre of its image ({image[0]:g} x {image[1]:g} pixels) for a "
            "network that predicts the field of view; leave the capture out, or show the network K"
        )
    pixels = focal * torch.tensor([size[1], size[0]], dtype=torch.float64)  # extent a unit of one over the new focal
    return centre, (free / pixels).amin((-2, -1), keepdim=True) * pixels


LEAST_WINDOW = 0.25
"""Share of an image's sides that a window around the principal point must be able to have."""


def centred_crop(size: tuple[int, int], K: Float[Tensor, "*b v 3 3"]) -> Crop:
    """The largest windows of views of ``size`` = (height, width) that a field-of-view head can express, brought to that
    size: what is seen of them where K is hidden and nothing else is changed.

    Raises:
        UserError: a principal point leaves no window around it.
    """
    generator = torch.Generator().manual_seed(0)  # nothing of the plain settings is drawn
    windows = draw_windows(K.shape[:-2], size, size, AugmentConfig.none(), generator, centred=True, K=K)
    return Crop(windows=windows, source=size, size=size)

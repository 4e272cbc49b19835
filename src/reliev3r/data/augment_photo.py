"""Photometric changes, each view by itself: colour, blur, noise and JPEG. Geometry is not touched.

All of it runs on the images' device in batches, but for JPEG, which is OpenCV's and happens only where images are on
the CPU (nothing stands in for it elsewhere).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from reliev3r.data.augment_geometry import resample, tent_weights
from reliev3r.errors import UserError
from reliev3r.geometry.rigid import so3_exp

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

    def mixed(changed: Tensor, column: int) -> Tensor:
        return torch.where(chosen[:, column, None, None, None].to(flat.device), changed, flat)

    if chosen[:, 0].any():
        flat = mixed(_coloured(flat, strength[:, :5], config), 0)
    if chosen[:, 1].any():
        flat = mixed(_blurred(flat, _between(strength[:, 5], config.blur_radius)), 1)
    if chosen[:, 2].any():
        flat = mixed(_noisy(flat, _between(strength[:, 6], config.noise_sigma), seed), 2)
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

"""Another world of colours for a whole sample: what carries matching over to textures and light never rendered.

All views of a sample see the same world; each sees it through a camera of its own. Drawn from a CPU generator, the same
number of draws for the same shapes and settings.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from reliev3r.core.errors import UserError
from reliev3r.geometry.sampling import box_mean

_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601


@dataclass(frozen=True, kw_only=True)
class WorldConfig:
    """How often, and how far; 0 is not at all."""

    mix: float = 0.5
    """Probability that the channels are mixed at random: any hue, any relation of them."""
    saturation: float = 1.6
    """Largest factor on it, drawn from 0 on (grey)."""
    invert: float = 0.25
    """Probability that dark is light."""
    contrast: float = 0.6
    """Factor 1 +- this for all views, and a quarter of it for each."""
    gain: float = 0.25
    """Factor 1 +- this of each view, and two fifths of it of each channel."""
    gamma: float = 0.3
    """Exponent within exp(+- this), for all views."""
    blur: float = 0.6
    """Probability that some of the views are blurred (3 x 3)."""
    noise: float = 0.03
    """Largest standard deviation, drawn for each view."""

    def __post_init__(self) -> None:
        if any(not 0 <= share <= 1 for share in (self.mix, self.invert, self.blur)):
            raise UserError("augment.world: mix, invert and blur are probabilities; give values from 0 to 1")
        if min(self.saturation, self.gamma, self.noise) < 0 or not (0 <= self.contrast < 0.8 and 0 <= self.gain < 0.7):
            raise UserError(
                "augment.world: saturation, gamma and noise must not be negative, contrast 0 to 0.8, gain 0 to 0.7"
            )

    @classmethod
    def none(cls) -> WorldConfig:
        """Nothing changes."""
        return cls(mix=0.0, saturation=0.0, invert=0.0, contrast=0.0, gain=0.0, gamma=0.0, blur=0.0, noise=0.0)


def change_world(
    image: Float[Tensor, "*b v 3 h w"], config: WorldConfig, generator: torch.Generator
) -> Float[Tensor, "*b v 3 h w"]:
    """Samples of images in [0, 1], each in another world."""
    if config == WorldConfig.none():
        return image
    flat = image.reshape(-1, *image.shape[-4:])
    samples, views = flat.shape[:2]

    def draw(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator).to(image)

    def around(reach: float, *shape: int) -> Tensor:
        return 1 + reach * (2 * draw(*shape) - 1)

    flat = torch.einsum("bij,bvjhw->bvihw", _mixes(samples, config, draw, image), flat)
    inverted = (draw(samples, 1, 1, 1, 1) < config.invert).to(flat)
    flat = torch.lerp(flat, 1 - flat, inverted)
    mean = flat.mean((-3, -2, -1), keepdim=True)
    contrast = (
        around(config.contrast, samples, 1, 1, 1, 1) + around(0.25 * config.contrast, samples, views, 1, 1, 1) - 1
    )
    gain = around(0.4 * config.gain, samples, views, 3, 1, 1) + around(config.gain, samples, views, 1, 1, 1) - 1
    flat = (mean + contrast * (flat - mean)) * gain
    gamma = (config.gamma * (2 * draw(samples, 1, 1, 1, 1) - 1)).exp()
    flat = flat.clamp(1e-3, 1) ** gamma
    flat = torch.lerp(flat, _blurred(flat), _blurs(samples, views, config, draw))
    sigma = config.noise * draw(samples, views, 1, 1, 1)
    noise = torch.randn(flat.shape, generator=generator).to(flat)
    return (flat + sigma * noise).clamp(0, 1).reshape(image.shape)


def _mixes(samples: int, config: WorldConfig, draw: object, like: Tensor) -> Float[Tensor, "b 3 3"]:
    """Matrices whose rows sum to 1: grey stays grey."""
    assert callable(draw)
    mixed = draw(samples, 3, 3).square()
    mixed = mixed / mixed.sum(-1, keepdim=True)
    eye = torch.eye(3).to(like)
    matrix = torch.where(draw(samples, 1, 1) < config.mix, mixed, eye)
    saturation = config.saturation * draw(samples, 1, 1) if config.saturation > 0 else like.new_ones(samples, 1, 1)
    grey = torch.tensor(_LUMA).to(like).expand(3, 3) @ matrix
    return torch.lerp(grey, matrix, saturation)


def _blurs(samples: int, views: int, config: WorldConfig, draw: object) -> Float[Tensor, "b v 1 1 1"]:
    """How much of the blurred image each view gets: half of the views of such samples get none."""
    assert callable(draw)
    amount: Tensor = 2 * (draw(samples, views, 1, 1, 1) - 0.5).clamp_min(0)
    return amount * (draw(samples, 1, 1, 1, 1) < config.blur)


def _blurred(image: Float[Tensor, "b v 3 h w"]) -> Float[Tensor, "b v 3 h w"]:
    return box_mean(image.flatten(0, 1), 3).view_as(image)

"""The matching branch: images to dense features that tell surface points apart, by convolutions alone.

It sees no tokens of the transformer (context from them brought nothing in a prototype), so that it can be run by
itself, at any resolution: to label tracks, or on larger images than the rest of the network.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from reliev3r.geometry.sampling import box_mean

_TEMPERATURE = 0.07
"""Of a fresh branch: cosines are divided by it."""
_HOTTEST = 100.0
"""Bound on the learned inverse temperature."""


class MatchBranch(nn.Module):
    """A small convolutional pyramid at strides 2, 4 and 8, read out at stride 2."""

    def __init__(self, dim: int, widths: tuple[int, int, int] = (32, 64, 96)) -> None:
        """``dim``: channels of the features."""
        super().__init__()
        fine, middle, coarse = widths
        self.stem = nn.Conv2d(6, fine, 4, stride=2, padding=1)
        self.fine = _Residual(fine)
        self.to_middle = nn.Conv2d(fine, middle, 3, stride=2, padding=1)
        self.middle = nn.Sequential(_Residual(middle), _Residual(middle))
        self.to_coarse = nn.Conv2d(middle, coarse, 3, stride=2, padding=1)
        self.coarse = nn.Sequential(_Residual(coarse), _Residual(coarse))
        self.from_coarse = nn.Conv2d(coarse, middle, 1)
        self.joined = _Residual(middle)
        self.from_middle, self.from_fine = nn.Conv2d(middle, dim, 1), nn.Conv2d(fine, dim, 1)
        self.out = nn.Sequential(_Residual(dim), nn.GroupNorm(8, dim), nn.GELU(), nn.Conv2d(dim, dim, 3, padding=1))
        self.log_sharpness = nn.Parameter(torch.tensor(-math.log(_TEMPERATURE)))

    def forward(self, image: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n c h2 w2"]:
        """Features at half the resolution of normalised images, of any size; all of one length, whose square is the
        inverse temperature: the dot product of two is the logit of their match."""
        fine = self.fine(F.gelu(self.stem(torch.cat([local_contrast(image), image], dim=1))))
        middle = self.middle(self.to_middle(fine))
        coarse = self.coarse(self.to_coarse(middle))
        middle = self.joined(middle + _enlarged(self.from_coarse(coarse), middle))
        read = self.out(self.from_fine(fine) + _enlarged(self.from_middle(middle), fine))
        sharpness = self.log_sharpness.exp().clamp_max(_HOTTEST)
        return sharpness.sqrt() * F.normalize(read.float(), dim=1)


def _enlarged(x: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(x, size=like.shape[-2:], mode="bilinear", align_corners=False)


class _Residual(nn.Module):
    """Norm, convolution, GELU, convolution on a residual branch that begins near zero."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(8, width)
        self.first, self.second = (nn.Conv2d(width, width, 3, padding=1) for _ in range(2))
        nn.init.normal_(self.second.weight, std=0.01)
        assert self.second.bias is not None
        nn.init.zeros_(self.second.bias)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        """Of the same size."""
        return x + self.second(F.gelu(self.first(self.norm(x))))


def local_contrast(image: Float[Tensor, "n 3 h w"], *, side: int = 7, floor: float = 0.1) -> Float[Tensor, "n 3 h w"]:
    """The image less its local mean, over twice its local contrast: what light, exposure and hue change least.

    ``floor`` keeps flat areas flat: a contrast, in units of the image, that is added to that of every place.
    """
    gap = image - _blurred(image, side)
    contrast = _blurred(gap.square().mean(1, keepdim=True), side)
    return gap / (2 * (contrast + floor**2).sqrt())


def _blurred(x: Tensor, side: int) -> Tensor:
    """Two box filters, one after the other."""
    return box_mean(box_mean(x, side), side)

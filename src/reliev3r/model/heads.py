"""Heads: a small frame-wise decoder each, then depth or points, confidence, camera and field of view."""

from __future__ import annotations

import math
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from reliev3r.geometry.collapse_signs import CONF_LOGIT_BOUND
from reliev3r.geometry.rigid import rigid_from, rotation_from_9d
from reliev3r.model.transformer import Block, Rope

USUAL_FOCAL = 0.9
"""Focal length in image widths (58 degrees) that a fresh field-of-view head says."""


class HeadDecoder(nn.Module):
    """Projection, frame-wise blocks with RoPE (no LayerScale, no qk-norm) and an output layer, as in pi^3."""

    def __init__(self, in_dim: int, dim: int, out_dim: int, *, depth: int, heads: int, mlp_ratio: float) -> None:
        super().__init__()
        self.projects = nn.Linear(in_dim, dim)
        self.blocks = nn.ModuleList(Block(dim, heads, mlp_ratio=mlp_ratio) for _ in range(depth))
        self.linear_out = nn.Linear(dim, out_dim)

    def forward(self, tokens: Float[Tensor, "n t c"], rope: Rope) -> Float[Tensor, "n t d"]:
        """Each view on its own."""
        x = self.projects(tokens)
        for block in self.blocks:
            x = block(x, rope)
        return self.linear_out(x)


class PixelHead(nn.Module):
    """Patch token to ``channels`` values per pixel by one linear layer and pixel shuffle."""

    def __init__(self, dim: int, patch_size: int, channels: int) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.proj = nn.Linear(dim, channels * patch_size**2)
        # Start from flat maps: a random pattern inside every patch would first have to be unlearned.
        nn.init.normal_(self.proj.weight, std=1e-3)
        nn.init.zeros_(self.proj.bias)

    def forward(
        self, tokens: Float[Tensor, "n t c"], image: Float[Tensor, "n 3 h w"]
    ) -> Float[Tensor, "n channels h w"]:
        """Maps of the image's size, float32."""
        return _pixels(self.proj(tokens), image, self.patch_size).float()


class GuidedPixelHead(nn.Module):
    """Patch token to a coarse feature per 2 x 2 pixels, mixed with the image's own by convolutions, to pixels.

    A linear head draws inside a patch only what one token says; here depth edges can follow image edges.
    """

    def __init__(self, dim: int, patch_size: int, channels: int, *, width: int = 16) -> None:
        super().__init__()
        self.coarse = patch_size // 2
        self.proj = nn.Linear(dim, width * self.coarse**2)
        self.stem = nn.Conv2d(3, width, 4, stride=2, padding=1)
        self.mix = nn.Conv2d(2 * width, 2 * width, 3, padding=1)
        self.out = nn.Conv2d(2 * width, 4 * channels, 3, padding=1)
        nn.init.normal_(self.out.weight, std=1e-2)

    def forward(
        self, tokens: Float[Tensor, "n t c"], image: Float[Tensor, "n 3 h w"]
    ) -> Float[Tensor, "n channels h w"]:
        """Maps of the image's size, float32."""
        x = torch.cat([_pixels(self.proj(tokens), image, self.coarse, 2), self.stem(image)], dim=1)
        x = x + F.gelu(self.mix(F.gelu(x)))
        return F.pixel_shuffle(self.out(x).float(), 2)


def _pixels(values: Tensor, image: Tensor, cells: int, shrink: int = 1) -> Tensor:
    """Token values [n, t, c * cells^2] as maps [n, c, h / shrink, w / shrink]."""
    rows = image.shape[-2] // (cells * shrink)
    return F.pixel_shuffle(values.mT.unflatten(-1, (rows, -1)), cells)


class _ResidualMlp(nn.Module):
    """Three linear layers with ReLU on a residual branch (pi^3 names them res_conv)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.res_conv1 = nn.Linear(dim, dim)
        self.res_conv2 = nn.Linear(dim, dim)
        self.res_conv3 = nn.Linear(dim, dim)

    def forward(self, x: Float[Tensor, "*b c"]) -> Float[Tensor, "*b c"]:
        """Token-wise."""
        return x + F.relu(self.res_conv3(F.relu(self.res_conv2(F.relu(self.res_conv1(x))))))


class MatchHead(nn.Module):
    """Tokens to unit descriptors by a small MLP: the auxiliary correspondence branch, used in training only."""

    def __init__(self, dim: int, out_dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.fc1 = nn.Linear(dim, dim)
        self.fc2 = nn.Linear(dim, out_dim)

    def forward(self, tokens: Float[Tensor, "n t c"]) -> Float[Tensor, "n t d"]:
        """Token-wise, of length 1."""
        return F.normalize(self.fc2(F.gelu(self.fc1(self.norm(tokens)))), dim=-1)


def _standardised(feature: Float[Tensor, "b v c"]) -> Float[Tensor, "b v c"]:
    """Each channel's deviation from its mean over the views, in units of its spread over them."""
    gap = feature - feature.mean(1, keepdim=True)
    return gap / (gap.square().mean(1, keepdim=True) + 1e-8).sqrt()


class CameraHead(nn.Module):
    """Patch tokens to one camera per view: world_from_cam up to a similarity; optionally log(focal / width)."""

    def __init__(self, dim: int, *, fov: bool, contrast: bool, poses: bool = True) -> None:
        """``poses``: False for a head that gives the focal length alone, beside cameras that are solved."""
        super().__init__()
        self.contrast = contrast
        self.res_conv = nn.ModuleList(_ResidualMlp(dim) for _ in range(2))
        self.more_mlps = nn.Sequential(nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, dim), nn.ReLU())
        self.fc_t = nn.Linear(dim, 3) if poses else None
        self.fc_rot = nn.Linear(dim, 9) if poses else None
        self.fc_fov = nn.Linear(dim, 1) if fov else None
        # Start all cameras near the identity, where the angular loss has its easiest descent.
        if self.fc_rot is not None:
            nn.init.eye_(self.fc_rot.bias.data.view(3, 3))
        if self.fc_fov is not None:
            nn.init.zeros_(self.fc_fov.weight)
            nn.init.constant_(self.fc_fov.bias, math.log(USUAL_FOCAL))

    def pool(self, tokens: Float[Tensor, "n t c"]) -> Float[Tensor, "n c"]:
        """One feature per view, from that view alone."""
        for block in self.res_conv:
            tokens = block(tokens)
        return tokens.mean(1)

    def forward(
        self, pooled: Float[Tensor, "n c"], views: int
    ) -> tuple[Float[Tensor, "n 4 4"] | None, Float[Tensor, " n"] | None]:
        """(world_from_cam, focal length in image widths), float32, None of what it does not predict; samples have
        ``views`` views each."""
        if self.contrast and views > 1:
            pooled = pooled + _standardised(pooled.unflatten(0, (-1, views))).flatten(0, 1)
        feature = self.more_mlps(pooled)
        world_from_cam = None
        if self.fc_rot is not None and self.fc_t is not None:
            matrix = F.normalize(self.fc_rot(feature).unflatten(-1, (3, 3)), dim=-1)
            world_from_cam = rigid_from(rotation_from_9d(matrix), self.fc_t(feature))
        focal = None if self.fc_fov is None else self.fc_fov(feature)[:, 0].exp()
        return world_from_cam, focal


def set_initial_focal(head: CameraHead | None, focal_over_width: float) -> None:
    """Start a field-of-view head from a known guess of the focal length (in image widths).

    Raises:
        ValueError: the network has none.
    """
    if head is None or head.fc_fov is None:
        raise ValueError("this network has no field-of-view head")
    nn.init.constant_(head.fc_fov.bias, math.log(focal_over_width))


def confidence(logit: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
    """W = 2 sigmoid of the logit, which is bounded (``CONF_LOGIT_BOUND``) but never without gradient.

    Where all errors are small nothing holds the logits back: unbounded they grew until W was exactly 2, without
    gradient, and the pixels that deserve doubt, grown with the others, could not come back.
    """
    return 2 * torch.sigmoid(_Bounded.apply(logit))


class _Bounded(torch.autograd.Function):
    """Clamp to the bounds; at a bound the gradient still leads inwards, and only inwards."""

    @staticmethod
    def forward(ctx: Any, logit: Tensor) -> Tensor:
        ctx.save_for_backward(logit)
        return logit.clamp(-CONF_LOGIT_BOUND, CONF_LOGIT_BOUND)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (logit,) = ctx.saved_tensors
        outwards = ((logit > CONF_LOGIT_BOUND) & (grad < 0)) | ((logit < -CONF_LOGIT_BOUND) & (grad > 0))
        return torch.where(outwards, 0.0, grad)

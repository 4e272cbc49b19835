"""ViT encoder with registers, module for module DINOv2's (so that its weights, and pi^3's, fit)."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from reliev3r.model.attention import Block


class PatchEmbed(nn.Module):
    """Non-overlapping patches to tokens."""

    def __init__(self, dim: int, patch_size: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, dim, kernel_size=patch_size, stride=patch_size)

    def forward(self, image: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n t c"]:
        """Row-major patch tokens."""
        return self.proj(image).flatten(2).mT


class Encoder(nn.Module):
    """Image to patch tokens, each view on its own; class and register tokens take part but are not returned."""

    def __init__(
        self, *, dim: int, depth: int, heads: int, patch_size: int, grid: int, registers: int, mlp_ratio: float
    ) -> None:
        super().__init__()
        self.grid = grid
        self.patch_size = patch_size
        self.patch_embed = PatchEmbed(dim, patch_size)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.register_tokens = nn.Parameter(torch.zeros(1, registers, dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + grid * grid, dim))
        self.blocks = nn.ModuleList(Block(dim, heads, mlp_ratio=mlp_ratio, layer_scale=1.0) for _ in range(depth))
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        nn.init.normal_(self.cls_token, std=1e-6)
        nn.init.normal_(self.register_tokens, std=1e-6)

    def _positions(self, height: int, width: int) -> Float[Tensor, "1 t c"]:
        """Learned positions, resampled from the grid they were learned on."""
        patches = self.pos_embed[:, 1:]
        if (height, width) == (self.grid, self.grid):
            return patches
        return resample_positions(patches, height, width)

    def forward(self, image: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n t c"]:
        """Patch tokens after the final norm; ``image`` is normalised by ImageNet's statistics."""
        height, width = image.shape[-2] // self.patch_size, image.shape[-1] // self.patch_size
        tokens = self.patch_embed(image)
        tokens = tokens + self._positions(height, width).to(tokens.dtype)
        n = tokens.shape[0]
        cls_token = (self.cls_token + self.pos_embed[:, :1]).expand(n, -1, -1)
        special = torch.cat([cls_token, self.register_tokens.expand(n, -1, -1)], dim=1)
        tokens = torch.cat([special.to(tokens.dtype), tokens], dim=1)
        for block in self.blocks:
            tokens = block(tokens)
        return self.norm(tokens[:, special.shape[1] :])


def resample_positions(table: Float[Tensor, "1 t c"], height: int, width: int) -> Float[Tensor, "1 s c"]:
    """Learned positions of a square grid of patches on another grid, float32 (bicubic, antialiased, as DINOv2 does)."""
    side = math.isqrt(table.shape[1])
    grid = table.float().unflatten(1, (side, side)).permute(0, 3, 1, 2)
    return F.interpolate(grid, size=(height, width), mode="bicubic", antialias=True).flatten(2).mT

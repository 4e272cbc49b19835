"""Heads: a small frame-wise decoder each, then depth or points, confidence, camera and field of view."""

from __future__ import annotations

import math

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from reliev3r.geometry.rigid import rigid_from, rotation_from_9d
from reliev3r.model.attention import Block, Rope


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

    def forward(self, tokens: Float[Tensor, "n t c"], height: int, width: int) -> Float[Tensor, "n channels h w"]:
        """Maps of ``height`` x ``width`` pixels, float32."""
        maps = self.proj(tokens).mT.unflatten(-1, (height // self.patch_size, width // self.patch_size))
        return F.pixel_shuffle(maps.float(), self.patch_size)


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


def _standardised(feature: Float[Tensor, "b v c"]) -> Float[Tensor, "b v c"]:
    """Each channel's deviation from its mean over the views, in units of its spread over them."""
    gap = feature - feature.mean(1, keepdim=True)
    return gap / (gap.square().mean(1, keepdim=True) + 1e-8).sqrt()


class CameraHead(nn.Module):
    """Patch tokens to one camera per view: world_from_cam up to a similarity; optionally log(focal / width)."""

    def __init__(self, dim: int, *, fov: bool, contrast: bool) -> None:
        super().__init__()
        self.contrast = contrast
        self.res_conv = nn.ModuleList(_ResidualMlp(dim) for _ in range(2))
        self.more_mlps = nn.Sequential(nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, dim), nn.ReLU())
        self.fc_t = nn.Linear(dim, 3)
        self.fc_rot = nn.Linear(dim, 9)
        self.fc_fov = nn.Linear(dim, 1) if fov else None
        # Start all cameras near the identity, where the angular loss has its easiest descent.
        nn.init.eye_(self.fc_rot.bias.data.view(3, 3))
        if self.fc_fov is not None:
            nn.init.zeros_(self.fc_fov.weight)
            nn.init.constant_(self.fc_fov.bias, math.log(0.9))

    def forward(
        self, tokens: Float[Tensor, "n t c"], views: int
    ) -> tuple[Float[Tensor, "n 4 4"], Float[Tensor, "n"] | None]:
        """(world_from_cam, focal length in image widths or None), float32; samples have ``views`` views each."""
        for block in self.res_conv:
            tokens = block(tokens)
        pooled = tokens.float().mean(1)
        if self.contrast and views > 1:
            pooled = pooled + _standardised(pooled.unflatten(0, (-1, views))).flatten(0, 1)
        feature = self.more_mlps(pooled)
        matrix = F.normalize(self.fc_rot(feature).unflatten(-1, (3, 3)), dim=-1).mT
        world_from_cam = rigid_from(rotation_from_9d(matrix), self.fc_t(feature))
        focal = None if self.fc_fov is None else self.fc_fov(feature)[:, 0].exp()
        return world_from_cam, focal

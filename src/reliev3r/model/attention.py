"""Transformer blocks with optional 2D rotary positions, qk-norm and LayerScale (module names as in DINOv2 and pi^3)."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

Rope = tuple[Tensor, Tensor]
"""Cosine and sine tables [t, head_dim] of one token sequence."""


def rope_tables(
    height: int, width: int, *, registers: int, views: int, head_dim: int, base: float, device: torch.device
) -> Rope:
    """2D RoPE tables for ``views`` repetitions of (``registers`` tokens at position 0, then height x width patches).

    Patches sit at (y, x) + 1. The first half of a head rotates with y, the second with x, frequencies base^(-2i/d) with
    d = head_dim / 2 (pi^3; RoFormer eq. 15 per axis). All views share the same positions: no view index exists.
    """
    d = head_dim // 2
    frequency = base ** (-torch.arange(0, d, 2, device=device, dtype=torch.float32) / d)
    y = torch.arange(1, height + 1, device=device, dtype=torch.float32)[:, None].expand(height, width).reshape(-1)
    x = torch.arange(1, width + 1, device=device, dtype=torch.float32)[None, :].expand(height, width).reshape(-1)
    angles = torch.cat(
        [y[:, None] * frequency, y[:, None] * frequency, x[:, None] * frequency, x[:, None] * frequency], -1
    )
    angles = torch.cat([angles.new_zeros(registers, head_dim), angles]).repeat(views, 1)
    return angles.cos(), angles.sin()


def apply_rope(x: Float[Tensor, "b heads t d"], rope: Rope) -> Float[Tensor, "b heads t d"]:
    """Rotate queries or keys; each axis' half uses rotate-half pairing (x1 | x2)."""
    cos, sin = (table.to(x.dtype) for table in rope)
    y1, y2, x1, x2 = x.chunk(4, dim=-1)
    rotated = torch.cat([-y2, y1, -x2, x1], dim=-1)
    return x * cos + rotated * sin


class Attention(nn.Module):
    """Multi-head self-attention; ``qk_norm`` normalises each head's queries and keys before RoPE."""

    def __init__(self, dim: int, heads: int, *, qk_norm: bool) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.q_norm = nn.LayerNorm(dim // heads) if qk_norm else nn.Identity()
        self.k_norm = nn.LayerNorm(dim // heads) if qk_norm else nn.Identity()
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Float[Tensor, "b t c"], rope: Rope | None = None) -> Float[Tensor, "b t c"]:
        """Attend over the token axis."""
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        q, k = self.q_norm(q).to(v.dtype), self.k_norm(k).to(v.dtype)
        if rope is not None:
            q, k = apply_rope(q, rope), apply_rope(k, rope)
        out = F.scaled_dot_product_attention(q, k, v)
        return self.proj(out.transpose(1, 2).flatten(-2))


class Mlp(nn.Module):
    """Two linear layers with GELU."""

    def __init__(self, dim: int, ratio: float) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, int(dim * ratio))
        self.fc2 = nn.Linear(int(dim * ratio), dim)

    def forward(self, x: Float[Tensor, "*b c"]) -> Float[Tensor, "*b c"]:
        """Token-wise."""
        return self.fc2(F.gelu(self.fc1(x)))


class LayerScale(nn.Module):
    """A learned factor per channel on a residual branch."""

    def __init__(self, dim: int, init: float) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.full((dim,), init))

    def forward(self, x: Float[Tensor, "*b c"]) -> Float[Tensor, "*b c"]:
        """Scale the channels."""
        return x * self.gamma


class Block(nn.Module):
    """Pre-norm transformer block."""

    def __init__(
        self, dim: int, heads: int, *, mlp_ratio: float = 4.0, qk_norm: bool = False, layer_scale: float | None = None
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.attn = Attention(dim, heads, qk_norm=qk_norm)
        self.ls1 = nn.Identity() if layer_scale is None else LayerScale(dim, layer_scale)
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = Mlp(dim, mlp_ratio)
        self.ls2 = nn.Identity() if layer_scale is None else LayerScale(dim, layer_scale)
        self.recompute = False
        """Activation checkpointing: keep a block's input alone and run it again for the gradient."""

    def forward(self, x: Float[Tensor, "b t c"], rope: Rope | None = None) -> Float[Tensor, "b t c"]:
        """Attention, then MLP, each on a residual branch."""
        if self.recompute and torch.is_grad_enabled():
            return checkpoint(self._branches, x, rope, use_reentrant=False)
        return self._branches(x, rope)

    def _branches(self, x: Tensor, rope: Rope | None) -> Tensor:
        x = x + self.ls1(self.attn(self.norm1(x), rope))
        return x + self.ls2(self.mlp(self.norm2(x)))

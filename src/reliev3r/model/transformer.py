"""Transformer blocks (2D rotary positions, qk-norm, LayerScale; names as in DINOv2 and pi^3), and the image encoder."""

from __future__ import annotations

import math
from functools import partial
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

Rope = tuple[Tensor, Tensor]
"""Cosine and sine tables [t, head_dim] of one token sequence."""

Recompute = Literal["none", "cheap", "most"]
"""What of a block is computed again for its gradient. ``none``: nothing. ``cheap``: all but matrix products and
attention. ``most``: only products that narrow and attention over many tokens are kept."""

_ATEN = torch.ops.aten
_PRODUCTS = {_ATEN.mm.default, _ATEN.addmm.default}
_ATTENTION = {
    _ATEN._scaled_dot_product_flash_attention.default, _ATEN._scaled_dot_product_efficient_attention.default,
    _ATEN._scaled_dot_product_cudnn_attention.default, _ATEN._scaled_dot_product_flash_attention_for_cpu.default,
}  # fmt: skip


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
        q, k = _normed(q, self.q_norm), _normed(k, self.k_norm)
        if rope is not None:
            q, k = apply_rope(q, rope), apply_rope(k, rope)
        out = F.scaled_dot_product_attention(q, k, v)
        return self.proj(out.transpose(1, 2).flatten(-2))


def _normed(x: Tensor, norm: nn.Module) -> Tensor:
    """Queries or keys in the type that they have. A GPU sums in float32 in any case; autocast would convert there and
    back, in the forward pass, in the backward pass and wherever it is repeated."""
    if not isinstance(norm, nn.LayerNorm):
        return x
    weight, bias = norm.weight.to(x.dtype), norm.bias.to(x.dtype)
    with torch.autocast(x.device.type, enabled=False):
        return F.layer_norm(x, norm.normalized_shape, weight, bias, norm.eps)


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
        self.recompute: Recompute = "none"
        """Activation checkpointing: less memory for more work."""

    def forward(self, x: Float[Tensor, "b t c"], rope: Rope | None = None) -> Float[Tensor, "b t c"]:
        """Attention, then MLP, each on a residual branch."""
        if self.recompute == "none" or not torch.is_grad_enabled():
            return self._branches(x, rope)
        kept = partial(create_selective_checkpoint_contexts, _KEPT[self.recompute])
        return checkpoint(self._branches, x, rope, use_reentrant=False, preserve_rng_state=False, context_fn=kept)

    def _branches(self, x: Tensor, rope: Rope | None) -> Tensor:
        x = x + self.ls1(self.attn(self.norm1(x), rope))
        return x + self.ls2(self.mlp(self.norm2(x)))


def _keep_products(context: Any, operation: Any, *inputs: Any, **options: Any) -> CheckpointPolicy:
    return _policy(operation in _PRODUCTS or operation in _ATTENTION)


def _keep_dearest(context: Any, operation: Any, *inputs: Any, **options: Any) -> CheckpointPolicy:
    """The MLP's second layer sums over four times as many numbers as it leaves, and attention over many tokens costs
    no less for each: of these a byte kept saves most work."""
    if operation in _PRODUCTS:
        summed, left = inputs[-1].shape[-2:]
        return _policy(summed > left)
    if operation in _ATTENTION:
        heads, tokens, width = inputs[1].shape[-3:]
        return _policy(tokens >= 2 * heads * width)
    return _policy(False)


def _policy(keep: bool) -> CheckpointPolicy:
    return CheckpointPolicy.MUST_SAVE if keep else CheckpointPolicy.PREFER_RECOMPUTE


_KEPT = {"cheap": _keep_products, "most": _keep_dearest}


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

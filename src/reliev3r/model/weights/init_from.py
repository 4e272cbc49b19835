"""Starting a new network from parts of others: DINOv2's encoder, or VGGT's encoder and alternating blocks."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

import torch
from torch import Tensor

from reliev3r.core.errors import UserError
from reliev3r.model.network import NetworkConfig, Reliev3R
from reliev3r.model.transformer import resample_positions
from reliev3r.model.weights.files import read_weights, take, weight_files

_TRANSFORMERS = (
    (r"^(dinov2_with_registers|dinov2)\.", ""),
    (r"^embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
    (r"^embeddings\.position_embeddings$", "pos_embed"),
    (r"^embeddings\.", ""),
    (r"^encoder\.layer\.", "blocks."),
    (r"\.layer_scale([12])\.lambda1$", r".ls\1.gamma"),
    (r"\.attention\.attention\.(query|key|value)\.", r".attn.\1."),  # files written by transformers 4
    (r"\.attention\.([qkv])_proj\.", r".attn.\1."),  # and by transformers 5
    (r"\.attention\.(output\.dense|o_proj)\.", ".attn.proj."),
    (r"^layernorm\.", "norm."),
)
"""transformers' names of DINOv2 (with or without registers) to DINOv2's own, but for the joint qkv."""
_VGGT_ENCODER = "aggregator.patch_embed."
_GIVE = "give DINOv2 with registers (the _reg variants, patch 14)"


def dinov2_encoder(config: NetworkConfig, where: str) -> Reliev3R:
    """A network of these sizes, random but for the encoder, which is DINOv2's (its own or transformers' layout).

    Raises:
        UserError: unreadable, DINOv3 (rotary positions), or tensors missing, surplus or misshapen.
    """
    tensors = _own_layout(read_weights(weight_files(where)))
    source = f"dinov2:{where}"
    if "pos_embed" not in tensors:
        raise UserError(
            f"{source}: no learned positions (DINOv3 has rotary ones), and this encoder needs them; {_GIVE}"
        )
    model = Reliev3R(config)
    wanted = {name: value for name, value in model.state_dict().items() if name.startswith("encoder.")}
    given = _ready(tensors, config)
    model.load_state_dict(take(wanted, lambda name: name.removeprefix("encoder."), given, source=source), strict=False)
    return model


def _own_layout(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """DINOv2's own names, whichever of the two layouts comes in; queries, keys and values become one matrix."""
    if not any(name.endswith("cls_token") and "embeddings." in name for name in tensors):
        return dict(tensors)
    named = {}
    for name, value in tensors.items():
        for pattern, replacement in _TRANSFORMERS:
            name = re.sub(pattern, replacement, name)
        named[re.sub(r"\.attn\.([qkv])(uery|ey|alue)\.", r".attn.\1.", name)] = value
    for query in [name for name in named if ".attn.q." in name]:
        parts = [query.replace(".attn.q.", f".attn.{letter}.") for letter in "qkv"]
        if all(part in named for part in parts):
            named[query.replace(".attn.q.", ".attn.qkv.")] = torch.cat([named.pop(part) for part in parts])
    return named


def _ready(encoder: Mapping[str, Tensor], config: NetworkConfig) -> dict[str, Tensor]:
    """What DINOv2 has and our encoder needs: without the mask token, its positions on our grid."""
    ready = {name: value for name, value in encoder.items() if name != "mask_token"}
    table, side = ready.get("pos_embed"), config.encoder_grid
    if table is not None and table.ndim == 3 and math.isqrt(table.shape[1] - 1) ** 2 == table.shape[1] - 1 != side**2:
        ready["pos_embed"] = torch.cat([table[:, :1], resample_positions(table[:, 1:], side, side)], dim=1)
    if config.encoder_registers == 0:
        ready.setdefault("register_tokens", torch.zeros(1, 0, config.dim))
    return ready


def vggt_start(config: NetworkConfig, where: str) -> Reliev3R:
    """A network of these sizes, random but for encoder and decoder, which are those of VGGT's aggregator.

    Frame block i becomes decoder block 2i, global block i decoder block 2i + 1, as pi^3's training does; blocks
    beyond ``decoder_depth``, VGGT's own special tokens and its heads are left.

    Raises:
        UserError: unreadable, or tensors missing or misshapen.
    """
    tensors = read_weights(weight_files(where))
    source = f"vggt:{where}"
    encoder = {
        name.removeprefix(_VGGT_ENCODER): value for name, value in tensors.items() if name.startswith(_VGGT_ENCODER)
    }
    tensors |= {f"{_VGGT_ENCODER}{name}": value for name, value in _ready(encoder, config).items()}
    model = Reliev3R(config)
    wanted = {name: value for name, value in model.state_dict().items() if name.startswith(("encoder.", "decoder."))}
    used = {vggt_name(name) for name in wanted}
    given = {name: value for name, value in tensors.items() if name in used}
    model.load_state_dict(take(wanted, vggt_name, given, source=source), strict=False)
    return model


def vggt_name(name: str) -> str:
    """VGGT's name of a tensor of our encoder or decoder."""
    part, _, rest = name.partition(".")
    if part == "encoder":
        return f"{_VGGT_ENCODER}{rest}"
    index, _, rest = rest.partition(".")
    kind = ("frame_blocks", "global_blocks")[int(index) % 2]
    return f"aggregator.{kind}.{int(index) // 2}.{rest}"

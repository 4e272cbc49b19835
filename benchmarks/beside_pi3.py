"""The part of cost.py that sets a training step of ours beside upstream pi^3's own code, on fake tensors."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
from cost import GRID, all_of, fake, network_on
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from reliev3r.core.types import Views
from reliev3r.model import transformer
from reliev3r.model.network import PRESETS
from reliev3r.model.transformer import Block, Recompute
from reliev3r.training.parallel import blocks_of

MOMENTS = 8
"""Bytes a trained parameter that AdamW keeps."""


@contextlib.contextmanager
def as_on_a_gpu() -> Iterator[None]:
    """CPU tensors under the rules of CUDA's autocast: it normalises in float32, and "cuda" in upstream's code is it."""
    layer_norm, autocast = F.layer_norm, torch.autocast

    def in_float32(x: Tensor, shape: Any, weight: Any = None, bias: Any = None, eps: float = 1e-5) -> Tensor:
        if not torch.is_autocast_enabled("cpu"):
            return layer_norm(x, shape, weight, bias, eps)
        with autocast("cpu", enabled=False):
            return layer_norm(x.float(), shape, weight, bias, eps)

    class Mapped(autocast):  # type: ignore[misc, valid-type]
        def __init__(self, device_type: str, *args: Any, **kwargs: Any) -> None:
            super().__init__("cpu" if device_type == "cuda" else device_type, *args, **kwargs)

    with (
        mock.patch.object(F, "layer_norm", in_float32), mock.patch("torch.autocast", Mapped),
        mock.patch("torch.amp.autocast", Mapped),
    ):  # fmt: skip
        yield


def step(network: nn.Module, forward: Callable[[], list[Tensor]]) -> dict[str, Any]:
    """Forward and backward pass under bf16 autocast; ``peak_gb`` has the gradients and AdamW's moments too."""
    parameters = list(network.parameters())
    trained = sum(p.numel() for p in parameters if p.requires_grad)
    with fake(), all_of(network) as ledger:
        weights = ledger.live
        with torch.autocast("cpu", torch.bfloat16):
            said = forward()
        total = sum(value.float().sum() for value in said)
        assert isinstance(total, Tensor)
        kept, ahead = ledger.live - weights, ledger.flops
        del said
        total.backward()
    always = weights + (MOMENTS + 4) * trained
    return {
        "parameters": sum(p.numel() for p in parameters), "trained": trained,
        "forward_tflops": ahead / 1e12, "step_tflops": ledger.flops / 1e12,
        "always_gb": always / 1e9, "kept_gb": kept / 1e9, "peak_gb": (ledger.peak + MOMENTS * trained) / 1e9,
        "converted_gb": ledger.converted / 1e9, "kernels": ledger.kernels, "syncs": ledger.syncs,
    }  # fmt: skip


def ours(views: int, side: int, recompute: Recompute) -> dict[str, Any]:
    """`large` with a point head: pi^3's layout, to the parameter."""
    network = network_on(dataclasses.replace(PRESETS["large"], shape="point")).train()
    network.encoder.requires_grad_(False)
    for block in blocks_of(network):
        block.recompute = recompute
    with fake():
        seen = Views(image=torch.empty(1, views, 3, side, side))

    def forward() -> list[Tensor]:
        found = network(seen)
        return [found.points_world, found.depth, found.conf, found.world_from_cam]

    return step(network, forward)


@contextlib.contextmanager
def before() -> Iterator[None]:
    """Ours until 0.2: whole blocks run again, queries and keys normalised in float32."""

    def whole(self: Block, x: Tensor, rope: Any = None) -> Tensor:
        return checkpoint(self._branches, x, rope, use_reentrant=False)  # type: ignore[no-any-return]

    def normed(x: Tensor, norm: nn.Module) -> Tensor:
        return norm(x).to(x.dtype)  # type: ignore[no-any-return]

    with mock.patch.object(Block, "forward", whole), mock.patch.object(transformer, "_normed", normed):
        yield


def upstream(views: int, side: int, folder: Path) -> dict[str, Any]:
    """pi^3 with its own confidence branch trained along (its ``train_conf`` would freeze all else): our parameters."""
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
    from pi3.models import pi3_training
    from pi3.models.layers.pos_embed import RoPE2D

    waits = 0

    def rope(self: Any, tokens: Tensor, positions: Tensor) -> Tensor:
        nonlocal waits
        waits += 1  # int(positions.max()), for which a tensor without memory has no answer
        tables = self.get_cos_sin(tokens.shape[3] // 2, side // 14 + 1, tokens.device, tokens.dtype)
        halves = zip(tokens.chunk(2, dim=-1), positions.unbind(-1), strict=True)
        return torch.cat([self.apply_rope1d(half, at, *tables) for half, at in halves], dim=-1)

    rates = mock.patch("torch.linspace", lambda a, b, n: [SimpleNamespace(item=float)] * n)  # of a drop path of 0
    plain = mock.patch("torch.nn.init._no_grad_trunc_normal_", lambda tensor, *_, **__: tensor)  # it looks at values
    with fake(), rates, plain, mock.patch.object(RoPE2D, "forward", rope):
        network = pi3_training.Pi3(load_vggt=False, freeze_encoder=True).train()
        network.train_conf, network.conf_decoder = True, copy.deepcopy(network.point_decoder)
        network.conf_head = pi3_training.LinearPts3d(patch_size=14, dec_embed_dim=1024, output_dim=1)
        image = torch.empty(1, views, 3, side, side)

        def forward() -> list[Tensor]:
            found = network(image)
            return [value for value in found.values() if value is not None]

        result = step(network, forward)
    return result | {"syncs": result["syncs"] + waits}


def repeated(views: int, side: int) -> dict[str, Any]:
    """Ours as it was."""
    with before():
        return ours(views, side, "none")


def beside(folder: Path) -> list[dict[str, Any]]:
    """All sizes; ratios are ours over upstream's, of the same number of parameters."""
    rows = []
    for views, side in GRID:
        with as_on_a_gpu():
            row: dict[str, Any] = {
                "views": views, "side": side,
                "pi3": upstream(views, side, folder),
                "ours before": repeated(views, side),
                "ours, cheap": ours(views, side, "cheap"), "ours, most": ours(views, side, "most"),
            }  # fmt: skip
        same = row["pi3"]
        for name in ("ours before", "ours, cheap", "ours, most"):
            beyond = [each["peak_gb"] - each["always_gb"] for each in (row[name], same)]
            row[f"ratio of {name}"] = {
                "forward": row[name]["forward_tflops"] / same["forward_tflops"],
                "step": row[name]["step_tflops"] / same["step_tflops"],
                "peak": row[name]["peak_gb"] / same["peak_gb"],
                "peak beyond weights, gradients and moments": beyond[0] / beyond[1],
                "converted": row[name]["converted_gb"] / same["converted_gb"],
                "kernels": row[name]["kernels"] / same["kernels"],
            }  # fmt: skip
        rows.append(row)
        print(json.dumps(row), flush=True)
    return rows

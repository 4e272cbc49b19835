"""What of a network is trained: low-rank adapters on its attention (by peft), its last blocks, or everything."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import nn

from reliev3r.core.errors import UserError
from reliev3r.core.files import atomic_directory

if TYPE_CHECKING:
    from peft import PeftModel

ATTENTION = r"(.*\.)?(attn|attention)\.(qkv|proj)"
"""Projections of self-attention: ours, and those of every network that keeps DINOv2's names."""


@dataclass(frozen=True, kw_only=True)
class LoraConfig:
    """Low-rank adapters (Hu et al., LoRA): W + alpha / rank * B A, where W stays and B starts at 0."""

    rank: int = 8
    alpha: float = 16.0

    def __post_init__(self) -> None:
        """Ranks that cannot be are told at once."""
        if self.rank < 1:
            raise ValueError(f"rank must be at least 1, got {self.rank}")


class Lora:
    """Adapters on the attention projections of a network, which is changed in place and freezes but for them.

    The network's own class, methods and forward pass stay; :meth:`merge` gives back a plain network.
    """

    def __init__(self, network: nn.Module, config: LoraConfig, *, seed: int = 0) -> None:
        """The same adapters for the same seed.

        Raises:
            UserError: peft is not installed, or the network has no such projections.
        """
        try:
            from peft import LoraConfig as PeftConfig
            from peft import get_peft_model
        except ImportError as error:
            raise UserError(
                "--train lora needs the package peft; run `pip install 'reliev3r[adapt]'`, or choose --train last"
            ) from error
        settings: Any = PeftConfig(r=config.rank, lora_alpha=cast(int, config.alpha), target_modules=ATTENTION)
        torch.manual_seed(seed)
        try:
            self.adapted: PeftModel = cast("PeftModel", get_peft_model(cast(Any, network), settings))
        except ValueError as error:
            raise UserError("--train lora: this network has no attention projections; choose --train last") from error

    def save(self, folder: Path) -> None:
        """Write ``adapter_config.json`` and ``adapter_model.safetensors``, as peft reads them."""
        with atomic_directory(folder) as temporary:
            self.adapted.save_pretrained(str(temporary))
            (temporary / "README.md").unlink(missing_ok=True)  # peft's form for a hub page, not filled in

    def merge(self) -> nn.Module:
        """The network with the adapters added to its own weights; they are gone afterwards."""
        return cast(nn.Module, cast(Any, self.adapted).merge_and_unload())


def train_last(network: nn.Module, blocks: nn.ModuleList, count: int, heads: set[str]) -> None:
    """Freeze all but the last ``count`` of ``blocks`` (0: none) and the weights named in ``heads``.

    Raises:
        UserError: there are not that many blocks.
    """
    if not 0 <= count <= len(blocks):
        raise UserError(f"last={count}: this network has {len(blocks)} blocks before its heads")
    chosen = {id(p) for block in list(blocks)[len(blocks) - count :] for p in block.parameters()}
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(name in heads or id(parameter) in chosen)

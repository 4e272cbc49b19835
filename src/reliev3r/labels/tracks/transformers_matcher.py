"""Matchers of the transformers library: what their adapters have in common."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from reliev3r.labels.pretrained import load_pretrained, weights_folder, weights_hash
from reliev3r.labels.tracks.weights import require

INSTALL = "pip install 'reliev3r[experts]'"


@dataclass(frozen=True, kw_only=True)
class TransformersMatcher:
    """Weights and image processor; a subclass names them and says how to match."""

    name: ClassVar[str]
    model_id: ClassVar[str]
    model_class: ClassVar[str]
    processor: ClassVar[tuple[str, str]]
    """Module and class: the package's own name for it stands for another class where torchvision is installed."""

    weights: str | None = None
    """Folder with config.json and safetensors; None: the Hugging Face cache (never an unasked download)."""
    device: str = "cpu"

    @cached_property
    def _folder(self) -> Path:
        return weights_folder(self.name, self.weights, self.model_id, download=False)

    @cached_property
    def _hash(self) -> str:
        return weights_hash(self._folder)

    def _load(self) -> Any:
        return load_pretrained(self.model_class, self._folder, device=self.device)

    def _new_processor(self, **settings: Any) -> Any:
        module, name = self.processor
        return getattr(require(module, self.name, INSTALL), name)(**settings)

"""Batches of one labelled capture: which views and which tracks a step sees."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from reliev3r.labels.solve import pair_rarity
from reliev3r.train.overlap import select_views
from reliev3r.types import PseudoLabels, Views


@dataclass(frozen=True, kw_only=True)
class BatchConfig:
    """What one step looks at."""

    views: int = 16
    """Views a step; captures with more are sampled along the track graph."""
    tracks: int = 768
    """Tracks a step, drawn so that loosely tied pairs of views are heard as often as others."""


class CaptureBatches:
    """Batches [1, v, ...] of one capture; a pure function of the step."""

    def __init__(self, views: Views, labels: PseudoLabels, config: BatchConfig, *, seed: int = 0) -> None:
        """``views`` and ``labels`` without batch dimension, tracks without the held-out ones."""
        self.views, self.labels, self.config, self.seed = views, labels, config, seed
        seen = (labels.tracks.weight > 0).float()
        self.shared = (seen @ seen.T).fill_diagonal_(0)
        self.rarity = pair_rarity(labels.tracks)

    def __call__(self, step: int, progress: float, micro: int = 0) -> tuple[Views, PseudoLabels]:
        """Batch ``micro`` of one step."""
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + step + (micro << 40))
        views, labels = self.views, self.labels
        rarity = self.rarity
        count = views.image.shape[0]
        if count > self.config.views:
            index = self._walk(generator)
            views, labels = views.select_views(index), labels.select_views(index)
            seen = (labels.tracks.weight > 0).sum(0)
            rarity = torch.where(seen >= 2, rarity, torch.zeros_like(rarity))
        labels = with_drawn_tracks(labels, rarity, self.config.tracks, generator)
        return views.map(_batched), labels.map(_batched)

    def _walk(self, generator: torch.Generator) -> Tensor:
        """A connected set of views: each next one is drawn by how many tracks tie it to those already in."""
        return select_views(self.shared.clamp_max(50), self.config.views, 0.5, generator)


def with_drawn_tracks(
    labels: PseudoLabels, rarity: Float[Tensor, " m"], count: int, generator: torch.Generator
) -> PseudoLabels:
    """At most ``count`` of the tracks, drawn so that loosely tied pairs of views are heard as often as others."""
    if len(rarity) <= count:
        return labels
    chosen = (rarity > 0).nonzero()[:, 0]
    if len(chosen) > count:
        chosen = torch.multinomial(rarity.sqrt(), count, generator=generator)
    return dataclasses.replace(labels, tracks=labels.tracks.select_tracks(chosen))


def _batched(tensor: Tensor) -> Tensor:
    return tensor[None]

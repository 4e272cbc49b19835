"""Batches of one labelled capture: which views and which tracks a step sees."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch
from torch import Tensor

from reliev3r.labels.solve import pair_rarity
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

    def __call__(self, step: int, progress: float) -> tuple[Views, PseudoLabels]:
        """The batch of one step."""
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + step)
        views, labels = self.views, self.labels
        rarity = self.rarity
        count = views.image.shape[0]
        if count > self.config.views:
            index = self._walk(generator)
            views, labels = views.select_views(index), labels.select_views(index)
            seen = (labels.tracks.weight > 0).sum(0)
            rarity = torch.where(seen >= 2, rarity, torch.zeros_like(rarity))
        usable = int((rarity > 0).sum())
        if usable > self.config.tracks:
            chosen = torch.multinomial(rarity.sqrt(), self.config.tracks, generator=generator)
            labels = dataclasses.replace(labels, tracks=labels.tracks.select_tracks(chosen))
        return views.map(_batched), labels.map(_batched)

    def _walk(self, generator: torch.Generator) -> Tensor:
        """A connected set of views: each next one is drawn by how many tracks tie it to those already in."""
        count = self.shared.shape[0]
        chosen = [int(torch.randint(count, (1,), generator=generator))]
        while len(chosen) < self.config.views:
            ties = self.shared[chosen].clamp_max(50).sum(0) + 1e-3
            ties[chosen] = 0
            chosen.append(int(torch.multinomial(ties, 1, generator=generator)))
        return torch.tensor(chosen)


def _batched(tensor: Tensor) -> Tensor:
    return tensor[None]

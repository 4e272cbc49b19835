"""What training across scenes is fed with: sources of samples, and batches of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import torch

from reliev3r.data.augment import AugmentConfig, augment
from reliev3r.train.overlap import CurriculumConfig, closeness_at
from reliev3r.types import Labels, PseudoLabels, Views, stack


@runtime_checkable
class Source(Protocol):
    """Something that yields samples; all functions are pure."""

    def size(self, group: int) -> tuple[int, int]:
        """(height, width) of all samples of a group."""
        ...

    def sample(self, seed: int, *, group: int, views: int, closeness: float) -> tuple[Views, Labels]:
        """A sample [v ...] of any size near the group's; ``closeness`` in [0, 1] asks for views that overlap."""
        ...


@dataclass(frozen=True, kw_only=True)
class SceneBatchConfig:
    """How many views and scenes a step sees on each device."""

    views: tuple[int, int] = (4, 4)
    """Fewest and most views of a sample; drawn per step, the same on every device."""
    images: int = 32
    """Images a device sees at a time: views times scenes stay within it."""
    curriculum: CurriculumConfig = field(default_factory=CurriculumConfig)
    """Close views first, wide ones later."""
    augment: AugmentConfig = field(default_factory=AugmentConfig.none)
    hide_intrinsics: bool = False
    """The network has to predict them (its field-of-view head); weak labels then carry them as an expert would."""


class SceneBatches:
    """Batches [b, v, ...] of a weighted mixture of sources; a pure function of the step and the micro-batch in it."""

    def __init__(
        self, sources: Sequence[Source], weights: Sequence[float], config: SceneBatchConfig, *, seed: int = 0
    ) -> None:
        self.sources, self.config, self.seed = sources, config, seed
        self.weights = torch.tensor(weights, dtype=torch.float64)

    def __call__(self, step: int, progress: float, micro: int = 0) -> tuple[Views, Labels]:
        """Batch ``micro`` of a step, of one source and one size."""
        shared = torch.Generator().manual_seed(self.seed * 1_000_003 + step)
        low, high = self.config.views
        views = int(torch.randint(low, high + 1, (1,), generator=shared))
        own = torch.Generator().manual_seed((self.seed * 1_000_003 + step) * 1009 + micro)
        source = self.sources[int(torch.multinomial(self.weights, 1, generator=own))]
        group, *seeds = torch.randint(1_000_000_000, (1 + max(1, self.config.images // views),), generator=own).tolist()
        closeness = closeness_at(progress, self.config.curriculum)
        samples = []
        for seed in seeds:
            seen, labels = source.sample(seed, group=group, views=views, closeness=closeness)
            samples.append(augment(seen, labels, self.config.augment, own, size=source.size(group)))
        seen, labels = stack([each for each, _ in samples]), stack([each for _, each in samples])
        return hidden(seen, labels) if self.config.hide_intrinsics else (seen, labels)


def hidden(views: Views, labels: Labels) -> tuple[Views, Labels]:
    """Views of unknown intrinsics, whose weak labels have them as pseudo intrinsics."""
    if isinstance(labels, PseudoLabels):
        labels = dataclasses.replace(labels, K=views.K)
    return dataclasses.replace(views, K=None), labels

"""What a step sees: connected sets of views, batches as pure functions of the step."""

from __future__ import annotations

import dataclasses
import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import inf
from typing import Protocol, TypeVar, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from reliev3r.core.errors import UserError
from reliev3r.core.settings import require
from reliev3r.core.types import FullLabels, Labels, PseudoLabels, Tracks, Views, named_tensors, stack
from reliev3r.data.augment import AugmentConfig, augment
from reliev3r.sfm.batched import in_unit_of_tracks
from reliev3r.sfm.track_graph import pair_rarity


def select_views(
    shared: Float[Tensor, "v v"], count: int, power: float, generator: torch.Generator
) -> Int[Tensor, " chosen"]:
    """``count`` different views, each tied to those before it as long as there is such a view left.

    Each next view is drawn with probability ~ ties ** power, ties being the tracks that it shares with those already
    in: power 1 draws by ties, 0 takes any that is tied at all.

    Args:
        shared: Tracks that both views see; the diagonal is not read.
        count: At most v.
        power: Of the ties, at least 0.
        generator: On the device of ``shared``.

    Raises:
        ValueError: more views asked for than there are, or a power below 0.
    """
    views = len(shared)
    if not 1 <= count <= views or power < 0:
        raise ValueError(f"cannot choose {count} of {views} views by their ties to the power {power:g}")
    tied = shared.clamp_min(0).clone().fill_diagonal_(0).double()
    free = torch.ones(views, dtype=torch.bool, device=shared.device)
    ties = (tied.sum(0) > 0).double()  # the first: any that is tied to another
    chosen: list[int] = []
    while len(chosen) < count:
        chosen.append(int(torch.multinomial(_odds(ties, free, power), 1, generator=generator)))
        free[chosen[-1]] = False
        ties = tied[chosen].sum(0)
    return torch.tensor(chosen, device=shared.device)


def _odds(ties: Tensor, free: Tensor, power: float) -> Tensor:
    """Unnormalised probabilities: of the tied views that are free, or of all that are free where none is tied."""
    usable = free & (ties > 0)
    if not usable.any():
        return free.double()
    relative = torch.where(usable, ties, 0.0)
    relative = relative / relative.max()
    return torch.where(usable, relative**power, 0.0)


ASPECTS = (0.5, 0.67, 0.75, 1.0, 1.33, 1.5, 2.0)
"""Width over height."""


def bucket_sizes(pixels: int, patch: int, aspects: Sequence[float] = ASPECTS) -> list[tuple[int, int]]:
    """(height, width) for each aspect (width / height), multiples of ``patch``, at most ``pixels`` in area.

    Each is the size that loses least of the aspect (which counts twice) and of the area, both as ratios; equal ones
    count once.

    Raises:
        ValueError: fewer pixels than a patch has, or aspects outside [0.5, 2].
    """
    if pixels < patch * patch:
        raise ValueError(f"{pixels} pixels do not hold a patch of {patch}x{patch}")
    if not aspects or any(not 0.5 <= aspect <= 2 for aspect in aspects):
        raise ValueError(f"aspects {tuple(aspects)} must lie within 0.5 and 2")
    patches = pixels // (patch * patch)

    def loss(grid: tuple[int, int], aspect: float) -> float:
        rows, columns = grid
        return 2 * abs(math.log(columns / rows / aspect)) + math.log(patches / (rows * columns))

    def grids(aspect: float) -> list[tuple[int, int]]:
        """For each number of rows, the columns next to the aspect's, as far as they fit."""
        highest = min(patches, math.isqrt(int(patches / aspect)) + 1)
        columns = [(rows, math.floor(rows * aspect) + up) for rows in range(1, highest + 1) for up in (0, 1)]
        return [(r, max(1, min(c, patches // r))) for r, c in columns]

    best = [min(grids(aspect), key=lambda grid, aspect=aspect: loss(grid, aspect)) for aspect in aspects]
    return list(dict.fromkeys((rows * patch, columns * patch) for rows, columns in best))


def bucket_pixels(long_side: int) -> int:
    """Pixels of an image of this long side whose aspect is 4:3, the usual one: what a bucket may hold."""
    return round(0.75 * long_side**2)


def assign_bucket(size: tuple[int, int], buckets: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """The bucket (height, width) whose aspect is nearest to that of ``size`` (height, width), as a ratio."""
    return min(buckets, key=lambda bucket: abs(math.log(bucket[1] * size[0] / (bucket[0] * size[1]))))


@dataclass(frozen=True, kw_only=True)
class BatchConfig:
    """What one step looks at."""

    views: int = 16
    """Views a step; captures with more are sampled along the track graph."""
    tracks: int = 768
    """Tracks a step, drawn so that loosely tied pairs of views are heard as often as others."""

    def __post_init__(self) -> None:
        """Settings that cannot work are told at once."""
        require(self, views=(2, inf), tracks=(1, inf))


class CaptureBatches:
    """Batches [1, v, ...] of one capture; a pure function of the step."""

    def __init__(self, views: Views, labels: PseudoLabels, config: BatchConfig, *, seed: int = 0) -> None:
        """``views`` and ``labels`` without batch dimension, tracks without the held-out ones."""
        self.views, self.labels, self.config, self.seed = views, labels, config, seed
        seen = (labels.tracks.weight > 0).float()
        self.shared = (seen @ seen.T).fill_diagonal_(0)
        self.rarity = pair_rarity(labels.tracks)

    def __call__(self, step: int, micro: int = 0) -> tuple[Views, PseudoLabels]:
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
        return select_views(self.shared.clamp_max(50), self.config.views, 1.0, generator)


L = TypeVar("L", bound=Labels)


def with_drawn_tracks(labels: L, rarity: Float[Tensor, " m"], count: int, generator: torch.Generator) -> L:
    """At most ``count`` of the tracks, drawn so that loosely tied pairs of views are heard as often as others."""
    if len(rarity) <= count:
        return labels
    chosen = (rarity > 0).nonzero()[:, 0]
    if len(chosen) > count:
        chosen = torch.multinomial(rarity.sqrt().cpu(), count, generator=generator)  # rooms are rendered on the GPU
    return dataclasses.replace(labels, tracks=labels.tracks.select_tracks(chosen))


def padded(labels: L, count: int) -> L:
    """As many tracks as every other sample; those that are added are seen nowhere."""
    missing = count - labels.tracks.weight.shape[-1]
    if missing <= 0:
        return labels

    def pad(x: Tensor, axis: int) -> Tensor:
        shape = list(x.shape)
        shape[axis] = missing
        return torch.cat([x, x.new_zeros(shape)], dim=axis)

    tracks = labels.tracks
    depth = None if tracks.depth is None else pad(tracks.depth, -1)
    return dataclasses.replace(labels, tracks=Tracks(uv=pad(tracks.uv, -2), weight=pad(tracks.weight, -1), depth=depth))


def _batched(tensor: Tensor) -> Tensor:
    return tensor[None]


@runtime_checkable
class Source(Protocol):
    """Something that yields samples; all functions are pure."""

    def size(self, group: int) -> tuple[int, int]:
        """(height, width) of all samples of a group."""
        ...

    def sample(self, seed: int, *, group: int, views: int) -> tuple[Views, Labels]:
        """A sample [v ...] of any size near the group's."""
        ...


@dataclass(frozen=True, kw_only=True)
class SceneBatchConfig:
    """How many views and scenes a step sees on each device."""

    views: tuple[int, int] = (4, 4)
    """Fewest and most views of a sample; drawn per step, the same on every device."""
    images: int = 32
    """Images a device sees at a time: views times scenes stay within it (one scene at least)."""
    tracks: int = 1024
    """At most so many of a sample's tracks, drawn anew in each step so that loosely tied views are heard."""
    augment: AugmentConfig = field(default_factory=AugmentConfig.none)
    hide_intrinsics: bool = False
    """The network has to predict them (its field-of-view head); weak labels then carry them as an expert would."""

    def __post_init__(self) -> None:
        """Settings that cannot work are told at once."""
        require(self, views=(2, inf), images=(1, inf), tracks=(1, inf))
        if self.views[0] > self.views[1]:
            raise ValueError(f"views must be the fewest and the most, got {self.views}")


def dealt_out(scenes: int, processes: int, batch: SceneBatchConfig, *, accumulate: int = 1) -> tuple[int, int]:
    """(scenes of a batch, batches of each process in a step) where a step sees ``scenes`` over all processes together.

    As few batches as ``batch.images`` allows, and at least ``accumulate``.

    Raises:
        UserError: the processes cannot get equally many scenes, or none for each of ``accumulate`` batches.
    """
    own, left = divmod(scenes, processes)
    if left:
        raise UserError(
            f"scenes={scenes}, the batch of a step, cannot be dealt out equally to {processes} processes; "
            "start a number of processes that divides it, or set scenes"
        )
    if accumulate > own:
        raise UserError(f"accumulate={accumulate}: each process has {own} of the scenes of a step; lower it")
    most = min(max(1, batch.images // batch.views[1]), own // accumulate)
    at_once = next(count for count in range(most, 0, -1) if own % count == 0)
    return at_once, own // at_once


class SceneBatches:
    """Batches [b, v, ...] of a weighted mixture of sources; a pure function of the step and the micro-batch in it."""

    def __init__(
        self,
        sources: Sequence[Source],
        weights: Sequence[float],
        config: SceneBatchConfig,
        *,
        seed: int = 0,
        scenes: int | None = None,
    ) -> None:
        """``scenes`` of a batch; by default as many as ``config.images`` holds."""
        self.sources, self.config, self.seed, self.scenes = sources, config, seed, scenes
        self.weights = torch.tensor(weights, dtype=torch.float64)
        self.passed_over: list[str] = []
        """Samples that were not finite, and what was wrong; whoever reads it clears it."""

    def __call__(self, step: int, micro: int = 0) -> tuple[Views, Labels]:
        """Batch ``micro`` of a step, of one source and one size."""
        shared = torch.Generator().manual_seed(self.seed * 1_000_003 + step)
        low, high = self.config.views
        views = int(torch.randint(low, high + 1, (1,), generator=shared))
        own = torch.Generator().manual_seed((self.seed * 1_000_003 + step) * 1009 + micro)
        source = self.sources[int(torch.multinomial(self.weights, 1, generator=own))]
        scenes = self.scenes or max(1, self.config.images // views)
        group, *seeds = torch.randint(1_000_000_000, (1 + scenes,), generator=own).tolist()
        samples = []
        for seed in seeds:
            seen, labels = self._sample(source, seed, group, views)
            if labels.tracks.weight.shape[-1] > self.config.tracks:
                labels = with_drawn_tracks(labels, pair_rarity(labels.tracks), self.config.tracks, own)
                labels = padded(labels, self.config.tracks)  # those that two of the views see may be fewer
            if self.config.hide_intrinsics:  # first, so that windows are what a field-of-view head can express
                seen, labels = hide_intrinsics(seen, labels)
            seen, labels = augment(seen, labels, self.config.augment, own, size=source.size(group))
            K = seen.K if seen.K is not None or isinstance(labels, FullLabels) else labels.K
            if isinstance(labels, PseudoLabels) and K is not None:
                labels = in_unit_of_tracks(labels, K)
            samples.append((seen, labels))
        return stack([each for each, _ in samples]), stack([each for _, each in samples])

    def _sample(self, source: Source, seed: int, group: int, views: int) -> tuple[Views, Labels]:
        """Of this seed, or where that is not finite of one that follows from it."""
        for _ in range(_TRIES):
            try:
                return source.sample(seed, group=group, views=views)
            except BadSample as error:
                self.passed_over.append(str(error))
                seed = zlib.crc32(f"instead of {seed}".encode()) % 1_000_000_000
        raise UserError(f"{_TRIES} samples in a row are not finite, the last one: {self.passed_over[-1]}")


_TRIES = 16
"""Samples that are drawn before all of a group are believed to be bad."""


class BadSample(UserError):
    """A sample whose images or labels are not finite."""


def refuse_not_finite(name: str, index: Sequence[int], views: Views, labels: Labels) -> None:
    """Tell which of a capture's views ``index`` are not finite.

    Raises:
        BadSample: one is not.
    """
    found: dict[int, list[str]] = {}
    for what, tensor in (*named_tensors(views), *named_tensors(labels)):
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor.sum())):  # a sum needs no memory
            bad = ~torch.isfinite(tensor).reshape(len(tensor), -1).all(1)
            for row in bad.nonzero()[:, 0].tolist():
                found.setdefault(index[row], []).append(what)
    if found:
        told = "; ".join(f"view {view}: {', '.join(what)}" for view, what in sorted(found.items()))
        raise BadSample(f"{name}: is not finite ({told})")


def hide_intrinsics(views: Views, labels: Labels) -> tuple[Views, Labels]:
    """Views of unknown intrinsics, whose weak labels have them as pseudo intrinsics."""
    if isinstance(labels, PseudoLabels):
        labels = dataclasses.replace(labels, K=views.K)
    return dataclasses.replace(views, K=None), labels

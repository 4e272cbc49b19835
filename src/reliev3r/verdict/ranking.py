"""Ranks without ground truth: systems on the same frames, by how far each agrees with the images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from reliev3r.core.errors import UserError
from reliev3r.verdict.agreement import Agreement
from reliev3r.verdict.bootstrap import resampled

KINDS = ("scene", "cameras", "depth")


@dataclass(frozen=True, kw_only=True)
class RankConfig:
    """When two systems count as different."""

    resamples: int = 1000
    level: float = 0.95
    """Of the bootstrap intervals."""
    margin: float = 0.01
    """Share that the interval of a difference must exceed."""
    min_pairs: int = 6
    """Pairs of frames with matches, over all captures, without which nothing is said."""
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class Score:
    """Mean agreement over pairs of frames, in per cent, with its bootstrap interval over captures and frames."""

    mean: float
    low: float
    high: float
    rank: int
    """1 + how many systems are clearly better, and not before a system of higher mean: those that cannot be told apart
    share a rank, and no rank is won by being uncertain."""
    behind: tuple[str, ...]
    """The systems that are clearly better."""


@dataclass(frozen=True, kw_only=True)
class Standing:
    """One system in the ranking."""

    system: str
    scene: Score
    """Cameras and depth together."""
    cameras: Score
    depth: Score | None
    """None where the points solved from the matches are too few to judge any system's."""
    remarks: tuple[str, ...]
    """What it did not give."""

    @property
    def rank(self) -> int:
        """By cameras and depth together."""
        return self.scene.rank


@dataclass(frozen=True, kw_only=True)
class Ranking:
    """Systems, the best first."""

    standings: tuple[Standing, ...]
    captures: tuple[str, ...]
    pairs: int
    """Pairs of frames that share matches: what all means are over."""


def ranked(
    systems: Mapping[str, Sequence[Agreement]], captures: Sequence[str], config: RankConfig | None = None
) -> Ranking:
    """Rank systems by their agreements with the same captures, in the same order.

    Raises:
        UserError: too little evidence.
    """
    config = config or RankConfig()
    names = list(systems)
    first = systems[names[0]]
    rows = [(capture, *pair.frames) for capture, one in enumerate(first) for pair in one.pairs]
    refuse_too_little(len(rows), captures, config)
    weights = resampled(rows, config.resamples, config.seed, alike=True)
    scores = {kind: _scores(kind, systems, weights, config) for kind in KINDS}
    standings = [
        Standing(
            system=name, scene=_known(scores["scene"][k]), cameras=_known(scores["cameras"][k]),
            depth=scores["depth"][k],
            remarks=tuple(_with_capture(systems[name], captures)),
        )
        for k, name in enumerate(names)
    ]  # fmt: skip
    order = sorted(standings, key=lambda each: (each.rank, -each.scene.mean, each.cameras.rank, -each.cameras.mean))
    return Ranking(standings=tuple(order), captures=tuple(captures), pairs=len(rows))


def refuse_too_little(pairs: int, captures: Sequence[str], config: RankConfig | None = None) -> None:
    """Raise a UserError where so few pairs of frames share matches that nothing is said."""
    least = (config or RankConfig()).min_pairs
    if pairs < least:
        raise UserError(
            f"{', '.join(captures)}: too little evidence: {pairs} pairs of frames share matches, at least {least} are "
            "needed; give more images that overlap, or another matcher (--tracks)"
        )


def _scores(
    kind: str, systems: Mapping[str, Sequence[Agreement]], weights: Tensor, config: RankConfig
) -> list[Score | None]:
    values = [[getattr(pair, kind) for one in agreements for pair in one.pairs] for agreements in systems.values()]
    kept = [k for k, value in enumerate(values[0]) if value is not None]
    if not kept:
        return [None] * len(values)
    table = torch.tensor([[row[k] for k in kept] for row in values], dtype=torch.float64)
    own = weights[:, kept]
    drawn = own.sum(1) > 0
    spread = own[drawn] @ table.T / own[drawn].sum(1, keepdim=True)
    better = clearly_better(spread, config)
    low, high = spread.quantile(_tails(config), dim=0)
    names, means = list(systems), table.mean(1)
    ranks = _ranks(means, better)
    return [
        Score(
            mean=100 * float(means[k]), low=100 * float(low[k]), high=100 * float(high[k]), rank=ranks[k],
            behind=tuple(names[j] for j in better[:, k].nonzero()[:, 0].tolist()),
        )
        for k in range(len(names))
    ]  # fmt: skip


def _ranks(means: Float[Tensor, " s"], better: Bool[Tensor, "s s"]) -> list[int]:
    ranks, least = [1] * len(means), 1
    for k in means.argsort(descending=True, stable=True).tolist():
        least = max(least, 1 + int(better[:, k].sum()))
        ranks[k] = least
    return ranks


def clearly_better(spread: Float[Tensor, "r s"], config: RankConfig) -> Bool[Tensor, "s s"]:
    """[i, j]: the interval of system i's lead over j, over the same resamples, lies above the margin."""
    lead = spread[:, :, None] - spread[:, None]
    return lead.quantile(_tails(config)[0], dim=0) > config.margin


def _tails(config: RankConfig) -> Tensor:
    tail = (1 - config.level) / 2
    return torch.tensor([tail, 1 - tail], dtype=torch.float64)


def _known(score: Score | None) -> Score:
    assert score is not None  # there are pairs, and every pair has it
    return score


def _with_capture(agreements: Sequence[Agreement], captures: Sequence[str]) -> list[str]:
    """Remarks, with the capture's name where there are several; what is said of all is said once."""
    alone = len(captures) == 1
    return [
        remark if alone else f"{capture}: {remark}"
        for capture, one in zip(captures, agreements, strict=True)
        for remark in one.remarks
    ]

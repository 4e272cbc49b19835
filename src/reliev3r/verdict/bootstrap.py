"""Bootstrap over captures and their frames: pairs that share a frame are not independent."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor


def resampled(
    rows: Sequence[tuple[int, int, int]], resamples: int, seed: int, *, alike: bool
) -> Float[Tensor, "resamples rows"]:
    """How often each pair counts in each resample, float64.

    Captures are drawn with replacement, and in each its frames: a pair counts as often as both of its frames were
    drawn.

    Args:
        rows: (capture, first frame, second frame) of each pair.
        resamples: how many.
        seed: the same draws for the same seed.
        alike: first and second frames are drawn from one pot; else (held-out frames and others) from one each.
    """
    generator = torch.Generator().manual_seed(seed)
    captures = sorted({capture for capture, _, _ in rows})
    drawn = _multiplicity(resamples, len(captures), generator)
    weights = torch.zeros(resamples, len(rows), dtype=torch.float64)
    for position, capture in enumerate(captures):
        own = [k for k, row in enumerate(rows) if row[0] == capture]
        firsts, seconds = (sorted({rows[k][end] for k in own}) for end in (1, 2))
        if alike:
            firsts = seconds = sorted({*firsts, *seconds})
        here = _multiplicity(resamples, len(firsts), generator)
        there = here if alike else _multiplicity(resamples, len(seconds), generator)
        a = torch.tensor([firsts.index(rows[k][1]) for k in own])
        b = torch.tensor([seconds.index(rows[k][2]) for k in own])
        weights[:, own] = drawn[:, [position]] * here[:, a] * there[:, b]
    return weights


def _multiplicity(resamples: int, count: int, generator: torch.Generator) -> Tensor:
    """How often each of ``count`` things is drawn in ``count`` draws."""
    drawn = torch.randint(count, (resamples, count), generator=generator)
    return torch.nn.functional.one_hot(drawn, count).sum(1).double()

"""Which views a sample has: connected sets, by how much they see in common; an overlap curriculum widens them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from reliev3r.errors import UserError


@dataclass(frozen=True, kw_only=True)
class CurriculumConfig:
    """How close the views of a sample are over a run."""

    start: float = 1.0
    """Closeness at the beginning, in [0, 1] (see :func:`select_views`)."""
    end: float = 0.0
    """Closeness from ``until`` on."""
    until: float = 0.3
    """Share of the run at which the widening ends; 0: no curriculum."""

    def __post_init__(self) -> None:
        if any(not 0 <= value <= 1 for value in (self.start, self.end, self.until)):
            raise UserError("curriculum: start, end and until must lie within 0 and 1")


def closeness_at(progress: float, config: CurriculumConfig) -> float:
    """Closeness at a share ``progress`` of the run: linear from ``start`` to ``end``, then constant."""
    share = min(progress / config.until, 1.0) if config.until > 0 else 1.0
    return config.start + share * (config.end - config.start)


def select_views(
    shared: Float[Tensor, "v v"], count: int, closeness: float, generator: torch.Generator
) -> Int[Tensor, " chosen"]:
    """``count`` different views, each tied to those before it as long as there is such a view left.

    Each next view is drawn with probability ~ ties ** (c / (1 - c)), ties being the tracks that it shares with those
    already in: closeness c = 1 takes the one that shares most, 0.5 draws by ties, 0 any that is tied at all.

    Args:
        shared: Tracks that both views see; the diagonal is not read.
        count: At most v.
        closeness: In [0, 1].
        generator: On the device of ``shared``.

    Raises:
        ValueError: more views asked for than there are, or a closeness out of range.
    """
    views = len(shared)
    if not (1 <= count <= views and 0 <= closeness <= 1):
        raise ValueError(f"cannot choose {count} of {views} views with closeness {closeness}")
    tied = shared.clamp_min(0).clone().fill_diagonal_(0).double()
    free = torch.ones(views, dtype=torch.bool, device=shared.device)
    ties = (tied.sum(0) > 0).double()  # the first: any that is tied to another
    power = 0.0
    chosen: list[int] = []
    while len(chosen) < count:
        chosen.append(int(torch.multinomial(_odds(ties, free, power), 1, generator=generator)))
        free[chosen[-1]] = False
        ties = tied[chosen].sum(0)
        power = closeness / (1 - closeness) if closeness < 1 else math.inf
    return torch.tensor(chosen, device=shared.device)


def _odds(ties: Tensor, free: Tensor, power: float) -> Tensor:
    """Unnormalised probabilities: of the tied views that are free, or of all that are free where none is tied."""
    usable = free & (ties > 0)
    if not usable.any():
        return free.double()
    relative = torch.where(usable, ties, 0.0)
    relative = relative / relative.max()
    return torch.where(usable, relative**power, 0.0)

"""Does a ranking without ground truth agree with the truth? Asked after it was made; nothing here changes it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from reliev3r.evaluation.scores import Scores

QUANTITIES = {"cameras": "AUC@30", "scene": "point rel"}
"""What of a ranking is compared with which score of protocol ``strict``."""
_DEAD = {"cameras": 1.0, "scene": 0.05}
"""Points of AUC@30, and relative difference of point rel, below which the truth has no opinion of two systems."""


@dataclass(frozen=True, kw_only=True)
class RankAgreement:
    """Of one ranking and one quantity."""

    quantity: str
    tau: float | None
    """Kendall's tau-b of the mean agreements and the truth's scores; None where either says the same of all."""
    pairs: int
    """Pairs of systems."""
    told_apart: int
    """That the ranking calls different."""
    reversed: int
    """Of these, the pairs that the truth has clearly the other way round."""


def true_scores(scores: Sequence[Mapping[str, Scores]], systems: Sequence[str]) -> dict[str, dict[str, float]]:
    """quantity -> system -> score by the truth, higher is better, mean over captures.

    ``cameras``: AUC@30; ``scene``: minus the logarithm of point rel. A system that gave nothing, or for the scene no
    depth or not every camera, has the worst score there is: 0, and minus infinity.

    Args:
        scores: of each capture, by system, under protocol ``strict``; systems that gave nothing are not in it.
        systems: all names.
    """
    cameras: dict[str, list[float]] = {system: [] for system in systems}
    scene: dict[str, list[float]] = {system: [] for system in systems}
    for own in scores:
        for system in systems:
            auc, rel = (own[system].auc30, own[system].point_rel) if system in own else (None, None)
            cameras[system].append(auc or 0.0)
            scene[system].append(-math.inf if rel is None else -math.log(max(rel, 1e-6)))
    means = {"cameras": cameras, "scene": scene}
    return {name: {key: float(np.mean(row)) for key, row in values.items()} for name, values in means.items()}


def rank_agreement(
    quantity: str, means: Mapping[str, float], behind: Mapping[str, Sequence[str]], true: Mapping[str, float]
) -> RankAgreement:
    """Compare a ranking with the truth's scores of the same systems (higher is better).

    Args:
        quantity: of :data:`QUANTITIES`.
        means: mean agreement of each system.
        behind: the systems that the ranking calls clearly better than each.
        true: :func:`true_scores` of ``quantity``.
    """
    from scipy.stats import kendalltau

    systems = list(means)
    finite = [value for value in true.values() if math.isfinite(value)]
    floor = min(finite, default=0.0) - 1.0
    scores = [true[system] if math.isfinite(true[system]) else floor for system in systems]
    tau = float(kendalltau([means[system] for system in systems], scores).statistic)
    apart = [(better, worse) for worse in systems for better in behind[worse]]
    wrong = [pair for pair in apart if true[pair[1]] - true[pair[0]] > _DEAD[quantity]]
    return RankAgreement(
        quantity=quantity, tau=None if math.isnan(tau) else tau, pairs=len(systems) * (len(systems) - 1) // 2,
        told_apart=len(apart), reversed=len(wrong),
    )  # fmt: skip

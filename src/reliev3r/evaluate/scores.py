"""What scoring gives, and the names of the protocols."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, get_type_hints

import torch

from reliev3r.evaluate.metrics import Seen, auc, pair_errors
from reliev3r.evaluate.sample import Cameras

Protocol = Literal["strict", "mapanything", "pi3"]

DEFINITIONS: dict[Protocol, str] = {
    "strict": (
        "strict: points in view 0's frame under one L1-optimal scale, depth under one scale per scene, rel = |p-q|/|q| "
        "(mean over pixels, then views), tau = share with rel < 0.10, on the truth's pixels (long side <= 640); ATE = "
        "RMSE after Sim(3), divided by the RMS spread of the true centres; AUC@30 over all pairs of max(rotation, "
        "signed translation direction), seen from either camera."
    ),
    "mapanything": (
        "mapanything: everything in view 0's frame, divided by the mean distance of valid points (one factor each), on "
        "the prediction's pixels; rel = |p-q|/|q| (mean over pixels, then views), tau = share with max(|p|/|q|, "
        "|q|/|p|) < 1.10; ATE = mean distance after rigid alignment, in that unit; AUC@30 over all pairs of "
        "max(rotation, sign-ambiguous translation direction)."
    ),
    "pi3": (
        "pi3: points under Sim(3) + ICP (0.1), accuracy / completeness / normal consistency on the truth's pixels "
        "(long side <= 640); depth rel and delta < 1.25 (as depth tau) under one scale, or scale and shift, per "
        "sequence, all pixels pooled; ATE = RMSE after Sim(3) in the truth's unit; AUC@30 over all pairs of "
        "max(rotation, sign-ambiguous translation direction)."
    ),
}
"""One line each, printed below every table; the modules of the same names have the full definitions."""


@dataclass(frozen=True, kw_only=True)
class Scores:
    """Figures of one prediction under one protocol; ``None`` where a quantity is not predicted or has no truth.

    The same field means different things under different protocols: never compare across them.
    """

    protocol: Protocol
    point_rel: float | None = None
    """Relative error of the point map, lower is better."""
    point_tau: float | None = None
    """Share of inlier points, in [0, 1]."""
    ate: float | None = None
    """Absolute trajectory error, lower is better; its unit is the protocol's."""
    auc30: float | None = None
    """Pose AUC at 30 degrees, in percent."""
    depth_rel: float | None = None
    """Relative error of z-depth, lower is better."""
    depth_tau: float | None = None
    """Share of inlier depths, in [0, 1]."""
    rotation_median_deg: float | None = None
    """Median rotation error over all pairs, in degrees."""
    translation_median_deg: float | None = None
    """Median error of the translation direction over all pairs, in degrees."""
    views: int
    """How many views were scored."""
    views_without_camera: int = 0
    """Views whose camera the system did not find: their pairs count as 180 degrees, the ATE leaves them out."""
    extras: dict[str, float] = field(default_factory=dict)
    """Further figures of the protocol."""
    pair_errors_deg: tuple[float, ...] = ()
    """Errors that ``auc30`` is made of, max(rotation, translation direction) of each pair: for pooling over scenes."""


def score_poses(protocol: Protocol, cameras: Cameras, *, ate: float | None, signed: bool, seen: Seen) -> Scores:
    """The part of the scores that comes from cameras alone; ``signed`` and ``seen`` as in ``metrics.pair_errors``."""
    rotation, translation = pair_errors(cameras.predicted, cameras.true, cameras.found, signed=signed, seen=seen)
    return Scores(
        protocol=protocol,
        ate=ate,
        auc30=auc(rotation, translation),
        rotation_median_deg=float(rotation.median()) if len(rotation) else None,
        translation_median_deg=float(translation.median()) if len(rotation) else None,
        views=len(cameras.true),
        views_without_camera=int((~cameras.found).sum()),
        pair_errors_deg=tuple(torch.maximum(rotation, translation).tolist()),
    )


def mean_scores(scores: Sequence[Scores]) -> Scores:
    """Mean over scenes of each figure, where a scene has it; views are counted together.

    Under ``pi3``, AUC@30 is that of the pairs of all scenes pooled, as its published numbers are.

    Raises:
        ValueError: no scores, or of different protocols.
    """
    if len({each.protocol for each in scores}) != 1:
        raise ValueError("scores of one protocol are needed")
    names = [name for name, kind in get_type_hints(Scores).items() if kind == float | None]
    extras = dict.fromkeys(name for each in scores for name in each.extras)
    pairs = tuple(error for each in scores for error in each.pair_errors_deg)
    means = {name: _mean([getattr(each, name) for each in scores]) for name in names}
    if scores[0].protocol == "pi3":
        pooled = torch.tensor(pairs, dtype=torch.float64)
        means["auc30"] = auc(pooled, torch.zeros_like(pooled))
    return Scores(
        protocol=scores[0].protocol,
        **means,
        views=sum(each.views for each in scores),
        views_without_camera=sum(each.views_without_camera for each in scores),
        extras={
            name: mean for name in extras if (mean := _mean([each.extras.get(name) for each in scores])) is not None
        },
        pair_errors_deg=pairs,
    )


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None

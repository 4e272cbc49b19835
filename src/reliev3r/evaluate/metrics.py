"""Error measures for cameras, points and depth: pure functions; protocols choose among them.

Per-pixel quantities arrive flat: [n] valid pixels of all views together, with ``view`` [n] telling which view each
belongs to. Everything is computed in the dtype that comes in (protocols use float64).
"""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from reliev3r.geometry.align import umeyama
from reliev3r.geometry.rigid import angle_between, relative, rotation_angle

Seen = Literal["first", "second", "both"]
"""Camera in whose frame a pair's baseline direction is compared. It matters, for the frames differ by the rotation
error: MapAnything takes the first of the pair, pi^3 the second; ``strict`` counts both, so that order is no matter."""


def pair_errors(
    predicted: Float[Tensor, "v 4 4"],
    true: Float[Tensor, "v 4 4"],
    found: Bool[Tensor, " v"] | None = None,
    *,
    signed: bool,
    seen: Seen,
) -> tuple[Float[Tensor, " p"], Float[Tensor, " p"]]:
    """Rotation and translation-direction error in degrees of every unordered pair of views (i < j; twice for "both").

    Both arguments are world_from_cam; any global similarity between them cancels.

    - Rotation: angle of R_ij (predicted) against R_ij (true).
    - Translation: angle between the baselines' directions; with ``signed=False`` min(a, 180 - a).
    - A predicted pair without baseline has no direction: 90 degrees. A *true* pair without baseline (under 1e-6 of the
      longest) asks for none: 0 degrees, so that only its rotation counts.
    - A pair with a view whose camera was not ``found`` has 180 degrees in both.
    """
    between, truth = relative(predicted), relative(true)
    rotation = rotation_angle(between[..., :3, :3].mT @ truth[..., :3, :3]).rad2deg()
    direction = angle_between(between[..., :3, 3], truth[..., :3, 3]).rad2deg()
    if not signed:
        direction = torch.minimum(direction, 180 - direction)
    baseline = truth[..., :3, 3].norm(dim=-1)
    direction = torch.where(baseline > 1e-6 * baseline.max(), direction, torch.zeros_like(direction))
    if found is not None:
        both = found[:, None] & found
        rotation = torch.where(both, rotation, torch.full_like(rotation, 180))
        direction = torch.where(both, direction, torch.full_like(direction, 180))
    first, second = torch.triu_indices(len(true), len(true), offset=1).unbind(0)
    ends = {"first": [(first, second)], "second": [(second, first)], "both": [(first, second), (second, first)]}[seen]
    # entry [i, j] of ``direction`` is measured in camera i's frame
    return torch.cat([rotation[end] for end in ends]), torch.cat([direction[end] for end in ends])


def auc(rotation: Float[Tensor, " p"], translation: Float[Tensor, " p"], threshold: int = 30) -> float | None:
    """Area under the accuracy curve up to ``threshold`` degrees, in percent; ``None`` without pairs.

    e = max(rotation, translation); histogram over integer edges 0, 1, ..., ``threshold`` (the last bin is closed), as
    shares of *all* pairs; mean of its cumulative sum. Thus a pair at 15.5 degrees gives 50, and a perfect one 100.
    Pool several sets by concatenating their errors. Source: VGGT's evaluation, as used by pi^3 and MapAnything.
    """
    error = torch.maximum(rotation, translation)
    if not len(error):
        return None
    inside = error[error <= threshold]  # NaN is outside
    histogram = torch.bincount(inside.floor().long().clamp_max(threshold - 1), minlength=threshold).double()
    return 100 * float((histogram / len(error)).cumsum(0).mean())


def ate_rmse(centres: Float[Tensor, "v 3"], true: Float[Tensor, "v 3"]) -> float | None:
    """RMS distance of camera centres after Sim(3) Umeyama alignment of prediction to truth, in the truth's unit.

    ``None`` with fewer than three views: two centres can always be aligned. Source: evo's APE (translation part) with
    alignment and scale correction.
    """
    if len(true) < 3:
        return None
    scale, rotation, translation = umeyama(centres, true)
    residual = scale * centres @ rotation.mT + translation - true
    return float(residual.square().sum(-1).mean().sqrt())


def ate_mean_rigid(centres: Float[Tensor, "v 3"], true: Float[Tensor, "v 3"]) -> float | None:
    """*Mean* distance of camera centres after Horn's alignment (rotation and translation, no scale).

    Source: MapAnything's ``evaluate_ate``. ``None`` with fewer than two views.
    """
    if len(true) < 2:
        return None
    _, rotation, translation = umeyama(centres, true, with_scale=False)
    return float((centres @ rotation.mT + translation - true).norm(dim=-1).mean())


def spread(centres: Float[Tensor, "v 3"]) -> float:
    """RMS distance of camera centres from their mean."""
    return float((centres - centres.mean(0)).square().sum(-1).mean().sqrt())


def relative_error(predicted: Float[Tensor, "n d"], true: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
    """|p - q| / |q|."""
    return (predicted - true).norm(dim=-1) / true.norm(dim=-1).clamp_min(1e-12)


def norm_ratio(predicted: Float[Tensor, "n d"], true: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
    """max(|p| / |q|, |q| / |p|), at least 1: a ratio of *norms*, blind to the direction of the difference."""
    p, q = predicted.norm(dim=-1).clamp_min(1e-12), true.norm(dim=-1).clamp_min(1e-12)
    return torch.maximum(p / q, q / p)


def view_mean(values: Float[Tensor, " n"] | Bool[Tensor, " n"], view: Int[Tensor, " n"]) -> float:
    """Mean over the pixels of each view, then over the views that have any."""
    count = torch.bincount(view)
    total = torch.bincount(view, weights=values.double())
    return float((total[count > 0] / count[count > 0]).mean())

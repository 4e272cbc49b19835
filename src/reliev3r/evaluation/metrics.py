"""Error measures for cameras, points and depth: pure functions; protocols choose among them.

Per-pixel quantities arrive flat: [n] valid pixels of all views together, with ``view`` [n] telling which view each
belongs to. Everything is computed in the dtype that comes in (protocols use float64).
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from reliev3r.geometry.align import align_scale_l1, align_scale_shift, umeyama
from reliev3r.geometry.rigid import angle_between, relative, rigid_from, rotation_angle

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


def view_weights(view: Int[Tensor, " n"]) -> Float[Tensor, " n"]:
    """1 / (pixels of the view) for each pixel: every view with pixels counts alike."""
    return 1 / torch.bincount(view).clamp_min(1).double()[view]


def relative_scale(
    predicted: Float[Tensor, "n d"], true: Float[Tensor, "n d"], weight: Float[Tensor, " n"]
) -> Float[Tensor, ""]:
    """argmin over s >= 0 of sum_n w |s p - q|_1 / |q|: the scale that is L1-optimal for *relative* errors.

    Exact, by a weighted median over all coordinates. For depth (d = 1) it minimises the depth rel that is reported: a
    large overestimate has the same leverage on both. 0 where the prediction points away from the truth.
    """
    weight = (weight / true.norm(dim=-1).clamp_min(1e-12))[:, None].expand_as(true)
    return align_scale_l1(predicted.flatten(), true.flatten(), weight.flatten()).clamp_min(0)


def scale_shift_l1(
    x: Float[Tensor, " n"], y: Float[Tensor, " n"], *, iterations: int = 50
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """argmin_{s,t} sum |s x + t - y|, by iteratively re-weighted least squares from the least-squares solution.

    pi^3 minimises the same by 1000 steps of Adam from (ratio of medians, 0).
    """
    scale, shift = align_scale_shift(x, y, torch.ones_like(x))
    floor = 1e-6 * y.abs().mean().clamp_min(1e-12)
    for _ in range(iterations):
        before = scale
        weight = 1 / (scale * x + shift - y).abs().clamp_min(float(floor))
        scale, shift = align_scale_shift(x, y, weight)
        if (scale - before).abs() <= 1e-7 * before.abs():
            break
    return scale, shift


def icp(
    source: Float[Tensor, "n 3"], target: Float[Tensor, "m 3"], *, threshold: float = 0.1, iterations: int = 30
) -> Float[Tensor, "4 4"]:
    """target_from_source by rigid point-to-point ICP from the identity (Open3D's algorithm and stopping rule).

    Each source point is matched to its nearest target within ``threshold`` (unit of the points); it stops when the
    share of matched points and their RMS distance change by less than 1e-6, or where fewer than three points match.
    """
    from scipy.spatial import cKDTree

    tree = cKDTree(target.numpy())
    result = torch.eye(4, dtype=source.dtype)
    before = (-1.0, -1.0)
    for _ in range(iterations + 1):
        moved = source @ result[:3, :3].mT + result[:3, 3]
        distance, index = tree.query(moved.numpy(), distance_upper_bound=threshold)
        distance, index = torch.from_numpy(distance), torch.from_numpy(index)
        near = distance.isfinite()
        if near.sum() < 3:
            break
        now = (float(near.double().mean()), float(distance[near].square().mean().sqrt()))
        if all(abs(a - b) < 1e-6 for a, b in zip(now, before)):
            break
        before = now
        _, rotation, translation = umeyama(moved[near], target[index[near]], with_scale=False)
        result = rigid_from(rotation, translation) @ result
    return result


CLOUD_CAP = 1_000_000
"""Clouds with more points than this are thinned (evenly, the same pixels in both) before anything is searched."""
QUERY_CAP = 50_000
"""Nearest neighbours are sought *for* at most this many points (evenly spaced), *in* the whole cloud: the figures are
estimates without bias."""
NEIGHBOURS = 30
"""Points whose principal axes give a normal (Open3D's default)."""


def compare_clouds(
    predicted: Float[Tensor, "n 3"], true: Float[Tensor, "n 3"], *, threshold: float = 0.1
) -> dict[str, float]:
    """Surface distances after alignment, for clouds that correspond point by point; unit of ``true``.

    Sim(3) Umeyama over all points, then rigid ICP (``threshold``). ``accuracy``: distance from each predicted point to
    the nearest true one; ``completeness``: the other way round; ``normal_consistency``: |n . n'| at those neighbours,
    the mean of both ways. Normals by PCA of the 30 nearest points of the same cloud. Mean and median of each.
    Source: pi^3's ``mv_recon`` evaluation; the thinning (``CLOUD_CAP``, ``QUERY_CAP``) is ours.
    """
    predicted, true = _thin(predicted, CLOUD_CAP), _thin(true, CLOUD_CAP)
    scale, rotation, translation = umeyama(predicted, true)
    predicted = scale * predicted @ rotation.mT + translation
    moved = icp(_thin(predicted, QUERY_CAP), true, threshold=threshold)
    predicted = predicted @ moved[:3, :3].mT + moved[:3, 3]

    accuracy, there = _nearest(predicted, true)
    completeness, back = _nearest(true, predicted)
    pairs = {"accuracy": [accuracy], "completeness": [completeness], "normal_consistency": [there, back]}
    result = {}
    for name, values in pairs.items():
        result[f"{name}_mean"] = float(torch.stack([value.mean() for value in values]).mean())
        result[f"{name}_median"] = float(torch.stack([value.median() for value in values]).mean())
    return result


def _thin(points: Float[Tensor, "n 3"], cap: int) -> Float[Tensor, "k 3"]:
    """At most ``cap`` points, evenly spaced in the list."""
    if len(points) <= cap:
        return points
    return points[torch.linspace(0, len(points) - 1, cap, dtype=torch.float64).round().long()]


def _nearest(
    source: Float[Tensor, "n 3"], target: Float[Tensor, "m 3"]
) -> tuple[Float[Tensor, " k"], Float[Tensor, " k"]]:
    """For (some of) the source points: distance to the nearest target, and |cosine| between the two normals."""
    from scipy.spatial import cKDTree

    tree, own = cKDTree(target.numpy()), cKDTree(source.numpy())
    query = _thin(source, QUERY_CAP)
    distance, index = tree.query(query.numpy())
    nearest = target[torch.from_numpy(index)]
    cosine = (_normals(own, source, query) * _normals(tree, target, nearest)).sum(-1).abs()
    return torch.from_numpy(distance), cosine


def _normals(tree: Any, cloud: Float[Tensor, "n 3"], at: Float[Tensor, "k 3"]) -> Float[Tensor, "k 3"]:
    """Unit normals (sign open) of ``cloud`` at the points ``at``: least principal axis of the nearest neighbours."""
    _, index = tree.query(at.numpy(), k=min(NEIGHBOURS, len(cloud)))
    near = cloud[torch.from_numpy(index).reshape(len(at), -1)]
    centred = near - near.mean(-2, keepdim=True)
    return torch.linalg.eigh(centred.mT @ centred).eigenvectors[..., 0]

"""Protocol ``strict``: ours, the default for our own claims.

- Grid: the truth's pixels over the part of the image that was predicted, long side capped at 640; the prediction is
  resized bilinearly to it. Pixels without true depth do not count.
- Points: all views in view 0's camera frame (prediction with its own pose 0, truth with the true one), so an error of
  camera 0 is paid by all. One scale s for the set, the L1-optimal one of *relative* error:
  s = argmin sum_views 1/n_view sum_pixels |s p - q|_1 / |q|, exactly (weighted median).
  rel = |s p - q| / |q|: mean over the valid pixels of each view, then over views; tau = share under 0.10.
- Depth: one scale for the set, likewise from z-depth alone (so depth rel is the least that one scale per scene can
  reach); rel and tau as for points. Extra ``depth_rel_scale_per_view``: the same with one scale per view, which tells
  a wrong shape of the depth from a wrong scale between views.
- ATE: RMSE of camera centres after Sim(3) Umeyama, divided by the RMS spread of the true centres (0 perfect, 1 no
  better than one point). Needs three cameras and a moving truth.
- AUC@30: all unordered pairs, e = max(rotation, translation direction) in degrees, direction *signed*; a pair counts
  once as each of its cameras sees the direction, so that the order of the views does not matter (MapAnything's and
  pi^3's choices of one camera differ from each other by half a point on real captures; this is their mean).
- Medians of rotation and of translation-direction error over the same pairs.
"""

from __future__ import annotations

import dataclasses

import torch
from jaxtyping import Bool
from torch import Tensor

from reliev3r.core.errors import UserError
from reliev3r.core.types import Prediction, Truth
from reliev3r.evaluation.metrics import (
    ate_mean_rigid,
    ate_rmse,
    compare_clouds,
    norm_ratio,
    relative_error,
    relative_scale,
    scale_shift_l1,
    spread,
    view_mean,
    view_weights,
)
from reliev3r.evaluation.scores import Cameras, Pixels, Protocol, Scores, cameras_of, pixels_of, score_poses
from reliev3r.geometry.align import align_scale_l1
from reliev3r.geometry.sampling import resize_linear

STRICT_TAU = 0.10


def score_strict(cameras: Cameras, pixels: Pixels | None) -> Scores:
    """Score under the protocol that this module's docstring defines."""
    poses = score_poses("strict", cameras, ate=_ate(cameras), signed=True, seen="both")
    if pixels is None:
        return poses
    weight, view = view_weights(pixels.view), pixels.view
    point_scale = relative_scale(pixels.points, pixels.true_points, weight)
    depth_scale = relative_scale(pixels.depth, pixels.true_depth, weight)
    point = relative_error(pixels.points * point_scale, pixels.true_points)
    depth = relative_error(pixels.depth * depth_scale, pixels.true_depth)
    return dataclasses.replace(
        poses,
        point_rel=view_mean(point, view),
        point_tau=view_mean(point < STRICT_TAU, view),
        depth_rel=view_mean(depth, view),
        depth_tau=view_mean(depth < STRICT_TAU, view),
        extras={"depth_rel_scale_per_view": _depth_rel_per_view(pixels)},
    )


def _ate(cameras: Cameras) -> float | None:
    centres, true = cameras.centres()
    extent = spread(true) if len(true) else 0.0
    error = ate_rmse(centres, true)
    return error / extent if error is not None and extent > 1e-9 else None


def _depth_rel_per_view(pixels: Pixels) -> float:
    """Depth rel with the best scale for each view."""
    error = torch.empty_like(pixels.depth[:, 0])
    for view in pixels.view.unique():
        own = pixels.view == view
        depth, true = pixels.depth[own], pixels.true_depth[own]
        error[own] = relative_error(depth * relative_scale(depth, true, torch.ones_like(depth[:, 0])), true)
    return view_mean(error, pixels.view)


MAPANYTHING_TAU = 1.10


def score_mapanything(cameras: Cameras, pixels: Pixels | None) -> Scores:
    """Score under the protocol that this module's docstring defines."""
    poses = score_poses("mapanything", cameras, ate=None, signed=False, seen="first")
    if pixels is None:
        return dataclasses.replace(poses, ate=_ate_of_cameras_alone(cameras))
    unit = pixels.points.norm(dim=-1).mean().clamp_min(1e-8)
    true_unit = pixels.true_points.norm(dim=-1).mean().clamp_min(1e-8)
    points, true_points = pixels.points / unit, pixels.true_points / true_unit
    depth, true_depth = pixels.depth / unit, pixels.true_depth / true_unit
    centres, true_centres = cameras.centres()
    return dataclasses.replace(
        poses,
        point_rel=view_mean(relative_error(points, true_points), pixels.view),
        point_tau=view_mean(norm_ratio(points, true_points) < MAPANYTHING_TAU, pixels.view),
        depth_rel=view_mean(relative_error(depth, true_depth), pixels.view),
        depth_tau=view_mean(norm_ratio(depth, true_depth) < MAPANYTHING_TAU, pixels.view),
        ate=ate_mean_rigid(centres / unit, true_centres / true_unit),
    )


def _ate_of_cameras_alone(cameras: Cameras) -> float | None:
    """Where there are no points to give the unit: the mean distance of the cameras from view 0, one factor each."""
    centres, true = cameras.centres()
    if len(true) < 2:
        return None
    unit, true_unit = (each.norm(dim=-1).sum() / (len(true) - 1) for each in (centres, true))
    if true_unit < 1e-9:
        return None
    return ate_mean_rigid(centres / unit.clamp_min(1e-8), true / true_unit)


PI3_TAU = 1.25


def score_pi3(cameras: Cameras, pixels: Pixels | None) -> Scores:
    """Score under the protocol that this module's docstring defines."""
    poses = score_poses("pi3", cameras, ate=ate_rmse(*cameras.centres()), signed=False, seen="second")
    if pixels is None:
        return poses
    depth, true = pixels.depth, pixels.true_depth
    scaled = depth * align_scale_l1(depth[:, 0], true[:, 0], torch.ones_like(true[:, 0])).clamp_min(1e-3)
    scale, shift = scale_shift_l1(depth[:, 0], true[:, 0])
    shifted = scale * depth + shift
    return dataclasses.replace(
        poses,
        depth_rel=float(relative_error(scaled, true).mean()),
        depth_tau=float((norm_ratio(scaled, true) < PI3_TAU).double().mean()),
        extras={
            **compare_clouds(pixels.points, pixels.true_points),
            "depth_rel_scale_shift": float(relative_error(shifted, true).mean()),
            "depth_tau_scale_shift": float((norm_ratio(shifted.clamp_min(1e-5), true) < PI3_TAU).double().mean()),
        },
    )


_SCORERS = {"strict": score_strict, "mapanything": score_mapanything, "pi3": score_pi3}


def score(
    prediction: Prediction,
    truth: Truth,
    protocol: Protocol,
    *,
    found: Bool[Tensor, " v"] | None = None,
    predicts_depth: bool = True,
) -> Scores:
    """Figures of ``prediction`` under ``protocol`` (see the modules ``strict``, ``mapanything`` and ``pi3``).

    Neither argument has a batch dimension; both cover the same part of the images. ``strict`` and ``pi3`` resize the
    prediction to the truth's pixels; ``mapanything`` scores on the prediction's own, so the truth must have them.
    ``found`` marks the views whose camera the system found (default all); ``predicts_depth=False`` says that the maps
    mean nothing and only cameras are scored.

    Raises:
        UserError: the grids differ under ``mapanything``, or the predicted maps are not finite.
    """
    if predicts_depth and prediction.depth.shape != truth.depth.shape:
        if protocol == "mapanything":
            grids = [" x ".join(map(str, maps.shape)) for maps in (prediction.depth, truth.depth)]
            raise UserError(f"mapanything scores on the prediction's grid {grids[0]}, but the truth has {grids[1]}")
        prediction = _resized(prediction, *truth.depth.shape[-2:])
    cameras = cameras_of(prediction, truth, found)
    pixels = pixels_of(prediction, truth, cameras) if predicts_depth else None
    return _SCORERS[protocol](cameras, pixels)


def strict_figures(prediction: Prediction, truth: Truth) -> dict[str, float]:
    """What the log of a training shows of a scene with truth: AUC@30, pose errors and depth under ``strict``."""
    scores = score(prediction, truth, "strict")
    names = ("auc30", "rotation_median_deg", "translation_median_deg", "depth_rel")
    return {name: float(getattr(scores, name)) for name in names}


def _resized(prediction: Prediction, height: int, width: int) -> Prediction:
    """The prediction on another grid over the same area: bilinear depth, rays continued linearly at the border."""
    return dataclasses.replace(
        prediction,
        depth=resize_linear(prediction.depth[..., None].double(), height, width)[..., 0],
        rays=resize_linear(prediction.rays.double(), height, width, extrapolate=True),
        conf=resize_linear(prediction.conf[..., None], height, width)[..., 0],
    )

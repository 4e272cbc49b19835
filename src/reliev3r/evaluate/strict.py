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

from reliev3r.evaluate.alignment import relative_scale, view_weights
from reliev3r.evaluate.metrics import ate_rmse, relative_error, spread, view_mean
from reliev3r.evaluate.sample import Cameras, Pixels
from reliev3r.evaluate.scores import Scores, score_poses

TAU = 0.10


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
        point_tau=view_mean(point < TAU, view),
        depth_rel=view_mean(depth, view),
        depth_tau=view_mean(depth < TAU, view),
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

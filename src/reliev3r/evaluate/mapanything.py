"""Protocol ``mapanything``: the metrics of the paper's tables, after MapAnything's multi-view benchmark.

- Grid: the prediction's own pixels; the truth is looked up at their centres (nearest).
- Frame: everything in view 0's camera frame, the prediction with its pose 0, the truth with the true one.
- Unit: points of all views are divided by the mean distance to the origin over the valid pixels (of the truth's mask)
  of all views, one factor for the prediction and one for the truth; translations and z-depths by the same factor.
- point rel: mean over valid pixels of |p - q| / |q|, averaged over views (then sets, then scenes, by the caller).
- point tau: share of valid pixels with max(|p|/|q|, |q|/|p|) < 1.10 - a ratio of norms, not of the difference.
- depth rel, depth tau: the same on z-depth.
- ATE: *mean* distance of camera centres after Horn's alignment (rotation and translation, *no scale*), in that unit. A
  system without points has no unit: a cross.
- AUC@30: all unordered pairs i < j, e = max(rotation, translation direction in camera i) in degrees, direction
  *sign-ambiguous*; see ``metrics.auc``. The paper uses tau at 10 % and AUC at 30 degrees where MapAnything's own
  benchmark has 3 % and 5 degrees.
"""

from __future__ import annotations

import dataclasses

from reliev3r.evaluate.metrics import ate_mean_rigid, norm_ratio, relative_error, view_mean
from reliev3r.evaluate.sample import Cameras, Pixels
from reliev3r.evaluate.scores import Scores, score_poses

TAU = 1.10


def score_mapanything(cameras: Cameras, pixels: Pixels | None) -> Scores:
    """Score under the protocol that this module's docstring defines."""
    poses = score_poses("mapanything", cameras, ate=None, signed=False, seen="first")
    if pixels is None:
        return poses
    unit = pixels.points.norm(dim=-1).mean().clamp_min(1e-8)
    true_unit = pixels.true_points.norm(dim=-1).mean().clamp_min(1e-8)
    points, true_points = pixels.points / unit, pixels.true_points / true_unit
    depth, true_depth = pixels.depth / unit, pixels.true_depth / true_unit
    centres, true_centres = cameras.centres()
    return dataclasses.replace(
        poses,
        point_rel=view_mean(relative_error(points, true_points), pixels.view),
        point_tau=view_mean(norm_ratio(points, true_points) < TAU, pixels.view),
        depth_rel=view_mean(relative_error(depth, true_depth), pixels.view),
        depth_tau=view_mean(norm_ratio(depth, true_depth) < TAU, pixels.view),
        ate=ate_mean_rigid(centres / unit, true_centres / true_unit),
    )

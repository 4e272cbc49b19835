"""Protocol ``pi3``: for comparison with the published tables of pi^3 (its ``evaluation`` branch).

- Grid: the truth's pixels over the part of the image that was predicted, long side capped at 640; the prediction is
  resized bilinearly to it (without pi^3's antialiasing, which matters only when shrinking).
- Points (extras): Sim(3) Umeyama over all valid pixels, then ICP (point to point, threshold 0.1 in the truth's unit),
  then accuracy, completeness and normal consistency, mean and median: see ``clouds.compare_clouds``. The protocol has
  no relative point error: ``point_rel`` and ``point_tau`` stay empty.
- Depth: one scale for the sequence, argmin sum |s d - d*| (exact; pi^3 takes ten Weiszfeld steps towards it):
  ``depth_rel`` = mean |s d - d*| / d* and ``depth_tau`` = share with max(s d/d*, d*/(s d)) < **1.25**, all pixels of
  the sequence pooled. Extras ``depth_rel_scale_shift`` and ``depth_tau_scale_shift``: with argmin sum |s d + t - d*|.
- ATE: RMSE of camera centres after Sim(3) Umeyama, in the truth's unit (metres), as evo gives it.
- AUC@30: unordered pairs i < j, e = max(rotation, translation direction in camera j), direction *sign-ambiguous*. The
  published numbers take 10 views and pool the pairs of all sequences: ``metrics.auc`` of the concatenated errors.
"""

from __future__ import annotations

import dataclasses

import torch

from reliev3r.evaluate.alignment import scale_shift_l1
from reliev3r.evaluate.clouds import compare_clouds
from reliev3r.evaluate.metrics import ate_rmse, norm_ratio, relative_error
from reliev3r.evaluate.sample import Cameras, Pixels
from reliev3r.evaluate.scores import Scores, score_poses
from reliev3r.geometry.align import align_scale_l1

TAU = 1.25


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
        depth_tau=float((norm_ratio(scaled, true) < TAU).double().mean()),
        extras={
            **compare_clouds(pixels.points, pixels.true_points),
            "depth_rel_scale_shift": float(relative_error(shifted, true).mean()),
            "depth_tau_scale_shift": float((norm_ratio(shifted.clamp_min(1e-5), true) < TAU).double().mean()),
        },
    )

"""How good a reconstruction is, judged without ground truth: by matches held out of training, and by its shape."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from reliev3r.geometry.camera import rays_from_uv, transform, unproject
from reliev3r.geometry.collapse import (
    BAD_ANGLE_DEG,
    COLLAPSED_BASELINE,
    EQUAL_ROTATIONS_DEG,
    GOOD_ANGLE_DEG,
    SATURATED_SHARE,
    baseline_to_depth,
    rotation_spread_deg,
    share_at_two,
    share_at_zero,
)
from reliev3r.geometry.rigid import angle_between
from reliev3r.geometry.sampling import sample_bilinear
from reliev3r.types import Prediction, Tracks


@dataclass(frozen=True, kw_only=True)
class Quality:
    """Truth-free quality of one reconstruction; the angles are ``None`` where no track was held out."""

    heldout_pairs: int
    """Ordered pairs of observations that were compared."""
    mean_angle_deg: float | None
    median_angle_deg: float | None
    share_below_1_deg: float | None
    baseline_to_depth: float
    """Median distance between two cameras over median depth."""
    rotation_spread_deg: float
    """Median rotation between two cameras, in degrees."""
    confident_share: float
    """Share of pixels with confidence W > 1."""
    alarms: tuple[str, ...]
    """What is wrong and what to do about it, in plain language; empty if nothing is."""


def assess(prediction: Prediction, heldout: Tracks, K: Float[Tensor, "v 3 3"] | None = None) -> Quality:
    """Judge a prediction (no batch dimension) by tracks held out of training, in pixels of the prediction's grid.

    ``K`` as in :func:`heldout_angles`.
    """
    angles = heldout_angles(prediction, heldout, K)
    quality = Quality(
        heldout_pairs=len(angles),
        mean_angle_deg=float(angles.mean()) if len(angles) else None,
        median_angle_deg=float(angles.median()) if len(angles) else None,
        share_below_1_deg=float((angles < GOOD_ANGLE_DEG).double().mean()) if len(angles) else None,
        baseline_to_depth=float(baseline_to_depth(prediction)),
        rotation_spread_deg=float(rotation_spread_deg(prediction)),
        confident_share=float((prediction.conf > 1).double().mean()),
        alarms=(),
    )
    return dataclasses.replace(quality, alarms=tuple(_alarms(quality, prediction.conf)))


def heldout_angles(
    prediction: Prediction, tracks: Tracks, K: Float[Tensor, "v 3 3"] | None = None
) -> Float[Tensor, " n"]:
    """Angles in degrees over all ordered pairs (i, j), i != j, of observations of each track: the training loss's own.

    At camera i: between its observed ray and the point that view j predicts for the track (depth looked up bilinearly).
    Tracks are in pixels of the prediction's grid; ``K`` gives the rays through them (default ``prediction.K``, the
    pinhole that fits the predicted rays). Weights only say what is seen. float64, [n] in no promised order.
    """
    K = (prediction.K if K is None else K).double()
    uv, world_from_cam = tracks.uv.double(), prediction.world_from_cam.double()
    depth = sample_bilinear(prediction.depth.double(), uv)
    points = transform(world_from_cam, unproject(uv, depth, K))
    rays = rays_from_uv(uv, K) @ world_from_cam[:, :3, :3].mT
    angles = []
    for i, (ray, seen) in enumerate(zip(rays, tracks.visible)):  # a loop over views keeps memory at [v, m]
        pairs = tracks.visible & seen
        pairs[i] = False
        towards = points - world_from_cam[i, :3, 3]
        angles.append(angle_between(ray.expand_as(towards), towards)[pairs])
    return torch.cat(angles).rad2deg()


def _alarms(quality: Quality, conf: Float[Tensor, "v h w"]) -> list[str]:
    """Plain-language warnings with advice."""
    alarms = []
    median = quality.median_angle_deg
    misfit = median is not None and median > GOOD_ANGLE_DEG
    if median is None:
        alarms.append("No matches were held out, so nothing independent checks this reconstruction; use more images.")
    elif median > BAD_ANGLE_DEG:
        alarms.append(
            f"The views do not agree with each other: matches held out of training are off by {median:.1f} degrees in "
            "the median (good is under 1); train longer, or take images that overlap more."
        )
    if quality.baseline_to_depth < COLLAPSED_BASELINE:
        alarms.append(
            f"The cameras collapsed into one point (baseline {quality.baseline_to_depth:.4f} of the depth), so depth "
            "means nothing; move sideways between the images instead of turning on the spot, or fit with another seed."
        )
    if quality.rotation_spread_deg < EQUAL_ROTATIONS_DEG and misfit:
        alarms.append(
            "All cameras look in the same direction although the held-out matches contradict it: the poses were not "
            "learned; train longer or fit with another seed."
        )
    if share_at_zero(conf) > SATURATED_SHARE:
        alarms.append(
            "The confidence is 0 everywhere, so the pseudo-depth was ignored; give a depth expert that suits the "
            "scene, or raise alpha."
        )
    # W = 2 everywhere is right where the depth labels are good; it is a fault when the views disagree (supplement C)
    if misfit and share_at_two(conf) > SATURATED_SHARE:
        alarms.append(
            "The confidence is at its upper bound everywhere although the views disagree: the pseudo-depth is trusted "
            "blindly; lower alpha."
        )
    return alarms

"""How good a reconstruction is, judged without ground truth: by matches held out of training, and by its shape."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from reliev3r.core.types import Prediction, Tracks
from reliev3r.geometry.collapse_signs import (
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
from reliev3r.losses.tracks import heldout_angles


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
    confident_share: float | None
    """Share of pixels with confidence W > 1; ``None`` where W says nothing (no depth taught it)."""
    alarms: tuple[str, ...]
    """What is wrong and what to do about it, in plain language; empty if nothing is."""

    @property
    def summary(self) -> str:
        """The figures in one line."""
        if self.median_angle_deg is None or self.mean_angle_deg is None or self.share_below_1_deg is None:
            return "no held-out tracks: nothing independent checks this reconstruction"
        confident = (
            "" if self.confident_share is None else f"; {100 * self.confident_share:.0f} % of the pixels confident"
        )
        return (
            f"held-out tracks (no ground truth needed): median {self.median_angle_deg:.2f} degrees, mean "
            f"{self.mean_angle_deg:.2f}, {100 * self.share_below_1_deg:.0f} % below 1 degree; baseline / depth "
            f"{self.baseline_to_depth:.2f}{confident}"
        )


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
        confident_share=float((prediction.conf > 1).double().mean()) if prediction.knows_confidence else None,
        alarms=(),
    )
    return dataclasses.replace(quality, alarms=tuple(_alarms(quality, prediction.conf)))


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

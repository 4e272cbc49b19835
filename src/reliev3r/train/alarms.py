"""Collapse seen while training: what the last prediction looks like, and when that has lasted long enough to stop."""

from __future__ import annotations

import torch

from reliev3r.core.types import Prediction, Tracks
from reliev3r.geometry.collapse import (
    BAD_ANGLE_DEG,
    COLLAPSED_BASELINE,
    EQUAL_ROTATIONS_DEG,
    SATURATED_SHARE,
    baseline_to_depth,
    rotation_spread_deg,
    share_at_two,
    share_at_zero,
)
from reliev3r.losses.tracks import ReprojectionConfig, reprojection_loss


@torch.no_grad()
def signs_of_collapse(prediction: Prediction, tracks: Tracks) -> dict[str, float]:
    """What the alarms listen to: medians over the samples of a batch, shares over its pixels, and the median angle of
    its tracks in degrees (180 if no track is seen twice)."""
    prediction = prediction.detach().to(torch.float32)
    angles, _ = reprojection_loss(prediction, tracks, ReprojectionConfig(form="angle"))
    return {
        "baseline_to_depth": float(baseline_to_depth(prediction).median()),
        "rotation_spread_deg": float(rotation_spread_deg(prediction).median()),
        "conf_at_zero": float(share_at_zero(prediction.conf)),
        "conf_at_two": float(share_at_two(prediction.conf)),
        "tracks_deg": float(angles.median().rad2deg()) if angles.numel() else 180.0,
    }


ADVICE = {
    "baseline": "the cameras have collapsed into one point although the tracks disagree with that; raise the weight of "
    "the gauge or of the teacher, or start from wider baselines (captures that only turn on the spot teach no depth)",
    "rotation": "all cameras look in the same direction although the tracks disagree with that: poses are not being "
    "learned; turn on the correspondence branch or the teacher, bring the views closer together, or lower --lr",
    "zero": "the confidence is 0 everywhere, so the pseudo-depth is ignored; raise alpha, or check the depth expert",
    "two": "the confidence is at its upper bound everywhere although the tracks disagree; lower alpha",
}


class Alarms:
    """Counts for how many checks in a row a sign has held."""

    def __init__(self, checks: int) -> None:
        """``checks`` in a row make an alarm."""
        self.checks = checks
        self.held = dict.fromkeys(ADVICE, 0)

    def advice(self, signs: dict[str, float]) -> str | None:
        """Advice once a sign has held for long enough, else ``None``.

        Poses and trust are judged by the tracks alone: equal rotations, no baseline or W = 2 everywhere are right where
        the tracks agree with them (a camera that slides, one that turns on the spot, a perfect depth expert).
        """
        misfit = signs["tracks_deg"] > BAD_ANGLE_DEG
        now = {
            "baseline": misfit and signs["baseline_to_depth"] < COLLAPSED_BASELINE,
            "rotation": misfit and signs["rotation_spread_deg"] < EQUAL_ROTATIONS_DEG,
            "zero": signs["conf_at_zero"] > SATURATED_SHARE,
            "two": misfit and signs["conf_at_two"] > SATURATED_SHARE,
        }
        self.held = {name: self.held[name] + 1 if holds else 0 for name, holds in now.items()}
        return next((ADVICE[name] for name, count in self.held.items() if count >= self.checks), None)

"""Watching a run: metrics for programs and people, and alarms when the prediction looks collapsed."""

from __future__ import annotations

import json
import logging
import secrets
from pathlib import Path
from typing import Any

import torch

from reliev3r.core.errors import UserError
from reliev3r.core.files import atomic_path
from reliev3r.core.types import Prediction, Tracks
from reliev3r.geometry.collapse_signs import (
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

logger = logging.getLogger(__name__)


class MetricsLog:
    """Appends rows to ``metrics.jsonl``, to TensorBoard event files under ``tensorboard/`` and to Weights & Biases."""

    def __init__(self, folder: Path, *, resume_step: int = 0, wandb: str | None = None) -> None:
        """Open the log; rows after ``resume_step`` belong to a future that was lost and are removed.

        Raises:
            UserError: the Weights & Biases project ``wandb`` is asked for and its package is missing.
        """
        self.path = folder / "metrics.jsonl"
        folder.mkdir(parents=True, exist_ok=True)
        kept = [row for row in read_metrics(self.path) if row["step"] <= resume_step]
        with atomic_path(self.path) as temporary:
            temporary.write_text("".join(json.dumps(row) + "\n" for row in kept), encoding="utf8")
        self.writer = _tensorboard(folder / "tensorboard", resume_step + 1)
        self.wandb = None if wandb is None else _wandb(folder, wandb)

    def write(self, row: dict[str, Any]) -> None:
        """Add one row; it needs a ``step``."""
        with self.path.open("a", encoding="utf8") as file:
            file.write(json.dumps(row) + "\n")
        for name, value in row.items() if self.writer is not None else ():
            if name != "step" and isinstance(value, int | float):
                self.writer.add_scalar(name, value, row["step"])
        if self.wandb is not None:
            self.wandb.log({name: value for name, value in row.items() if name != "step"}, step=row["step"])

    def close(self) -> None:
        """Flush what people look at."""
        if self.writer is not None:
            self.writer.close()
        if self.wandb is not None:
            self.wandb.finish()


def _tensorboard(folder: Path, purge_step: int) -> Any:
    """A summary writer, or None where TensorBoard is not installed (bare GPU machines)."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        logger.warning("tensorboard is not installed: metrics go to metrics.jsonl only")
        return None
    return SummaryWriter(str(folder), purge_step=purge_step)


def _wandb(folder: Path, project: str) -> Any:
    """A Weights & Biases run that a resumed training goes on with; the mode is the environment's (WANDB_MODE)."""
    try:
        import wandb
    except ImportError as error:
        raise UserError(f"{folder}: metrics cannot go to wandb: pip install wandb, or drop --wandb") from error
    identity = folder / "wandb-run"
    if not identity.is_file():
        with atomic_path(identity) as temporary:
            temporary.write_text(secrets.token_hex(8), encoding="utf8")
    name = identity.read_text(encoding="utf8")
    return wandb.init(project=project, name=folder.name, dir=str(folder), id=name, resume="allow")


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """All complete rows of a ``metrics.jsonl`` (a line that a kill cut short is left out); none if it is absent."""
    if not path.is_file():
        return []
    rows = []
    for line in path.read_text(encoding="utf8", errors="replace").splitlines():
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(row, dict) and isinstance(row.get("step"), int):
            rows.append(row)
    return rows


@torch.no_grad()
def signs_of_collapse(prediction: Prediction, tracks: Tracks) -> dict[str, float]:
    """What the alarms listen to: medians over the samples of a batch, shares over its pixels, and the median angle of
    its tracks in degrees (180 if no track is seen twice). Of a prediction without cameras the confidence alone."""
    prediction = prediction.detach().to(torch.float32)
    trust = {
        "conf_at_zero": float(share_at_zero(prediction.conf)),
        "conf_at_two": float(share_at_two(prediction.conf)),
    }
    if not prediction.has_cameras:  # they are solved: nothing that training does can collapse them
        return trust
    angles, weight = reprojection_loss(prediction, tracks, ReprojectionConfig(form="angle"))
    angles = angles[weight > 0]
    return {
        "baseline_to_depth": float(baseline_to_depth(prediction).median()),
        "rotation_spread_deg": float(rotation_spread_deg(prediction).median()),
        "tracks_deg": float(angles.median().rad2deg()) if angles.numel() else 180.0,
        **trust,
    }


ADVICE = {
    "baseline": "the cameras have collapsed into one point although the tracks disagree with that; raise the weight of "
    "the gauge or of the teacher, or start from wider baselines (captures that only turn on the spot teach no depth)",
    "rotation": "all cameras look in the same direction although the tracks disagree with that: poses are not being "
    "learned; turn on the correspondence branch or the teacher, bring the views closer together, or lower lr",
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
        misfit = signs.get("tracks_deg", 0.0) > BAD_ANGLE_DEG
        now = {
            "baseline": misfit and signs["baseline_to_depth"] < COLLAPSED_BASELINE,
            "rotation": misfit and signs["rotation_spread_deg"] < EQUAL_ROTATIONS_DEG,
            "zero": signs["conf_at_zero"] > SATURATED_SHARE,
            "two": misfit and signs["conf_at_two"] > SATURATED_SHARE,
        }
        self.held = {name: self.held[name] + 1 if holds else 0 for name, holds in now.items()}
        return next((ADVICE[name] for name, count in self.held.items() if count >= self.checks), None)

"""What changes over a run: the learning rate, and the weight of the early teacher."""

from __future__ import annotations

import dataclasses
import math

from reliev3r.losses.weak import ObjectiveConfig
from reliev3r.training.config import TrainConfig


def weak_settings(objective: ObjectiveConfig, *, hide_intrinsics: bool) -> ObjectiveConfig:
    """The weak objective where intrinsics may be hidden from the network: then angles are multiplied by the focal
    length, for a longer lens alone would shrink them."""
    if not hide_intrinsics or objective.reprojection.form != "angle":
        return objective
    return dataclasses.replace(
        objective, reprojection=dataclasses.replace(objective.reprojection, form="focal_angle")
    )  # fmt: skip


def teacher_share(progress: float, *, until: float, since: float = 0.0, floor: float = 0.0) -> float:
    """Share of the teacher's weight at ``progress`` in [0, 1]: 1 up to ``since``, then linearly down to ``floor`` at
    ``until``, and ``floor`` from there on."""
    if progress >= until:
        return floor
    left = 1.0 if progress <= since else (until - progress) / (until - since)
    return floor + (1 - floor) * left


def learning_rate(progress: float, config: TrainConfig) -> float:
    """At ``progress`` in [0, 1]: linear up to ``lr`` during the warm-up, then a cosine down to ``final_lr`` of it."""
    if progress < config.warmup:
        return config.lr * max(progress / config.warmup, 1e-2)
    cosine = 0.5 * (1 + math.cos(math.pi * (progress - config.warmup) / (1 - config.warmup)))
    return config.lr * (config.final_lr + (1 - config.final_lr) * cosine)

"""How the weak objective changes over a run, for every verb that trains."""

from __future__ import annotations

import dataclasses

from reliev3r.losses.weak import ObjectiveConfig


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

"""Settings of the training loop."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Precision = Literal["auto", "fp32", "bf16"]


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How long and how to descend; what to descend is the caller's objective."""

    steps: int | None = None
    """Optimiser steps; the run is a function of the seed alone. Wins over ``minutes``."""
    minutes: float = 5.0
    """Wall-clock budget of training where ``steps`` is not given; the schedule follows the clock."""
    lr: float = 2e-3
    warmup: float = 0.03
    """Share of the run in which the learning rate rises linearly; cosine to ``final_lr`` afterwards."""
    final_lr: float = 0.01
    """Last learning rate as a share of ``lr``."""
    weight_decay: float = 0.05
    """On matrices only."""
    clip: float = 1.0
    """Largest gradient norm."""
    ema: float | None = None
    """Decay of an exponential moving average of the weights, which is then what is evaluated and kept; None: off."""
    precision: Precision = "auto"
    """``auto``: bf16 autocast where the device multiplies bf16 matrices in hardware, else float32."""
    seed: int = 0
    """Of the initial weights and of the batches."""
    log_every: int = 10
    evaluate_every: float = 0.1
    """Share of the run between evaluations."""
    save_every: float = 60.0
    """Seconds between checkpoints (one more at the end and on Ctrl-C)."""

    def __post_init__(self) -> None:
        """Settings that cannot work are told at once."""
        if self.steps is not None and self.steps < 1:
            raise ValueError(f"steps must be at least 1, got {self.steps}")
        if self.steps is None and self.minutes <= 0:
            raise ValueError(f"minutes must be positive, got {self.minutes}")

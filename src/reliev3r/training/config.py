"""Settings of the training loop."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import Literal

from reliev3r.core.device import Precision
from reliev3r.core.settings import require
from reliev3r.model.transformer import Recompute

Parallel = Literal["auto", "ddp", "fsdp2"]


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How long and how to descend; what to descend is the caller's objective."""

    steps: int | None = None
    """Optimiser steps; the run is a function of the seed alone. Wins over ``minutes``."""
    minutes: float = 5.0
    """Wall-clock budget of training where ``steps`` is not given; the schedule follows the clock."""
    optimizer: Literal["adamw", "muon"] = "adamw"
    """``muon``: Muon on the matrices, AdamW on the rest; further in the same time in a prototype."""
    lr: float = 2e-3
    """Of AdamW."""
    muon_lr: float = 0.01
    """Of the matrices under Muon, on the schedule of ``lr``."""
    warmup: float = 0.03
    """Share of the run in which the learning rate rises linearly; cosine to ``final_lr`` afterwards."""
    final_lr: float = 0.01
    """Last learning rate as a share of ``lr``."""
    encoder_lr: float = 1.0
    """Learning rate of the image encoder as a share of ``lr``: below 1 for pretrained ones."""
    weight_decay: float = 0.05
    """On matrices only."""
    clip: float = 1.0
    """Largest gradient norm."""
    ema: float | None = None
    """Decay of an exponential moving average of the weights, which is then what is evaluated and kept; None: off."""
    precision: Precision = "auto"
    """``auto``: bf16 autocast where the device multiplies bf16 matrices in hardware, else float32."""
    device: str = "auto"
    """Of networks and experts: auto (the accelerator where there is one), cpu, cuda, ..."""
    accumulate: int = 1
    """Batches that each process goes through before a step of the optimiser; their gradients are averaged."""
    data_workers: int = 0
    """Processes that make each process's batches ahead of its step, for the same batches; 0: it makes them itself."""
    parallel: Parallel = "auto"
    """With several processes: ``ddp`` keeps all weights on each, ``fsdp2`` shards them; ``auto`` does what `accelerate
    launch` was told, else ``ddp``."""
    compile: bool = False
    """Compile the transformer blocks (torch.compile): minutes at the start, faster steps on GPUs."""
    recompute: Recompute = "none"
    """What of the transformer blocks is computed again for the gradient (measured: docs/results/training.md).
    ``cheap``: norms, activations and the like, hardly any work. ``most``: all but attention and a few products."""
    seed: int = 0
    """Of the initial weights and of the batches."""
    log_every: int = 10
    wandb: str | None = None
    """Weights & Biases project that gets the metrics too; needs the package wandb (WANDB_MODE=offline is heeded)."""
    evaluate_every: float = 0.1
    """Share of the run between evaluations; of several processes the first one evaluates."""
    best: str = "heldout_deg"
    """Evaluated number, the lower the better, by which the best weights are kept. Never the loss: confidence weighs it,
    so that a network may lower it by doubting."""
    save_every: float = 60.0
    """Seconds between checkpoints (one more at the end and on Ctrl-C)."""
    bad_steps: int = 5
    """Steps in a row whose loss or gradient is not finite, and which are passed over; one more is an error."""
    bad_samples: int = 100
    """Samples whose images or labels are not finite, and which are passed over by name; one more is an error. Each
    process counts its own, from its start."""
    alarm_checks: int = 0
    """Stop when the prediction has looked collapsed for this many logged steps in a row after the warm-up; 0: never."""

    def __post_init__(self) -> None:
        """Settings that cannot work are told at once."""
        if self.steps is None and not self.minutes > 0:
            raise ValueError(f"minutes must be positive, got {self.minutes}")
        if not (self.lr > 0 and self.muon_lr > 0):
            raise ValueError(f"lr and muon_lr must be positive, got {self.lr} and {self.muon_lr}")
        if self.optimizer not in ("adamw", "muon"):
            raise ValueError(f"optimizer must be adamw or muon, got {self.optimizer}")
        require(
            self, steps=(1, inf), accumulate=(1, inf), warmup=(0, 0.99), final_lr=(0, 1), encoder_lr=(0, inf),
            weight_decay=(0, inf), clip=(0, inf), ema=(0, 1), log_every=(1, inf), evaluate_every=(0, inf),
            save_every=(0, inf), alarm_checks=(0, inf), bad_steps=(0, inf), bad_samples=(0, inf),
            data_workers=(0, 1024),
        )  # fmt: skip

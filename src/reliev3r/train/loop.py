"""The training loop: weak or supervised, one capture or many, one process or several (Hugging Face Accelerate)."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from reliev3r.errors import TrainingStopped
from reliev3r.losses.objective import Loss
from reliev3r.train.checkpoint import TrainingState, load_newest_state, save_state
from reliev3r.train.config import TrainConfig
from reliev3r.train.metrics import MetricsLog
from reliev3r.train.precision import resolve_precision
from reliev3r.types import Prediction, PseudoLabels, Views

logger = logging.getLogger(__name__)


Batches = Callable[[int, float], tuple[Views, PseudoLabels]]
"""(step, progress in [0, 1]) -> the batch of that step: a pure function, so that a resumed run repeats nothing."""

Objective = Callable[[Prediction, PseudoLabels, float], Loss]
"""(prediction, labels, progress) -> loss."""

Progress = Callable[[float, float, str], None]
"""(done, total, live metrics); steps, or seconds where the clock decides."""


@dataclass(frozen=True, kw_only=True)
class TrainResult:
    """What training hands back; the model was changed in place."""

    steps: int
    seconds: float
    finished: bool
    """False after Ctrl-C."""


def train(
    model: nn.Module,
    objective: Objective,
    batches: Batches,
    config: TrainConfig,
    *,
    folder: Path,
    resume: bool = False,
    evaluate: Callable[[nn.Module], dict[str, float]] | None = None,
    progress: Progress | None = None,
) -> TrainResult:
    """Descend ``objective`` over ``batches``; checkpoints, metrics and TensorBoard go to ``folder``.

    ``evaluate`` is called with the model (its EMA where there is one) every ``config.evaluate_every`` of the run.
    Ctrl-C saves a checkpoint and returns with ``finished`` False; ``resume`` goes on from the newest checkpoint, to the
    same weights that an uninterrupted run of the same ``steps`` reaches.

    Raises:
        TrainingStopped: the loss or its gradient is not finite; the weights of the last checkpoint are intact.
    """
    run = _Run(model, config, folder, resume=resume)
    try:
        while run.progress < 1:
            share = run.progress
            if evaluate is not None and run.evaluation_due():
                run.report(evaluate(run.evaluation_model()))
            loss = run.step(objective, batches, share)
            run.log(loss, share)
            if progress is not None:
                progress(*run.position(), run.status())
            run.save_if_due()
    except KeyboardInterrupt:
        run.finish()
        return TrainResult(steps=run.done, seconds=run.elapsed(), finished=False)
    if run.average is not None:
        model.load_state_dict(run.average)
    if evaluate is not None:
        run.report(evaluate(model))
    run.finish()
    return TrainResult(steps=run.done, seconds=run.elapsed(), finished=True)


class _Run:
    """State of one call of :func:`train`."""

    def __init__(self, model: nn.Module, config: TrainConfig, folder: Path, *, resume: bool) -> None:
        from accelerate import Accelerator

        self.config = config
        self.folder = folder / "training"
        self.accelerator = Accelerator()
        # Autocast is ours: Accelerate fixes its own once per process, and two runs of one process may differ.
        self.bf16 = resolve_precision(config.precision, self.accelerator.device) == "bf16"
        optimizer = torch.optim.AdamW(_parameter_groups(model, config.weight_decay), lr=config.lr, fused=True)
        self.model, self.optimizer = self.accelerator.prepare(model, optimizer)
        self.average: dict[str, Tensor] | None = None
        self.done, self.before = 0, 0.0
        state = load_newest_state(self.folder) if resume else None
        if state is not None:
            self._restore(state)
        elif config.ema is not None:
            self.average = {name: value.clone() for name, value in self._bare().state_dict().items()}
        self.log_file = MetricsLog(folder, resume_step=self.done) if self.accelerator.is_main_process else None
        self.start = self.saved = time.monotonic()
        self.evaluated = -math.inf if state is None else self.progress
        self.live: dict[str, float] = {}

    def _bare(self) -> nn.Module:
        return self.accelerator.unwrap_model(self.model)

    def _restore(self, state: TrainingState) -> None:
        self._bare().load_state_dict(state.model)
        self.optimizer.load_state_dict(state.optimizer)
        self.average = state.ema
        self.done, self.before = state.step, state.elapsed
        logger.info("resumed at step %d", state.step)

    def elapsed(self) -> float:
        return self.before + time.monotonic() - self.start

    @property
    def progress(self) -> float:
        if self.config.steps is not None:
            return self.done / self.config.steps
        return min(1.0, (self.before + time.monotonic() - getattr(self, "start", time.monotonic())) / self._budget())

    def _budget(self) -> float:
        return 60 * self.config.minutes

    def position(self) -> tuple[float, float]:
        if self.config.steps is not None:
            return float(self.done), float(self.config.steps)
        return min(self.elapsed(), self._budget()), self._budget()

    def status(self) -> str:
        shown = " ".join(f"{name} {value:.3g}" for name, value in self.live.items())
        return f"step {self.done} {shown}"

    def learning_rate(self, progress: float) -> float:
        config = self.config
        if progress < config.warmup:
            return config.lr * max(progress / config.warmup, 1e-2)
        cosine = 0.5 * (1 + math.cos(math.pi * (progress - config.warmup) / (1 - config.warmup)))
        return config.lr * (config.final_lr + (1 - config.final_lr) * cosine)

    def step(self, objective: Objective, batches: Batches, progress: float) -> Loss:
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate(progress)
        views, labels = batches(self.done, progress)
        device = self.accelerator.device
        self.model.train()
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=self.bf16):
            prediction = self.model(views.to(device))
        loss = objective(prediction, labels.to(device), progress)
        if not torch.isfinite(loss.total):
            raise TrainingStopped(self._advice("loss", loss))
        self.accelerator.backward(loss.total)
        norm = self.accelerator.clip_grad_norm_(self.model.parameters(), self.config.clip)
        if norm is not None and not torch.isfinite(torch.as_tensor(norm)):
            raise TrainingStopped(self._advice("gradient", loss))
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.done += 1
        if self.average is not None and self.config.ema is not None:
            for name, value in self._bare().state_dict().items():
                self.average[name].lerp_(value.to(self.average[name].dtype), 1 - self.config.ema)
        return loss

    def _advice(self, what: str, loss: Loss) -> str:
        parts = ", ".join(f"{name} {float(value.detach()):.3g}" for name, value in loss.parts.items())
        return (
            f"{self.folder}: the {what} is not finite at step {self.done} ({parts}); nothing was changed by this step. "
            "Resume with a lower --lr, or check the labels"
        )

    def log(self, loss: Loss, progress: float) -> None:
        if self.done % self.config.log_every and self.done > 1:
            return
        parts = {name: float(value.detach()) for name, value in loss.parts.items()}
        self.live = {**{k: v for k, v in self.live.items() if k.startswith("heldout")}, **parts}
        row = {"step": self.done, "seconds": self.elapsed(), "lr": self.learning_rate(progress)}
        self.write({**row, "loss": float(loss.total.detach()), **parts})

    def evaluation_due(self) -> bool:
        if self.progress - self.evaluated < self.config.evaluate_every or self.done == 0:
            return False
        self.evaluated = self.progress
        return True

    def evaluation_model(self) -> nn.Module:
        """The model as it would be kept now (a copy where an average is kept)."""
        bare = self._bare()
        if self.average is None:
            return bare
        import copy

        averaged = copy.deepcopy(bare)
        averaged.load_state_dict(self.average)
        return averaged

    def report(self, values: dict[str, float]) -> None:
        self.live.update(values)
        self.write({"step": self.done, "seconds": self.elapsed(), **values})

    def write(self, row: dict[str, Any]) -> None:
        if self.log_file is not None:
            self.log_file.write(row)

    def save(self) -> None:
        if self.accelerator.is_main_process:
            model = {name: value.contiguous() for name, value in self._bare().state_dict().items()}
            state = TrainingState(
                step=self.done, elapsed=self.elapsed(), model=model, optimizer=self.optimizer.state_dict(),
                ema=self.average,
            )  # fmt: skip
            save_state(self.folder, state)
        self.saved = time.monotonic()

    def save_if_due(self) -> None:
        if time.monotonic() - self.saved > self.config.save_every:
            self.save()

    def finish(self) -> None:
        self.save()
        if self.log_file is not None:
            self.log_file.close()


def _parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Weight decay on matrices, none on biases, norms, tokens and scales."""
    matrices = [p for p in model.parameters() if p.ndim == 2]
    others = [p for p in model.parameters() if p.ndim != 2]
    return [{"params": matrices, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]

"""The training loop: weak or supervised, one capture or many, one process or several."""

from __future__ import annotations

import copy
import logging
import math
from collections.abc import Callable
from contextlib import closing, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from reliev3r.core.device import resolve_precision
from reliev3r.core.errors import TrainingStopped, UserError
from reliev3r.core.progress import Progress
from reliev3r.core.types import Loss, Prediction, Tracks
from reliev3r.training.checkpoint import StateWriter, TrainingState, best_record, load_newest_state, recover
from reliev3r.training.clock import Clock, Ending
from reliev3r.training.config import TrainConfig
from reliev3r.training.loader import Batches, Feed
from reliev3r.training.meter import Meter
from reliev3r.training.monitor import Alarms, MetricsLog, signs_of_collapse
from reliev3r.training.optimizer import make_optimizer
from reliev3r.training.parallel import (
    WithLoss,
    Workers,
    blocks_of,
    compile_blocks,
    local,
    mean_by_name,
    place_optimizer_state,
    placed_like,
)
from reliev3r.training.patience import Patience
from reliev3r.training.schedule import learning_rate
from reliev3r.training.watch import Enough, Watch, recent_decay

logger = logging.getLogger(__name__)


Objective = Callable[[Prediction, Any, float], Loss]
"""(prediction, labels, progress) -> loss."""

Evaluate = Callable[[nn.Module], dict[str, float]]
"""The model as it would be kept now -> named numbers."""


@dataclass(frozen=True, kw_only=True)
class TrainResult:
    """What training hands back; the model was changed in place."""

    steps: int
    seconds: float
    finished: bool
    """False after Ctrl-C."""
    best: dict[str, float] | None = None
    """``step`` and numbers of the weights in ``training/best/``; None where nothing was evaluated."""
    ending: Ending | None = None
    """When the run was brought to its end before its time; None where it was not."""


@dataclass(frozen=True, kw_only=True)
class _Outcome:
    """What a step leaves for the log: means over the batches of this process, and the last of them."""

    total: Tensor
    parts: list[dict[str, Tensor]]
    prediction: Prediction
    tracks: Tracks
    norm: Tensor
    """Of the gradient over all processes, before it is clipped."""

    def told(self, step: int) -> str:
        """What of it is not finite."""
        what = "gradient" if torch.isfinite(self.total) else "loss"
        parts = ", ".join(f"{name} {value:.3g}" for name, value in mean_by_name(self.parts).items())
        return f"the {what} is not finite at step {step} ({parts})"


def train(
    model: nn.Module,
    objective: Objective,
    batches: Batches,
    config: TrainConfig,
    *,
    folder: Path,
    resume: bool = False,
    evaluate: Evaluate | None = None,
    enough: Enough | None = None,
    progress: Progress | None = None,
) -> TrainResult:
    """Descend ``objective`` over ``batches``; checkpoints, metrics and TensorBoard go to ``folder``.

    ``evaluate`` is called with the model (its EMA where there is one) every ``config.evaluate_every`` of the run; the
    weights for which it gives the lowest ``config.best`` are kept in ``training/best/``. Where minutes are the budget
    and ``enough`` finds, in evaluations of an average of the weights, that more of them would not pay, the rest of the
    schedule (the learning rate's fall above all) is gone through in a third of the time so far.
    Ctrl-C or SIGTERM saves a checkpoint after the step and returns with ``finished`` False; ``resume`` goes on from the
    newest checkpoint (from the start where there is none), to the same weights that an uninterrupted run of the same
    ``steps`` reaches. Under `torchrun` or `accelerate launch` every process calls this; the first one writes, evaluates
    and reports progress (docs/training.md).

    Raises:
        TrainingStopped: the loss or its gradient is not finite in too many steps in a row, or the prediction has
            collapsed for too long; the weights of the last checkpoint are intact.
    """
    run = _Run(model, objective, config, folder, resume=resume, enough=enough)
    with run.workers.listening(), closing(run.writer), closing(run.feed(batches)) as feed:
        try:
            run.tick()
            while run.clock.progress < 1:
                if evaluate is not None:
                    run.evaluate_if_due(evaluate)
                share = run.clock.progress
                outcome = run.step(feed, share)
                run.log(outcome, share)
                run.tick()
                if progress is not None and run.workers.first:
                    progress(*run.clock.position, run.status())
                run.save_if_due()
        except KeyboardInterrupt:
            run.finish()
            return run.result(finished=False)
        run.save()
        run.writer.wait()
        run.hand_over()
        if evaluate is not None:
            run.evaluate(evaluate)
            run.writer.wait()
        run.close()
        return run.result(finished=True)


class _Run:
    """State of one call of :func:`train`."""

    def __init__(
        self, model: nn.Module, objective: Objective, config: TrainConfig, folder: Path, *, resume: bool,
        enough: Enough | None = None,
    ) -> None:  # fmt: skip
        self.config = config
        self.folder = folder / "training"
        self.workers = Workers(config.parallel, config.device)
        self.kept, self.network = model, self.workers.own_copy(model)
        for block in blocks_of(self.network):
            block.recompute = config.recompute
        if config.compile:
            compile_blocks(self.network)
        bf16 = resolve_precision(config.precision, self.workers.device) == "bf16"
        self.model = self.workers.wrap(WithLoss(self.network, objective, bf16=bf16))
        if config.optimizer == "muon" and self.workers.sharded:
            raise UserError("optimizer=muon needs whole matrices: use parallel=ddp, or optimizer=adamw")
        self.optimizer = make_optimizer(self.network, config)
        self.average: dict[str, Tensor] | None = None
        self.clock = Clock(config)
        self.patience = Patience(config, self.folder)
        self.between_steps = True
        self.evaluated = -math.inf
        if resume and self.workers.first:
            recover(self.folder)
        self.workers.accelerator.wait_for_everyone()
        self.writer = StateWriter(self.folder)
        self.meter = Meter(self.network, self.workers.device, self.workers.count, bf16=bf16)
        self.best = self._best_so_far() if resume else None
        state = load_newest_state(self.folder) if resume else None
        if state is not None:
            self._restore(state)
        self.watch = Watch(enough, folder, self.clock) if enough is not None and not self.clock.by_steps else None
        if self.average is None and (config.ema is not None or self.watch is not None):
            self.average = {name: value.clone() for name, value in self._trained().items()}
        self.log_file = MetricsLog(folder, resume_step=self.done, wandb=config.wandb) if self.workers.first else None
        self.alarms = Alarms(config.alarm_checks)
        self.clock.start()
        self.saved = self.clock.elapsed
        self.live: dict[str, float] = {}

    def _best_so_far(self) -> dict[str, float] | None:
        try:
            return best_record(self.folder)
        except UserError as error:
            logger.warning("%s: the best weights so far are lost", error)
            return None

    def _restore(self, state: TrainingState) -> None:
        if self.workers.all_reduce_max(state.step) != [state.step]:
            raise UserError(f"{self.folder}: processes see different checkpoints; put it on a disk that all share")
        try:
            self._take(state)
        except (LookupError, ValueError, TypeError, AttributeError, RuntimeError) as error:
            told = f"{self.folder}: its checkpoint {state.step} is not of this network and optimiser"
            raise UserError(f"{told} ({str(error)[:200]}); start again with another --out") from error
        logger.info("resumed at step %d", state.step)

    def _take(self, state: TrainingState) -> None:
        like = self.network.state_dict()
        placed = {name: placed_like(value, like[name]) for name, value in state.model.items()}
        self.network.load_state_dict({**self._frozen(), **placed})
        self.optimizer.load_state_dict(place_optimizer_state(state.optimizer, self.optimizer))
        if state.ema is not None:
            self.average = {name: placed_like(value, like[name]) for name, value in state.ema.items()}
        self.clock.set(state.step, state.elapsed, None if state.ending is None else Ending(**state.ending))
        self.evaluated = state.evaluated
        self.workers.set_random_state(state.random)

    def _trained(self) -> dict[str, Tensor]:
        """The network's state without the weights that are not trained: those are in the file it came from."""
        frozen = self._frozen()
        return {name: value for name, value in self.network.state_dict().items() if name not in frozen}

    def _frozen(self) -> dict[str, Tensor]:
        still = {name for name, parameter in self.network.named_parameters() if not parameter.requires_grad}
        return {name: value for name, value in self.network.state_dict().items() if name in still}

    def tick(self) -> None:
        """Read the clock. All processes go by the same time, and stop together."""
        self.clock.elapsed, interrupted = self.workers.all_reduce_max(self.clock.now, float(self.workers.interrupted))
        if interrupted:
            raise KeyboardInterrupt

    @property
    def done(self) -> int:
        return self.clock.done

    def status(self) -> str:
        shown = " ".join(f"{name} {value:.3g}" for name, value in self.live.items())
        return f"{'' if self.clock.by_steps else 'seconds; '}step {self.done} {shown}"

    def feed(self, batches: Batches) -> Feed:
        """This process's batches, from where the run stands."""
        return Feed(
            batches, self.workers.device, start=self.done, rank=self.workers.rank,
            accumulate=self.config.accumulate, workers=self.config.data_workers,
        )  # fmt: skip

    def step(self, feed: Feed, progress: float) -> _Outcome:
        """One step of the optimiser over ``accumulate`` batches of each process."""
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(progress, self.config) * group["share"]
        self.model.train()
        outcome = self._gradient(feed, progress)
        finite = bool(torch.isfinite(torch.stack([outcome.total, outcome.norm])).all())
        self.between_steps = False
        if any(self.workers.all_reduce_max(float(not finite))):
            self.patience.pass_over_step(outcome.told(self.done))
        else:
            self.patience.good_step()
            self.optimizer.step()
            self._average()
        self.optimizer.zero_grad(set_to_none=True)
        self.clock.done += 1
        self.between_steps = True
        return outcome

    def _average(self) -> None:
        if self.average is not None:
            decay = recent_decay(self.done) if self.config.ema is None else self.config.ema
            for name, value in self._trained().items():
                average = local(self.average[name])
                average.lerp_(local(value).to(average.dtype), 1 - decay)

    def _gradient(self, feed: Feed, progress: float) -> _Outcome:
        """Leave in the weights' gradients the mean over the step's batches, of all processes, clipped."""
        count = self.config.accumulate
        totals, parts = [], []
        for index in range(count):
            with self.meter.waiting():
                views, labels, passed_over = feed.next()
            self.patience.pass_over_samples(passed_over)
            self.meter.see(views)
            with nullcontext() if index == count - 1 else self.workers.gradient_later(self.model):
                total, named, prediction = self.model(views, labels, progress)
                (total if count == 1 else total / count).backward()
            totals.append(total.detach())
            parts.append(named)
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), self.config.clip)
        return _Outcome(
            total=torch.stack(totals).mean(), parts=parts, prediction=prediction, tracks=labels.tracks,
            norm=norm.full_tensor() if isinstance(norm, DTensor) else norm,
        )  # fmt: skip

    def log(self, outcome: _Outcome, progress: float) -> None:
        """Every ``log_every`` steps: log means over all processes and check the collapse alarms."""
        if self.done % self.config.log_every and self.done > 1:
            return
        listens = self.config.alarm_checks > 0
        signs = signs_of_collapse(outcome.prediction, outcome.tracks) if listens else {}
        parts = mean_by_name(outcome.parts)
        speed = {"grad_norm": float(outcome.norm), "bad_samples": float(self.patience.samples), **self.meter.read()}
        values = self.workers.mean_over_ranks({"loss": float(outcome.total), **parts, **signs, **speed})
        hidden = {*signs, *speed, "loss"}
        shown = {name: value for name, value in values.items() if name not in hidden}
        self.live = {**{k: v for k, v in self.live.items() if k.startswith("heldout")}, **shown}
        self.write({"step": self.done, "seconds": self.clock.now, "lr": learning_rate(progress, self.config), **values})
        advice = self.alarms.advice(values) if listens and progress >= self.config.warmup else None
        if advice is not None:
            raise TrainingStopped(f"{self.folder}: stopped at step {self.done}: {advice} (alarm_checks=0: never stop)")

    def evaluate_if_due(self, function: Evaluate) -> None:
        if self.clock.progress - self.evaluated >= self.config.evaluate_every and self.done > 0:
            self.evaluated = self.clock.progress
            self.evaluate(function)
        if self.watch is not None and self.watch.due():
            start = self.clock.now
            values = self._values(function, self.evaluation_model(averaged=True))
            self.write(self.watch.take(values, *self.workers.all_reduce_max(self.clock.now - start)))

    def _values(self, function: Evaluate, network: nn.Module) -> dict[str, float]:
        own = function(network) if self.workers.first else {}
        return self.workers.mean_over_ranks(own)  # so that all have the numbers of the first

    def evaluate(self, function: Evaluate) -> None:
        """Evaluate, report, and keep the weights if they are the best so far."""
        network = self.evaluation_model(averaged=self.config.ema is not None)
        values = self._values(function, network)
        self.live.update(values)
        self.write({"step": self.done, "seconds": self.clock.now, **values})
        name = self.config.best
        if math.isfinite(values.get(name, math.nan)) and (
            self.best is None or values[name] < self.best.get(name, math.inf)
        ):
            self.best = {"step": float(self.done), **values}
            if self.workers.first:
                self.writer.write_best(network, self.best)

    def evaluation_model(self, *, averaged: bool) -> nn.Module:
        """The model as it is or as its average is: whole, and a copy where what is trained is sharded or averaged."""
        average = self.average if averaged else None
        if self.workers.sharded:
            self._copy_whole(average or self.network.state_dict())
            return self.kept
        if average is None:
            return self.network
        copied = copy.deepcopy(self.network)
        copied.load_state_dict({**self._frozen(), **average})
        return copied

    def hand_over(self) -> None:
        """Put what was trained (its average, where one is to be kept) into the caller's model."""
        average = self.average if self.config.ema is not None else None
        if self.workers.sharded:
            self._copy_whole(average or self.network.state_dict())
        elif average is not None:
            self.kept.load_state_dict({**self._frozen(), **average})

    def _copy_whole(self, weights: dict[str, Tensor]) -> None:
        """Gather sharded weights, one after another, into the caller's model (collective)."""
        self.kept.to(self.workers.device)
        target = self.kept.state_dict()
        for name, value in weights.items():
            target[name].copy_(value.full_tensor() if isinstance(value, DTensor) else value)

    def write(self, row: dict[str, Any]) -> None:
        if self.log_file is not None:
            self.log_file.write(row)

    def save(self) -> None:
        """A checkpoint; all processes take part, the first one writes it while they go on."""
        gather = self.workers.gather
        model = {name: value.contiguous() for name, value in gather(self._trained()).items()}
        state = TrainingState(
            step=self.done, elapsed=self.clock.elapsed, model=model, optimizer=gather(self.optimizer.state_dict()),
            ema=gather(self.average), evaluated=self.evaluated, random=self.workers.random_state(),
            ending=None if self.clock.ending is None else asdict(self.clock.ending),
        )  # fmt: skip
        if self.workers.first:
            self.writer.write(state)
        self.saved = self.clock.elapsed

    def save_if_due(self) -> None:
        if self.clock.elapsed - self.saved > self.config.save_every:
            self.save()

    def result(self, *, finished: bool) -> TrainResult:
        seconds, ending = self.clock.elapsed, self.clock.ending
        return TrainResult(steps=self.done, seconds=seconds, finished=finished, best=self.best, ending=ending)

    def finish(self) -> None:
        """After an interruption; in the middle of a step (a second Ctrl-C) there is nothing sound to save."""
        if self.between_steps:
            self.save()
        self.writer.wait()
        self.close()

    def close(self) -> None:
        if self.log_file is not None:
            self.log_file.close()

"""How much memory and time a training will take, measured on one of its own batches before it starts."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from reliev3r.core.device import resolve_precision
from reliev3r.core.errors import UserError
from reliev3r.training.config import TrainConfig
from reliev3r.training.loader import Batches
from reliev3r.training.loop import Objective
from reliev3r.training.parallel import WithLoss, blocks_of


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """Bytes and seconds of one process."""

    parameters: int
    trained: int
    weights: int
    """Bytes of all weights and buffers."""
    activations: int
    """Bytes kept from the forward pass of one batch for its backward pass."""
    step_seconds: float
    steps: float
    """Of the optimiser; follows from the time where that is the budget."""
    ema: bool = False
    free: int | None = None
    """Bytes that the device has left for all of it; ``None`` where that is not known."""

    @property
    def gradients(self) -> int:
        """Bytes: float32 for each trained parameter."""
        return 4 * self.trained

    @property
    def optimizer(self) -> int:
        """Bytes: AdamW's two moments, and the moving average where there is one."""
        return (12 if self.ema else 8) * self.trained

    @property
    def total(self) -> int:
        """Bytes at the peak."""
        return self.weights + self.gradients + self.optimizer + self.activations

    @property
    def seconds(self) -> float:
        """Of training, by one process: of the device, however many share the work."""
        return self.step_seconds * self.steps

    @property
    def disk(self) -> int:
        """Bytes of the run's folder: the newest two states, the best weights and the last."""
        weights = 4 * self.parameters
        state = weights + 8 * self.trained + (weights if self.ema else 0)
        return 2 * state + 2 * weights

    def to_text(self) -> str:
        """One paragraph."""
        share = 100 * self.trained / self.parameters
        free = "" if self.free is None else f" ({_gigabytes(self.free)} free)"
        return (
            f"trains {self.trained:,} of {self.parameters:,} parameters ({share:.3g} %); needs about "
            f"{_gigabytes(self.total)}{free}: weights {_gigabytes(self.weights)}, gradients "
            f"{_gigabytes(self.gradients)}, optimiser {_gigabytes(self.optimizer)}, activations of a batch "
            f"{_gigabytes(self.activations)}; about {self.steps:,.0f} steps of {self.step_seconds:.2g} s: "
            f"{_duration(self.seconds)}, evaluation and labels apart; {_gigabytes(self.disk)} of disk"
        )


def estimate_training(network: nn.Module, objective: Objective, batches: Batches, config: TrainConfig) -> Estimate:
    """One forward and backward pass of the run's first batch, on the device where the network is; no weight moves.

    Args:
        network: as it will be trained.
        objective: of the run.
        batches: of the run.
        config: of the run.

    Raises:
        UserError: the batch does not fit on the device.
    """
    device = next(network.parameters()).device
    model = WithLoss(network, objective, bf16=resolve_precision(config.precision, device) == "bf16")
    for block in blocks_of(network):
        block.recompute = config.recompute
    trained = sum(p.numel() for p in network.parameters() if p.requires_grad)
    free = torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_allocated(device) if device.type == "cuda" else None
    training = network.training
    network.train()
    try:
        with torch.random.fork_rng():
            activations, seconds = _measured(model, batches, device)
    except torch.OutOfMemoryError as error:
        raise UserError(
            "one batch does not fit on the device: lower batch.images or --image-size, or set recompute=cheap, or most"
        ) from error
    finally:
        network.zero_grad(set_to_none=True)
        network.train(training)
    step = seconds * config.accumulate
    return Estimate(
        parameters=sum(p.numel() for p in network.parameters()), trained=trained,
        weights=_weights(network), activations=activations, step_seconds=step, ema=config.ema is not None,
        steps=config.steps if config.steps is not None else max(1.0, 60 * config.minutes / step), free=free,
    )  # fmt: skip


def _measured(model: WithLoss, batches: Batches, device: torch.device) -> tuple[int, float]:
    """(bytes of activations, seconds of one batch); on a GPU of the second of two passes."""
    for _ in range(2 if device.type == "cuda" else 1):
        model.network.zero_grad(set_to_none=True)
        start = time.perf_counter()
        views, labels = batches(0, 0)
        with _Saved(model) as saved:
            total, _, _ = model(views.to(device), labels.to(device), 0.0)
        total.backward()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds = time.perf_counter() - start
    return saved.bytes, seconds


class _Saved:
    """Counts the memory that autograd keeps for the backward pass; each storage once, weights not."""

    def __init__(self, model: nn.Module) -> None:
        self._known = {p.untyped_storage().data_ptr() for p in model.parameters()}
        self._hooks = torch.autograd.graph.saved_tensors_hooks(self._pack, lambda tensor: tensor)
        self._kept: list[Tensor] = []  # or a freed address could be counted for another tensor's
        self.bytes = 0

    def __enter__(self) -> _Saved:
        self._hooks.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._hooks.__exit__(*error)
        self._kept.clear()

    def _pack(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in self._known:
            self._known.add(storage.data_ptr())
            self._kept.append(tensor.detach())
            self.bytes += storage.nbytes()
        return tensor


def _weights(network: nn.Module) -> int:
    tensors: list[Tensor] = [*network.parameters(), *network.buffers()]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.2g} seconds" if seconds < 10 else f"{seconds:.0f} seconds"
    return f"{seconds / 3600:,.3g} hours" if seconds > 2 * 3600 else f"{seconds / 60:.3g} minutes"


def _gigabytes(count: int) -> str:
    return f"{count / 1e9:.3g} GB" if count >= 1e8 else f"{count / 1e6:.3g} MB"

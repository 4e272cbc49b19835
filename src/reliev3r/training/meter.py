"""What a run costs while it goes: images a second, waiting for data, memory, and the share of the device's peak."""

from __future__ import annotations

import copy
import logging
import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from reliev3r.core.errors import first_line
from reliev3r.core.types import Views
from reliev3r.model.transformer import Block

logger = logging.getLogger(__name__)

PEAKS = {
    "B200": 2250e12, "H200": 989e12, "H100 PCIe": 756e12, "H100": 989e12, "A100": 312e12, "L40S": 362e12,
    "A10": 125e12, "RTX 4090": 165e12, "RTX 3090": 71e12,
}  # fmt: skip
"""Multiplications and additions a second of dense bf16 matrices with float32 sums, from NVIDIA's data sheets; the first
name that is part of the device's own counts."""


class Meter:
    """Counts between two readings."""

    def __init__(self, network: nn.Module, device: torch.device, processes: int, *, bf16: bool) -> None:
        self._device, self._processes = device, processes
        self._peak = peak_flops(device) if bf16 else None
        self._flops = None if self._peak is None else StepFlops(network)
        self._start()

    def _start(self) -> None:
        self._since, self._waited, self._images, self._work = time.monotonic(), 0.0, 0, 0.0

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """While a batch is waited for, or made."""
        start = time.monotonic()
        try:
            yield
        finally:
            self._waited += time.monotonic() - start

    def see(self, views: Views) -> None:
        """A batch [b, v, ...] goes through the network and back."""
        self._images += views.image.shape[:2].numel()
        if self._flops is not None:
            self._work += self._flops.of(views)

    def read(self) -> dict[str, float]:
        """Since the last reading, by this process, but images a second by all as if they were alike; starts anew.

        ``waiting_for_data`` is a share of the time, ``memory_gb`` the most so far (of a GPU what tensors take, else of
        the process), ``mfu`` the share of the device's peak (model FLOPs utilisation: without what is recomputed).
        """
        seconds = max(time.monotonic() - self._since, 1e-9)
        found = {
            "images_per_s": self._processes * self._images / seconds,
            "waiting_for_data": self._waited / seconds,
            "memory_gb": peak_memory(self._device) / 1e9,
        }
        if self._peak is not None and self._work:
            found["mfu"] = self._work / seconds / self._peak
        self._start()
        return found


def peak_flops(device: torch.device) -> float | None:
    """Of a known GPU, see :data:`PEAKS`; ``None`` of any other device."""
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    return next((peak for part, peak in PEAKS.items() if part in name), None)


def peak_memory(device: torch.device) -> int:
    """Bytes: the most that tensors have taken on a GPU, else the most that the process has had in memory."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


class StepFlops:
    """Counts the matrix work of a forward and a backward pass once for each shape, on tensors without memory."""

    def __init__(self, network: nn.Module) -> None:
        self._fake = FakeTensorMode()
        memory = {id(tensor): self._without_memory(tensor) for tensor in (*network.parameters(), *network.buffers())}
        self._network = copy.deepcopy(network, memory)
        for module in self._network.modules():
            if isinstance(module, Block):
                module.recompute = "none"
        self._known: dict[tuple[torch.Size, bool], float] = {}

    def of(self, views: Views) -> float:
        """For a batch [b, v, ...]; 0 where the network computes with values, which there are none of."""
        key = (views.image.shape, views.K is None)
        if key not in self._known:
            self._known[key] = self._count(views)
        return self._known[key]

    def _count(self, views: Views) -> float:
        views = views.map(self._without_memory)
        eager = torch.compiler.set_stance("force_eager")
        try:
            with eager, self._fake, FlopCounterMode(display=False) as counter:
                found = self._network(views)
                said = [found.depth, found.rays, found.conf, found.world_from_cam, found.descriptors, found.features]
                total = sum(value.sum() for value in said if value is not None and value.requires_grad)
                if isinstance(total, Tensor):
                    total.backward()
        except RuntimeError as error:
            logger.warning("the work of a step cannot be counted: %s", first_line(error))
            return 0.0
        return float(counter.get_total_flops())

    def _without_memory(self, tensor: Tensor) -> Tensor:
        with self._fake:
            empty = torch.empty(tensor.shape, dtype=tensor.dtype, device=tensor.device)
            return nn.Parameter(empty, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else empty

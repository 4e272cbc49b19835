"""How one network is spread over processes: DDP, FSDP2, recomputed activations, compiled blocks.

The network knows nothing of it, and neither do checkpoints: they hold whole tensors whatever the parallelism.
"""

from __future__ import annotations

import contextlib
import copy
import json
import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import timedelta
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor

from reliev3r.core.device import resolve_device
from reliev3r.core.errors import UserError
from reliev3r.core.types import Loss, Prediction, Views
from reliev3r.model.transformer import Block
from reliev3r.training.config import Parallel

LONGEST_WAIT = timedelta(hours=2)
"""How long processes wait for each other; the first one evaluates and writes alone."""
_MESSAGE = 16384
"""Bytes of the metrics that one process tells the others."""


class WithLoss(nn.Module):
    """Network and objective as one forward pass: DDP sees which weights the loss reaches, and waits for no others
    (no field of view is learned where K is known, no confidence where depth weighs nothing)."""

    def __init__(self, network: nn.Module, objective: Callable[[Prediction, Any, float], Loss], *, bf16: bool) -> None:
        super().__init__()
        self.network, self.objective, self.bf16 = network, objective, bf16

    def forward(self, views: Views, labels: Any, progress: float) -> tuple[Tensor, dict[str, Tensor], Prediction]:
        """(total loss, its parts, the prediction); only the first carries a gradient."""
        with torch.autocast(views.image.device.type, dtype=torch.bfloat16, enabled=self.bf16):
            prediction = self.network(views)
        loss = self.objective(prediction, labels, progress)
        return loss.total, {name: value.detach() for name, value in loss.parts.items()}, prediction.detach()


class Workers:
    """The processes of a run, this one among them. Alone, every method is the identity."""

    def __init__(self, parallel: Parallel, device: str = "auto") -> None:
        from accelerate import Accelerator, DistributedDataParallelKwargs, InitProcessGroupKwargs

        # mixed_precision: autocast is ours. Accelerate fixes its own once per process, and two runs may differ.
        self.accelerator = Accelerator(
            cpu=resolve_device(device).type == "cpu", mixed_precision="no",
            kwargs_handlers=[
                DistributedDataParallelKwargs(find_unused_parameters=True),
                InitProcessGroupKwargs(timeout=LONGEST_WAIT),
            ],
        )  # fmt: skip
        self.device: torch.device = self.accelerator.device
        self.rank, self.count = self.accelerator.process_index, self.accelerator.num_processes
        asked = os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true"
        if parallel == "ddp" and asked:
            raise UserError("accelerate launch was told to use FSDP, the run to use DDP; drop one of the two")
        self.sharded = self.count > 1 and (parallel == "fsdp2" or (parallel == "auto" and asked))
        self.interrupted = False

    @property
    def first(self) -> bool:
        """Whether this process is the one that writes."""
        return self.rank == 0

    def own_copy(self, network: nn.Module) -> nn.Module:
        """What is trained: the network itself, or a copy whose tensors are about to be sharded."""
        return copy.deepcopy(network) if self.sharded else network

    def wrap(self, model: WithLoss) -> nn.Module:
        """Move to this process's device and wrap."""
        if not self.sharded:
            return cast(nn.Module, self.accelerator.prepare_model(model))
        # Not by Accelerate, which has FSDP2 on GPUs only: the same few lines also run on gloo, where they are tested.
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        mesh = init_device_mesh(self.device.type, (self.count,))
        model.to(self.device)
        for block in blocks_of(model):
            fully_shard(block, mesh=mesh, reshard_after_forward=True)
        return cast(nn.Module, fully_shard(model, mesh=mesh))

    def gradient_later(self, model: nn.Module) -> AbstractContextManager[None]:
        """Passes in this context add to each process's own gradients; the next one outside it averages all."""
        return cast(
            AbstractContextManager[None], self._unsynced(model) if self.sharded else self.accelerator.no_sync(model)
        )

    @contextlib.contextmanager
    def _unsynced(self, model: Any) -> Iterator[None]:
        model.set_requires_gradient_sync(False)
        try:
            yield
        finally:
            model.set_requires_gradient_sync(True)

    def all_reduce_max(self, *values: float) -> list[float]:
        """Each number's maximum over the processes: what all of them go by."""
        if self.count == 1:
            return list(values)
        numbers = torch.tensor(values, dtype=torch.float64, device=self.device)
        torch.distributed.all_reduce(numbers, op=torch.distributed.ReduceOp.MAX)
        return cast(list[float], numbers.tolist())

    def mean_over_ranks(self, values: dict[str, float]) -> dict[str, float]:
        """Each name's mean over the processes that have it (JSON between processes: names may differ, no pickle)."""
        if self.count == 1:
            return values
        text = json.dumps(values).encode()
        if len(text) > _MESSAGE:
            raise ValueError(f"{len(values)} metrics are more than {_MESSAGE} bytes")
        row = torch.tensor(list(text.ljust(_MESSAGE)), dtype=torch.uint8, device=self.device)
        rows = self.accelerator.gather(row[None]).cpu()
        return mean_by_name([json.loads(bytes(row.tolist())) for row in rows])

    def gather(self, tree: Any) -> Any:
        """Nested dictionaries and lists with every sharded tensor gathered on the first process (empty on others)."""
        if isinstance(tree, DTensor):
            full = tree.full_tensor()
            return full.cpu() if self.first else full.new_empty(0)
        if isinstance(tree, dict):
            return {name: self.gather(value) for name, value in tree.items()}
        return [self.gather(value) for value in tree] if isinstance(tree, list) else tree

    def random_state(self) -> dict[str, Tensor]:
        """States of torch's generators, one row a process."""
        states = {"cpu": torch.get_rng_state()}
        if self.device.type == "cuda":
            states["cuda"] = torch.cuda.get_rng_state(self.device)
        if self.count == 1:
            return {name: state[None] for name, state in states.items()}
        return {name: self.accelerator.gather(state[None].to(self.device)).cpu() for name, state in states.items()}

    def set_random_state(self, states: dict[str, Tensor]) -> None:
        """Take one's own row; a run that goes on with another number of processes keeps the state it has."""
        if len(states["cpu"]) != self.count:
            return
        torch.set_rng_state(states["cpu"][self.rank].clone())
        if self.device.type == "cuda" and "cuda" in states:
            torch.cuda.set_rng_state(states["cuda"][self.rank].clone(), self.device)

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Ctrl-C and SIGTERM only leave a note, which all processes read after the step: they stop at the same one, and
        none in the middle of it. A second one does what it always did: it ends the process at once."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def note(number: int, frame: Any) -> None:
            self.interrupted = True
            signal.signal(number, before[signal.Signals(number)])

        before: dict[int, Any] = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def blocks_of(model: nn.Module) -> list[Block]:
    """All transformer blocks: encoder, decoder and heads."""
    return [module for module in model.modules() if isinstance(module, Block)]


KINDS_OF_GRAPHS = 64
"""Compilations before torch gives one up: blocks of the encoder, the decoder and the heads, of one and of any number of
views, with and without gradient. Torch's own limit is 8."""


def compile_blocks(model: nn.Module, **options: Any) -> None:
    """Compile the transformer blocks, in place, each when it is first called; blocks of a kind share what was compiled.

    Shapes are taken as they come; the second number of views makes graphs for all further ones.
    """
    import torch._dynamo

    limits = torch._dynamo.config
    limits.recompile_limit = max(limits.recompile_limit, KINDS_OF_GRAPHS)
    for block in blocks_of(model):
        block.compile(**options)


def placed_like(full: Tensor, like: Any) -> Tensor:
    """A whole tensor on the device, and in the shards, of another one (a collective where that is sharded)."""
    if isinstance(like, DTensor):
        return distribute_tensor(full.to(like.device), like.device_mesh, like.placements)
    return full.to(like.device)


def local(tensor: Tensor) -> Tensor:
    """This process's part of a tensor; it shares its memory."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def place_optimizer_state(state: dict[str, Any], optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """An optimiser's whole state in the shards of its parameters.

    Raises:
        UserError: it is not of these parameters. Fused optimisers write by the parameter's shape, whatever the state's.
    """
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    for index, values in state["state"].items():
        known = index in range(len(parameters))
        if not known or any(
            v.dim() and v.shape != parameters[index].shape for v in values.values() if torch.is_tensor(v)
        ):
            raise UserError("the training state is of another network; start again without --resume")
    placed = {
        index: {
            name: placed_like(value, parameters[index]) if value.shape == parameters[index].shape else value
            for name, value in values.items()
        }
        for index, values in state["state"].items()
    }
    return {**state, "state": placed}


def mean_by_name(rows: Sequence[Mapping[str, float | Tensor]]) -> dict[str, float]:
    """Each name's mean over the rows that have it."""
    names = dict.fromkeys(name for row in rows for name in row)
    found = {name: [float(row[name]) for row in rows if name in row] for name in names}
    return {name: sum(values) / len(values) for name, values in found.items()}

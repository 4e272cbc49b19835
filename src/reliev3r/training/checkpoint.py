"""Training state on disk: one folder a checkpoint, written under a temporary name and renamed, with a checksum a file.

The newest two are kept, and apart from them (``best/``) the weights that were evaluated best. A kill at any moment
leaves a whole checkpoint: what replaces another one is there before that one goes (:func:`recover`).
"""

from __future__ import annotations

import copy
import dataclasses
import logging
import math
import os
import shutil
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from reliev3r.core.arrays import read_torch
from reliev3r.core.errors import UserError, first_line
from reliev3r.core.files import atomic_directory, file_hash, inside, read_json, remove_leftovers, write_json

logger = logging.getLogger(__name__)

CHECKSUMS = "checksums.json"


@dataclass(frozen=True, kw_only=True)
class TrainingState:
    """Everything a run needs to go on as if it had never stopped (batches are functions of seed and step).

    Whole tensors, whatever the parallelism of the run that wrote them.
    """

    step: int
    elapsed: float
    """Seconds of training so far."""
    model: dict[str, torch.Tensor]
    optimizer: dict[str, Any]
    ema: dict[str, torch.Tensor] | None = None
    evaluated: float = float("-inf")
    """Progress at the last evaluation."""
    ending: dict[str, float] | None = None
    """When the run was brought to its end before its time (``clock.Ending``)."""
    random: dict[str, torch.Tensor] = field(default_factory=dict)
    """States of torch's generators, one row a process."""


def save_state(folder: Path, state: TrainingState, *, keep: int = 2) -> Path:
    """Write ``folder/STEP/`` atomically, unless it is there and sound, and remove all but the newest ``keep``."""
    target = folder / f"{state.step:08d}"
    if _is_sound(target):
        return target
    with atomic_directory(target) as temporary:
        save_file(state.model, temporary / "model.safetensors")
        if state.ema is not None:
            save_file(state.ema, temporary / "ema.safetensors")
        rest = {
            "step": state.step, "elapsed": state.elapsed, "optimizer": state.optimizer,
            "evaluated": state.evaluated, "random": state.random, "ending": state.ending,
        }  # fmt: skip
        torch.save(rest, temporary / "state.pt")
        _seal(temporary)
    for old in _steps(folder)[:-keep]:
        shutil.rmtree(old, ignore_errors=True)
    return target


class StateWriter:
    """Writes checkpoints in a thread, one after another in the order they came, while training goes on."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="checkpoint")
        self._last: Future[Any] | None = None

    def write(self, state: TrainingState) -> None:
        """Begin to write a copy of ``state``; where the last one is still being written, wait for it.

        Raises:
            OSError: the last one could not be written.
        """
        self.wait()
        self._last = self._thread.submit(save_state, self._folder, owned_copy(state))

    def write_best(self, network: nn.Module, record: dict[str, float]) -> None:
        """Begin to write a copy of ``network`` as :func:`save_best` does; waits and raises as :meth:`write` does."""
        self.wait()
        self._last = self._thread.submit(save_best, self._folder, owned_network(network), dict(record))

    def wait(self) -> None:
        """Until all that was begun is on disk.

        Raises:
            OSError: it could not be written.
        """
        last, self._last = self._last, None
        if last is not None:
            last.result()

    def close(self) -> None:
        """Finish what was begun."""
        self._thread.shutdown(wait=True)


def owned_copy(state: TrainingState) -> TrainingState:
    """The same in memory of its own on the CPU, which the next step does not change."""
    return dataclasses.replace(
        state, model=_copied(state.model), ema=_copied(state.ema), optimizer=_copied(state.optimizer)
    )  # fmt: skip


def owned_network(network: nn.Module) -> nn.Module:
    """The same on the CPU, with memory of its own; a GPU holds no second copy meanwhile."""
    own: dict[int, Any] = {}  # what deepcopy takes in place of a tensor
    for weight in network.parameters():
        own[id(weight)] = nn.Parameter(_copied(weight), requires_grad=weight.requires_grad)
    own |= {id(value): _copied(value) for value in network.buffers()}
    return copy.deepcopy(network, own)


def _copied(tree: Any) -> Any:
    if isinstance(tree, torch.Tensor):
        return tree.detach().to("cpu", copy=True)
    if isinstance(tree, dict):
        return {name: _copied(value) for name, value in tree.items()}
    return [_copied(value) for value in tree] if isinstance(tree, list) else tree


def recover(folder: Path) -> None:
    """Take up what a killed process left: ``best/`` where it died between two renames; the rest of it is removed.

    Only for a folder that nobody else writes to at the moment.
    """
    best = folder / "best"
    for left in sorted(folder.glob(".best.*"), key=lambda path: path.name.startswith(".best.old.")):  # the new first
        for candidate in (left, left / "best"):
            if not best.exists() and _is_sound(candidate):
                os.replace(candidate, best)
    remove_leftovers(folder, {"best", *(path.name.split(".")[1] for path in folder.glob(".0*"))})


def _is_sound(folder: Path) -> bool:
    try:
        check_files(folder)
    except UserError:
        return False
    return True


def load_newest_state(folder: Path) -> TrainingState | None:
    """The newest sound checkpoint, or ``None`` where there is none; damaged ones are named and passed over.

    Raises:
        UserError: there are checkpoints, and not one is sound.
    """
    candidates = _steps(folder)
    for path in reversed(candidates):
        try:
            check_files(path)
            rest = read_torch(path / "state.pt")
            ema = path / "ema.safetensors"
            state = TrainingState(
                model=load_file(path / "model.safetensors"), ema=load_file(ema) if ema.is_file() else None, **rest
            )
            _refuse_nonsense(state)
            return state
        except Exception as error:  # torch, zip and safetensors errors share no base class
            logger.warning("%s: damaged checkpoint, using the one before it (%s)", path, first_line(error))
    if candidates:
        raise UserError(f"{folder}: no checkpoint in it can be read; start again without --resume")
    return None


def _refuse_nonsense(state: TrainingState) -> None:
    """Whoever writes a checkpoint can write its checksums, too.

    Raises:
        ValueError: a number that no run can have come to.
    """
    numbers = (state.step, state.elapsed, state.evaluated)
    if any(isinstance(value, bool) or not isinstance(value, int | float) for value in numbers):
        raise ValueError("step, elapsed and evaluated are numbers")
    if not (isinstance(state.step, int) and 0 <= state.step < 2**40 and 0 <= state.elapsed < math.inf):
        raise ValueError(f"no run has come to step {state.step} in {state.elapsed} s")
    if math.isnan(state.evaluated) or not isinstance(state.random, dict) or not isinstance(state.optimizer, dict):
        raise ValueError("the state is not one of `reliev3r`")
    if state.ending is not None and not _is_ending(state.ending):
        raise ValueError("no run was brought to its end there")
    if state.step and not state.optimizer.get("state"):
        raise ValueError("the optimiser's state is gone")
    for name, value in (*state.model.items(), *_tensors(state.optimizer)):
        if value.is_floating_point() and not bool(value.sum().isfinite()):
            raise ValueError(f"{name} is not finite")


def _is_ending(ending: Any) -> bool:
    if not isinstance(ending, dict) or ending.keys() != {"seconds", "progress"}:
        return False
    seconds, progress = ending["seconds"], ending["progress"]
    return isinstance(seconds, float) and isinstance(progress, float) and 0 < seconds < math.inf and 0 <= progress <= 1


def _tensors(tree: Any, name: str = "optimizer") -> Iterator[tuple[str, torch.Tensor]]:
    if isinstance(tree, torch.Tensor):
        yield name, tree
    elif isinstance(tree, dict | list):
        for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree):
            yield from _tensors(value, f"{name}.{key}")


def save_best(folder: Path, network: nn.Module, record: dict[str, float]) -> None:
    """Replace ``folder/best/``: the weights (for a :class:`Reliev3R`, a checkpoint to load) and ``record.json``."""
    with atomic_directory(folder / "best") as temporary:
        save_pretrained = getattr(network, "save_pretrained", None)
        if save_pretrained is not None:
            save_pretrained(temporary)
        else:
            weights = {name: value.contiguous() for name, value in network.state_dict().items()}
            save_file(weights, temporary / "model.safetensors")
        write_json(temporary / "record.json", record)
        _seal(temporary)


def best_record(folder: Path) -> dict[str, float] | None:
    """What was written of the best weights so far (``step`` and what was evaluated); ``None`` if there are none.

    Raises:
        UserError: a file of it is damaged.
    """
    best = folder / "best"
    if not best.is_dir():
        return None
    check_files(best)
    record = read_json(best / "record.json")
    if not isinstance(record, dict) or not all(isinstance(value, int | float) for value in record.values()):
        raise UserError(f"{best / 'record.json'}: is no record of an evaluation; remove {best}")
    return record


def check_files(folder: Path) -> None:
    """Compare every file of a checkpoint with its checksum.

    Raises:
        UserError: a file is missing or is not what was written; names it.
    """
    checksums = read_json(folder / CHECKSUMS)
    if not isinstance(checksums, dict):
        raise UserError(f"{folder / CHECKSUMS}: is no list of checksums; remove {folder} to use another one")
    for name, expected in checksums.items():
        path = inside(folder, name, str(folder / CHECKSUMS))
        if not path.is_file():
            raise UserError(f"{path}: missing from the checkpoint; remove {folder} to use another one")
        if file_hash(path) != expected:
            raise UserError(f"{path}: truncated or changed since it was written; remove {folder} to use another one")


def _seal(folder: Path) -> None:
    write_json(folder / CHECKSUMS, {path.name: file_hash(path) for path in sorted(folder.iterdir())})


def _steps(folder: Path) -> list[Path]:
    """Checkpoint folders, oldest first."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.is_dir() and path.name.isdigit())

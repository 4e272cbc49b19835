"""Training state on disk: one folder a checkpoint, written under a temporary name and renamed, the newest two kept."""

from __future__ import annotations

import logging
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from reliev3r.errors import UserError
from reliev3r.files import atomic_directory

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class TrainingState:
    """Everything a run needs to go on as if it had never stopped (batches are functions of seed and step)."""

    step: int
    elapsed: float
    """Seconds of training so far."""
    model: dict[str, torch.Tensor]
    optimizer: dict[str, Any]
    ema: dict[str, torch.Tensor] | None = None


def save_state(folder: Path, state: TrainingState, *, keep: int = 2) -> Path:
    """Write ``folder/STEP/`` atomically and remove all but the newest ``keep``."""
    target = folder / f"{state.step:08d}"
    with atomic_directory(target) as temporary:
        save_file(state.model, temporary / "model.safetensors")
        if state.ema is not None:
            save_file(state.ema, temporary / "ema.safetensors")
        rest = {"step": state.step, "elapsed": state.elapsed, "optimizer": state.optimizer}
        torch.save(rest, temporary / "state.pt")
    for old in _steps(folder)[:-keep]:
        shutil.rmtree(old, ignore_errors=True)
    return target


def load_newest_state(folder: Path) -> TrainingState | None:
    """The newest readable checkpoint, or ``None`` where there is none; damaged ones are named and passed over.

    Raises:
        UserError: there are checkpoints, and not one can be read.
    """
    candidates = _steps(folder)
    for path in reversed(candidates):
        try:
            rest = torch.load(path / "state.pt", map_location="cpu", weights_only=True)
            ema = path / "ema.safetensors"
            return TrainingState(
                step=rest["step"], elapsed=rest["elapsed"], optimizer=rest["optimizer"],
                model=load_file(path / "model.safetensors"), ema=load_file(ema) if ema.is_file() else None,
            )  # fmt: skip
        except Exception as error:  # torch, zip and safetensors errors share no base class
            logger.warning("%s: damaged checkpoint, using the one before it (%s)", path, str(error).splitlines()[0])
    if candidates:
        raise UserError(f"{folder}: no checkpoint in it can be read; start again without --resume")
    return None


def _steps(folder: Path) -> list[Path]:
    """Checkpoint folders, oldest first."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.is_dir() and path.name.isdigit())

"""Metrics of a run: JSON lines for programs, TensorBoard (and Weights & Biases, if asked for) for people."""

from __future__ import annotations

import json
import logging
import secrets
from pathlib import Path
from typing import Any

from reliev3r.core.errors import UserError
from reliev3r.core.files import atomic_path

logger = logging.getLogger(__name__)


class MetricsLog:
    """Appends rows to ``metrics.jsonl``, to TensorBoard event files under ``tensorboard/`` and to Weights & Biases."""

    def __init__(self, folder: Path, *, resume_step: int = 0, wandb: str | None = None) -> None:
        """Open the log; rows after ``resume_step`` belong to a future that was lost and are removed.

        Raises:
            UserError: the Weights & Biases project ``wandb`` is asked for and its package is missing.
        """
        self.path = folder / "metrics.jsonl"
        folder.mkdir(parents=True, exist_ok=True)
        kept = [row for row in read_metrics(self.path) if row["step"] <= resume_step]
        with atomic_path(self.path) as temporary:
            temporary.write_text("".join(json.dumps(row) + "\n" for row in kept), encoding="utf8")
        self.writer = _tensorboard(folder / "tensorboard", resume_step + 1)
        self.wandb = None if wandb is None else _wandb(folder, wandb)

    def write(self, row: dict[str, Any]) -> None:
        """Add one row; it needs a ``step``."""
        with self.path.open("a", encoding="utf8") as file:
            file.write(json.dumps(row) + "\n")
        for name, value in row.items() if self.writer is not None else ():
            if name != "step" and isinstance(value, int | float):
                self.writer.add_scalar(name, value, row["step"])
        if self.wandb is not None:
            self.wandb.log({name: value for name, value in row.items() if name != "step"}, step=row["step"])

    def close(self) -> None:
        """Flush what people look at."""
        if self.writer is not None:
            self.writer.close()
        if self.wandb is not None:
            self.wandb.finish()


def _tensorboard(folder: Path, purge_step: int) -> Any:
    """A summary writer, or None where TensorBoard is not installed (bare GPU machines)."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        logger.warning("tensorboard is not installed: metrics go to metrics.jsonl only")
        return None
    return SummaryWriter(str(folder), purge_step=purge_step)


def _wandb(folder: Path, project: str) -> Any:
    """A Weights & Biases run that a resumed training goes on with; the mode is the environment's (WANDB_MODE)."""
    try:
        import wandb
    except ImportError as error:
        raise UserError(f"{folder}: metrics cannot go to wandb: pip install wandb, or drop --wandb") from error
    identity = folder / "wandb-run"
    if not identity.is_file():
        with atomic_path(identity) as temporary:
            temporary.write_text(secrets.token_hex(8), encoding="utf8")
    name = identity.read_text(encoding="utf8")
    return wandb.init(project=project, name=folder.name, dir=str(folder), id=name, resume="allow")


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """All complete rows of a ``metrics.jsonl`` (a line that a kill cut short is left out); none if it is absent."""
    if not path.is_file():
        return []
    rows = []
    for line in path.read_text(encoding="utf8").splitlines():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return rows

"""Metrics of a run: JSON lines for programs, TensorBoard for people."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

from reliev3r.files import atomic_path

logger = logging.getLogger(__name__)


class MetricsLog:
    """Appends rows to ``metrics.jsonl`` and to TensorBoard event files under ``tensorboard/``."""

    def __init__(self, folder: Path, *, resume_step: int = 0) -> None:
        """Open the log; rows after ``resume_step`` belong to a future that was lost and are removed."""
        self.path = folder / "metrics.jsonl"
        folder.mkdir(parents=True, exist_ok=True)
        kept = [row for row in read_metrics(self.path) if row["step"] <= resume_step]
        with atomic_path(self.path) as temporary:
            temporary.write_text("".join(json.dumps(row) + "\n" for row in kept), encoding="utf8")
        self.writer = _tensorboard(folder / "tensorboard", resume_step + 1)

    def write(self, row: dict[str, Any]) -> None:
        """Add one row; it needs a ``step``."""
        with self.path.open("a", encoding="utf8") as file:
            file.write(json.dumps(row) + "\n")
        for name, value in row.items() if self.writer is not None else ():
            if name != "step" and isinstance(value, int | float):
                self.writer.add_scalar(name, value, row["step"])

    def close(self) -> None:
        """Flush TensorBoard."""
        if self.writer is not None:
            self.writer.close()


def _tensorboard(folder: Path, purge_step: int) -> Any:
    """A summary writer, or None where TensorBoard is not installed (bare GPU machines)."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        logger.warning("tensorboard is not installed: metrics go to metrics.jsonl only")
        return None
    return SummaryWriter(str(folder), purge_step=purge_step)


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

"""What the verbs share: progress bars, log lines, tables."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reliev3r.core.progress import Report

if TYPE_CHECKING:
    from rich.progress import TaskID


def write_table(table: Any, out: Path) -> None:
    """``scores.json`` and ``scores.md``."""
    from reliev3r.core.files import atomic_path, write_json

    write_json(out / "scores.json", table.to_json())
    with atomic_path(out / "scores.md") as temporary:
        temporary.write_text(table.to_markdown(), encoding="utf8")


def configure_logging() -> None:
    """Our own log lines from INFO on, others' from WARNING, on standard error."""
    from rich.console import Console
    from rich.logging import RichHandler

    handler = RichHandler(console=Console(stderr=True), show_path=False, show_time=False, markup=False)
    logging.basicConfig(level=logging.WARNING, format="%(message)s", handlers=[handler])
    logging.getLogger("reliev3r").setLevel(logging.INFO)


@contextmanager
def progress_bars() -> Iterator[Report]:
    """One bar a stage, with rate and time left, on standard error."""
    from rich import progress
    from rich.console import Console

    columns = (
        progress.TextColumn("{task.description:<9}"), progress.BarColumn(bar_width=24), progress.TaskProgressColumn(),
        progress.TimeElapsedColumn(), progress.TextColumn("left"), progress.TimeRemainingColumn(),
        progress.TextColumn("{task.fields[what]}"),
    )  # fmt: skip
    with progress.Progress(*columns, console=Console(stderr=True)) as bars:
        tasks: dict[str, TaskID] = {}

        def report(stage: str, done: float, total: float, what: str) -> None:
            if stage not in tasks:
                tasks[stage] = bars.add_task(stage, total=total, what=what)
            bars.update(tasks[stage], completed=done, total=total, what=what)

        yield report

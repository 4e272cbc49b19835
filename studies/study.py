"""What every study is: variants, each trained from some seeds and judged. What is finished is kept, and a second call
goes on where one stopped; table and picture are written anew after every run."""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reliev3r.core.files import atomic_path, write_json

SEEDS = 10
"""At most."""
Results = dict[str, dict[str, dict[str, Any]]]
"""By variant and seed: ``steps``, ``seconds``, ``judged`` (figures by judge) and ``curve`` ((step, figure) pairs)."""


@dataclass(frozen=True, kw_only=True)
class Study(ABC):
    """Variants, and the folder with their runs."""

    out: Path

    @property
    @abstractmethod
    def waves(self) -> tuple[Sequence[str], ...]:
        """All variants by name; those of a wave may start from checkpoints of the waves before it."""

    @abstractmethod
    def train(self, name: str, seed: int, folder: Path) -> dict[str, Any]:
        """Train one variant, or go on with it, and judge it: its row of :data:`Results`.

        Raises:
            KeyboardInterrupt: it was stopped before its end.
        """

    @abstractmethod
    def table(self, results: Results) -> str:
        """Markdown."""

    def untrained(self) -> Results:
        """Rows that need no training."""
        return {}

    def folder(self, name: str, seed: int) -> Path:
        """Of one run."""
        return self.out / "runs" / f"{name.replace(' ', '-').replace(',', '')}-{seed}"

    def result(self, name: str, seed: int) -> dict[str, Any] | None:
        """What a finished run was judged; None before."""
        path = self.folder(name, seed) / "result.json"
        return json.loads(path.read_text()) if path.is_file() else None

    def collect(self) -> Results:
        """All that is finished, written to ``study.json`` and ``study.md``."""
        results = self.untrained()
        for name in (name for wave in self.waves for name in wave):
            found = {str(seed): self.result(name, seed) for seed in range(SEEDS)}
            if any(found.values()):
                results[name] = {seed: row for seed, row in found.items() if row is not None}
        write_json(self.out / "study.json", results)
        with atomic_path(self.out / "study.md") as temporary:
            temporary.write_text(self.table(results), encoding="utf8")
        return results

    def complete(self, names: Sequence[str], seeds: Sequence[int], *, jobs: int, command: Sequence[str]) -> None:
        """Run what is missing, print the table.

        Args:
            names: of variants.
            seeds: of each.
            jobs: runs at a time.
            command: makes this very study, but for ``--only``, ``--seeds`` and ``--jobs``.
        """
        self.out.mkdir(parents=True, exist_ok=True)
        self.collect()
        for wave in self.waves:
            waiting = [(n, seed) for n in names if n in wave for seed in seeds if self.result(n, seed) is None]
            if jobs > 1:
                side_by_side(waiting, jobs, command)
                continue
            for name, seed in waiting:
                folder = self.folder(name, seed)
                row = self.train(name, seed, folder)
                write_json(folder / "result.json", row)
                self.collect()
        print(self.table(self.collect()))


def side_by_side(waiting: Sequence[tuple[str, int]], jobs: int, command: Sequence[str]) -> None:
    """Every run in a process of its own, ``jobs`` at a time, each with its share of the cores.

    Raises:
        SystemExit: a run failed; the others were finished first.
    """
    environment = {**os.environ, "OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // jobs))}

    def failed(run: tuple[str, int]) -> bool:
        own = ["--only", run[0], "--seeds", str(run[1]), "--jobs", "1"]
        return subprocess.run([sys.executable, *command, *own], env=environment, check=False).returncode != 0

    pool = ThreadPoolExecutor(jobs)
    try:
        found = [name for (name, _), bad in zip(waiting, pool.map(failed, waiting), strict=True) if bad]
    finally:
        pool.shutdown(cancel_futures=True)  # after Ctrl-C nothing new begins
    if found:
        raise SystemExit(f"failed: {', '.join(found)}")


def arguments(description: str | None, names: Iterable[str]) -> argparse.ArgumentParser:
    """What every study is asked: ``--out``, ``--seeds``, ``--only``, ``--jobs``."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", choices=range(SEEDS), default=[0])
    parser.add_argument("--only", nargs="+", choices=list(names), default=None)
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time, each with its share of the cores")
    return parser


def said(name: str, seed: int) -> Callable[[str, float, float, str], None]:
    """Prints how far a run is, ten times a stage."""
    last = [-1]

    def report(stage: str, done: float, total: float, what: str) -> None:
        share = int(10 * done / max(total, 1))
        if share != last[0]:
            last[0] = share
            print(f"{name} (seed {seed}): {stage} {done:.0f}/{total:.0f} {what}", flush=True)

    return report


def cell(values: Sequence[float]) -> str:
    """Mean of the seeds, range where there is more than one."""
    if not values:
        return ""
    mean = f"{statistics.mean(values):.3g}"
    return mean if len(values) < 2 else f"{mean} ({min(values):.3g} to {max(values):.3g})"

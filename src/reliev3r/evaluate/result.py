"""What a benchmark gives: a table a scene and their mean, as text, Markdown and JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reliev3r.evaluate.published import SOURCE, published
from reliev3r.evaluate.report import Row, Table, frames_hash, mean_row
from reliev3r.evaluate.scores import Protocol

FORMAT = "reliev3r-benchmark/1"


@dataclass(frozen=True, kw_only=True)
class Result:
    """Systems on the scenes of one benchmark, at one number of views."""

    benchmark: str
    protocol: Protocol
    views: int | None
    """Views a scene that were asked for; None: all, or a fixed list."""
    scenes: Mapping[str, Table]
    """In the benchmark's order; every table has the same systems in the same order."""
    caveats: tuple[str, ...]
    out: Path
    """Where the predictions are kept."""

    @property
    def systems(self) -> tuple[str, ...]:
        """Names, in the order of the rows."""
        return tuple(row.system for row in next(iter(self.scenes.values())).rows)

    def rows_of(self, system: str) -> dict[str, Row]:
        """One system's row on each scene."""
        return {scene: next(row for row in table.rows if row.system == system) for scene, table in self.scenes.items()}

    @property
    def failures(self) -> int:
        """Cells that failed."""
        return sum(row.failure is not None for table in self.scenes.values() for row in table.rows)

    @property
    def lists(self) -> dict[str, tuple[str, ...]]:
        """Frames of each scene that could be scored."""
        found = {s: next((row.frames for row in table.rows if row.frames), ()) for s, table in self.scenes.items()}
        return {scene: frames for scene, frames in found.items() if frames}

    @property
    def frames_hash(self) -> str:
        """Of the list of "SCENE/FRAME"; of a single scene, of its frames: what stands below :meth:`table`."""
        if len(self.scenes) == 1:
            return frames_hash(next(iter(self.lists.values()), ()))
        return frames_hash([f"{scene}/{frame}" for scene, frames in self.lists.items() for frame in frames])

    def table(self) -> Table:
        """The mean over scenes (a single scene's own table), with the paper's rows where they may stand there."""
        if len(self.scenes) == 1:
            rows = next(iter(self.scenes.values())).rows
        else:
            rows = tuple(mean_row(system, self.rows_of(system)) for system in self.systems)
        quoted = published(self.benchmark, self.protocol, self.views)
        rows += tuple(Row(system=name, scores=scores, frames=()) for name, scores in quoted.items())
        views = "" if self.views is None else f", at most {self.views} views a scene"
        title = self.benchmark if len(self.scenes) == 1 else f"{self.benchmark}: {len(self.scenes)} scenes{views}"
        caveats = (*self.caveats, *([SOURCE] if quoted else []))
        return Table(protocol=self.protocol, capture=title, rows=rows, caveats=caveats)

    def best_and_worst(self, system: str) -> tuple[str, ...]:
        """Names of the scenes with the highest and the lowest AUC@30 of a system (one where they are the same)."""
        scored = {s: row.scores.auc30 for s, row in self.rows_of(system).items() if row.scores.auc30 is not None}
        if not scored:
            return ()
        ranked = sorted(scored, key=lambda scene: -scored[scene])
        return tuple(dict.fromkeys((ranked[0], ranked[-1])))

    def to_json(self) -> dict[str, Any]:
        """Everything, as plain JSON values: the mean's table, every scene's, and the list of frames."""
        return {
            "format": FORMAT,
            "benchmark": self.benchmark,
            "views": self.views,
            "frames_hash": self.frames_hash,
            "frames": {scene: list(frames) for scene, frames in self.lists.items()},
            **self.table().to_json(),
            "scenes": {scene: table.to_json()["rows"] for scene, table in self.scenes.items()},
        }

    def to_markdown(self) -> str:
        """The mean's table and, of several scenes, a folded table each."""
        parts = [self.table().to_markdown()]
        if len(self.scenes) > 1:
            for scene, table in self.scenes.items():
                parts.append(f"<details><summary>{scene}</summary>\n\n{table.to_markdown()}\n</details>\n")
        return "\n".join(parts)

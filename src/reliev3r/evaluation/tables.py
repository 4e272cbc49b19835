"""Scores as tables: of one scene, of a benchmark, with the paper's rows where they may stand beside ours."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reliev3r.core.reconstruction import Reconstruction
from reliev3r.evaluation.published import SOURCE, published
from reliev3r.evaluation.scores import DEFINITIONS, Protocol, Scores, mean_scores

CROSS = "×"
"""What stands for a quantity that a system does not predict, or that has no truth: never a zero."""

_COLUMNS = {
    "point_rel": ("point rel ↓", 4),
    "point_tau": ("point τ ↑", 4),
    "ate": ("ATE ↓", 4),
    "auc30": ("AUC@30 ↑", 2),
    "depth_rel": ("depth rel ↓", 4),
    "depth_tau": ("depth τ ↑", 4),
    "rotation_median_deg": ("rot med °", 2),
    "translation_median_deg": ("trans med °", 2),
}
"""Field of ``Scores`` -> heading, decimals."""

_COSTS = (("seconds", "seconds", 1), ("peak GB", "peak_rss_bytes", 1e9), ("peak GPU GB", "peak_cuda_bytes", 1e9))
"""Heading, key of ``Row.meta``, unit."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One system's scores and what must be said beside them."""

    system: str
    scores: Scores
    frames: tuple[str, ...]
    notes: tuple[str, ...] = ()
    meta: dict[str, Any] = dataclasses.field(default_factory=dict)
    failure: str | None = None
    """The last words of a system that failed: all its figures are crosses."""


@dataclass(frozen=True, kw_only=True)
class Table:
    """Systems (rows) under one protocol on one capture, or on average over a benchmark's."""

    protocol: Protocol
    capture: str
    """What was scored on."""
    rows: tuple[Row, ...]
    caveats: tuple[str, ...] = ()
    """What must stand below the table as a whole."""

    def to_json(self) -> dict[str, Any]:
        """Everything, as plain JSON values; a quantity that is not predicted is ``None``."""
        return {
            "protocol": self.protocol,
            "definition": DEFINITIONS[self.protocol],
            "capture": self.capture,
            "rows": [
                {
                    "system": row.system,
                    "scores": dataclasses.asdict(row.scores),
                    "frames": list(row.frames),
                    "frames_hash": frames_hash(row.frames),
                    "notes": list(row.notes),
                    "meta": row.meta,
                    "failure": row.failure,
                }
                for row in self.rows
            ],
            "caveats": list(self.caveats),
        }

    def to_text(self) -> str:
        """Aligned columns for a terminal, then notes and definition."""
        return "\n".join([aligned_text(self.cells()), "", *self.footer()]) + "\n"

    def to_markdown(self) -> str:
        """A Markdown table, then notes and definition."""
        cells = self.cells()
        header, *body = ["| " + " | ".join(row) + " |" for row in cells]
        rule = "|" + " --- |" + " ---: |" * (len(cells[0]) - 1)
        return "\n".join([header, rule, *body, "", *(f"- {line}" for line in self.footer())]) + "\n"

    def cells(self) -> list[list[str]]:
        """Heading and one row of cells per system; extras, time and memory become columns where any has them."""
        extras = list(dict.fromkeys(name for row in self.rows for name in row.scores.extras))
        head = ["system", *(title for title, _ in _COLUMNS.values()), *(name.replace("_", " ") for name in extras)]
        body = [
            [
                row.system,
                *(_cell(getattr(row.scores, name), decimals) for name, (_, decimals) in _COLUMNS.items()),
                *(_cell(row.scores.extras.get(name), 4) for name in extras),
            ]
            for row in self.rows
        ]
        for title, key, unit in _COSTS:
            if any(key in row.meta for row in self.rows):
                head.append(title)
                for cells, row in zip(body, self.rows):
                    cells.append(_cell(row.meta[key] / unit if key in row.meta else None, 1))
        return [head, *body]

    def footer(self) -> list[str]:
        """Capture, frames, what each row needs said, and the protocol's definition."""
        lines = [f"capture {self.capture}"]
        hashes = {frames_hash(row.frames): len(row.frames) for row in self.rows if row.frames}
        lines += [f"{count} frames, list {digest}" for digest, count in hashes.items()]
        if len(hashes) > 1:
            lines.append("CAUTION: the rows were scored on different frames and cannot be compared")
        lines += [f"{row.system}: FAILED: {row.failure}" for row in self.rows if row.failure]
        lines += [f"{row.system}: {note}" for row in self.rows for note in row.notes]
        lines += self.caveats
        if any(CROSS in cell for row in self.cells()[1:] for cell in row[1:]):
            lines.append(f"{CROSS} = not predicted, or no ground truth for it")
        return [*lines, DEFINITIONS[self.protocol]]


def make_row(system: str, reconstruction: Reconstruction, scores: Scores) -> Row:
    """A table's row, with the caveats that the reconstruction's origin calls for."""
    notes = []
    if scores.views_without_camera:
        notes.append(
            f"no camera for {scores.views_without_camera} of {scores.views} views: each of their pairs counts as 180 "
            "degrees, and the ATE is of the others"
        )
    if scores.protocol == "mapanything" and scores.ate is not None and scores.point_rel is None:
        notes.append(
            "its ATE is in another unit, the mean distance of the cameras from view 0 (no points to give the "
            "protocol's): compare it with such rows alone"
        )
    if "simulated" in json.dumps(reconstruction.meta.get("labels", "")):
        notes.append(
            "its labels came from a SIMULATED expert (ground truth made worse), so this says nothing about what real "
            "experts would give"
        )
    given = reconstruction.meta.get("intrinsics", "predicted")
    if given not in ("predicted", "estimated"):
        notes.append("it was given the intrinsics" + (f" ({given})" if given != "known" else ""))
    if reconstruction.meta.get("weights") == "random":
        notes.append("RANDOM weights: this tries the interface and says nothing about the system")
    return Row(
        system=system, scores=scores, frames=reconstruction.names, notes=tuple(notes), meta=dict(reconstruction.meta)
    )


def failed_row(system: str, words: str, protocol: Protocol) -> Row:
    """The row of a system that gave nothing: crosses, and its last words below the table."""
    return Row(system=system, scores=Scores(protocol=protocol, views=0), frames=(), failure=words)


def mean_row(system: str, rows: Mapping[str, Row]) -> Row:
    """One system's rows by scene as their mean, which says what it is the mean of; time is the mean, memory the peak.

    Scenes on which it failed are left out of the mean and named; ``frames`` are those of the others, "SCENE/FRAME".
    """
    good = {scene: row for scene, row in rows.items() if row.failure is None}
    failures = [f"{scene}: {row.failure}" for scene, row in rows.items() if row.failure is not None]
    if not good:
        first = next(iter(rows.values()))
        return failed_row(system, "; ".join(failures), first.scores.protocol)
    scores = mean_scores([row.scores for row in good.values()])
    notes = [f"failed on {len(failures)} of {len(rows)} scenes, which the means leave out"] if failures else []
    notes += [f"failed on {failure}" for failure in failures]
    for name, (title, _) in _COLUMNS.items():
        count = sum(getattr(row.scores, name) is not None for row in good.values())
        if 0 < count < len(good):
            notes.append(f"{title} is the mean of {count} of {len(good)} scenes")
    if scores.views_without_camera:
        notes.append(f"no camera for {scores.views_without_camera} of {scores.views} views of all scenes: 180 degrees")
    notes += list(dict.fromkeys(n for row in good.values() for n in row.notes if not n.startswith("no camera for")))
    frames = tuple(f"{scene}/{frame}" for scene, row in good.items() for frame in row.frames)
    return Row(system=system, scores=scores, frames=frames, notes=tuple(notes), meta=_mean_cost(list(good.values())))


def _mean_cost(rows: Sequence[Row]) -> dict[str, Any]:
    cost: dict[str, Any] = {}
    for _, key, _ in _COSTS:
        known = [row.meta[key] for row in rows if key in row.meta]
        if known:
            cost[key] = sum(known) / len(known) if key == "seconds" else max(known)
    return cost


def aligned_text(cells: Sequence[Sequence[str]]) -> str:
    """A heading and rows as columns for a terminal: the first to the left, the others to the right."""
    widths = [max(len(row[column]) for row in cells) for column in range(len(cells[0]))]
    lines = [
        "  ".join([row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:]))])
        for row in cells
    ]
    return "\n".join([lines[0], "  ".join("-" * width for width in widths), *lines[1:]])


def frames_hash(names: Sequence[str]) -> str:
    """First 12 hexadecimal digits of the SHA-256 of the frame names, one a line: the same list, the same hash."""
    return hashlib.sha256("\n".join(names).encode()).hexdigest()[:12]


def _cell(value: float | None, decimals: int) -> str:
    return CROSS if value is None else f"{value:.{decimals}f}"


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

"""The tables of the paper's study: the paper's rows and, below each, ours; what was not run says why."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reliev3r.core.files import atomic_path, read_json, write_json
from reliev3r.evaluation.published import (
    ALPHA,
    BENCHMARK_CAVEAT,
    COLUMNS,
    MAIN,
    SEMI_SUPERVISED,
    TABLES,
    ZERO_SHOT,
    Figures,
    PublishedTable,
)  # fmt: skip

if TYPE_CHECKING:
    from paper import Study

HEADINGS = ("point rel ↓", "point τ ↑", "ATE ↓", "AUC@30 ↑", "depth rel ↓", "depth τ ↑")
DECIMALS = (3, 3, 3, 3, 3, 3)
CROSS, SECOND_HAND = "×", "†"
OURS = {
    "pi^3, fully supervised on DL3DV": "pi3-dagger",
    "Reliev3R": "paper",
    "pi^3, fully supervised on synthetic data": "paper-synthetic",
    "the same, then Reliev3R on DL3DV": "paper-semi",
    "alpha 0.2": "alpha-0.2",
    "alpha 0.5": "alpha-0.5",
    "alpha 1 (Reliev3R)": "paper",
    "alpha 2": "alpha-2",
}
"""The paper's row -> our training."""
BASELINES = {
    "MapAnything": "mapanything", "pi^3": "pi3", "VGGT": "vggt", "CUT3R": "cut3r", "MV-DUSt3R": "mvdust3r",
    "FLARE": "flare", "AnyCam": "anycam", "RayZer": "rayzer",
}  # fmt: skip
"""The paper's row -> our adapter."""
BESIDE: dict[str, tuple[str, ...]] = {MAIN.title: ("paper-plus",), ZERO_SHOT.title: ("paper-plus",)}
"""Trainings of ours that the paper does not have."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Figures of a method here, a list for each column (one value a seed), or why there are none."""

    values: tuple[tuple[float, ...], ...] = ((),) * len(COLUMNS)
    note: str = ""


def write_tables(study: Study, records: Mapping[str, Path]) -> None:
    """Write ``study.md`` and ``study.json`` from what is finished.

    Args:
        study: what was asked.
        records: by stage, the file with what it took; missing where it is not done.
    """
    parts, plain = [f"# The paper's study, size {study.size}\n\n{_about(study)}"], {}
    for table in TABLES:
        rows = {name: measured(study, table, name) for name in table.rows}
        beside = {name: _run(study, table, name) for name in BESIDE.get(table.title, ())}
        if table is not ALPHA and "colmap" in study.baselines:
            beside["COLMAP, known K"] = _baseline(study, table, "colmap")
        parts.append(f"## {table.title}\n\n{markdown(table, rows, beside)}")
        plain[table.title] = {
            name: {"paper": table.rows.get(name), "here": dict(zip(COLUMNS, row.values, strict=True)), "note": row.note}
            for name, row in {**rows, **beside}.items()
        }
    parts.append(f"## What the shapes say\n\n{_shapes(study)}")
    figures = [study.figure(k) / "figure.png" for k in range(1, 1 + len(study.shown))]
    drawn = [f"![Figure {k}](figures/{k}/figure.png)" for k, file in enumerate(figures, 1) if file.is_file()]
    parts.append("## Figures 1 to 4\n\n" + ("\n\n".join(drawn) or "not drawn yet"))
    parts.append(f"## What it took\n\n{_costs(records)}")
    write_json(study.out / "study.json", plain)
    with atomic_path(study.out / "study.md") as temporary:
        temporary.write_text("\n\n".join(parts) + "\n", encoding="utf8")


def measured(study: Study, table: PublishedTable, row: str) -> Measured:
    """What stands below a row of the paper."""
    return _run(study, table, OURS[row]) if row in OURS else _baseline(study, table, BASELINES[row])


def markdown(table: PublishedTable, rows: Mapping[str, Measured], beside: Mapping[str, Measured]) -> str:
    """Two lines for each method, the paper's and ours."""
    lines = [f"| method | | {' | '.join(HEADINGS)} | |", "|---|---|" + "--:|" * len(HEADINGS) + "---|"]
    for name, row in rows.items():
        mark = "" if name in table.in_print else f" {SECOND_HAND}"
        lines.append(f"| {name} | paper{mark} | {' | '.join(_quoted(table.rows[name]))} | |")
        lines.append(f"| | here | {' | '.join(_cells(row))} | {row.note} |")
    lines += [f"| {name} | here | {' | '.join(_cells(row))} | {row.note} |" for name, row in beside.items()]
    return "\n".join(lines)


def _quoted(figures: Figures) -> list[str]:
    return [CROSS if x is None else f"{x:.{d}f}" for x, d in zip(figures, DECIMALS, strict=True)]


def _cells(row: Measured) -> list[str]:
    """Means over seeds, the range where there are several."""
    cells = []
    for values, decimals in zip(row.values, DECIMALS, strict=True):
        mean = f"{statistics.mean(values):.{decimals}f}" if values else CROSS
        spread = f" ({min(values):.{decimals}f} to {max(values):.{decimals}f})" if len(values) > 1 else ""
        cells.append(mean + spread)
    return cells


def _run(study: Study, table: PublishedTable, name: str) -> Measured:
    if lacking := study.missing(name):
        return Measured(note=lacking)
    return _scored(study, table, [study.system(name, seed) for seed in study.all_seeds])


def _baseline(study: Study, table: PublishedTable, adapter: str) -> Measured:
    if adapter not in study.baselines:
        return Measured(
            note=f"not run: --systems has no table for {adapter}; `reliev3r baselines` says how to install it"
        )
    return _scored(study, table, [study.baselines[adapter]])


def _scored(study: Study, table: PublishedTable, systems: Sequence[str]) -> Measured:
    """The rows of ``scores.json``."""
    place = {"dl3dv-benchmark": study.benchmark, "scannetpp": study.scannetpp}[table.benchmark]
    file = study.evaluation(table.benchmark) / "scores.json"
    if place is None:
        return Measured(note=f"not scored: give --{table.benchmark}")
    if not file.is_file():
        return Measured(note="not scored yet")
    found = {row["system"]: row for row in read_json(file)["rows"]}
    rows = [found[system] for system in systems if system in found]
    if not rows:
        return Measured(note="not scored yet")
    values = tuple(tuple(r["scores"][c] for r in rows if r["scores"][c] is not None) for c in COLUMNS)
    told = [note for row in rows for note in ([row["failure"]] if row["failure"] else []) + _worth_saying(row["notes"])]
    return Measured(values=values, note="; ".join(dict.fromkeys(told)).replace("|", "/")[:300])


def _worth_saying(notes: Sequence[str]) -> list[str]:
    return [note for note in notes if note.startswith(("failed on", "no camera", "its ATE"))]


def _about(study: Study) -> str:
    lines = [
        f"Each method has the paper's row and, below it, ours. {SECOND_HAND}: not read in print but in a third-party "
        "note of the paper; the rest stands in its supplement. Frame lists are not public: the scenes are the paper's, "
        f"the frames need not be. DL3DV-Benchmark: {BENCHMARK_CAVEAT}.",
        f"Size {study.size}: {study.shrunk.about}. Depth labels by `{study.depth}`, tracks by `{study.tracks}`.",
    ]
    if "simulated" in study.depth:
        lines.append("The depth labels are those of a *simulated expert*: the truth made worse.")
    if study.benchmark_depth is None:
        lines.append("No --benchmark-depth was given: figures that need true depth are crosses on DL3DV-Benchmark.")
    return "\n\n".join(lines)


def _shapes(study: Study) -> str:
    """What the paper claims, in one number each, where both numbers are there."""

    def auc(name: str) -> float | None:
        values = _run(study, MAIN, name).values[COLUMNS.index("auc30")]
        return statistics.mean(values) if values else None

    lines, full = [], auc("pi3-dagger")
    theirs = MAIN.rows["Reliev3R"][3] / MAIN.rows["pi^3, fully supervised on DL3DV"][3]  # type: ignore[operator]
    for name, head in (("paper", "the paper's regressed cameras"), ("paper-plus", "our solved cameras")):
        weak = auc(name)
        ratio = f"{weak / full:.2f}" if weak is not None and full else "not known yet"
        lines.append(
            f"- Weak over fully supervised in half of the steps, AUC@30, {head}: {ratio} (paper: {theirs:.2f})"
        )
    ours = {row: auc(OURS[row]) for row in ALPHA.rows}
    if all(value is not None for value in ours.values()):
        order = " < ".join(sorted(ours, key=lambda row: ours[row] or 0.0))
        paper = " < ".join(sorted(ALPHA.rows, key=lambda row: ALPHA.rows[row][3] or 0.0))
        lines.append(f"- alpha by AUC@30, the worst first: {order} (paper: {paper})")
    before, after = (auc(OURS[row]) for row in list(SEMI_SUPERVISED.rows)[1:])
    if before is not None and after is not None:
        lines.append(f"- Semi-supervision, AUC@30: {before:.1f} to {after:.1f} (paper: 17.1 to 34.2)")
    return "\n".join(lines)


def _costs(records: Mapping[str, Path]) -> str:
    rows: dict[str, dict[str, Any]] = {name: read_json(path) for name, path in records.items() if path.is_file()}
    lines = ["| stage | seconds | CPU seconds | MB |", "|---|--:|--:|--:|"]
    total = [sum(row[key] for row in rows.values()) for key in ("seconds", "cpu_seconds")]
    lines += [
        f"| {n} | {r['seconds']:.0f} | {r['cpu_seconds']:.0f} | {r['bytes'] / 1e6:.1f} |" for n, r in rows.items()
    ]
    return "\n".join([*lines, f"| **all** | {total[0]:.0f} | {total[1]:.0f} | |"])

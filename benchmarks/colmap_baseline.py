"""COLMAP against the baseline: registered views and AUC on synthetic rooms of 4, 8, 16 and 32 views on wider arcs.

    python benchmarks/colmap_baseline.py --out benchmarks/results/colmap_baseline.json [--rooms 3] [--figure FILE.png]
    python benchmarks/colmap_baseline.py --out benchmarks/results/colmap_baseline.json --rooms 1 --system colmap-global
    python benchmarks/colmap_baseline.py --out benchmarks/results/colmap_baseline.json --captures CAPTURE ...

Each room is seen from an arc of each span; 4, 8, 16 or 32 cameras share the arc evenly, so that few views or a wide
arc mean a wide baseline. COLMAP (pycolmap, CPU, known intrinsics) gets the images; a view that it does not register
counts as 180 degrees in all its pairs (protocol ``strict``). The figure lies
beside the JSON file, whose rows are kept when it is run again; it shows the incremental mapper.

With ``--captures`` both mappers, incremental and global, run on these captures instead (12 views each), and their rows
go to ``captures`` of the same file, in place of earlier ones of the same name.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import importlib.metadata
import itertools
import platform
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from reliev3r.core.files import atomic_path, read_json, write_json
from reliev3r.core.reconstruction import Reconstruction
from reliev3r.data.capture import Capture
from reliev3r.data.truth import load_truth
from reliev3r.evaluation.benchmarks import capture_benchmark
from reliev3r.evaluation.run import evaluate_benchmark
from reliev3r.evaluation.systems import System, systems_from_specs
from reliev3r.geometry.rigid import relative, rotation_angle
from reliev3r.synthetic.capture import SynthConfig, write_capture

VIEWS, SPANS = (4, 8, 16, 32), (20.0, 40.0, 80.0, 140.0, 220.0)
WIDTH, HEIGHT = 240, 180


def one_room(seed: int, views: int, span: float, name: str) -> dict[str, Any]:
    """The scores of COLMAP (the system ``name``) on one room beside the baseline of neighbouring views."""
    config = SynthConfig(
        seed=seed, views=views, span=span, overlap=0.0, width=WIDTH, height=HEIGHT, supersample=2, path="smooth"
    )
    with tempfile.TemporaryDirectory(prefix="reliev3r-colmap-baseline-") as folder:
        capture = write_capture(Path(folder) / "room", config)
        colmap, scored = systems_from_specs([name]), capture_benchmark(Path(capture))
        row = evaluate_benchmark(colmap, scored, out=Path(folder) / "scores", protocol="strict").table().rows[0]
        if row.failure:
            raise SystemExit(f"{name}: {row.failure}")
        regions = torch.tensor([[0.0, 0.0, WIDTH, HEIGHT]]).expand(views, 4)
        truth = load_truth(capture, row.frames, regions=regions, size=(HEIGHT, WIDTH))
    between = relative(truth.world_from_cam.double())
    near = torch.arange(views - 1)
    rotation = rotation_angle(between[near, near + 1, :3, :3]).rad2deg()
    baseline = between[near, near + 1, :3, 3].norm(dim=-1) / truth.depth[truth.valid].median()
    return {
        "system": name,
        "seed": seed,
        "views": views,
        "span": span,
        "neighbour_rotation_deg": float(rotation.median()),
        "neighbour_baseline_to_depth": float(baseline.median()),
        "registered": views - row.scores.views_without_camera,
        "auc30": row.scores.auc30,
        "rotation_median_deg": row.scores.rotation_median_deg,
        "seconds": row.meta["seconds"],
    }


def one_capture(capture: Path, system: System, views: int) -> dict[str, Any]:
    """Scores and CPU seconds of one mapper (features, matches and mapping together) on a capture with ground truth."""
    spent: list[float] = []

    def timed(given: Capture, folder: Path) -> Reconstruction:
        start = time.process_time()
        result = system.run(given, folder)
        spent.append(time.process_time() - start)
        return result

    scored = capture_benchmark(capture)
    with tempfile.TemporaryDirectory(prefix="reliev3r-colmap-baseline-") as folder:
        measured = dataclasses.replace(system, run=timed)
        scores = evaluate_benchmark([measured], scored, out=Path(folder), protocol="strict", views=views)
        row = scores.table().rows[0]
    if row.failure:
        raise SystemExit(f"{system.name} on {capture}: {row.failure}")
    return {
        "capture": capture.name,
        "views": views,
        "system": system.name,
        "pycolmap": importlib.metadata.version("pycolmap"),
        "registered": views - row.scores.views_without_camera,
        "auc30": row.scores.auc30,
        "rotation_median_deg": row.scores.rotation_median_deg,
        "translation_median_deg": row.scores.translation_median_deg,
        "cpu_seconds": round(spent[0], 1),
    }


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """Registered share and AUC against the rotation between neighbouring views, one line a number of views."""
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(9.5, 3.8), layout="constrained")
    for views, colour in zip(VIEWS, ("#4c8bf5", "#e8710a", "#12a594", "#c44dd6")):
        own = [row for row in rows if row["views"] == views]
        if not own:
            continue
        spans = sorted({row["span"] for row in own})
        for panel, value in zip(axes, (lambda r: 100 * r["registered"] / r["views"], lambda r: r["auc30"])):
            x = [np.mean([row["neighbour_rotation_deg"] for row in own if row["span"] == span]) for span in spans]
            y = [np.mean([value(row) for row in own if row["span"] == span]) for span in spans]
            panel.plot(x, y, color=colour, marker="o", markersize=4, label=f"{views} views")
            each = [(row["neighbour_rotation_deg"], value(row)) for row in own]
            panel.scatter(*zip(*each), s=9, color=colour, alpha=0.35, linewidths=0)
    for panel, title in zip(axes, ("views that COLMAP registers (%)", "AUC@30 (strict; a lost view is 180°)")):
        panel.set_title(title, fontsize=10)
        panel.set_xlabel("rotation between neighbouring views (degrees, log)", fontsize=9)
        panel.set_xscale("log")
        panel.set_xticks([1, 2, 5, 10, 20, 50], [1, 2, 5, 10, 20, 50])
        panel.set_ylim(-4, 104)
        panel.grid(alpha=0.2)
    axes[0].legend(frameon=False, fontsize=9, loc="lower left")
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=130)


def measure_captures(captures: list[Path], out: Path, views: int = 12) -> None:
    """Both mappers on every capture, into the JSON file."""
    kept = read_json(out) if out.is_file() else {"rows": []}
    for capture, system in itertools.product(captures, systems_from_specs(["colmap", "colmap-global"])):
        row = one_capture(capture, system, views)
        print(row, flush=True)
        others = [old for old in kept.get("captures", []) if any(old[k] != row[k] for k in ("capture", "system"))]
        kept["captures"] = sorted([*others, row], key=lambda old: (old["capture"], old["system"]))
        kept["captures_date"] = datetime.datetime.now(tz=datetime.UTC).date().isoformat()
        write_json(out, kept)


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--figure", type=Path, help="by default the name of --out, as .png")
    parser.add_argument("--rooms", type=int, default=3)
    parser.add_argument("--system", default="colmap", choices=["colmap", "colmap-global"])
    parser.add_argument("--captures", type=Path, nargs="+", default=[])
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.captures:
        measure_captures(given.captures, given.out)
        return
    kept = read_json(given.out) if given.out.is_file() else {}
    rows = kept.get("rows", [])
    done = {(row["seed"], row["views"], row["span"], row.get("system", "colmap")) for row in rows}
    for seed, span, views in itertools.product(range(given.rooms), reversed(SPANS), VIEWS):
        case = (seed, views, span, given.system)
        if case in done:
            continue
        today = datetime.datetime.now(tz=datetime.UTC).date().isoformat()
        rows.append({**one_room(*case), "date": today})
        print(rows[-1], flush=True)
        result = {
            **kept,
            "date": kept.get("date", today),  # of rows without one
            "machine": f"{platform.machine()}, one CPU thread",
            "images": f"{WIDTH}x{HEIGHT}, synthetic rooms (masonry), smooth arcs",
            "rows": rows,
        }
        write_json(given.out, result)
    incremental = [row for row in rows if row.get("system", "colmap") == "colmap"]
    draw(incremental, given.figure or given.out.with_suffix(".png"))


if __name__ == "__main__":
    main()

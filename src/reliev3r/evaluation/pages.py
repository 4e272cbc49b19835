"""Results as files: ``scores.json``, ``scores.md``, ``frames.json`` and one page, ``comparison.html``."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import torch

from reliev3r.core.files import atomic_path, write_json
from reliev3r.core.reconstruction import Reconstruction
from reliev3r.data.truth import Scene
from reliev3r.evaluation.benchmarks import Benchmark
from reliev3r.evaluation.predictions import cell_folder
from reliev3r.evaluation.systems import System
from reliev3r.evaluation.tables import Result, Row, Table
from reliev3r.report.comparison import Comparison, Curves, ScenePicture, scene_picture, write_comparison

_CURVES: dict[str, Callable[[Row], float | None]] = {
    "AUC@30": lambda row: row.scores.auc30,
    "point rel": lambda row: row.scores.point_rel,
    "views with a camera (%)": lambda row: (
        100 * (1 - row.scores.views_without_camera / row.scores.views) if row.scores.views else None
    ),
}


def write_results(
    out: Path, results: Sequence[Result], benchmark: Benchmark, systems: Sequence[System]
) -> tuple[Path, ...]:
    """Write the results of one benchmark, one for each number of views; returns the files.

    ``scores.json`` is the result (several: a list of them), ``scores.md`` its tables, ``frames.json`` (several:
    ``frames-VIEWS.json``) the frames as a benchmark to give to others, ``comparison.html`` the page with pictures and,
    of several, curves over the number of views.
    """
    plain = [result.to_json() for result in results]
    write_json(out / "scores.json", plain[0] if len(plain) == 1 else plain)
    lists = {("frames.json" if len(results) == 1 else f"frames-{r.views}.json"): r for r in results}
    for name, result in lists.items():
        write_json(out / name, _as_benchmark(result, benchmark))
    with atomic_path(out / "scores.md") as temporary:
        temporary.write_text("\n".join(_headed(result, len(results) > 1) for result in results), encoding="utf8")
    comparisons = [_comparison(result, benchmark, systems) for result in results]
    curves = curves_of(results) if len(results) > 1 else {}
    write_comparison(
        out / "comparison.html", title=f"{results[0].benchmark}, {results[0].protocol}", comparisons=comparisons,
        curves=curves,
    )  # fmt: skip
    return tuple(out / name for name in ("scores.json", "scores.md", "comparison.html", *lists))


def curves_of(results: Sequence[Result]) -> Curves:
    """AUC@30, point rel and share of views with a camera against the number of views, by system."""
    tables = [(result.views, result.table()) for result in results if result.views is not None]
    curves: dict[str, dict[str, tuple[list[float], list[float]]]] = {}
    for quantity, value in _CURVES.items():
        for system in results[0].systems:
            points = [
                (float(views), y)
                for views, table in tables
                for row in table.rows
                if row.system == system and (y := value(row)) is not None
            ]
            if points:
                across, up = zip(*points)
                curves.setdefault(quantity, {})[system] = (list(across), list(up))
    return curves


def _as_benchmark(result: Result, benchmark: Benchmark) -> dict[str, Any]:
    """The lists of frames in the format that ``benchmarks.open_benchmark`` reads."""
    root = {} if benchmark.root is None else {"root": benchmark.root}
    scenes = [{**root, "scene": scene, "frames": list(frames)} for scene, frames in result.lists.items()]
    return {"name": result.benchmark, "protocol": result.protocol, "frames_hash": result.frames_hash, "scenes": scenes}


def _headed(result: Result, headed: bool) -> str:
    return f"## {result.views} views\n\n{result.to_markdown()}" if headed else result.to_markdown()


def _comparison(result: Result, benchmark: Benchmark, systems: Sequence[System]) -> Comparison:
    table = result.table()
    head, *rows = table.cells()
    several = len(result.scenes) > 1
    title = f"{result.views} views" if result.views is not None else "Scores"
    return Comparison(
        title=title,
        head=head,
        rows=rows,
        notes=table.footer(),
        scenes={scene: _like(own, head) for scene, own in result.scenes.items()} if several else {},
        pictures=[picture for system in systems for picture in _pictures(result, benchmark, system)],
    )


def _like(table: Table, head: list[str]) -> list[list[str]]:
    """A scene's cells under the headings of the mean's table."""
    own, *rows = table.cells()
    places = {title: index for index, title in enumerate(own)}
    return [[row[places[title]] if title in places else "×" for title in head] for row in rows]


def _pictures(result: Result, benchmark: Benchmark, system: System) -> list[ScenePicture]:
    chosen = result.best_and_worst(system.name)
    pictures = []
    for name, rank in zip(chosen, ("best", "worst")):
        scene = benchmark.open(name, result.views)
        auc = result.rows_of(system.name)[name].scores.auc30
        label = f" ({rank})" if len(chosen) > 1 else ""
        reconstruction = _kept(system, scene, result.out)
        assert scene.truth is not None
        true = torch.stack([scene.truth.camera(frame).world_from_cam for frame in reconstruction.names])
        picture = scene_picture(f"{system.name} · {name}{label} · AUC@30 {auc:.1f}", reconstruction, true)
        if picture is not None:
            pictures.append(dataclasses.replace(picture, look=_page(reconstruction, system, scene, result.out)))
    return pictures


def _page(reconstruction: Reconstruction, system: System, scene: Scene, out: Path) -> str:
    """Write the page to look around in where the prediction is kept; its address, as seen from ``out``."""
    (path,) = reconstruction.export(cell_folder(out, system, scene.name, scene.capture) / "view.html", overwrite=True)
    return quote(path.relative_to(out).as_posix())


def _kept(system: System, scene: Scene, out: Path) -> Reconstruction:
    if system.frames is not None:
        return system.run(scene.capture, out)
    return Reconstruction.load(cell_folder(out, system, scene.name, scene.capture))

"""Systems on the scenes of a benchmark: every cell predicted or taken from the cache, then scored."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from reliev3r.data.capture import load_capture
from reliev3r.data.scene import Scene
from reliev3r.errors import UserError
from reliev3r.evaluate.benchmarks import Benchmark
from reliev3r.evaluate.cells import PredictionFailed, predict_cell
from reliev3r.evaluate.protocol import evaluate_reconstruction
from reliev3r.evaluate.report import Row, Table, failed_row, make_row
from reliev3r.evaluate.result import Result
from reliev3r.evaluate.scores import Protocol
from reliev3r.evaluate.systems import KNOWN, System, select_frames, system_from_spec

Progress = Callable[[int, int, str], None]


def systems_from_specs(
    specs: Sequence[str], settings: Mapping[str, Mapping[str, Any]] | None = None
) -> tuple[System, ...]:
    """Every system once, in the order given.

    Raises:
        UserError: none at all, or see :func:`~reliev3r.evaluate.systems.system_from_spec`.
    """
    if not specs:
        raise UserError(f"name at least one system to evaluate; {KNOWN}")
    return tuple(system_from_spec(spec, settings) for spec in dict.fromkeys(specs))


def evaluate_systems(
    specs: Sequence[str],
    capture_root: Path | str,
    protocol: Protocol = "strict",
    *,
    views: int | None = None,
    progress: Progress | None = None,
) -> Table:
    """Score systems on one capture, without keeping predictions; the first failure ends it.

    Systems that run now get the frames of the first ``fit:``, else ``views`` evenly spaced ones.

    Raises:
        UserError: see ``systems.system_from_spec`` and ``protocol.evaluate_reconstruction``.
    """
    systems = systems_from_specs(specs)
    names = fitted_frames(systems)
    capture = load_capture(capture_root, views=None if names is not None else views)
    capture = capture if names is None else select_frames(capture, names)
    rows = []
    for index, system in enumerate(systems):
        if progress is not None:
            progress(index, len(systems), system.name)
        with tempfile.TemporaryDirectory(prefix="reliev3r-") as folder:
            reconstruction = system.run(capture, Path(folder))
        rows.append(
            make_row(system.name, reconstruction, evaluate_reconstruction(reconstruction, capture_root, protocol))
        )
    return Table(protocol=protocol, capture=str(capture_root), rows=tuple(rows))


def fitted_frames(systems: Sequence[System]) -> tuple[str, ...] | None:
    """The frames of the first system that has its own."""
    return next((system.frames for system in systems if system.frames is not None), None)


def evaluate_benchmark(
    systems: Sequence[System],
    benchmark: Benchmark,
    *,
    out: Path,
    protocol: Protocol | None = None,
    views: int | None = None,
    progress: Progress | None = None,
) -> Result:
    """Score systems on every scene. Predictions are kept below ``out``; those that nothing changed are not made again.

    A system that fails on a scene, or a scene that cannot be opened or has no truth, costs its cells, which say why.

    Raises:
        UserError: the benchmark's only scene cannot be opened or has no truth.
    """
    protocol, views = protocol or benchmark.protocol, views or benchmark.views
    fingerprints = {system.name: system.fingerprint() for system in systems}
    tables: dict[str, Table] = {}
    caveats = list(benchmark.caveats)
    done, total = 0, len(systems) * len(benchmark.scenes)
    for name in benchmark.scenes:
        rows: list[Row] = []
        try:
            scene = _open(benchmark, name, views)
        except UserError as error:
            if len(benchmark.scenes) == 1:
                raise
            rows, done = (
                [failed_row(system.name, f"{name}: {error}", protocol) for system in systems],
                done + len(systems),
            )
        else:
            caveats += [caveat for caveat in scene.caveats if caveat not in caveats]
            for system in systems:
                if progress is not None:
                    progress(done, total, f"{name}: {system.name}")
                rows.append(_row(system, fingerprints[system.name], scene, out, protocol, alone=total == len(systems)))
                done += 1
        tables[name] = Table(protocol=protocol, capture=f"{benchmark.name} {name}", rows=tuple(rows))
    if progress is not None:
        progress(total, total, "")
    return Result(
        benchmark=benchmark.name, protocol=protocol, views=views, scenes=tables, caveats=tuple(caveats), out=out
    )


def _open(benchmark: Benchmark, name: str, views: int | None) -> Scene:
    """The scene, if it has truth for its frames.

    Raises:
        UserError: it cannot be opened, or has none.
    """
    scene = benchmark.open(name, views)
    if scene.truth is None:
        raise UserError(f"{scene.capture.root}: this scene has no ground truth to score against")
    scene.truth.camera(scene.capture.names[0])
    return scene


def _row(
    system: System, fingerprint: dict[str, Any], scene: Scene, out: Path, protocol: Protocol, *, alone: bool
) -> Row:
    assert scene.truth is not None
    try:
        if system.frames is not None:  # a finished run: kept already, of its own frames
            if not alone and (system.made_from is None or system.made_from.resolve() != scene.capture.root.resolve()):
                raise UserError(f"{system.name} was made from {system.made_from or 'another capture'}")
            reconstruction = system.run(scene.capture, out)
        else:
            reconstruction = predict_cell(system, fingerprint, scene.name, scene.capture, out)
        return make_row(system.name, reconstruction, evaluate_reconstruction(reconstruction, scene.truth, protocol))
    except (UserError, PredictionFailed) as error:
        return failed_row(system.name, str(error), protocol)

"""Several systems on one benchmark, against the truth."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from reliev3r.core.errors import UserError
from reliev3r.core.progress import Progress
from reliev3r.core.reconstruction import Reconstruction
from reliev3r.data.truth import Scene, TruthSource, load_truth
from reliev3r.evaluation.benchmarks import Benchmark
from reliev3r.evaluation.predictions import PredictionFailed, predict_cell
from reliev3r.evaluation.protocols import score
from reliev3r.evaluation.scores import Protocol, Scores
from reliev3r.evaluation.systems import System
from reliev3r.evaluation.tables import Result, Row, Table, failed_row, make_row


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


LONG_SIDE = 640
"""Longest side, in pixels, of the grid on which ``strict`` and ``pi3`` compare maps."""


def evaluate_reconstruction(
    reconstruction: Reconstruction, source: TruthSource | Path | str, protocol: Protocol = "strict"
) -> Scores:
    """Score a reconstruction against the ground truth of the scene (or capture folder) it was made from.

    The truth is looked up where the prediction's pixels lie in the original images (``reconstruction.regions``).

    Raises:
        UserError: the capture has no ground truth, or not for these frames, or its images have another size.
    """
    height, width = reconstruction.prediction.depth.shape[-2:]
    if protocol != "mapanything":
        longest = min(LONG_SIDE, round(float(reconstruction.regions[:, 2:].max())))
        scale = longest / max(height, width)
        height, width = max(1, round(height * scale)), max(1, round(width * scale))
    truth = load_truth(
        source,
        reconstruction.names,
        regions=reconstruction.regions,
        size=(height, width),
        image_sizes=reconstruction.sizes,
    )
    return score(
        reconstruction.prediction,
        truth,
        protocol,
        found=reconstruction.found,
        predicts_depth=reconstruction.predicts_depth,
    )

"""One system on one scene: predicted and kept, or loaded again where nothing changed, or failed with its last words."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from reliev3r.core.errors import UserError
from reliev3r.core.files import read_json, write_json
from reliev3r.core.progress import Progress
from reliev3r.core.reconstruction import Reconstruction
from reliev3r.data.capture import Capture
from reliev3r.data.truth import Scene, TruthSource, load_truth
from reliev3r.evaluation.benchmarks import Benchmark
from reliev3r.evaluation.protocols import score
from reliev3r.evaluation.scores import Protocol, Scores
from reliev3r.evaluation.systems import KNOWN, System, system_from_spec
from reliev3r.evaluation.tables import Result, Row, Table, failed_row, frames_hash, make_row

_log = logging.getLogger(__name__)
_LONGEST_WORDS = 400


class PredictionFailed(Exception):
    """A system failed on a scene; the message is one line."""


def cell_folder(out: Path, system: System, scene: str, capture: Capture) -> Path:
    """OUT/predictions/SYSTEM/SCENE/VIEWS-HASH: another list of frames is another folder, under any protocol."""
    return out / "predictions" / _as_folder(system.name) / _as_folder(scene) / _list_name(capture)


def predict_cell(
    system: System, fingerprint: dict[str, Any], scene: str, capture: Capture, out: Path
) -> Reconstruction:
    """The system's reconstruction of the capture: the kept one if system, frames and images are the same as then.

    What the system is (``fingerprint``), the frames and their images are hashed into the manifest. A failure is kept as
    ``failed.json`` for people to read; the next call tries again.

    Raises:
        PredictionFailed: the system failed, in whatever way.
    """
    folder = cell_folder(out, system, scene, capture)
    key = {"system": system.name, "fingerprint": fingerprint, "images": _images_hash(capture)}
    kept = _kept(folder, key)
    if kept is not None:
        return kept
    try:
        result = system.run(capture, folder)
        _check(result, capture)
    except Exception as error:  # one cell of the table: a system may fail in any way, and must not cost the others
        words = " ".join(f"{'' if isinstance(error, UserError) else f'{type(error).__name__}: '}{error}".split())
        words = words[:_LONGEST_WORDS] or type(error).__name__
        _log.debug("%s failed on %s", system.name, scene, exc_info=True)
        write_json(folder / "failed.json", {"system": system.name, "scene": scene, "last_words": words, **key})
        raise PredictionFailed(words) from error
    result = dataclasses.replace(result, meta={**result.meta, "cell": key})
    result.save(folder)
    (folder / "failed.json").unlink(missing_ok=True)
    return result


def _kept(folder: Path, key: dict[str, Any]) -> Reconstruction | None:
    if not (folder / "prediction.json").is_file():
        return None
    try:
        if read_json(folder / "prediction.json")["meta"].get("cell") != json.loads(json.dumps(key)):
            return None
        return Reconstruction.load(folder)
    except (UserError, KeyError, TypeError, AttributeError):  # damaged: predicted again
        return None


def _check(result: Reconstruction, capture: Capture) -> None:
    if result.names != capture.names:
        raise UserError("it reconstructed other frames than those of the list")
    if result.predicts_depth and not (
        result.prediction.depth.isfinite().all() and result.prediction.rays.isfinite().all()
    ):
        raise UserError("its depth or rays are not finite")


def _images_hash(capture: Capture) -> str:
    """Of names, sizes, intrinsics and lengths of the image files: tells a changed capture without reading pixels."""
    facts = [
        [
            frame.name,
            frame.width,
            frame.height,
            None if frame.K is None else frame.K.tolist(),
            frame.path.stat().st_size if frame.path.is_file() else None,
            None if frame.rectification is None else frame.rectification.lens,
        ]
        for frame in capture.frames
    ]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]


def _list_name(capture: Capture) -> str:
    return f"{len(capture.frames)}-{frames_hash(capture.names)}"


def _as_folder(name: str) -> str:
    """A folder's name; names that would clash after the change are told apart by their hash."""
    plain = re.sub(r"[^\w.@+-]+", "_", name).strip("._") or "x"
    return plain if plain == name else f"{plain[-80:]}-{hashlib.sha256(name.encode()).hexdigest()[:6]}"


def systems_from_specs(
    specs: Sequence[str], settings: Mapping[str, Mapping[str, Any]] | None = None, *, device: str = "auto"
) -> tuple[System, ...]:
    """Every system once, in the order given.

    Raises:
        UserError: none at all, or see :func:`~reliev3r.evaluation.systems.system_from_spec`.
    """
    if not specs:
        raise UserError(f"name at least one system to evaluate; {KNOWN}")
    return tuple(system_from_spec(spec, settings, device=device) for spec in dict.fromkeys(specs))


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

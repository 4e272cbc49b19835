"""Everything that a finished run hands to people and to other tools."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

from reliev3r.core.files import write_json
from reliev3r.core.reconstruction import Reconstruction
from reliev3r.data.capture import Capture
from reliev3r.evaluate.quality import Quality, assess
from reliev3r.export.cameras import write_cameras, write_transforms
from reliev3r.export.colmap import write_colmap
from reliev3r.export.glb import write_glb
from reliev3r.export.maps import write_maps
from reliev3r.export.points import write_ply
from reliev3r.labels.pipeline import CaptureLabels
from reliev3r.labels.prepare import Prepared
from reliev3r.report.html import write_report
from reliev3r.sfm.refine import RefineResult, refine_cameras
from reliev3r.train.metrics import read_metrics


def write_outputs(
    out: Path,
    reconstruction: Reconstruction,
    *,
    capture: Capture,
    labels: CaptureLabels,
    prepared: Prepared,
    quality: Quality,
    notes: list[str],
    settings: dict[str, Any],
    refine: bool,
) -> RefineResult | None:
    """Write prediction, cameras, maps, point clouds, COLMAP model, quality figures and the report into ``out``.

    With ``refine`` the refined reconstruction goes to ``refined/`` (its own cameras, points, COLMAP model) beside
    the network's, if held-out tracks do not speak against it; ``quality.json`` says what was decided and why.
    """
    tracks = labels.tracks.select_tracks(prepared.train_index)
    heldout = labels.tracks.select_tracks(prepared.heldout_index)
    reconstruction.save(out / "prediction")
    _write_formats(out, reconstruction, tracks, capture)
    write_maps(reconstruction, out / "depth")
    refined = None
    if refine:
        refined = refine_cameras(reconstruction, tracks, heldout, estimate_focal=prepared.views.K is None)
        notes.append(refined.reason)
        shutil.rmtree(out / "refined", ignore_errors=True)  # of an earlier refinement
        if refined.kept:
            refined.reconstruction.save(out / "refined")
            _write_formats(out / "refined", refined.reconstruction, tracks, capture)
    figures: dict[str, Any] = {"network": dataclasses.asdict(quality)}
    if refined is not None:
        figures["refined"] = {
            "kept": refined.kept,
            "reason": refined.reason,
            **(dataclasses.asdict(assess(refined.reconstruction.prediction, prepared.heldout)) if refined.kept else {}),
        }
    write_json(out / "quality.json", {**figures, "notes": notes, "meta": reconstruction.meta})
    write_report(
        out / "report.html",
        reconstruction=reconstruction,
        refined=refined.reconstruction if refined is not None and refined.kept else None,
        tracks=tracks,
        heldout=heldout,
        label_depth=prepared.raw_depth if bool(prepared.labels.depth.valid.any()) else None,
        metrics=read_metrics(out / "metrics.jsonl"),
        photograph=capture.image,
        quality=dataclasses.asdict(quality),
        scores=None,
        notes=notes,
        settings=settings,
    )
    return refined


def _write_formats(folder: Path, reconstruction: Reconstruction, tracks: Any, capture: Capture) -> None:
    write_cameras(reconstruction, folder / "cameras.json")
    write_ply(reconstruction, folder / "scene.ply")
    write_glb(reconstruction, folder / "scene.glb")
    write_colmap(reconstruction, tracks, folder / "sparse" / "0")
    write_transforms(reconstruction, folder / "transforms.json", capture=capture.root, points="scene.ply")

"""Everything that a finished run hands to people and to other tools."""

from __future__ import annotations

import dataclasses
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reliev3r.core.files import write_json
from reliev3r.core.reconstruction import Reconstruction
from reliev3r.data.capture import Capture
from reliev3r.evaluation.heldout_quality import Quality, assess
from reliev3r.export.write import ARRAYS, MAPS, VIEW, write_folder
from reliev3r.labels.pipeline import CaptureLabels
from reliev3r.labels.prepare import Prepared
from reliev3r.report.html import write_report
from reliev3r.sfm.refine import RefineResult, refine_cameras
from reliev3r.training.monitor import read_metrics


@dataclass(frozen=True, kw_only=True, eq=False)
class Fitted:
    """One capture after training: what every output is made of."""

    capture: Capture
    labels: CaptureLabels
    prepared: Prepared
    """What was trained on, and which tracks were held out."""
    reconstruction: Reconstruction
    """The network's last word."""
    quality: Quality
    """Of the reconstruction, by the held-out tracks."""
    notes: tuple[str, ...]
    """Warnings and choices, in plain language."""
    settings: dict[str, Any]
    """Of the run, as plain values."""


def write_outputs(out: Path, fitted: Fitted, *, refine: bool) -> RefineResult | None:
    """Write prediction, cameras, maps, point clouds, COLMAP model, quality figures and the report into ``out``.

    With ``refine`` the refined reconstruction goes to ``refined/`` (its own cameras, points, COLMAP model) beside
    the network's, if held-out tracks do not speak against it; ``quality.json`` says what was decided and why, as does
    the result's ``reason``.
    """
    prepared, reconstruction, root = fitted.prepared, fitted.reconstruction, fitted.capture.root
    tracks = fitted.labels.tracks.select_tracks(prepared.train_index)
    heldout = fitted.labels.tracks.select_tracks(prepared.heldout_index)
    reconstruction.save(out / "prediction")
    write_folder(reconstruction, tracks, out, capture=root, without=[ARRAYS])  # ``prediction/`` holds the arrays
    refined, notes = None, list(fitted.notes)
    if refine:
        refined = refine_cameras(reconstruction, tracks, heldout, estimate_focal=prepared.views.K is None)
        notes.append(refined.reason)
        shutil.rmtree(out / "refined", ignore_errors=True)  # of an earlier refinement
        if refined.kept:  # the maps are the network's own
            refined.reconstruction.save(out / "refined")
            write_folder(refined.reconstruction, tracks, out / "refined", capture=root, without=[ARRAYS, MAPS])
    figures: dict[str, Any] = {"network": dataclasses.asdict(fitted.quality)}
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
        photograph=fitted.capture.image,
        quality=dataclasses.asdict(fitted.quality),
        scores=None,
        notes=notes,
        settings=fitted.settings,
        look=VIEW,
    )
    return refined

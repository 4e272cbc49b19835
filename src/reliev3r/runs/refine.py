"""The verb ``refine``: bundle adjustment of the cameras of a finished fit."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from reliev3r.core.errors import UserError
from reliev3r.core.files import read_json, refuse_links_out
from reliev3r.core.progress import Report, silent
from reliev3r.core.reconstruction import Reconstruction
from reliev3r.core.settings import from_plain, to_plain
from reliev3r.data.find_captures import CaptureTask
from reliev3r.evaluation.heldout_quality import Quality
from reliev3r.labels.prepare import prepare_capture
from reliev3r.labels.store import load_labels
from reliev3r.runs.fit import finished_run
from reliev3r.runs.outputs import Fitted, write_outputs
from reliev3r.sfm.refine import RefineResult
from reliev3r.training.captures import labelled_capture


def refine_run(run: Path, *, report: Report | None = None) -> RefineResult:
    """Refine the cameras that ``fit`` predicted, as ``fit --refine`` does, and write everything anew.

    Where held-out tracks do not disagree, the refined cameras lie on top from then on; nothing is trained.

    Raises:
        UserError: ``run`` is no finished fit, or its images or labels are gone.
    """
    report = report or silent
    refuse_links_out(run)
    told = finished_run(run)
    if not (run / "quality.json").is_file():
        raise UserError(f"{run}: is not finished; go on with `reliev3r fit {told.capture} --out {run} --resume`")
    stored, quality = _judged(run / "quality.json")
    task = CaptureTask(name=told.labels.name, path=told.capture, out=told.labels.resolve())
    capture = labelled_capture(task)
    reconstruction = dataclasses.replace(Reconstruction.load(run / "prediction"), capture=capture)
    labels = load_labels(told.labels, capture)
    patch = _patch_size(run / "checkpoint" / "config.json")
    split_only = dataclasses.replace(told.config.prepare, solve=False, register=False)
    prepared = prepare_capture(capture, labels, split_only, patch=patch)
    before = (stored.get("refined") or {}).get("reason")
    fitted = Fitted(
        capture=capture, labels=labels, prepared=prepared, reconstruction=reconstruction,
        quality=quality,
        notes=tuple(note for note in stored["notes"] if note != before), settings=to_plain(told.config),
    )  # fmt: skip
    result, _ = write_outputs(run, fitted, refine=True, report=report)
    assert result is not None  # it was asked for
    return result


def _judged(file: Path) -> tuple[dict[str, Any], Quality]:
    """What ``quality.json`` says, and of it the network's quality."""
    stored = read_json(file)
    parts = (stored.get("network"), stored.get("refined") or {}) if isinstance(stored, dict) else (None,)
    notes = stored.get("notes") if isinstance(stored, dict) else None
    if not all(isinstance(part, dict) for part in parts) or not isinstance(notes, list):
        raise UserError(f"{file}: damaged; go on with `reliev3r fit ... --resume`, which writes it anew")
    if not all(isinstance(note, str) for note in notes):
        raise UserError(f"{file}: damaged: its notes are no sentences; restore it")
    return stored, from_plain(Quality, stored["network"], source=str(file))


def _patch_size(file: Path) -> int:
    told = read_json(file)
    patch = told.get("patch_size") if isinstance(told, dict) else None
    if isinstance(patch, bool) or not isinstance(patch, int) or not 1 <= patch <= 64:
        raise UserError(f"{file}: describes no network of reliev3r; restore it")
    return patch

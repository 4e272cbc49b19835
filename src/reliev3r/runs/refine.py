"""The verb ``refine``: bundle adjustment of the cameras of a finished fit."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from reliev3r.core.errors import UserError
from reliev3r.core.files import read_json
from reliev3r.core.progress import Report, silent
from reliev3r.core.reconstruction import Reconstruction
from reliev3r.core.settings import to_plain
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
    told = finished_run(run)
    if not (run / "quality.json").is_file():
        raise UserError(f"{run}: is not finished; go on with `reliev3r fit {told.capture} --out {run} --resume`")
    stored = read_json(run / "quality.json")
    report("refine", 0, 1, "bundle adjustment of the tracks")
    task = CaptureTask(name=told.labels.name, path=told.capture, out=told.labels.resolve())
    capture = labelled_capture(task)
    reconstruction = dataclasses.replace(Reconstruction.load(run / "prediction"), capture=capture)
    labels = load_labels(told.labels, capture)
    patch = read_json(run / "checkpoint" / "config.json")["patch_size"]
    split_only = dataclasses.replace(told.config.prepare, solve=False, register=False)
    prepared = prepare_capture(capture, labels, split_only, patch=patch)
    before = stored.get("refined", {}).get("reason")
    fitted = Fitted(
        capture=capture, labels=labels, prepared=prepared, reconstruction=reconstruction,
        quality=Quality(**{**stored["network"], "alarms": tuple(stored["network"]["alarms"])}),
        notes=tuple(note for note in stored["notes"] if note != before), settings=to_plain(told.config),
    )  # fmt: skip
    result, _ = write_outputs(run, fitted, refine=True)
    report("refine", 1, 1, "")
    assert result is not None  # it was asked for
    return result

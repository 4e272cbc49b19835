"""An adaptation, looked at: what the network made of a capture before it, and what it makes of it now."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import torch

from reliev3r.core.errors import UserError
from reliev3r.core.files import read_json
from reliev3r.core.reconstruction import Reconstruction
from reliev3r.data.capture import Capture
from reliev3r.data.find_captures import CaptureTask, find_captures
from reliev3r.export.write import only_views
from reliev3r.geometry.align import align_cameras
from reliev3r.geometry.sampling import evenly_spaced
from reliev3r.model.predict import reconstruct_capture
from reliev3r.runs.view.shown import Shown
from reliev3r.training.captures import labelled_capture

BEFORE, AFTER, ASIDE = "before the adaptation", "after it", "after it (kept aside: not judged better)"
_VIEWS = 8
"""Of the capture, evenly spaced: both networks look at them together."""


def adapted_run(folder: Path) -> dict[str, Any] | None:
    """What ``config.json`` says of an adaptation; ``None`` where the folder is something else.

    Raises:
        UserError: it is of an adaptation and damaged, or of another version.
    """
    if not (folder / "config.json").is_file():
        return None
    config = read_json(folder / "config.json")
    ours = isinstance(config, dict) and str(config.get("format", "")).startswith("reliev3r-adapt/")
    if not ours:
        return None
    try:
        int(config["settings"]["prepare"]["image_size"]), Path(config["footage"]), config["model"]
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{folder / 'config.json'}: is not of `reliev3r adapt` of this version; adapt again") from error
    return config


def shown_adaptation(folder: Path, config: dict[str, Any], wanted: Path | None) -> Shown:
    """Both networks' predictions of a capture; the later one is moved onto the earlier one's cameras.

    Args:
        folder: of the run.
        config: what :func:`adapted_run` gave.
        wanted: one of the captures that the run adapted to; by default its first.

    Raises:
        UserError: nothing has been judged yet, no such capture, or too few views whose cameras both networks know.
    """
    kept = folder / "checkpoint"
    checkpoint = kept if kept.is_dir() else folder / "rejected" / "checkpoint"
    if not checkpoint.is_dir():
        raise UserError(f"{checkpoint}: not found; the adaptation is not finished (a run at work: --live)")
    scene = _capture(folder, config, wanted)
    size = int(config["settings"]["prepare"]["image_size"])  # the one that both were judged at
    before = reconstruct_capture(scene, str(config["model"]), image_size=size)
    after = reconstruct_capture(scene, checkpoint, image_size=size)
    both = _found(before) & _found(after)
    if int(both.sum()) < 2:
        raise UserError(
            f"{scene.root}: fewer than two views whose cameras both networks know; choose another --capture"
        )
    index = both.nonzero()[:, 0].tolist()
    before, after = only_views(before, index), only_views(after, index)
    versions = {BEFORE: before, (AFTER if checkpoint == kept else ASIDE): _moved_onto(after, before)}
    title = f"{folder.name}: {Path(scene.root).name}"
    return Shown(title=title, versions=versions, photograph=lambda _, view: scene.image(index[view]))


def _capture(folder: Path, config: dict[str, Any], wanted: Path | None) -> Capture:
    footage, store = Path(config["footage"]), Path(config["settings"].get("labels") or folder / "labels")
    alone = CaptureTask(name=store.name, path=footage, out=store.resolve())
    tasks = {task.path.resolve(): task for task in find_captures(footage, store) or [alone]}
    if wanted is not None and wanted.resolve() not in tasks:
        raise UserError(f"{wanted}: the run did not adapt to it; --capture takes one of: {', '.join(map(str, tasks))}")
    scene = labelled_capture(next(iter(tasks.values())) if wanted is None else tasks[wanted.resolve()])
    return dataclasses.replace(scene, frames=tuple(evenly_spaced(scene.frames, _VIEWS)))


def _found(reconstruction: Reconstruction) -> torch.Tensor:
    found = reconstruction.found
    return torch.ones(len(reconstruction.names), dtype=torch.bool) if found is None else found.cpu()


def _moved_onto(source: Reconstruction, target: Reconstruction) -> Reconstruction:
    """The same reconstruction in the frame and the unit of another one of the same views."""
    prediction = source.prediction
    poses = prediction.world_from_cam.double()
    scale, rotation, shift = align_cameras(poses, target.prediction.world_from_cam.double())
    moved = poses.clone()
    moved[:, :3, :3] = rotation @ poses[:, :3, :3]
    moved[:, :3, 3] = scale * poses[:, :3, 3] @ rotation.T + shift
    changed = dataclasses.replace(prediction, world_from_cam=moved.float(), depth=prediction.depth * float(scale))
    return dataclasses.replace(source, prediction=changed)

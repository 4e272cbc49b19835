"""What there is to look at: of a finished run, of a capture's labels, or in a GLB."""

from __future__ import annotations

import logging
from pathlib import Path

import torch

from reliev3r.core.errors import UserError
from reliev3r.core.reconstruction import Reconstruction
from reliev3r.core.types import Prediction
from reliev3r.data.capture import Capture
from reliev3r.data.find_captures import CaptureTask
from reliev3r.export.write import found_views
from reliev3r.geometry.camera import ray_map
from reliev3r.labels.prepare import PrepareConfig, Prepared, prepare_capture, split_tracks
from reliev3r.labels.store import CaptureLabels, load_labels
from reliev3r.runs.fit import finished_run
from reliev3r.runs.show import depth_on_grid, labels_of
from reliev3r.runs.view.adaptation import adapted_run, shown_adaptation
from reliev3r.runs.view.glb import read_glb
from reliev3r.runs.view.shown import Shown, originals
from reliev3r.training.captures import labelled_capture

_log = logging.getLogger(__name__)
NETWORK, REFINED, SOLVED = "as predicted", "refined", "solved from the tracks"
_LABEL_SIZE = 224
"""Long side of the maps that labels alone are shown at."""


def open_shown(path: Path, capture: Path | None = None) -> Shown:
    """Whatever lies at ``path``.

    Args:
        path: the folder of a finished fit or adaptation, one with a kept prediction (``evaluate --out`` has them), a
            folder of labels or a store of them, or a GLB.
        capture: the images that labels were made of, or which one of an adaptation's captures.

    Raises:
        UserError: nothing of that kind, damaged files, or labels without their images.
    """
    if path.suffix.lower() == ".glb":
        return Shown(title=path.name, glb=read_glb(path))
    if (path / "prediction" / "prediction.json").is_file():
        return _run(path)
    if (path / "prediction.json").is_file():
        reconstruction, _ = found_views(Reconstruction.load(path), None)
        return Shown(title=path.name, versions={NETWORK: reconstruction})
    if (config := adapted_run(path)) is not None:
        return shown_adaptation(path, config, capture)
    if (path / "manifest.json").is_file() or (path / "store.json").is_file():
        return _labels(path, capture)
    raise UserError(f"{path}: nothing to look at; name the folder of a finished fit or adaptation, labels, a store, or "
                    "a .glb (a run that is still at work: --live)")  # fmt: skip


def _run(folder: Path) -> Shown:
    versions = {NETWORK: Reconstruction.load(folder / "prediction")}
    if (folder / "refined" / "prediction.json").is_file():
        versions[REFINED] = Reconstruction.load(folder / "refined")
    try:
        told = finished_run(folder)
        capture = labelled_capture(CaptureTask(name=folder.name, path=told.capture, out=told.labels.resolve()))
        labels = load_labels(told.labels, capture, check="size")
    except UserError as error:
        _log.warning("without tracks and pseudo depth: %s", error)
        return Shown(title=folder.name, versions=versions)
    train, heldout = split_tracks(labels.tracks, told.config.prepare.heldout)
    return Shown(
        title=folder.name, versions=versions, tracks=labels.tracks.select_tracks(train),
        heldout=labels.tracks.select_tracks(heldout),
        photograph=originals(capture),
        label_depth=depth_on_grid(labels, capture, versions[NETWORK]),
    )  # fmt: skip


def _labels(place: Path, capture: Path | None) -> Shown:
    if capture is None:
        raise UserError(f"{place}: labels do not say where their images are; add --capture IMAGES")
    folder = labels_of(capture, place)
    scene = labelled_capture(CaptureTask(name=capture.name, path=capture.resolve(), out=folder.resolve()))
    labels = load_labels(folder, scene, check="size")
    prepared = prepare_capture(scene, labels, PrepareConfig(image_size=_LABEL_SIZE, heldout=0), patch=2)
    return shown_labels(scene, labels, prepared)


def shown_labels(capture: Capture, labels: CaptureLabels, prepared: Prepared) -> Shown:
    """The cameras that are solved from the tracks, and the expert's depth bent to the solved points.

    Raises:
        UserError: no cameras could be solved.
    """
    pseudo, cameras = prepared.labels, prepared.labels.cameras
    K = prepared.views.K if pseudo.K is None else pseudo.K
    if cameras is None or K is None:
        why = "; ".join(prepared.notes) or "too few matches"
        raise UserError(f"{labels.folder}: no cameras could be solved from these labels ({why})")
    known = pseudo.depth.valid & (pseudo.depth.depth > 0)
    depth = torch.where(known, pseudo.depth.depth, torch.ones(()))
    height, width = depth.shape[-2:]
    reconstruction = Reconstruction(
        prediction=Prediction(
            depth=depth, rays=ray_map(K, height, width).float(), conf=known.float(),
            world_from_cam=cameras.world_from_cam.float(),
        ),
        names=capture.names,
        image_files=tuple(frame.file for frame in capture.frames),
        image=(prepared.views.image.movedim(-3, -1) * 255).round().to(torch.uint8),
        sizes=tuple((frame.width, frame.height) for frame in capture.frames),
        regions=prepared.regions,
        predicts_depth=bool(known.any()),
        meta={"system": "labels"},
    )  # fmt: skip
    return Shown(
        title=f"labels of {Path(capture.root).name}", versions={SOLVED: reconstruction}, tracks=labels.tracks,
        label_depth=None if prepared.raw_depth is None else prepared.raw_depth.numpy(), known=known.numpy(),
        photograph=originals(capture),
    )  # fmt: skip

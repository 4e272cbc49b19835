"""One capture, from raw images to a trained network, cameras, depth, points and a report - without annotation."""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch

from reliev3r.data.capture import Capture, load_capture
from reliev3r.data.intrinsics import is_expert_spec, with_intrinsics
from reliev3r.errors import UserError
from reliev3r.evaluate.quality import Quality, assess, heldout_angles
from reliev3r.files import file_hash, read_json, write_json
from reliev3r.labels.depth.registry import depth_expert
from reliev3r.labels.fov import resolve_intrinsics
from reliev3r.labels.pipeline import CaptureLabels, label_capture
from reliev3r.labels.prepare import PrepareConfig, Prepared, prepare_capture
from reliev3r.labels.quality import check_labels, quality_of
from reliev3r.labels.tracks.registry import track_expert
from reliev3r.losses.loss import Loss
from reliev3r.losses.objective import ObjectiveConfig, objective
from reliev3r.model.network import PRESETS, Reliev3R, set_initial_focal
from reliev3r.model.precision import resolve_precision
from reliev3r.model.pretrained import brings_sizes, initial_network, load_network
from reliev3r.outputs import write_outputs
from reliev3r.reconstruct import predict
from reliev3r.reconstruction import Reconstruction
from reliev3r.settings import from_plain, refuse_changes, to_plain
from reliev3r.train.batches import BatchConfig, CaptureBatches
from reliev3r.train.config import TrainConfig
from reliev3r.train.loop import TrainResult, train
from reliev3r.types import Prediction, PseudoLabels

logger = logging.getLogger(__name__)

Report = Callable[[str, float, float, str], None]
"""(stage, done, total, what): the command line draws it."""


@dataclass(frozen=True, kw_only=True)
class FitConfig(TrainConfig):
    """Settings of ``reliev3r fit``; those of the training loop are its own."""

    depth: str = "depth-anything-v2-small"
    """Depth expert: depth-anything-v2-small[:DIR], depth-pro[:DIR], moge-2[:FILE or DIR], onnx:FILE, folder:PATH,
    folder-disparity:PATH, simulated (synthetic captures only), none; `reliev3r experts` says more."""
    tracks: str = "sift"
    """Track expert."""
    intrinsics: str | None = None
    """FILE, fov:DEG (horizontal), exif, expert (the depth expert's field of view), expert:EXPERT, or estimate; by
    default cameras.json, else EXIF, else estimate."""
    views: int | None = None
    """Use this many images, evenly spaced; of a video at most that many frames, by motion and sharpness."""
    preset: Literal["tiny", "small", "base", "large"] = "tiny"
    init: str = "random"
    """random; the folder of a checkpoint or pi3:PATH_OR_ID (their own sizes replace the preset); dinov2:PATH (the
    encoder) or vggt:PATH (encoder and decoder), the rest random in the preset's sizes (docs/weights.md)."""
    force: bool = False
    """Train even on labels that were judged unusable (labels/quality.json says why they were)."""
    refine: bool = False
    """Polish the cameras by bundle adjustment of the tracks (pycolmap); kept beside the network's own."""
    prepare: PrepareConfig = field(default_factory=PrepareConfig)
    objective: ObjectiveConfig = field(
        default_factory=lambda: ObjectiveConfig(depth_weight=10.0, tracks_weight=10.0, teacher_weight=10.0)
    )
    """Tracks weigh more than the paper's 0.5 (their unit is the radian), and alpha is in units of the median depth, not
    of the deviation; docs/method.md has the measured balance."""
    teacher_until: float = 0.8
    """Share of the run at which the handover from the teacher (cameras and depths solved from the same tracks) to the
    tracks themselves ends; it begins at half of it."""
    teacher_floor: float = 0.5
    """What of the teacher stays to the end. At 0 the paper's losses have the last word; where depth is poor and the
    cameras look inwards, they then drift along the bas-relief valley (docs/method.md)."""
    batch: BatchConfig = field(default_factory=BatchConfig)


@dataclass(frozen=True, kw_only=True)
class FitResult:
    """What ``fit`` hands back (all of it is in the run's folder too)."""

    folder: Path
    reconstruction: Reconstruction
    quality: Quality
    training: TrainResult
    notes: tuple[str, ...]
    """Warnings and choices, in plain language."""


def fit(
    capture_path: Path, out: Path, config: FitConfig, *, resume: bool = False, report: Report | None = None
) -> FitResult | None:
    """Label a capture, train a network on the labels alone, and write everything a user needs to ``out``.

    Returns ``None`` after Ctrl-C (a checkpoint was saved; ``resume`` goes on).

    Raises:
        UserError: bad input, unusable labels, or an ``out`` that holds something else.
    """
    report = report or (lambda stage, done, total, what: None)
    config = without_hidden_tracks(_checked_settings(out, capture_path, config, resume=resume))
    capture = load_capture(capture_path, views=config.views, cache=out, progress=_staged(report, "frames"))
    if not is_expert_spec(config.intrinsics):
        capture = with_intrinsics(capture, config.intrinsics)
    if not resume:  # bad input leaves nothing behind
        run = {"format": "reliev3r-run/1", "capture": str(capture_path.resolve()), "settings": to_plain(config)}
        write_json(out / "config.json", run)
    depth, tracks = depth_expert(config.depth), track_expert(config.tracks)
    if is_expert_spec(config.intrinsics):  # runs a network and stores its depth
        capture = resolve_intrinsics(
            capture, config.intrinsics, depth=depth, out=out / "labels", progress=_staged(report, "intrinsics")
        )
    labels = label_capture(capture, depth=depth, tracks=tracks, out=out / "labels", progress=_staged(report, "labels"))
    notes = [*check_labels(labels.tracks, capture.names), *_judged(out / "labels", capture, force=config.force)]
    model = _network(config, known_intrinsics=capture.has_K)
    report("prepare", 0, 1, "solving cameras from tracks")
    prepared = prepare_capture(
        capture, labels, config.prepare, patch=model.config.patch_size, progress=_staged(report, "prepare")
    )
    report("prepare", 1, 1, "")
    notes += prepared.notes
    if prepared.focal_over_width is not None and not brings_sizes(config.init):
        set_initial_focal(model, prepared.focal_over_width)
    for note in notes:
        logger.warning(note)
    training = train_prepared(model, prepared, config, out, resume=resume, report=report)
    if not training.finished:
        return None
    model.save_pretrained(out / "checkpoint")
    reconstruction = _reconstruction(model, capture, labels, prepared, config, training, out)
    quality = assess(reconstruction.prediction, prepared.heldout)
    notes += list(quality.alarms)
    report("outputs", 0, 1, "writing cameras, points and the report")
    write_outputs(
        out, reconstruction, capture=capture, labels=labels, prepared=prepared, quality=quality, notes=notes,
        settings=to_plain(config), refine=config.refine,
    )  # fmt: skip
    report("outputs", 1, 1, "")
    return FitResult(folder=out, reconstruction=reconstruction, quality=quality, training=training, notes=tuple(notes))


def _judged(labels: Path, capture: Capture, *, force: bool) -> list[str]:
    """What is weak about the labels; unusable ones are refused before any training, unless by ``force``."""
    quality = quality_of(labels, capture)
    if quality.verdict == "unusable" and not force:
        reason = quality.sentences[0]
        raise UserError(f"{capture.root}: its labels are unusable: {reason} (--force trains all the same)")
    said = {"parts", "few"}  # by check_labels, with names
    return [text for finding, text in zip(quality.findings, quality.sentences) if finding.code not in said]


def _checked_settings(out: Path, capture_path: Path, config: FitConfig, *, resume: bool) -> FitConfig:
    """Refuse a folder that holds something else; on resume take the run's own settings. Writes nothing."""
    path = out / "config.json"
    if resume:
        if not path.is_file():
            raise UserError(f"{path}: not found, so there is no run to resume; drop --resume")
        stored = read_json(path)
        if Path(stored["capture"]) != capture_path.resolve():
            raise UserError(f"{path}: this run was fitted to {stored['capture']}; choose another --out")
        kept = from_plain(FitConfig, stored["settings"], source=str(path))
        refuse_changes(kept, config, FitConfig(), source=str(path))
        return kept
    unstarted = path.is_file() and not (out / "training").exists()  # it failed before training: labels are reused
    if out.exists() and not unstarted and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out}: not an empty folder; choose another --out, or --resume the run in it")
    return config


def _network(config: FitConfig, *, known_intrinsics: bool) -> Reliev3R:
    if brings_sizes(config.init):
        model = load_network(config.init)
        if not known_intrinsics and model.config.fov == "none" and model.config.shape == "depth":
            raise UserError(f"{config.init}: this checkpoint predicts no field of view; give --intrinsics")
        return model
    torch.manual_seed(config.seed)
    sizes = PRESETS[config.preset]
    return initial_network(config.init, sizes if known_intrinsics else dataclasses.replace(sizes, fov="shared"))


def teacher_share(progress: float, config: FitConfig) -> float:
    """1 in the first half of ``teacher_until``, then linearly down to ``teacher_floor``."""
    until, floor = config.teacher_until, config.teacher_floor
    left = min(1.0, max(0.0, 2 * (until - progress) / until)) if until > 0 else 0.0
    return floor + (1 - floor) * left


def without_hidden_tracks(config: FitConfig) -> FitConfig:
    """Teacher and registered depth are made of tracks, so a run that weighs tracks by 0 gets neither."""
    if config.objective.tracks_weight > 0:
        return config
    return dataclasses.replace(
        config,
        objective=dataclasses.replace(config.objective, teacher_weight=0.0),
        prepare=dataclasses.replace(config.prepare, register=False),
    )


def train_prepared(
    model: Reliev3R, prepared: Prepared, config: FitConfig, out: Path, *, resume: bool, report: Report
) -> TrainResult:
    """The weak objective over this capture, with the teacher fading out."""
    settings = config.objective
    if prepared.views.K is None and settings.reprojection.form == "angle":
        settings = dataclasses.replace(
            settings, reprojection=dataclasses.replace(settings.reprojection, form="focal_angle")
        )

    def weak(prediction: Prediction, labels: PseudoLabels, progress: float) -> Loss:
        return objective(prediction, labels, settings, teacher=teacher_share(progress, config))

    def evaluate(network: torch.nn.Module) -> dict[str, float]:
        prediction = predict(network, prepared.views)
        angles = heldout_angles(prediction, prepared.heldout)
        return {"heldout_deg": float(angles.median()) if angles.numel() else 0.0}

    batches = CaptureBatches(prepared.views, prepared.labels, config.batch, seed=config.seed)
    return train(
        model, weak, batches, config, folder=out, resume=resume,
        evaluate=evaluate, progress=lambda done, total, what: report("train", done, total, what),
    )  # fmt: skip


def _reconstruction(
    model: Reliev3R, capture: Capture, labels: CaptureLabels, prepared: Prepared, config: FitConfig,
    training: TrainResult, out: Path,
) -> Reconstruction:  # fmt: skip
    """The network's last word on its own capture, in the precision in which ``reconstruct`` will repeat it."""
    bf16 = resolve_precision(config.precision, next(model.parameters()).device) == "bf16"
    return Reconstruction(
        prediction=predict(model, prepared.views, bf16=bf16),
        names=capture.names,
        image_files=tuple(frame.file for frame in capture.frames),
        image=(prepared.views.image.movedim(-3, -1) * 255).round().to(torch.uint8),
        sizes=tuple((frame.width, frame.height) for frame in capture.frames),
        regions=prepared.regions,
        meta={
            "system": f"reliev3r fit ({config.preset if config.init == 'random' else config.init})",
            "checkpoint_sha256": file_hash(out / "checkpoint" / "model.safetensors"),
            "precision": "bf16" if bf16 else "float32",
            "intrinsics": capture.K_source or "estimated",
            "labels": json.loads(json.dumps(labels.fingerprints)),
            "steps": training.steps,
            "seconds": round(training.seconds, 1),
        },
    )


def _staged(report: Report, stage: str) -> Callable[[int, int, str], None]:
    return lambda done, total, what: report(stage, done, total, what)

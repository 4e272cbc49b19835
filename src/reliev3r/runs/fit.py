"""One capture, from raw images to a trained network, cameras, depth, points and a report - without annotation.

What training gives is the network. Within a minute of CPU time its cameras are as good as the pseudo cameras that
teach it, and its depth is no better than what ``reconstruct`` sweeps without training (docs/results/fit.md).
"""

from __future__ import annotations

import dataclasses
import json
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from math import inf
from pathlib import Path
from typing import Literal

import torch

from reliev3r.core.cameras_json import refuse_unwritable_name
from reliev3r.core.device import resolve_device, resolve_precision
from reliev3r.core.errors import UserError
from reliev3r.core.files import file_hash, read_json
from reliev3r.core.progress import Report, silent, staged
from reliev3r.core.reconstruction import Reconstruction
from reliev3r.core.settings import from_plain, require, to_plain
from reliev3r.core.types import CameraLabels, Loss, Prediction, PseudoLabels
from reliev3r.data.capture import Capture, load_capture
from reliev3r.data.find_captures import CaptureTask
from reliev3r.data.intrinsics import is_expert_spec, with_intrinsics
from reliev3r.evaluation.heldout_quality import Quality, assess
from reliev3r.evaluation.metrics import pair_errors
from reliev3r.geometry.sampling import evenly_spaced
from reliev3r.labels.estimate_intrinsics import resolve_intrinsics
from reliev3r.labels.pipeline import CaptureLabels, label_capture
from reliev3r.labels.prepare import PrepareConfig, Prepared, prepare_capture
from reliev3r.labels.quality.assess import quality_of
from reliev3r.labels.quality.label_verdict import check_labels
from reliev3r.labels.registry import depth_expert, track_expert
from reliev3r.labels.store import load_labels, refuse_other_images
from reliev3r.losses.tracks import heldout_angles, heldout_depths
from reliev3r.losses.weak import ObjectiveConfig, objective
from reliev3r.model.heads import set_initial_focal
from reliev3r.model.load import RANDOM, Model, initial_network, load_model
from reliev3r.model.network import PRESETS, Reliev3R
from reliev3r.model.predict import predict, refuse_not_finite
from reliev3r.runs.more_time import ended_early, last_third, no_longer_pays
from reliev3r.runs.outputs import Fitted, write_outputs
from reliev3r.runs.run_folder import Resume, RunFolder, absolute, start_of
from reliev3r.solve.loops import loop_pairs
from reliev3r.training.batches import BatchConfig, CaptureBatches
from reliev3r.training.captures import labelled_capture
from reliev3r.training.config import TrainConfig
from reliev3r.training.loop import TrainResult, train
from reliev3r.training.monitor import read_metrics
from reliev3r.training.schedule import teacher_share, weak_settings

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class FitConfig(TrainConfig):
    """Settings of ``reliev3r fit``; those of the training loop are its own."""

    depth: str = "depth-anything-v2-small"
    """Depth expert: depth-anything-v2-small[:DIR], depth-pro[:DIR], moge-2[:FILE or DIR], moge-3[:FILE or DIR] (on a
    GPU), onnx:FILE, folder:PATH, folder-disparity:PATH, simulated (synthetic captures only), none;
    `reliev3r experts` says more."""
    tracks: str = "sift"
    """Track expert."""
    intrinsics: str | None = None
    """FILE, fov:DEG (horizontal), exif, expert (the depth expert's field of view), expert:EXPERT, or estimate; by
    default cameras.json, else EXIF, else estimate."""
    views: int | None = None
    """Use this many images, evenly spaced; of a video at most that many frames, by motion and sharpness."""
    preset: Literal["tiny", "small", "base", "large"] = "tiny"
    model: str = "random"
    """The network to start from: random, the folder of a checkpoint, or pi3:PATH_OR_ID; the latter bring their own
    sizes instead of --preset (docs/weights.md)."""
    init_from: str | None = None
    """Weights for a part of a random network: dinov2:PATH (the encoder) or vggt:PATH (encoder and decoder)."""
    labels: str | None = None
    """Folder of labels that `reliev3r label` made of this capture; by default they are made, into RUN/labels."""
    force: bool = False
    """Train even on labels that were judged unusable (labels/quality.json says why they were)."""
    refine: bool = False
    """Polish the cameras by bundle adjustment of the tracks (pycolmap); kept beside the network's own."""
    copy_images: bool = False
    """RUN/images holds copies of the photographs, not hard links to them: the run stands alone, and a tool that changes
    an image there changes no photograph."""
    full_time: bool = False
    """Train for all of ``minutes``; without it they are the most, and training ends by itself where evaluations on
    held-out tracks say that more time no longer pays. Of no meaning where ``steps`` are given: those are kept to."""
    prepare: PrepareConfig = field(default_factory=PrepareConfig)
    objective: ObjectiveConfig = field(
        default_factory=lambda: ObjectiveConfig(depth_weight=2.2, tracks_weight=10.0, teacher_weight=10.0, doubt=10.0)
    )
    """Tracks weigh more than the paper's 0.5 (their unit is the radian), and W hears of the views' contradictions
    (registered labels hide them from it); docs/method.md and docs/results/confidence.md have the measured balance."""
    teacher_until: float = 0.8
    """Share of the run at which the handover from the teacher (cameras and depths solved from the same tracks) to the
    tracks themselves ends; it begins at half of it."""
    teacher_floor: float = 0.5
    """What of the teacher stays to the end. At 0 the paper's losses have the last word; where depth is poor and the
    cameras look inwards, they then drift along the bas-relief valley (docs/results/ablation.md)."""
    batch: BatchConfig = field(default_factory=BatchConfig)

    def __post_init__(self) -> None:
        """Settings that cannot work are told at once."""
        super().__post_init__()
        require(self, views=(2, inf), teacher_until=(0, inf), teacher_floor=(0, 1))


@dataclass(frozen=True, kw_only=True)
class FitResult:
    """What ``fit`` hands back (all of it is in the run's folder too)."""

    folder: Path
    reconstruction: Reconstruction
    quality: Quality
    training: TrainResult
    notes: tuple[str, ...]
    """Warnings and choices, in plain language."""

    @cached_property
    def model(self) -> Model:
        """The trained network, in evaluation mode; read from the run's checkpoint when it is first asked for."""
        return load_model(self.folder / "checkpoint")


def fit(
    capture: Capture | Path, out: Path, config: FitConfig, *, resume: Resume = False, report: Report | None = None
) -> FitResult | None:
    """Label a capture, train a network on the labels alone, and write everything a user needs to ``out``.

    A capture that is open already keeps its frames and intrinsics, unless ``config`` says others. After Ctrl-C it
    returns ``None`` (a checkpoint was saved; ``resume`` goes on, ``auto`` starts where there is nothing to go on with).

    Raises:
        UserError: bad input, unusable labels, or an ``out`` that holds something else.
    """
    place = capture.root if isinstance(capture, Capture) else capture
    run = RunFolder(path=out, verb="fit", inputs={"capture": str(place.resolve())})
    with run.held():
        return _fit(capture, run, config, resume=run.goes_on(resume), report=report or silent)


def _fit(
    capture: Capture | Path, run: RunFolder, config: FitConfig, *, resume: bool, report: Report
) -> FitResult | None:
    place, out = capture.root if isinstance(capture, Capture) else capture, run.path
    config = dataclasses.replace(config, labels=absolute(config.labels))
    config = without_hidden_tracks(run.settings(config, FitConfig(), resume=resume))
    resolve_device(config.device)  # one that is not there is told before anything is made
    begin = (lambda: None) if resume else (lambda: run.begin(config))  # bad input leaves nothing behind
    if config.labels is None:
        capture, labels = _label(capture, out, config, begin, report, resume=resume)
    else:
        capture, labels = _given_labels(place, config, begin)
    folder = labels_folder(out, config)
    notes = [*check_labels(labels.tracks, capture.names), *_judged(folder, capture, force=config.force)]
    model = _network(config, known_intrinsics=capture.has_K)
    facts = _facts(capture, labels, config)
    model.describe(image_size=config.prepare.image_size, precision=config.precision, facts=facts)
    report("prepare", 0, 1, "solving cameras from tracks")
    prepared = prepare_capture(
        capture, labels, config.prepare, patch=model.config.patch_size, progress=staged(report, "prepare")
    )
    report("prepare", 1, 1, "")
    notes += prepared.notes
    if prepared.focal_over_width is not None and config.model == RANDOM:
        set_initial_focal(model.camera_head, prepared.focal_over_width)
    for note in notes:
        logger.warning(note)
    training = train_prepared(model, prepared, config, out, resume=resume, report=report)
    if not training.finished:
        return None
    model.save_pretrained(out / "checkpoint")
    reconstruction = _reconstruction(model, capture, labels, prepared, config, training, out)
    quality = assess(reconstruction.prediction, prepared.heldout)
    model.facts["Measured on held-out tracks, without ground truth"] = quality.summary
    model.write_card(out / "checkpoint")
    notes += [*quality.alarms, *last_third(read_metrics(out / "metrics.jsonl"))]
    notes += [ended_early(training.ending, config.minutes)] if training.ending is not None else []
    fitted = Fitted(
        capture=capture, labels=labels, prepared=prepared, reconstruction=reconstruction, quality=quality,
        notes=tuple(notes), settings=to_plain(config),
    )  # fmt: skip
    notes += write_outputs(out, fitted, refine=config.refine, report=report)[1]
    return FitResult(folder=out, reconstruction=reconstruction, quality=quality, training=training, notes=tuple(notes))


@dataclass(frozen=True, kw_only=True)
class FinishedRun:
    """What a run's ``config.json`` says."""

    capture: Path
    labels: Path
    config: FitConfig


def finished_run(folder: Path) -> FinishedRun:
    """Read what a finished ``fit`` was told.

    Raises:
        UserError: the folder holds no run of this version.
    """
    run = read_json(folder / "config.json")
    if not isinstance(run, dict) or not isinstance(run.get("capture"), str) or "settings" not in run:
        raise UserError(f"{folder / 'config.json'}: is not of `reliev3r fit`; name the folder that fit wrote")
    if not os.path.isabs(run["capture"]):  # as fit writes it
        raise UserError(
            f"{folder / 'config.json'}: its capture {run['capture'][:80]!r} is no absolute path; restore it"
        )
    refuse_unwritable_name(run["capture"], folder / "config.json")
    config = from_plain(FitConfig, run["settings"], source=str(folder / "config.json"))
    return FinishedRun(capture=Path(run["capture"]), labels=labels_folder(folder, config), config=config)


def labels_folder(out: Path, config: FitConfig) -> Path:
    """Where the labels of a run are."""
    return out / "labels" if config.labels is None else Path(config.labels)


def _open(capture: Capture | Path, config: FitConfig, out: Path, report: Report) -> Capture:
    """The frames with their intrinsics, but for those that an expert is still to predict."""
    if not isinstance(capture, Capture):
        capture = load_capture(capture, views=config.views, cache=out, progress=staged(report, "frames"))
    else:
        capture = dataclasses.replace(capture, frames=tuple(evenly_spaced(capture.frames, config.views)))
        if config.intrinsics is None:
            return capture
    return capture if is_expert_spec(config.intrinsics) else with_intrinsics(capture, config.intrinsics)


def _label(
    capture: Capture | Path, out: Path, config: FitConfig, begin: Callable[[], None], report: Report, *, resume: bool
) -> tuple[Capture, CaptureLabels]:
    """The capture, and labels of it that are made or, after an interruption, completed."""
    capture = _open(capture, config, out, report)
    if resume and (out / "training").is_dir():
        refuse_other_images(out / "labels", capture)
    begin()
    depth, tracks = depth_expert(config.depth, device=config.device), track_expert(config.tracks, device=config.device)
    if is_expert_spec(config.intrinsics):  # runs a network and stores its depth
        capture = resolve_intrinsics(
            capture, config.intrinsics, depth=depth, out=out / "labels", device=config.device,
            progress=staged(report, "intrinsics"),
        )  # fmt: skip
    labels = label_capture(capture, depth=depth, tracks=tracks, out=out / "labels", progress=staged(report, "labels"))
    return capture, labels


def _given_labels(path: Path, config: FitConfig, begin: Callable[[], None]) -> tuple[Capture, CaptureLabels]:
    """The frames that were labelled, with the intrinsics that they were labelled with, and their labels."""
    folder, usual = Path(config.labels or ""), FitConfig()
    for name in ("depth", "tracks", "intrinsics", "views"):
        if getattr(config, name) != getattr(usual, name):
            raise UserError(f"--{name}: the labels in {folder} are made already; drop it, or drop --labels")
    capture = labelled_capture(CaptureTask(name=folder.name, path=path.resolve(), out=folder.resolve()))
    labels = load_labels(folder, capture)
    begin()
    return capture, labels


def _judged(labels: Path, capture: Capture, *, force: bool) -> list[str]:
    """What is weak about the labels; unusable ones are refused before any training, unless by ``force``."""
    quality = quality_of(labels, capture)
    if quality.verdict == "unusable" and not force:
        reason = quality.sentences[0]
        raise UserError(f"{capture.root}: its labels are unusable: {reason} (--force trains all the same)")
    said = {"parts", "few"}  # by check_labels, with names
    return [text for finding, text in zip(quality.findings, quality.sentences) if finding.code not in said]


def _network(config: FitConfig, *, known_intrinsics: bool) -> Reliev3R:
    torch.manual_seed(config.seed)
    sizes = PRESETS[config.preset]
    # The cameras of one capture are known from its tracks, and a head remembers them; solving is for other captures.
    sizes = dataclasses.replace(sizes, cameras="regressed")
    sizes = sizes if known_intrinsics else dataclasses.replace(sizes, fov="shared")
    model = initial_network(config.model, sizes, init_from=config.init_from)
    if not known_intrinsics and not model.predicts_intrinsics:
        raise UserError(f"{config.model}: this checkpoint predicts no field of view; give --intrinsics")
    return model


def _facts(capture: Capture, labels: CaptureLabels, config: FitConfig) -> dict[str, str]:
    """For the model card; the experts are those that made the labels, which may have been given."""
    experts = labels.fingerprints
    swept = " and swept under the pseudo cameras" if config.prepare.sweep else ""
    return {
        "Trained by": "`reliev3r fit`, without annotation",
        "Trained on": f"one capture, {capture.root.name} ({len(capture.frames)} images): it knows no other scene",
        "Labels": f"depth by {experts['depth']['name']}{swept}, tracks by {experts['tracks']['name']}, "
        f"intrinsics {capture.K_source or 'estimated'}",
        "Started from": start_of(config.model, config.init_from),
    }


def without_hidden_tracks(config: FitConfig) -> FitConfig:
    """Teacher, registered and swept depth are made of tracks, so a run that weighs tracks by 0 gets none of them."""
    if config.objective.tracks_weight > 0:
        return config
    return dataclasses.replace(
        config,
        objective=dataclasses.replace(config.objective, teacher_weight=0.0),
        prepare=dataclasses.replace(config.prepare, register=False, sweep=False),
    )


def train_prepared(
    model: Reliev3R, prepared: Prepared, config: FitConfig, out: Path, *, resume: bool, report: Report
) -> TrainResult:
    """The weak objective over this capture, with the teacher fading out."""
    settings = weak_settings(config.objective, hide_intrinsics=prepared.views.K is None)

    def weak(prediction: Prediction, labels: PseudoLabels, progress: float) -> Loss:
        until = config.teacher_until
        share = teacher_share(progress, since=0.5 * until, until=until, floor=config.teacher_floor)
        return objective(prediction, labels, settings, teacher=share)

    def evaluate(network: torch.nn.Module) -> dict[str, float]:
        prediction = predict(network, prepared.views)
        angles = heldout_angles(prediction, prepared.heldout)
        if not angles.numel():
            return {"heldout_deg": 0.0}
        depths = heldout_depths(prediction, prepared.heldout)
        found = {"heldout_deg": float(angles.median()), "heldout_depth": float(depths.median())}
        return found | _beside_teacher(prediction, prepared.labels.cameras)

    batches = CaptureBatches(prepared.views, prepared.labels, config.batch, seed=config.seed)
    return train(
        model, weak, batches, config, folder=out, resume=resume,
        evaluate=evaluate, enough=None if config.full_time else no_longer_pays, progress=staged(report, "train"),
    )  # fmt: skip


def _beside_teacher(prediction: Prediction, teacher: CameraLabels | None) -> dict[str, float]:
    """Median over pairs of views: degrees by which rotation or direction between them differ from the teacher's."""
    if teacher is None or int((solved := teacher.weight > 0).sum()) < 2:
        return {}
    own, its = prediction.world_from_cam[solved].double(), teacher.world_from_cam[solved].double()
    return {"teacher_deg": float(torch.maximum(*pair_errors(own, its, signed=True, seen="both")).median())}


def _reconstruction(
    model: Reliev3R, capture: Capture, labels: CaptureLabels, prepared: Prepared, config: FitConfig,
    training: TrainResult, out: Path,
) -> Reconstruction:  # fmt: skip
    """The network's last word on its own capture, in the precision in which ``reconstruct`` will repeat it."""
    bf16 = resolve_precision(config.precision, next(model.parameters()).device) == "bf16"
    prediction = predict(model, prepared.views, bf16=bf16, loops=loop_pairs(capture))
    refuse_not_finite(prediction, out / "checkpoint")
    if not prepared.labels.depth.valid.any():  # no depth taught W: as it is, it would be read as knowledge
        prediction = dataclasses.replace(prediction, conf=torch.ones_like(prediction.conf))
    return Reconstruction(
        prediction=prediction,
        capture=capture,
        names=capture.names,
        image_files=tuple(frame.file for frame in capture.frames),
        image=(prepared.views.image.movedim(-3, -1) * 255).round().to(torch.uint8),
        sizes=tuple((frame.width, frame.height) for frame in capture.frames),
        regions=prepared.regions,
        meta={
            "system": f"reliev3r fit ({config.preset if config.model == RANDOM else config.model})",
            "checkpoint_sha256": file_hash(out / "checkpoint" / "model.safetensors"),
            "precision": "bf16" if bf16 else "float32",
            "intrinsics": capture.K_source or "estimated",
            "labels": json.loads(json.dumps(labels.fingerprints)),
            "steps": training.steps,
            "seconds": round(training.seconds, 1),
        },
    )

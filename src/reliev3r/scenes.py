"""Training across scenes: a general network from many captures or rendered rooms, weakly or fully supervised."""

from __future__ import annotations

import dataclasses
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from reliev3r.annotated import AnnotatedScenes
from reliev3r.errors import UserError
from reliev3r.evaluate.protocol import score
from reliev3r.evaluate.quality import heldout_angles
from reliev3r.files import read_json, write_json
from reliev3r.labels.procrustes import with_pseudo_cameras
from reliev3r.losses.loss import Loss
from reliev3r.losses.objective import ObjectiveConfig, objective
from reliev3r.losses.supervised import supervised
from reliev3r.model.network import Reliev3R
from reliev3r.model.pretrained import initial_network
from reliev3r.reconstruct import predict
from reliev3r.settings import from_plain, refuse_changes, to_plain
from reliev3r.synthetic.experts import TrackNoise, simulate_tracks
from reliev3r.synthetic.stream import HELDOUT_SEEDS, SyntheticStream
from reliev3r.train.captures import LabelledCaptures, PreparedCapture
from reliev3r.train.loop import TrainResult, train
from reliev3r.train.recipes import ScenesConfig
from reliev3r.train.samples import SceneBatches, Source
from reliev3r.types import Prediction, PseudoLabels, Tracks, Truth, Views

logger = logging.getLogger(__name__)

Report = Callable[[str, float, float, str], None]
"""(stage, done, total, what): the command line draws it."""


@dataclass(frozen=True, kw_only=True)
class HeldoutScene:
    """Views that are never trained on, or whose tracks are not."""

    views: Views
    tracks: Tracks
    """They choose the checkpoint."""
    truth: Truth | None = None
    """Of rendered rooms and annotated scenes, for the figures beside them; it chooses nothing."""


def train_scenes(
    out: Path,
    config: ScenesConfig,
    *,
    resume: bool = False,
    recipe: ScenesConfig | None = None,
    report: Report | None = None,
) -> TrainResult:
    """Train a network across scenes; the checkpoint, its settings and the metrics go to ``out``.

    On ``resume`` the run's own settings hold, and what ``config`` changes of its ``recipe`` must agree with them.

    Raises:
        UserError: ``out`` holds something else, or a setting cannot work.
        TrainingStopped: the loss is not finite, or the prediction has collapsed.
    """
    report = report or (lambda stage, done, total, what: None)
    config = _checked_settings(out, config, recipe or config, resume=resume)
    model = network_of(config)
    sources, shares = _sources(config, model.config.patch_size, report)
    heldout = _heldout(config, model.config.patch_size, report)
    batches = SceneBatches(sources, shares, config.batch, seed=config.seed)
    result = train(
        model, objective_of(config), batches, config, folder=out, resume=resume,
        evaluate=lambda network: figures(network, heldout),
        progress=lambda done, total, what: report("train", done, total, what),
    )  # fmt: skip
    if result.finished and first_process():
        model.save_pretrained(out / "checkpoint")
    return result


def network_of(config: ScenesConfig) -> Reliev3R:
    """The network that a run starts from, the same for the same seed."""
    torch.manual_seed(config.seed)
    return initial_network(config.init, config.network)


def objective_of(config: ScenesConfig) -> Callable[[Prediction, Any, float], Loss]:
    """What a run descends; only the fully-supervised one accepts ground truth."""
    if config.supervision == "full":
        return lambda prediction, labels, progress: supervised(prediction, labels, config.supervised)
    settings = weak_settings(config.objective, hide_intrinsics=config.batch.hide_intrinsics)

    def weak(prediction: Prediction, labels: PseudoLabels, progress: float) -> Loss:
        share = teacher_share(progress, config.teacher_until)
        if settings.teacher_weight > 0 and share > 0 and labels.cameras is None:
            K = prediction.K.detach() if labels.K is None else labels.K
            labels = with_pseudo_cameras(labels, K, config.polish)
        return objective(prediction, labels, settings, teacher=share)

    return weak


def weak_settings(objective: ObjectiveConfig, *, hide_intrinsics: bool) -> ObjectiveConfig:
    """The weak objective where intrinsics may be hidden from the network: then angles are multiplied by the focal
    length, for a longer lens alone would shrink them."""
    if not hide_intrinsics or objective.reprojection.form != "angle":
        return objective
    return dataclasses.replace(
        objective, reprojection=dataclasses.replace(objective.reprojection, form="focal_angle")
    )  # fmt: skip


def teacher_share(progress: float, until: float) -> float:
    """Of the teacher's weight at ``progress`` in [0, 1]: falls linearly to 0 at ``until``."""
    return max(0.0, 1 - progress / until) if until > 0 else 0.0


def rooms(stream: SyntheticStream, count: int, *, views: int) -> list[HeldoutScene]:
    """Held-out rooms of the same distribution, at its full width, with exact tracks."""
    scenes = []
    for seed in range(HELDOUT_SEEDS, HELDOUT_SEEDS + count):
        seen, truth = stream.render(seed, views=views)
        tracks = simulate_tracks(truth, TrackNoise(count=128, pixel=0.0, false=0.0), seed)
        scenes.append(HeldoutScene(views=seen.to("cpu"), tracks=tracks.to("cpu"), truth=truth.to("cpu")))
    return scenes


def figures(model: nn.Module, scenes: list[HeldoutScene]) -> dict[str, float]:
    """Means over held-out scenes: the track angle (median in each); of those with truth AUC@30 strict and the rest."""
    angles, scores = [], []
    for scene in scenes:
        prediction = predict(model, scene.views)
        angle = heldout_angles(prediction, scene.tracks)
        if angle.numel():  # a scene without tracks judges nothing
            angles.append(angle.median())
        if scene.truth is not None:
            scores.append(score(prediction, scene.truth, "strict"))
    names = ("auc30", "rotation_median_deg", "translation_median_deg", "depth_rel") if scores else ()
    mean = {name: sum(float(getattr(each, name)) for each in scores) / len(scores) for name in names}
    return {**({"heldout_deg": float(torch.stack(angles).mean())} if angles else {}), **mean}


def _sources(config: ScenesConfig, patch: int, report: Report) -> tuple[list[Source], list[float]]:
    sources: list[Source] = []
    shares: list[float] = []
    if config.captures.data:
        found = LabelledCaptures(config.captures, patch=patch, progress=_staged(report, "captures"))
        sources.append(found)
        shares.append(1 - config.stream_weight)
    elif config.stream_weight < 1 and not config.annotated:
        raise UserError("no captures are given: add --captures.data IMAGES=STORE, or set --stream-weight 1")
    if config.annotated:
        logger.info("tracks of annotated scenes come from a SIMULATED matcher (projected ground truth made worse)")
        sources.append(_annotated(config, patch, report))
        shares.append(config.stream_weight or 1.0)  # as often as the rooms
    if config.stream_weight > 0:
        device = "cuda" if torch.cuda.is_available() else "cpu"
        sources.append(SyntheticStream(config.stream, supervision=config.supervision, device=device))
        shares.append(config.stream_weight)
        if config.supervision == "weak":
            logger.info("the rooms' pseudo-labels come from a SIMULATED expert (ground truth made worse)")
    return sources, shares


def _annotated(config: ScenesConfig, patch: int, report: Report, *, heldout: bool = False) -> AnnotatedScenes:
    noise = config.stream.track_noise
    return AnnotatedScenes(
        config.annotated, long_side=config.captures.prepare.image_size, patch=patch, heldout=heldout,
        share=config.captures.heldout, benchmark=config.captures.dl3dv_benchmark,
        tracks=dataclasses.replace(noise, pixel=0.0, false=0.0) if heldout else noise,
        progress=_staged(report, "annotated scenes"),
    )  # fmt: skip


def _heldout(config: ScenesConfig, patch: int, report: Report) -> list[HeldoutScene]:
    """Rendered rooms, annotated scenes that are never trained on, and captures likewise (where none is, the held-out
    tracks of the others)."""
    scenes: list[HeldoutScene] = []
    if config.stream_weight > 0:
        stream = SyntheticStream(config.stream, supervision=config.supervision)
        scenes += rooms(stream, config.heldout_scenes, views=config.batch.views[1])
    if config.captures.data:
        kept = LabelledCaptures(config.captures, patch=patch, heldout=True)
        whole = kept if len(kept) else LabelledCaptures(config.captures, patch=patch)
        for index in range(min(len(whole), config.heldout_scenes)):
            scenes.append(tracked_scene(whole.capture(index), 2 * config.batch.views[1]))
    if config.annotated:
        kept_scenes = _annotated(config, patch, report, heldout=True)
        for index in range(min(len(kept_scenes), config.heldout_scenes)):
            views, labels = kept_scenes.whole(index, views=config.batch.views[1])
            scenes.append(HeldoutScene(views=views, tracks=labels.tracks, truth=labels.truth))
    return without_intrinsics(scenes) if config.batch.hide_intrinsics else scenes


def tracked_scene(capture: PreparedCapture, most: int) -> HeldoutScene:
    """At most this many frames of a capture, evenly spread, and its held-out tracks."""
    count = min(len(capture.views.image), most)
    chosen = torch.linspace(0, len(capture.views.image) - 1, count).round().long()
    return HeldoutScene(views=capture.views.select_views(chosen), tracks=capture.heldout.select_views(chosen))


def without_intrinsics(scenes: list[HeldoutScene]) -> list[HeldoutScene]:
    """The same, for networks that are not shown K."""
    return [dataclasses.replace(scene, views=dataclasses.replace(scene.views, K=None)) for scene in scenes]


def first_process() -> bool:
    """Whether this process is the one that writes (torchrun and accelerate launch number them)."""
    return os.environ.get("RANK", "0") == "0"


def _staged(report: Report, stage: str) -> Callable[[int, int, str], None]:
    return lambda done, total, what: report(stage, done, total, what)


def _checked_settings(out: Path, config: ScenesConfig, recipe: ScenesConfig, *, resume: bool) -> ScenesConfig:
    path = out / "config.json"
    if resume:
        if not path.is_file():
            raise UserError(f"{path}: not found, so there is no run to resume; drop --resume")
        kept = from_plain(ScenesConfig, read_json(path)["settings"], source=str(path))
        refuse_changes(kept, config, recipe, source=str(path))
        return kept
    if first_process():
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise UserError(f"{out}: not an empty folder; choose another --out, or --resume the run in it")
        write_json(path, {"format": "reliev3r-training/1", "settings": to_plain(config)})
    return config

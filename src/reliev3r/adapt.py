"""Adapting a pretrained network to footage, from frames alone; it is handed over only if held-out frames say so."""

from __future__ import annotations

import copy
import dataclasses
import logging
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from torch import nn

from reliev3r.acceptance import HeldoutCapture, JudgeConfig, Verdict, gather_evidence, judge, write_verdict_page
from reliev3r.data.capture import load_capture
from reliev3r.data.intrinsics import with_intrinsics
from reliev3r.errors import UserError
from reliev3r.estimate import Estimate, estimate_training
from reliev3r.files import atomic_directory, read_json, write_json
from reliev3r.labels.prepare import PrepareConfig
from reliev3r.labels.scale import CaptureTask, LabelJob, find_captures, label_store
from reliev3r.labels.scale.local import LocalPool
from reliev3r.labels.scale.worker import label_path
from reliev3r.losses.anchor import anchor_loss
from reliev3r.losses.loss import Loss
from reliev3r.losses.objective import ObjectiveConfig, objective
from reliev3r.losses.reprojection import scene_factor, track_geometry
from reliev3r.model.foreign import base_hash, load_adaptable, patch_size, predicts_intrinsics, trunk
from reliev3r.model.lora import Lora, LoraConfig, train_last
from reliev3r.reconstruct import predict
from reliev3r.scenes import HeldoutScene, figures, first_process
from reliev3r.settings import from_plain, refuse_changes, to_plain
from reliev3r.train.captures import CapturesConfig, LabelledCaptures, PreparedCapture, usable_captures
from reliev3r.train.config import TrainConfig
from reliev3r.train.loop import Batches, TrainResult, is_head, train
from reliev3r.train.overlap import CurriculumConfig
from reliev3r.train.samples import SceneBatchConfig, SceneBatches
from reliev3r.types import Prediction, PseudoLabels, Tracks, Views, _Tensors

logger = logging.getLogger(__name__)

Report = Callable[[str, float, float, str], None]
"""(stage, done, total, what): the command line draws it."""


@dataclass(frozen=True, kw_only=True)
class AdaptConfig(TrainConfig):
    """Settings of ``reliev3r adapt``; those of the training loop are its own."""

    minutes: float = 20.0
    lr: float = 1e-4
    """For LoRA; give a tenth of it or less where the network's own weights are trained (--train last, all)."""
    warmup: float = 0.05
    heads_from: float = 0.2
    weight_decay: float = 0.01
    evaluate_every: float = 0.25
    train: Literal["lora", "last", "all"] = "lora"
    """Low-rank adapters on the attention projections; the ``last`` blocks and the heads; or everything."""
    lora: LoraConfig = field(default_factory=LoraConfig)
    last: int = 4
    """Blocks before the heads that --train last opens."""
    anchor: float = 0.0
    """Weight of staying near the original network's predictions on the same views: log depth ratio and relative poses.
    Costs a second forward pass a step (and, but for LoRA, a second copy of the weights)."""
    labels: str | None = None
    """Folder of labels that `reliev3r label` wrote, or is to be written; OUT/labels unless given. Captures that have
    none are labelled first, by the experts below."""
    depth: str = "depth-anything-v2-small"
    """Depth expert, as of `reliev3r label`."""
    tracks: str = "sift"
    """Track expert."""
    intrinsics: str | None = None
    """FILE, fov:DEG (horizontal), exif, expert, expert:EXPERT, or estimate."""
    views: int | None = None
    """Of each capture."""
    device: str = "cpu"
    """Of the experts: cpu or cuda."""
    workers: int = 1
    """Processes that label many captures."""
    prepare: PrepareConfig = field(default_factory=lambda: PrepareConfig(image_size=224))
    sample_tracks: int = 512
    """Tracks of a sample."""
    heldout_every: int = 10
    """Every how manieth frame of a capture is never trained on; with the held-out tracks these frames judge."""
    batch: SceneBatchConfig = field(
        default_factory=lambda: SceneBatchConfig(views=(2, 8), images=8, curriculum=CurriculumConfig(until=0.0))
    )
    """Intrinsics are hidden wherever the network predicts them."""
    objective: ObjectiveConfig = field(
        default_factory=lambda: ObjectiveConfig(depth_weight=1.0, tracks_weight=5.0, teacher_weight=1.0, fov_weight=1.0)
    )
    teacher_until: float = 1.0
    """Share of the run at which the handover from the pseudo cameras to the tracks themselves ends; 0: tracks alone."""
    judged: int = 12
    """Most captures that the verdict looks at, evenly chosen."""
    replay: tuple[str, ...] = ()
    """IMAGES=STORE pairs of other scenes, as of `reliev3r label`: the verdict says how far predictions moved there."""


@dataclass(frozen=True, kw_only=True)
class AdaptResult:
    """What ``adapt`` hands back; all of it is in the run's folder too."""

    verdict: Verdict
    checkpoint: Path
    """RUN/checkpoint where the verdict is ``better``, else RUN/rejected/checkpoint."""
    estimate: Estimate | None
    """``None`` where several processes trained."""
    training: TrainResult


def adapt(
    model: str,
    footage: Path,
    out: Path,
    config: AdaptConfig,
    *,
    resume: bool = False,
    report: Report | None = None,
    announce: Callable[[Estimate], None] | None = None,
) -> AdaptResult | None:
    """Fine-tune a network on footage without annotation, and judge it on frames and tracks that it never saw.

    Args:
        model: a checkpoint's folder or ``pi3:``, ``vggt:``, ``mapanything:``, ``da3:`` and where the weights are; what
            is there is never written to.
        footage: a capture (folder of images or video), a folder of captures, or a .txt file that lists captures.
        out: where everything goes.
        config: all settings; on ``resume`` the run's own hold.
        resume: go on with the interrupted run in ``out``.
        report: hears of the progress.
        announce: hears what memory and time the training needs, before it starts.

    Returns ``None`` after Ctrl-C (a checkpoint was saved; ``resume`` goes on), and in processes that do not write.

    Raises:
        UserError: bad input, unusable labels, or an ``out`` that holds something else.
        TrainingStopped: the loss is not finite, or the prediction has collapsed.
    """
    report = report or _silent
    config = _checked_settings(out, model, footage, config, resume=resume)
    network = load_adaptable(model)
    config = _with_hidden_intrinsics(config, network)
    pair = _labelled(footage, out, config, report)
    captures = _prepared((pair,), config, patch_size(network), report)
    config = _with_fitting_samples(config, captures)
    scenes = _scenes(captures, config)
    unit = network_unit(network, scenes)
    adaptation = Adaptation(network, config)
    batches = adaptation.batches(SceneBatches([captures], [1.0], config.batch, seed=config.seed))
    weak = weak_objective(config, unit=unit)
    estimate = None
    if _alone():
        network.to(_device())
        estimate = estimate_training(network, weak, batches, config, frozen_copy=adaptation.original)
        (announce or _announce)(estimate)
    training = train(
        network, weak, batches, dataclasses.replace(config, best=""), folder=out, resume=resume,
        evaluate=lambda trained: figures(trained, scenes),
        progress=lambda done, total, what: report("train", done, total, what),
    )  # fmt: skip
    if not training.finished or not first_process():
        return None
    report("verdict", 0, 1, "before and after on held-out frames and tracks")
    with atomic_directory(out / "rejected") as unjudged:  # until it is judged, and if this process dies
        adapted = adaptation.hand_over(unjudged)
    del network, adaptation, batches
    verdict = _judged(model, adapted, pair, captures, config, out)
    write_json(out / "verdict.json", {**to_plain(verdict), "base_sha256": base_hash(model)})
    checkpoint = _placed(out, verdict)
    report("verdict", 1, 1, verdict.verdict)
    return AdaptResult(verdict=verdict, checkpoint=checkpoint, estimate=estimate, training=training)


class Adaptation:
    """What of a network is trained, and the network as it was before."""

    def __init__(self, network: nn.Module, config: AdaptConfig) -> None:
        self.network, self.config = network, config
        self.original = copy.deepcopy(network).eval() if config.anchor > 0 and config.train != "lora" else None
        self.lora = Lora(network, config.lora, seed=config.seed) if config.train == "lora" else None
        if config.train == "last":
            heads = {name for name, _ in network.named_parameters() if is_head(name)}
            train_last(network, trunk(network), config.last, heads)

    def batches(self, batches: SceneBatches) -> Batches:
        """The same, with what the original network predicts where the run is anchored to it."""
        if self.config.anchor <= 0:
            return batches

        def anchored(step: int, progress: float, micro: int) -> tuple[Views, Any]:
            views, labels = batches(step, progress, micro)
            assert isinstance(labels, PseudoLabels)
            return views, AnchoredLabels(labels=labels, original=self.before(views))

        return anchored

    @torch.no_grad()
    def before(self, views: Views) -> Prediction:
        """What the network predicted before it was adapted; on its device."""
        with self._as_it_was() as network:
            training = network.training
            network.eval()
            prediction: Prediction = network(views.to(next(network.parameters()).device))
            network.train(training)
        return prediction

    @contextmanager
    def _as_it_was(self) -> Iterator[nn.Module]:
        if self.original is not None:
            yield self.original.to(next(self.network.parameters()).device)
        elif self.lora is not None:
            with self.lora.off():
                yield self.network
        else:
            raise ValueError("only an anchored run keeps the original network")

    def hand_over(self, folder: Path) -> nn.Module:
        """Write ``checkpoint`` (a whole network) and, of LoRA, ``adapter`` to ``folder``; the network, merged."""
        if self.lora is not None:
            self.lora.save(folder / "adapter")
            self.network = self.lora.merge()
        self.network.cpu().save_pretrained(folder / "checkpoint")  # type: ignore[operator]
        return self.network


@dataclass(frozen=True, kw_only=True)
class AnchoredLabels(_Tensors):
    """Labels of a batch, and what the original network says of it."""

    labels: PseudoLabels
    original: Prediction

    _AXES: ClassVar[dict[str, dict[str, int]]] = {}

    @property
    def tracks(self) -> Tracks:
        """Of the labels."""
        return self.labels.tracks


def weak_objective(
    config: AdaptConfig, *, unit: float = 1.0
) -> Callable[[Prediction, PseudoLabels | AnchoredLabels, float], Loss]:
    """The weak objective in units of ``unit``, and the anchor. A pretrained network keeps its own unit of length: the
    gauge, which would pull it to 1, asks for ``unit`` instead."""
    settings = config.objective
    if config.batch.hide_intrinsics and settings.reprojection.form == "angle":
        settings = dataclasses.replace(
            settings, reprojection=dataclasses.replace(settings.reprojection, form="focal_angle")
        )

    def weak(prediction: Prediction, labels: PseudoLabels | AnchoredLabels, progress: float) -> Loss:
        teacher = max(0.0, 1 - progress / config.teacher_until) if config.teacher_until > 0 else 0.0
        pseudo = labels.labels if isinstance(labels, AnchoredLabels) else labels
        loss = objective(in_unit(prediction, unit), pseudo, settings, teacher=teacher)
        if not isinstance(labels, AnchoredLabels):
            return loss
        anchor = anchor_loss(prediction.to(torch.float32), labels.original)
        return Loss(total=loss.total + config.anchor * anchor, parts={**loss.parts, "anchor": anchor})

    return weak


def in_unit(prediction: Prediction, unit: float) -> Prediction:
    """The same scene, its lengths divided by ``unit``."""
    pose = prediction.world_from_cam
    scaled = torch.cat([pose[..., :3, :3], pose[..., :3, 3:] / unit], dim=-1)
    return dataclasses.replace(
        prediction,
        depth=prediction.depth / unit,
        world_from_cam=torch.cat([scaled, pose[..., 3:, :]], dim=-2),
    )


def network_unit(network: nn.Module, scenes: list[HeldoutScene]) -> float:
    """The median, over captures, of the mean distance from cameras to tracked points as a network predicts them."""
    factors = []
    for scene in scenes:
        if bool(scene.tracks.visible.any()):
            geometry = track_geometry(predict(network, scene.views), scene.tracks)
            factors.append(scene_factor(geometry.points_cam, scene.tracks))
    return float(torch.stack(factors).median()) if factors else 1.0


def _labelled(footage: Path, out: Path, config: AdaptConfig, report: Report) -> str:
    """Label the captures that have no labels; the IMAGES=STORE pair of all."""
    store = Path(config.labels) if config.labels else out / "labels"
    found = find_captures(footage, store)
    alone = CaptureTask(name=store.name, path=footage.resolve(), out=store.resolve())
    missing = [task for task in found or [alone] if not (task.out / "manifest.json").is_file()]
    if missing and not _alone():
        raise UserError(
            f"{store}: {len(missing)} captures have no labels; run `reliev3r label {footage} --out LABELS` first, and "
            "give all processes --labels LABELS"
        )
    job = LabelJob(
        depth=config.depth, tracks=config.tracks, intrinsics=config.intrinsics, views=config.views,
        device=config.device,
    )  # fmt: skip
    if missing and found is None:
        label_path(alone, job, job.experts(alone), lambda done, total, what: report("labels", done, total, what))
    elif missing:
        index = label_store(missing, store, job, lambda: LocalPool(job, min(config.workers, len(missing))),
                            report=report)  # fmt: skip
        failed = [task.name for task in missing if index[task.name]["state"] != "done"]
        if failed:
            logger.warning("%d captures could not be labelled, %s for one; left out", len(failed), failed[0])
    return f"{footage}={store}"


def _prepared(pairs: tuple[str, ...], config: AdaptConfig, patch: int, report: Report) -> LabelledCaptures:
    return LabelledCaptures(
        CapturesConfig(
            data=pairs, prepare=config.prepare, tracks=config.sample_tracks, heldout=0.0,
            heldout_frames=config.heldout_every,
        ),
        patch=patch, progress=lambda done, total, what: report("prepare", done, total, what),
    )  # fmt: skip


def _all_of(captures: LabelledCaptures) -> list[PreparedCapture]:
    return [captures.capture(index) for index in range(len(captures))]


def _with_fitting_samples(config: AdaptConfig, captures: LabelledCaptures) -> AdaptConfig:
    """Samples of no more views than the smallest capture has to train on."""
    if not len(captures):
        raise UserError("no capture has known or estimated intrinsics; give --intrinsics")
    sizes = {each.name: len(each.trained_views(config.heldout_every)) for each in _all_of(captures)}
    name, smallest = min(sizes.items(), key=lambda item: item[1])
    if smallest < 2:
        raise UserError(f"{name}: has {smallest} views to train on, at least 2 are needed; leave it out")
    low, high = (min(views, smallest) for views in config.batch.views)
    if (low, high) != tuple(config.batch.views):
        logger.info("%s has %d views to train on: samples have %d to %d", name, smallest, low, high)
    return dataclasses.replace(config, batch=dataclasses.replace(config.batch, views=(low, high)))


def _with_hidden_intrinsics(config: AdaptConfig, network: nn.Module) -> AdaptConfig:
    hide = config.batch.hide_intrinsics or predicts_intrinsics(network)
    return dataclasses.replace(config, batch=dataclasses.replace(config.batch, hide_intrinsics=hide))


def _scenes(captures: LabelledCaptures, config: AdaptConfig) -> list[HeldoutScene]:
    """Frames and held-out tracks of a few captures: what the log says of a run, and the network's unit of length."""
    scenes = []
    for capture in _some(_all_of(captures), 8):
        count = min(len(capture.views.image), 2 * config.batch.views[1])
        chosen = torch.linspace(0, len(capture.views.image) - 1, count).round().long()
        views = capture.views.select_views(chosen)
        if config.batch.hide_intrinsics:
            views = dataclasses.replace(views, K=None)
        scenes.append(HeldoutScene(views=views, tracks=capture.heldout.select_views(chosen)))
    return scenes


def _judged(
    model: str, adapted: nn.Module, pair: str, captures: LabelledCaptures, config: AdaptConfig, out: Path
) -> Verdict:
    """Against the base, read again from its file."""
    before = load_adaptable(model)
    heldout = _evidence(pair, captures, config, trained=True)
    replay = [
        each
        for other in config.replay
        for each in _evidence(other, _prepared((other,), config, captures.patch, _silent), config, trained=False)
    ]
    before, adapted = before.to(_device()).eval(), adapted.to(_device()).eval()
    settings = JudgeConfig(views=max(config.batch.views[1], 4))
    verdict = judge(before, adapted, heldout, replay, settings)
    write_verdict_page(out / "report.html", verdict, before, adapted, heldout, settings)
    return verdict


def _evidence(pair: str, captures: LabelledCaptures, config: AdaptConfig, *, trained: bool) -> list[HeldoutCapture]:
    """Matches found anew in the images of some captures; ``trained``: they have held-out frames and tracks."""
    tasks = {task.name: task for task in usable_captures(pair)}
    gathered = []
    for prepared in _some(_all_of(captures), config.judged):
        task = tasks[prepared.name]
        capture = with_intrinsics(load_capture(task.path, cache=task.out), None)
        gathered.append(
            gather_evidence(
                capture, long_side=config.prepare.image_size, patch=captures.patch,
                frames=prepared.heldout_views(config.heldout_every) if trained else (),
                labels=prepared.heldout if trained else None,
                hide_intrinsics=config.batch.hide_intrinsics, name=prepared.name,
            )
        )  # fmt: skip
    return gathered


def _some(items: list[PreparedCapture], count: int) -> list[PreparedCapture]:
    if len(items) <= count:
        return items
    return [items[index] for index in torch.linspace(0, len(items) - 1, count).round().long().tolist()]


def _placed(out: Path, verdict: Verdict) -> Path:
    """What was judged better becomes the run's result; anything else stays aside."""
    for name in ("checkpoint", "adapter"):
        if (out / name).exists():  # of a verdict that no longer holds
            shutil.rmtree(out / name)
        if verdict.verdict == "better" and (out / "rejected" / name).exists():
            os.replace(out / "rejected" / name, out / name)
    if verdict.verdict != "better":
        return out / "rejected" / "checkpoint"
    shutil.rmtree(out / "rejected")
    return out / "checkpoint"


def _checked_settings(out: Path, model: str, footage: Path, config: AdaptConfig, *, resume: bool) -> AdaptConfig:
    """Refuse a folder that holds something else; on resume take the run's own settings."""
    path = out / "config.json"
    run = {"format": "reliev3r-adaptation/1", "model": model, "model_sha256": base_hash(model),
           "footage": str(footage.resolve())}  # fmt: skip
    if resume:
        if not path.is_file():
            raise UserError(f"{path}: not found, so there is no run to resume; drop --resume")
        stored = read_json(path)
        for name in ("footage", "model_sha256"):
            if stored[name] != run[name]:
                what = f"{stored['model']} to {stored['footage']}"
                raise UserError(
                    f"{path}: this run adapts {what}, which was not given or has changed; choose another --out"
                )
        kept = from_plain(AdaptConfig, stored["settings"], source=str(path))
        refuse_changes(kept, config, AdaptConfig(), source=str(path))
        return kept
    unstarted = path.is_file() and not (out / "training").exists()  # it failed before training: labels are reused
    if out.exists() and not unstarted and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out}: not an empty folder; choose another --out, or --resume the run in it")
    if first_process():
        write_json(path, {**run, "settings": to_plain(config)})
    return config


def _alone() -> bool:
    return os.environ.get("WORLD_SIZE", "1") == "1"


def _announce(estimate: Estimate) -> None:
    logger.info("%s", estimate.to_text())


def _device() -> torch.device:
    found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return found or torch.device("cpu")


def _silent(stage: str, done: float, total: float, what: str) -> None:
    return None

"""Training across scenes: a general network from many captures or rendered rooms, weakly or fully supervised."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from reliev3r.core.device import resolve_device
from reliev3r.core.errors import UserError
from reliev3r.core.many.local import Pool
from reliev3r.core.progress import Report, silent, staged
from reliev3r.core.types import Loss, Prediction, PseudoLabels, Views
from reliev3r.evaluation.protocols import strict_figures
from reliev3r.losses.full import supervised
from reliev3r.losses.weak import objective
from reliev3r.model.load import RANDOM, initial_network
from reliev3r.model.network import Reliev3R
from reliev3r.runs.run_folder import Resume, RunFolder, first_process, process_count, start_of
from reliev3r.sfm.batched import with_pseudo_cameras
from reliev3r.sfm.bundle_batched import PolishConfig
from reliev3r.synthetic.room_stream import StreamConfig, SyntheticStream
from reliev3r.training.batches import SceneBatches, Source, dealt_out
from reliev3r.training.captures import LabelledCaptures
from reliev3r.training.forecast import Estimate, estimate_training
from reliev3r.training.loop import TrainResult, train
from reliev3r.training.prepare_many import PrepareJob, prepare_captures
from reliev3r.training.recipes import ScenesConfig, captures_for
from reliev3r.training.schedule import teacher_share, weak_settings
from reliev3r.training.validation import HeldoutScene, figures, rooms, tracked_scene, without_intrinsics

if TYPE_CHECKING:
    from reliev3r.training.annotated import AnnotatedScenes

logger = logging.getLogger(__name__)


def train_scenes(
    out: Path,
    config: ScenesConfig,
    *,
    resume: Resume = False,
    recipe: ScenesConfig | None = None,
    report: Report | None = None,
    network: Callable[[ScenesConfig], Reliev3R] | None = None,
) -> TrainResult:
    """Train a network across scenes; the checkpoint, its settings and the metrics go to ``out``.

    On ``resume`` (``auto``: where there is a run to go on with) the run's own settings hold, and what ``config``
    changes of its ``recipe`` must agree with them. ``network`` makes another network than :func:`network_of` does; the
    same for the same settings.

    Raises:
        UserError: ``out`` holds something else, another process is at work in it, or a setting cannot work.
        TrainingStopped: the loss is not finite, or the prediction has collapsed.
    """
    run = RunFolder(path=out, verb="train", inputs={})
    with run.held():
        resumed = run.goes_on(resume)
        config = run.settings(config, recipe or config, resume=resumed)
        return _train(run, config, (network or network_of)(config), resumed, report or silent)


def _train(run: RunFolder, config: ScenesConfig, model: Reliev3R, resume: bool, report: Report) -> TrainResult:
    out = run.path
    resolve_device(config.device)
    scenes, accumulate = _dealt_out(config)
    if not resume:
        _warn_of_second_stage(config)
        run.begin(config)
    model.describe(image_size=image_size_of(config), precision=config.precision, facts=_facts(config))
    config = dataclasses.replace(config, captures=captures_for(config, model.config))
    batches = _batches(config, model.config.patch_size, scenes, report)
    heldout = _heldout(config, model.config.patch_size, report)
    result = train(
        model, objective_of(config), batches, dataclasses.replace(config, accumulate=accumulate), folder=out,
        resume=resume,
        evaluate=lambda network: figures(network, heldout, strict_figures),
        progress=staged(report, "train"),
    )  # fmt: skip
    if result.finished and first_process():
        model.facts |= {"Steps": f"{result.steps}", **_measured(result)}
        model.save_pretrained(out / "checkpoint")
    return result


def _warn_of_second_stage(config: ScenesConfig) -> None:
    """Weak labels alone are a poor first teacher of focal lengths: the paper fine-tunes a network that knows some."""
    if (
        config.supervision == "weak"
        and config.batch.hide_intrinsics
        and start_of(config.model, config.init_from) == "random weights"
    ):
        logger.warning(
            "intrinsics are hidden and the network starts from random weights: this is the second stage of the paper's "
            "section B; give the checkpoint of the first with --model"
        )


def forecast_scenes(config: ScenesConfig, *, report: Report | None = None) -> Estimate:
    """What such a training will cost, measured on one of its own batches; nothing is trained, no run is written.

    Captures are prepared for it, as the training would.

    Raises:
        UserError: a setting cannot work, or a batch does not fit on the device.
    """
    network = network_of(config).to(resolve_device(config.device))
    scenes, accumulate = _dealt_out(config)
    batches = _batches(config, network.config.patch_size, scenes, report or silent)
    return estimate_training(
        network, objective_of(config), batches, dataclasses.replace(config, accumulate=accumulate)
    )  # fmt: skip


def _dealt_out(config: ScenesConfig) -> tuple[int | None, int]:
    """(scenes of a batch, where the recipe says how many a step sees; batches of each process before a step)."""
    if config.scenes is None:
        return None, config.accumulate
    scenes, accumulate = dealt_out(config.scenes, process_count(), config.batch, accumulate=config.accumulate)
    logger.info("a step sees %d scenes: %d at a time, %d times on each of %d processes",
                config.scenes, scenes, accumulate, process_count())  # fmt: skip
    return scenes, accumulate


def _batches(config: ScenesConfig, patch: int, scenes: int | None, report: Report) -> SceneBatches:
    sources, shares = _sources(config, patch, report)
    return SceneBatches(sources, shares, config.batch, seed=config.seed, scenes=scenes)


def image_size_of(config: ScenesConfig) -> int:
    """Long side in pixels of what the network is trained on."""
    real = config.captures.data or config.annotated
    return config.captures.prepare.image_size if real else max(config.stream.height, config.stream.width)


def _facts(config: ScenesConfig) -> dict[str, str]:
    """For the model card."""
    data = [f"labelled captures {', '.join(config.captures.data)}"] if config.captures.data else []
    data += [f"scenes with ground truth {', '.join(config.annotated)}"] if config.annotated else []
    rooms = "rendered rooms (labels by a *simulated* expert)" if config.supervision == "weak" else "rendered rooms"
    data += [rooms] if config.stream_weight > 0 else []
    views = config.batch.views
    return {
        "Trained by": f"`reliev3r train`, {config.supervision} supervision"
        + (" (no ground truth was read)" if config.supervision == "weak" else " by ground truth"),
        "Trained on": "; ".join(data),
        "Started from": start_of(config.model, config.init_from),
        "Views of a sample": f"{views[0]} to {views[1]}",
        **({} if config.scenes is None else {"Scenes of a step": f"{config.scenes}, over all processes"}),
    }


def _measured(result: TrainResult) -> dict[str, str]:
    """On held-out scenes, of the best weights: those of the end are not measured on their own."""
    if result.best is None:
        return {}
    numbers = ", ".join(f"{name} {value:.3g}" for name, value in result.best.items())
    return {"Measured on held-out scenes, of the run's best weights (training/best)": numbers}


def network_of(config: ScenesConfig) -> Reliev3R:
    """The network that a run starts from, the same for the same seed."""
    torch.manual_seed(config.seed)
    return initial_network(config.model, config.network, init_from=config.init_from)


def prepare_scenes(
    config: ScenesConfig, open_pool: Callable[[PrepareJob, int], Pool], *, report: Report | None = None
) -> tuple[int, dict[str, str]]:
    """Prepare the captures of a run before it starts: how many there are, and why some could not be, by name.

    Raises:
        UserError: no captures are given, or none is usable.
    """
    if not config.captures.data:
        raise UserError("no captures are given: add --data IMAGES=STORE")
    network = config.network if config.model == RANDOM else network_of(config).config
    return prepare_captures(captures_for(config, network), network.patch_size, open_pool, report=report)


def objective_of(config: ScenesConfig) -> Callable[[Prediction, Any, float], Loss]:
    """What a run descends; only the fully-supervised one accepts ground truth."""
    if config.supervision == "full":
        return lambda prediction, labels, progress: supervised(prediction, labels, config.supervised)
    settings = weak_settings(config.objective, hide_intrinsics=config.batch.hide_intrinsics)

    def weak(prediction: Prediction, labels: PseudoLabels, progress: float) -> Loss:
        share = teacher_share(progress, until=config.teacher_until)
        needed = (settings.teacher_weight > 0 and share > 0) or not prediction.has_cameras
        if needed and labels.cameras is None:
            K = prediction.K.detach() if labels.K is None else labels.K
            labels = with_pseudo_cameras(labels, K, config.polish)
        return objective(prediction, labels, settings, teacher=share)

    return weak


def _sources(config: ScenesConfig, patch: int, report: Report) -> tuple[list[Source], list[float]]:
    sources: list[Source] = []
    shares: list[float] = []
    if config.captures.data:
        found = LabelledCaptures(config.captures, patch=patch, progress=staged(report, "captures"))
        sources.append(found)
        shares.append(1 - config.stream_weight)
    elif config.stream_weight < 1 and not config.annotated:
        what, flag = ("captures", "--data IMAGES=STORE")
        if config.supervision == "full":
            what, flag = ("annotated scenes", "--annotated FORMAT:PATH (with true poses and depth)")
        raise UserError(f"no {what} are given: add {flag}, or set stream_weight=1 for rendered rooms alone")
    if config.annotated:
        logger.info("tracks of annotated scenes come from a SIMULATED matcher (projected ground truth made worse)")
        sources.append(_annotated(config, patch, report))
        shares.append(config.stream_weight or 1.0)  # as often as the rooms
    if config.stream_weight > 0:
        device = "cpu" if config.data_workers else resolve_device(config.device).type  # workers have no GPU
        stream = whole_patches(config.stream, patch)
        if stream != config.stream:
            logger.info("rooms are rendered at %d x %d pixels: whole patches of %d", stream.width, stream.height, patch)
        kept = config.stream.rooms is not None  # a room that is seen again gets its pseudo cameras once
        sources.append(
            SyntheticStream(
                stream, supervision=config.supervision, device=device,
                finish=partial(_with_cameras, config.polish) if kept else None,
            )
        )  # fmt: skip
        shares.append(config.stream_weight)
        if config.supervision == "weak":
            logger.info("the rooms' pseudo-labels come from a SIMULATED expert (ground truth made worse)")
    return sources, shares


def whole_patches(stream: StreamConfig, patch: int) -> StreamConfig:
    """Rooms of the nearest size that a network of this patch takes."""
    height, width = (max(1, round(side / patch)) * patch for side in (stream.height, stream.width))
    return dataclasses.replace(stream, height=height, width=width)


def _with_cameras(polish: PolishConfig, views: Views, labels: PseudoLabels) -> PseudoLabels:
    """Pseudo cameras of a room's weak labels."""
    assert views.K is not None
    return with_pseudo_cameras(labels, views.K, polish)


def _annotated(config: ScenesConfig, patch: int, report: Report, *, heldout: bool = False) -> AnnotatedScenes:
    from reliev3r.training.annotated import AnnotatedScenes  # reads ground truth: only full supervision loads it

    noise = config.stream.track_noise
    return AnnotatedScenes(
        config.annotated, long_side=config.captures.prepare.image_size, patch=patch, heldout=heldout,
        share=config.captures.heldout, benchmark=config.captures.dl3dv_benchmark, depth_truth=config.depth_truth,
        tracks=dataclasses.replace(noise, pixel=0.0, false=0.0) if heldout else noise,
        progress=staged(report, "annotated scenes"),
    )  # fmt: skip


def _heldout(config: ScenesConfig, patch: int, report: Report) -> list[HeldoutScene]:
    """Rendered rooms, annotated scenes that are never trained on, and captures likewise (where none is, the held-out
    tracks of the others)."""
    scenes: list[HeldoutScene] = []
    if config.stream_weight > 0:
        stream = SyntheticStream(whole_patches(config.stream, patch), supervision=config.supervision)
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

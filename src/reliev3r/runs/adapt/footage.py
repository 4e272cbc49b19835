"""From footage to what is trained on: labels where there are none, prepared captures, samples that fit them."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path

from reliev3r.core.errors import UserError
from reliev3r.core.many.local import LocalPool
from reliev3r.core.progress import Report, staged
from reliev3r.data.find_captures import CaptureTask, find_captures
from reliev3r.geometry.sampling import evenly_spaced
from reliev3r.labels.many.run import label_store
from reliev3r.labels.many.worker import LabelJob, label_path
from reliev3r.runs.adapt.settings import AdaptConfig
from reliev3r.runs.run_folder import one_process
from reliev3r.training.captures import CapturesConfig, LabelledCaptures
from reliev3r.training.prepared import PreparedCapture
from reliev3r.training.validation import HeldoutScene, tracked_scene, without_intrinsics

logger = logging.getLogger(__name__)

FOOTAGE_VIEWS = 60
"""Frames of a video unless the settings say otherwise: six are held out of training, and the verdict needs them."""


def labelled(footage: Path, out: Path, config: AdaptConfig, report: Report) -> str:
    """Label the captures that have no labels; the IMAGES=STORE pair of all.

    Raises:
        UserError: bad footage, experts that cannot run, or labels missing where several processes train.
    """
    store = Path(config.labels) if config.labels else out / "labels"
    found = find_captures(footage, store)
    alone = CaptureTask(name=store.name, path=footage.resolve(), out=store.resolve())
    missing = [task for task in found or [alone] if not (task.out / "manifest.json").is_file()]
    if missing and not one_process():
        raise UserError(
            f"{store}: {len(missing)} captures have no labels; run `reliev3r label {footage} --out LABELS` first, and "
            "give all processes --labels LABELS"
        )
    if len(missing) < len(found or [alone]) and (config.intrinsics or config.views):
        logger.info("%s: labels that are there stay as they are, whatever --intrinsics and --views say", store)
    job = LabelJob(
        depth=config.depth, tracks=config.tracks, intrinsics=config.intrinsics, views=config.views,
        video_views=FOOTAGE_VIEWS, device=config.device,
    )  # fmt: skip
    if missing and found is None:
        label_path(alone, job, job.experts(alone), staged(report, "labels"))
    elif missing:
        index = label_store(missing, store, job, lambda: LocalPool(job, min(config.workers, len(missing))),
                            report=report)  # fmt: skip
        failed = [task.name for task in missing if index[task.name]["state"] != "done"]
        if failed:
            logger.warning("%d captures could not be labelled, %s for one; left out", len(failed), failed[0])
    return f"{footage}={store}"


def prepared(pair: str, config: AdaptConfig, patch: int, report: Report) -> LabelledCaptures:
    """The usable captures of an IMAGES=STORE pair at the network's size; none is held out, frames of each are."""
    return LabelledCaptures(
        CapturesConfig(
            data=(pair,), prepare=config.prepare, tracks=config.sample_tracks, heldout=0.0,
            heldout_frames=config.heldout_every,
        ),
        patch=patch, progress=staged(report, "prepare"),
    )  # fmt: skip


def with_fitting_samples(config: AdaptConfig, captures: LabelledCaptures) -> AdaptConfig:
    """Samples of no more views than the smallest capture has to train on.

    Raises:
        UserError: there is no capture, or one has fewer than two.
    """
    if not len(captures):
        raise UserError(
            "no capture's intrinsics are known, and they could not be estimated; give --intrinsics fov:DEG (or FILE) "
            "and a new --out"
        )
    sizes = {each.name: len(each.trained_views(config.heldout_every)) for each in spaced_captures(captures)}
    name, smallest = min(sizes.items(), key=lambda item: item[1])
    if smallest < 2:
        raise UserError(f"{name}: has {smallest} views to train on, at least 2 are needed; leave it out")
    low, high = (min(views, smallest) for views in config.batch.views)
    if (low, high) != tuple(config.batch.views):
        logger.info("%s has %d views to train on: samples have %d to %d", name, smallest, low, high)
    return dataclasses.replace(config, batch=dataclasses.replace(config.batch, views=(low, high)))


def tracked_scenes(captures: LabelledCaptures, config: AdaptConfig) -> list[HeldoutScene]:
    """Frames and held-out tracks of a few captures: what the log says of a run, and the network's unit of length."""
    scenes = [tracked_scene(each, 2 * config.batch.views[1]) for each in spaced_captures(captures, 8)]
    return without_intrinsics(scenes) if config.batch.hide_intrinsics else scenes


def spaced_captures(captures: LabelledCaptures, count: int | None = None) -> list[PreparedCapture]:
    """All, or ``count`` of them at even distances."""
    return [captures.capture(index) for index in evenly_spaced(range(len(captures)), count)]

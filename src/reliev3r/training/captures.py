"""Samples of labelled captures: a store of labels and the folder of images it was made from."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import inf
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock, Timeout

from reliev3r.core.errors import UserError
from reliev3r.core.files import file_hash, read_json
from reliev3r.core.progress import Progress
from reliev3r.core.settings import require, to_plain
from reliev3r.core.types import PseudoLabels, Views
from reliev3r.data.benchmark_guard import refuse_benchmark
from reliev3r.data.capture import Capture, Frame, load_capture
from reliev3r.data.find_captures import CaptureTask, find_captures
from reliev3r.data.lenses import stored_rectification
from reliev3r.data.video import FRAMES, MANIFEST
from reliev3r.labels.prepare import PrepareConfig, prepare_capture
from reliev3r.labels.quality.assess import read_quality
from reliev3r.labels.store import load_labels, read_manifest
from reliev3r.sfm.track_graph import pair_rarity
from reliev3r.training.batches import (
    assign_bucket,
    bucket_pixels,
    bucket_sizes,
    padded,
    refuse_not_finite,
    select_views,
    with_drawn_tracks,
)
from reliev3r.training.prepared import FORMAT, PreparedCapture, write_prepared

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class CapturesConfig:
    """How labelled captures become samples."""

    data: tuple[str, ...] = ()
    """IMAGES=STORE pairs: the folder (or list) of captures that was labelled, and where its labels are."""
    prepare: PrepareConfig = field(default_factory=PrepareConfig)
    """Long side, registration and label-side solve of each capture; done once and kept in STORE/.prepared."""
    tracks: int = 512
    """Tracks of a sample."""
    heldout: float = 0.02
    """Share of the captures, chosen by the hash of their name, that is never trained on."""
    heldout_frames: int = 0
    """Hold out every N-th frame of each capture for evaluation; 0 disables."""
    dl3dv_benchmark: str = ""
    """benchmark-meta.csv (or the folder) of DL3DV-Benchmark, whose scenes are refused; needed to train on DL3DV."""

    def __post_init__(self) -> None:
        """Settings that cannot work are told at once."""
        require(self, tracks=(1, inf), heldout=(0, 1), heldout_frames=(0, inf))


class PreparedCaptures:
    """Captures at network size. A sample is a few views of one, as its tracks tie them; nothing stays in memory."""

    def __init__(self, captures: Sequence[PreparedCapture], config: CapturesConfig, *, patch: int) -> None:
        self.captures, self.config, self.patch = tuple(captures), config, patch
        buckets = bucket_sizes(bucket_pixels(config.prepare.image_size), patch)
        self._bucket = [assign_bucket(capture.size, buckets) for capture in self.captures]
        self._alike: dict[tuple[int, int], list[int]] = {}
        for index, size in enumerate(self._bucket):
            self._alike.setdefault(size, []).append(index)

    def __len__(self) -> int:
        return len(self.captures)

    def capture(self, index: int) -> PreparedCapture:
        """One capture, on disk."""
        return self.captures[index]

    def size(self, group: int) -> tuple[int, int]:
        """That of the bucket in which capture number ``group`` (modulo their count) is: common ones come up more."""
        return self._bucket[group % len(self)]

    def sample(self, seed: int, *, group: int, views: int) -> tuple[Views, PseudoLabels]:
        """Views [v ...] of a capture of the group's bucket, at its own size.

        Raises:
            BadSample: a label of it is not finite.
            UserError: fewer views of the capture are trained on, or its file is damaged.
        """
        generator = torch.Generator().manual_seed(seed)
        alike = self._alike[self.size(group)]
        capture = self.captures[alike[int(torch.randint(len(alike), (1,), generator=generator))]]
        open_to_all = capture.trained_views(self.config.heldout_frames)
        if len(open_to_all) < views:
            raise UserError(f"{capture.name}: has {len(open_to_all)} views to train on, a sample needs {views}")
        shared = capture.shared()[open_to_all][:, open_to_all]
        index = open_to_all[select_views(shared, views, 0.0, generator)].tolist()
        seen, labels = capture.sample(index)
        refuse_not_finite(capture.name, index, seen, labels)
        labels = with_drawn_tracks(labels, pair_rarity(labels.tracks), self.config.tracks, generator)
        return seen, padded(labels, self.config.tracks)


class LabelledCaptures(PreparedCaptures):
    """The usable captures of some stores."""

    def __init__(
        self, config: CapturesConfig, *, patch: int, heldout: bool = False, progress: Progress | None = None
    ) -> None:
        """Prepare every capture that was not prepared before, which `reliev3r prepare` does with many workers;
        ``heldout`` gives those that training never sees.

        Several processes on one disk, the ranks of a run among them, share that work: each takes what no other is at,
        and all wait for the rest.

        Raises:
            UserError: a store without usable captures, damaged labels, or captures of different shapes.
        """
        chosen = chosen_captures(config, heldout=heldout)
        if not chosen and not heldout:
            raise UserError(
                f"{', '.join(config.data)}: every capture is held out; give more, or lower captures.heldout"
            )
        paths = [prepared_file(task, config.prepare, patch) for task in chosen]
        if missing := sum(not path.is_file() for path in paths):
            logger.info("captures to be prepared: %d; `reliev3r prepare` does so with many workers", missing)
        for number, (task, path) in enumerate(zip(chosen, paths, strict=True)):
            if progress:
                progress(number, len(chosen), task.name)
            prepare_once(task, path, config.prepare, patch, wait=False)
        for task, path in zip(chosen, paths, strict=True):
            prepare_once(task, path, config.prepare, patch, wait=True)
        found = [PreparedCapture(task.name, path) for task, path in zip(chosen, paths, strict=True)]
        for capture in found:
            if not capture.has_K:
                logger.warning("%s: its intrinsics are unknown and could not be estimated; left out", capture.name)
        super().__init__([capture for capture in found if capture.has_K], config, patch=patch)
        if progress:
            progress(len(chosen), len(chosen), "")


def chosen_captures(config: CapturesConfig, *, heldout: bool) -> list[CaptureTask]:
    """The usable captures that are trained on, or those that never are.

    Raises:
        UserError: a store without usable captures, or a scene of the benchmark.
    """
    usable = [task for pair in config.data for task in usable_captures(pair)]
    refuse_benchmark([str(task.path) for task in usable], config.dl3dv_benchmark)
    return [task for task in usable if is_heldout(task.name, config.heldout) == heldout]


def prepared_file(task: CaptureTask, config: PrepareConfig, patch: int) -> Path:
    """Where a capture under these settings is kept; its labels are part of the name."""
    manifest = file_hash(task.out / "manifest.json")
    key = json.dumps([FORMAT, to_plain(config), patch, manifest], sort_keys=True)
    folder = task.out.parents[task.name.count("/")] / ".prepared"
    return folder / f"{task.name}-{hashlib.sha256(key.encode()).hexdigest()[:16]}.safetensors"


def prepare_once(task: CaptureTask, path: Path, config: PrepareConfig, patch: int, *, wait: bool) -> None:
    """Make the prepared file unless it is there; one that another process is making is waited for, or left."""
    if path.is_file():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = path.with_suffix(".lock")  # the system frees it when its owner dies
    try:
        with FileLock(lock, timeout=-1 if wait else 0):
            if not path.is_file():
                _prepare(task, path, config, patch)
            lock.unlink(missing_ok=True)  # those who wait for it find the file
    except Timeout:
        return


def usable_captures(pair: str) -> list[CaptureTask]:
    """The captures of an IMAGES=STORE pair whose labels are finished and not judged unusable.

    Raises:
        UserError: no such pair, or none of its captures is usable.
    """
    images, equals, store = pair.rpartition("=")
    if not equals:
        raise UserError(
            f"--data {pair}: write it as IMAGES=STORE, the two folders of `reliev3r label IMAGES --out STORE`"
        )
    tasks = find_captures(images, store)
    if tasks is None:
        path = Path(images).resolve()
        tasks = [CaptureTask(name=Path(store).name, path=path, out=Path(store).resolve())]
    finished = [task for task in tasks if (task.out / "manifest.json").is_file()]
    good = [task for task in finished if not _unusable(task)]
    if not good:
        raise UserError(
            f"{store}: has no usable labels of the captures in {images}; run `reliev3r label {images} --out {store}`"
        )
    if len(good) < len(tasks):
        logger.warning("%s: %d of %d captures are usable", store, len(good), len(tasks))
    return good


def _unusable(task: CaptureTask) -> bool:
    quality = read_quality(task.out)
    return quality is not None and quality.verdict == "unusable"


def is_heldout(name: str, share: float) -> bool:
    """Whether a capture is never trained on: by the hash of its name, so that it stays so whatever else is labelled."""
    return zlib.crc32(f"heldout {name}".encode()) % 10_000 < share * 10_000


def labelled_capture(task: CaptureTask) -> Capture:
    """The frames that were labelled, with the intrinsics that they were labelled with: ``--views`` and ``--intrinsics``
    of `reliev3r label` are in its manifest.

    Raises:
        UserError: no finished labels, or images that are gone.
    """
    manifest = read_manifest(task.out)
    stored = {frame["name"]: frame for frame in manifest["frames"]}
    video = task.path.is_file()
    place = task.out if (task.out / FRAMES).is_dir() else task.out.parent  # those of a fit lie beside its labels
    count = _frame_count(place / FRAMES / MANIFEST) if video else None  # or others would be chosen
    capture = load_capture(task.path, views=count, cache=place)
    frames = tuple(
        _as_labelled(frame, stored[frame.name], task.out) for frame in capture.frames if frame.name in stored
    )
    if gone := len(stored) - len(frames):
        raise UserError(f"{task.path}: {gone} images that were labelled are gone; run `reliev3r label` again")
    return dataclasses.replace(capture, frames=frames, K_source=manifest["K_source"])


def _frame_count(file: Path) -> int:
    manifest = read_json(file)
    count = manifest.get("count") if isinstance(manifest, dict) else None
    if not isinstance(count, int) or isinstance(count, bool):
        raise UserError(f"{file}: does not say how many frames were chosen; run `reliev3r label` again")
    return count


def _as_labelled(frame: Frame, entry: dict[str, Any], labels: Path) -> Frame:
    """With the K and the lens that its labels were made with."""
    K = None if entry["K"] is None else np.array(entry["K"])
    lens = entry.get("lens")
    rectification = None if lens is None else stored_rectification(lens, f"{labels}: frame '{frame.name}'")
    return dataclasses.replace(frame, K=K, rectification=rectification)


def _prepare(task: CaptureTask, path: Path, config: PrepareConfig, patch: int) -> None:
    capture = labelled_capture(task)
    write_prepared(path, prepare_capture(capture, load_labels(task.out, capture), config, patch=patch))

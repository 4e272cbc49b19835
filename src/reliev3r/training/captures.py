"""Samples of labelled captures: a store of labels and the folder of images it was made from."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import zlib
from dataclasses import dataclass, field
from functools import lru_cache
from math import inf
from pathlib import Path
from typing import get_args

import numpy as np
import torch
from filelock import FileLock, Timeout
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from reliev3r.core.errors import UserError
from reliev3r.core.files import atomic_path, file_hash, read_json
from reliev3r.core.progress import Progress
from reliev3r.core.settings import require, to_plain
from reliev3r.core.types import Ambiguity, CameraLabels, DepthLabels, PseudoLabels, Tracks, Views
from reliev3r.data.benchmark_guard import refuse_benchmark
from reliev3r.data.capture import Capture, load_capture
from reliev3r.data.find_captures import CaptureTask, find_captures
from reliev3r.labels.prepare import PrepareConfig, prepare_capture
from reliev3r.labels.quality.assess import read_quality
from reliev3r.labels.store import load_labels, read_manifest
from reliev3r.sfm.track_graph import pair_rarity
from reliev3r.training.batches import assign_bucket, bucket_pixels, bucket_sizes, select_views, with_drawn_tracks

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
    cached: int = 64
    """Captures held in memory."""
    dl3dv_benchmark: str = ""
    """benchmark-meta.csv (or the folder) of DL3DV-Benchmark, whose scenes are refused; needed to train on DL3DV."""

    def __post_init__(self) -> None:
        """Settings that cannot work are told at once."""
        require(self, tracks=(1, inf), heldout=(0, 1), heldout_frames=(0, inf), cached=(1, inf))


@dataclass(frozen=True, kw_only=True)
class PreparedCapture:
    """A capture at network resolution, as kept on disk."""

    name: str
    views: Views
    labels: PseudoLabels
    heldout: Tracks

    def trained_views(self, every: int) -> Tensor:
        """Positions of the views that training sees where each ``every``-th frame is held out (0: none is)."""
        index = torch.arange(len(self.views.image))
        return index[index % every != every // 2] if every else index

    def heldout_views(self, every: int) -> tuple[int, ...]:
        """Positions of the others."""
        return tuple(sorted(set(range(len(self.views.image))) - set(self.trained_views(every).tolist())))


class LabelledCaptures:
    """The usable captures of some stores. A sample is a few views of one, as its tracks tie them."""

    def __init__(
        self, config: CapturesConfig, *, patch: int, heldout: bool = False, progress: Progress | None = None
    ) -> None:
        """Prepare every capture that was not prepared before; ``heldout`` gives those that training never sees.

        Several processes on one disk, the ranks of a run among them, share that work: each takes what no other is at,
        and all wait for the rest.

        Raises:
            UserError: a store without usable captures, damaged labels, or captures of different shapes.
        """
        self.config, self.patch = config, patch
        chosen = [task for pair in config.data for task in usable_captures(pair)]
        refuse_benchmark([str(task.path) for task in chosen], config.dl3dv_benchmark)
        chosen = [task for task in chosen if is_heldout(task.name, config.heldout) == heldout]
        if not chosen and not heldout:
            raise UserError(
                f"{', '.join(config.data)}: every capture is held out; give more, or lower captures.heldout"
            )
        self.files: list[tuple[str, Path]] = []
        self._bucket: list[tuple[int, int]] = []
        buckets = bucket_sizes(bucket_pixels(config.prepare.image_size), patch)
        paths = [self._prepared_file(task) for task in chosen]
        for number, (task, path) in enumerate(zip(chosen, paths, strict=True)):
            if progress:
                progress(number, len(chosen), task.name)
            self._prepare(task, path, wait=False)
        for task, path in zip(chosen, paths, strict=True):
            self._prepare(task, path, wait=True)
            size, known = _header(path)
            if known:
                self.files.append((task.name, path))
                self._bucket.append(assign_bucket(size, buckets))
            else:
                logger.warning("%s: its intrinsics are unknown and could not be estimated; left out", task.name)
        if progress:
            progress(len(chosen), len(chosen), "")
        self._read = lru_cache(maxsize=config.cached)(read_prepared)  # of this object alone

    def __len__(self) -> int:
        return len(self.files)

    def capture(self, index: int) -> PreparedCapture:
        """One capture, all of its views."""
        name, file = self.files[index]
        return self._read(file, name)

    def size(self, group: int) -> tuple[int, int]:
        """That of the bucket in which capture number ``group`` (modulo their count) is: common ones come up more."""
        return self._bucket[group % len(self.files)]

    def sample(self, seed: int, *, group: int, views: int) -> tuple[Views, PseudoLabels]:
        """Views [v ...] of a capture of the group's bucket, at its own size.

        Raises:
            UserError: fewer views of the capture are trained on.
        """
        generator = torch.Generator().manual_seed(seed)
        alike = [index for index, size in enumerate(self._bucket) if size == self.size(group)]
        capture = self.capture(alike[int(torch.randint(len(alike), (1,), generator=generator))])
        open_to_all = capture.trained_views(self.config.heldout_frames)
        if len(open_to_all) < views:
            raise UserError(f"{capture.name}: has {len(open_to_all)} views to train on, a sample needs {views}")
        seen = (capture.labels.tracks.weight[open_to_all] > 0).float()
        index = open_to_all[select_views(seen @ seen.T, views, 0.0, generator)]
        labels = capture.labels.select_views(index)
        rarity = pair_rarity(labels.tracks)  # 0 for tracks that one of the views sees alone
        labels = with_drawn_tracks(labels, rarity, self.config.tracks, generator)
        return capture.views.select_views(index), _padded(labels, self.config.tracks)

    def _prepared_file(self, task: CaptureTask) -> Path:
        manifest = file_hash(task.out / "manifest.json")
        key = json.dumps([to_plain(self.config.prepare), self.patch, manifest], sort_keys=True)
        folder = task.out.parents[task.name.count("/")] / ".prepared"
        return folder / f"{task.name}-{hashlib.sha256(key.encode()).hexdigest()[:16]}.safetensors"

    def _prepare(self, task: CaptureTask, path: Path, *, wait: bool) -> None:
        """Make the prepared file unless it is there; one that another process is making is waited for, or left."""
        if path.is_file():
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = path.with_suffix(".lock")  # the system frees it when its owner dies
        try:
            with FileLock(lock, timeout=-1 if wait else 0):
                if not path.is_file():
                    _prepare(task, path, self.config.prepare, self.patch)
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
    stored = {frame["name"]: frame["K"] for frame in manifest["frames"]}
    video = task.path.is_file()
    place = task.out if (task.out / "frames").is_dir() else task.out.parent  # those of a fit lie beside its labels
    count = read_json(place / "frames" / "frames.json")["count"] if video else None  # or others would be chosen
    capture = load_capture(task.path, views=count, cache=place)
    frames = tuple(
        dataclasses.replace(frame, K=None if stored[frame.name] is None else np.array(stored[frame.name]))
        for frame in capture.frames
        if frame.name in stored
    )
    if gone := len(stored) - len(frames):
        raise UserError(f"{task.path}: {gone} images that were labelled are gone; run `reliev3r label` again")
    return dataclasses.replace(capture, frames=frames, K_source=manifest["K_source"])


def _prepare(task: CaptureTask, path: Path, config: PrepareConfig, patch: int) -> None:
    capture = labelled_capture(task)
    prepared = prepare_capture(capture, load_labels(task.out, capture, check="size"), config, patch=patch)
    labels = prepared.labels
    tensors: dict[str, Tensor | None] = {
        "image": (prepared.views.image * 255).round().to(torch.uint8),
        "K": prepared.views.K, "pseudo_K": labels.K,
        "depth": labels.depth.depth, "valid": labels.depth.valid, "trust": labels.depth.trust,
        "uv": labels.tracks.uv, "weight": labels.tracks.weight, "track_depth": labels.tracks.depth,
        "heldout_uv": prepared.heldout.uv, "heldout_weight": prepared.heldout.weight,
        "world_from_cam": None if labels.cameras is None else labels.cameras.world_from_cam,
        "camera_weight": None if labels.cameras is None else labels.cameras.weight,
    }  # fmt: skip
    with atomic_path(path) as temporary:
        save_file(
            {name: tensor.contiguous() for name, tensor in tensors.items() if tensor is not None}, temporary,
            metadata={"ambiguity": labels.depth.ambiguity},
        )  # fmt: skip


def read_prepared(path: Path, name: str) -> PreparedCapture:
    """A prepared capture; one whose intrinsics had to be estimated has them in ``views`` like any other. All fields are
    there for all captures, so that samples can be stacked.

    Raises:
        UserError: damaged.
    """
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a dictionary
            ambiguity = file.metadata()["ambiguity"]
    except Exception as error:  # safetensors has an error class of its own in each version
        raise UserError(f"{path}: damaged; delete it, and it is made again") from error
    known: dict[str, Ambiguity] = {kind: kind for kind in get_args(Ambiguity)}
    views = len(tensors["image"])
    depth = DepthLabels(
        depth=tensors["depth"], valid=tensors["valid"], ambiguity=known[ambiguity],
        trust=tensors.get("trust", torch.ones(views)),
    )  # fmt: skip
    weight = tensors["weight"]
    tracks = Tracks(uv=tensors["uv"], weight=weight, depth=tensors.get("track_depth", torch.zeros_like(weight)))
    cameras = CameraLabels(  # those of a capture that could not be solved have no say
        world_from_cam=tensors.get("world_from_cam", torch.eye(4).repeat(views, 1, 1)),
        weight=tensors.get("camera_weight", torch.zeros(views)),
    )
    K = tensors["K"] if "K" in tensors else tensors["pseudo_K"]
    return PreparedCapture(
        name=name,
        views=Views(image=tensors["image"].float() / 255, K=K),
        labels=PseudoLabels(depth=depth, tracks=tracks, K=K, cameras=cameras),
        heldout=Tracks(uv=tensors["heldout_uv"], weight=tensors["heldout_weight"]),
    )


def _header(path: Path) -> tuple[tuple[int, int], bool]:
    """(height, width) and whether intrinsics are known, without reading more.

    Raises:
        UserError: damaged.
    """
    try:
        with safe_open(path, framework="pt") as file:
            height, width = file.get_slice("image").get_shape()[-2:]
            return (height, width), bool({"K", "pseudo_K"} & set(file.keys()))
    except Exception as error:  # safetensors has an error class of its own in each version
        raise UserError(f"{path}: damaged; delete it, and it is made again") from error


def _padded(labels: PseudoLabels, count: int) -> PseudoLabels:
    """As many tracks as every other sample; those that are added are seen nowhere."""
    missing = count - labels.tracks.weight.shape[-1]
    if missing <= 0:
        return labels

    def pad(x: Tensor, axis: int) -> Tensor:
        shape = list(x.shape)
        shape[axis] = missing
        return torch.cat([x, x.new_zeros(shape)], dim=axis)

    tracks = labels.tracks
    depth = None if tracks.depth is None else pad(tracks.depth, -1)
    return dataclasses.replace(labels, tracks=Tracks(uv=pad(tracks.uv, -2), weight=pad(tracks.weight, -1), depth=depth))

"""What every worker does, wherever it runs: label one capture after the other with experts that it makes once."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from reliev3r.core.errors import UserError
from reliev3r.core.progress import Progress
from reliev3r.data.capture import VIDEO_VIEWS, Capture, load_capture
from reliev3r.data.find_captures import CaptureTask
from reliev3r.labels.estimate_intrinsics import resolve_intrinsics
from reliev3r.labels.expert import DepthExpert, TrackExpert
from reliev3r.labels.many.index import mark_failed
from reliev3r.labels.pipeline import CaptureLabels, label_capture
from reliev3r.labels.quality.assess import quality_of
from reliev3r.labels.registry import depth_expert, track_expert

ONE_THREAD = {name: "1" for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")}
"""Environment of every worker: sums in another order would be other bytes, and many workers share the cores anyway."""


@dataclass(frozen=True, kw_only=True)
class LabelJob:
    """How every capture of a run is labelled; plain values, so that it can be sent anywhere."""

    depth: str
    """Of ``labels.registry``; ``{capture}`` stands for the capture's own path."""
    tracks: str
    intrinsics: str | None = None
    views: int | None = None
    video_views: int = VIDEO_VIEWS
    """Frames of a video where ``views`` is not given."""
    device: str = "auto"
    judge: bool = True
    """Judge the labels and keep the verdict beside them (``labels.quality``): seconds a capture."""

    def experts(self, task: CaptureTask) -> tuple[DepthExpert, TrackExpert]:
        """The experts for a capture; their weights are read at the first use.

        Raises:
            UserError: no such expert.
        """
        depth = depth_expert(self.depth.replace("{capture}", str(task.path)), device=self.device)
        return depth, track_expert(self.tracks, device=self.device)

    def begin(self) -> Callable[[CaptureTask, Progress | None], str | None]:
        """Of a worker: it makes its experts once."""
        return Labeller(self).label

    @property
    def shared(self) -> bool:
        """Whether the same experts serve all captures."""
        return "{capture}" not in self.depth


def label_path(
    task: CaptureTask, job: LabelJob, experts: tuple[DepthExpert, TrackExpert], progress: Progress | None = None
) -> tuple[Capture, CaptureLabels]:
    """From a path to labels: the one way in which every capture is labelled, alone or among thousands.

    Raises:
        UserError: as ``load_capture``, ``resolve_intrinsics`` and ``label_capture`` do.
    """
    depth, tracks = experts
    views = job.views or (job.video_views if task.path.is_file() else None)
    capture = load_capture(task.path, views=views, cache=task.out, progress=progress)
    capture = resolve_intrinsics(
        capture, job.intrinsics, depth=depth, out=task.out, device=job.device, progress=progress
    )
    labels = label_capture(capture, depth=depth, tracks=tracks, out=task.out, progress=progress)
    if job.judge:
        quality_of(task.out, capture, progress=progress)
    return capture, labels


class Labeller:
    """Labels the captures of a store in this process, one after the other."""

    def __init__(self, job: LabelJob):
        self.job = job
        self._experts: tuple[DepthExpert, TrackExpert] | None = None

    def label(self, task: CaptureTask, progress: Progress | None = None) -> str | None:
        """Label a capture; None, or why it cannot be labelled (one line, kept in its ``failed.json``)."""
        try:
            if self._experts is None or not self.job.shared:
                self._experts = self.job.experts(task)
            label_path(task, self.job, self._experts, progress)
        except UserError as error:
            reason = portable(str(error), task)
            mark_failed(task.out, reason)
            return reason
        (task.out / "failed.json").unlink(missing_ok=True)
        return None


def portable(reason: str, task: CaptureTask) -> str:
    """A message in one line that does not say where on this machine the capture lies."""
    named = reason.replace(str(task.path), task.name).replace(str(task.out), task.name)
    return " ".join(named.split())


def limit_threads() -> None:
    """One thread for everything that computes in this process; ``ONE_THREAD`` must be in its environment already."""
    import cv2
    import torch

    os.environ.update(ONE_THREAD)
    cv2.setNumThreads(1)
    torch.set_num_threads(1)


@contextmanager
def environment(values: dict[str, str]) -> Iterator[None]:
    """Environment variables for the processes that are started meanwhile."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value

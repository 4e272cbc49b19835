"""What every worker does, wherever it runs: label one capture after the other with experts that it makes once."""

from __future__ import annotations

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


@dataclass(frozen=True, kw_only=True)
class LabelJob:
    """How every capture of a run is labelled; plain values, so that it can be sent anywhere."""

    depth: str
    """Of ``labels.registry``; ``{capture}`` stands for the capture's own path, ``{name}`` for its name in the store."""
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
        spec = self.depth.replace("{capture}", str(task.path)).replace("{name}", task.name)
        return depth_expert(spec, device=self.device), track_expert(self.tracks, device=self.device)

    def worker(self) -> Labeller:
        """As :class:`reliev3r.core.many.work.Job` says."""
        return Labeller(self)

    @property
    def shared(self) -> bool:
        """Whether the same experts serve all captures."""
        return "{capture}" not in self.depth and "{name}" not in self.depth


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

    def work(self, task: CaptureTask, progress: Progress | None = None) -> str | None:
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

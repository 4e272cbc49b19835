"""Captures by the hundred that cost next to nothing: a textured wall behind a textured box, from three places."""

import json
import os
import signal
from pathlib import Path

import cv2
import numpy as np

from reliev3r.core.many.local import Crashed, Finished, Progressed
from reliev3r.data.find_captures import CaptureTask, find_captures
from reliev3r.labels.many.run import label_store
from reliev3r.labels.many.worker import LabelJob, Labeller

JOB = LabelJob(depth="folder:{capture}/maps", tracks="sift", judge=False)
WIDTH, HEIGHT, VIEWS = 96, 72, 3


def write_captures(root: Path, count: int) -> Path:
    """``count`` captures of 3 images of 96 x 72 with K and a depth map each, in folders of 100."""
    for index in range(count):
        _write_capture(root / f"part{index // 100}" / f"c{index:03d}", np.random.default_rng(index))
    return root


def _write_capture(folder: Path, rng: np.random.Generator) -> None:
    wall, box = (cv2.GaussianBlur(rng.random((HEIGHT, WIDTH + 60)), (0, 0), 1.2) for _ in range(2))
    wall, box = ((255 * (x - x.min()) / (x.max() - x.min())).astype(np.uint8) for x in (wall, box))
    (folder / "images").mkdir(parents=True)
    (folder / "maps").mkdir()
    frames = []
    for view in range(VIEWS):
        image, depth = wall[:, 4 * view :][:, :WIDTH].copy(), np.full((HEIGHT // 4, WIDTH // 4), 3.0)
        left = 44 - 8 * view  # the box is half as far away: twice the disparity
        image[20:60, left : left + 40] = box[20:60, :40]
        depth[5:15, left // 4 : left // 4 + 10] = 1.5
        cv2.imwrite(str(folder / "images" / f"{view}.png"), image)
        np.save(folder / "maps" / f"{view}.npy", depth * rng.uniform(0.9, 1.1, depth.shape))
        K = [[90, 0, WIDTH / 2 - 0.5], [0, 90, HEIGHT / 2 - 0.5], [0, 0, 1]]
        frames.append({"name": str(view), "image": f"images/{view}.png", "width": WIDTH, "height": HEIGHT, "K": K})
    (folder / "cameras.json").write_text(json.dumps({"frames": frames}))


def contents(folder: Path) -> dict[str, bytes]:
    """All files below a folder, hidden ones as well."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def label_all(root: Path, store: Path, job: LabelJob = JOB) -> None:
    """What a worker does, in this process: the target of processes that are killed."""
    labeller = Labeller(job)
    for task in find_captures(root, store):
        labeller.work(task)


def run(root: Path, store: Path, pool, job: LabelJob = JOB, report=None):
    """Label all captures below ``root`` with the workers of ``pool``; the index."""
    return label_store(find_captures(root, store), store, job, lambda: pool, report=report)


class InlinePool:
    """A pool of one slot in this process, for tests that need no other; ``crash`` says when it pretends to crash."""

    ready = (0,)

    def __init__(self, job: LabelJob = JOB, *, crash=lambda task: None):
        self._labeller, self._crash, self._task = Labeller(job), crash, None
        self.seen: list[str] = []

    def submit(self, slot: int, task: CaptureTask) -> None:
        self._task = task
        self.seen.append(task.name)

    def events(self):
        reason = self._crash(self._task)
        if reason is not None:
            return [Crashed(slot=0, reason=reason)]
        progress = []
        failure = self._labeller.work(
            self._task,
            lambda done, total, what: progress.append(Progressed(slot=0, pid=0, done=done, total=total, what=what)),
        )
        return [*progress, Finished(slot=0, failure=failure)]

    def close(self) -> None:
        pass


class Sabotaged:
    """Another pool, of which ``deaths`` workers are killed (SIGKILL) while they hold a capture."""

    def __init__(self, pool, *, deaths: int = 1):
        self._pool, self.left = pool, deaths
        self.crashed = 0

    @property
    def ready(self):
        return self._pool.ready

    def submit(self, slot, task) -> None:
        self._pool.submit(slot, task)

    def events(self):
        found = self._pool.events()
        for event in found:
            self.crashed += isinstance(event, Crashed)
            if self.left and isinstance(event, Progressed):
                self.left -= 1
                os.kill(event.pid, signal.SIGKILL)
        return found

    def close(self) -> None:
        self._pool.close()

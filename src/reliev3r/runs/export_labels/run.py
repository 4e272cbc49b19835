"""A whole store in another trainer's layout, by many workers; a run that was stopped goes on."""

from __future__ import annotations

import dataclasses
import json
import logging
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reliev3r.core.errors import UserError
from reliev3r.core.files import file_hash, read_json, remove_leftovers, write_json
from reliev3r.core.many.local import Pool
from reliev3r.core.many.run import work_off
from reliev3r.core.progress import Progress, Report, silent
from reliev3r.core.settings import to_plain
from reliev3r.data.find_captures import CaptureTask, find_captures
from reliev3r.data.pseudo_labels import FILE as NOTE
from reliev3r.data.pseudo_labels import NOTICE, made_from
from reliev3r.export.trainers.layouts import LAYOUTS, write_training_scene
from reliev3r.labels.many.index import capture_state
from reliev3r.labels.prepare import PrepareConfig
from reliev3r.labels.quality.assess import assess_labels, read_quality
from reliev3r.labels.store import load_labels
from reliev3r.runs.export_labels.scene import LeftOut, scene_names, training_scene
from reliev3r.training.captures import labelled_capture

logger = logging.getLogger(__name__)

FILE = "foundry.json"
"""Beside the scenes: how they were made, and what was left out and why."""
FORMAT = "reliev3r-foundry/1"
USUAL = PrepareConfig(image_size=640)
"""Settings unless others are given."""
EXPORTER = 1
"""Raised when scenes of the same labels come out otherwise: older ones are then made anew."""
_LEFT_OUT = "left out: "


@dataclass(frozen=True, kw_only=True)
class Foundry:
    """What a run made of each capture, by the capture's name."""

    scenes: Mapping[str, Path]
    """Folders of the scenes that are there now."""
    left_out: Mapping[str, str]
    """Reasons: the labels do not carry a scene."""
    failed: Mapping[str, str]
    """Reasons: damaged or missing files, or a crash."""


@dataclass(frozen=True, kw_only=True)
class ExportJob:
    """How every capture of a store becomes a scene; plain values, so that it can be sent anywhere."""

    layout: str
    """Of ``export.trainers.layouts.LAYOUTS``."""
    root: Path
    """Absolute."""
    names: Mapping[str, str]
    """Scene by capture."""
    config: PrepareConfig = USUAL
    keep_unusable: bool = False
    """Also captures whose verdict is unusable."""

    def worker(self) -> Exporter:
        """As :class:`reliev3r.core.many.work.Job` says."""
        return Exporter(self)

    def folder(self, capture: str) -> Path:
        """Of its scene."""
        return LAYOUTS[self.layout].place(self.root, self.names[capture])

    @property
    def settings(self) -> dict[str, Any]:
        """What the scenes have in common."""
        own = {"exporter": EXPORTER, "layout": self.layout, "keep_unusable": self.keep_unusable}
        return json.loads(json.dumps({**own, "prepare": to_plain(self.config)}))  # as files hand it back


class Exporter:
    """Exports captures in this process, one after the other."""

    def __init__(self, job: ExportJob):
        self._job = job

    def work(self, task: CaptureTask, progress: Progress | None = None) -> str | None:
        """Make a scene unless the same is there; None, or why there is none (an earlier one is then removed)."""
        try:
            self._export(task, progress)
        except LeftOut as reason:
            self._remove(task)
            return f"{_LEFT_OUT}{reason}"
        except UserError as error:
            self._remove(task)
            return str(error)
        return None

    def _export(self, task: CaptureTask, progress: Progress | None) -> None:
        state = capture_state(task.out)
        if state["state"] != "done":
            raise LeftOut(f"it has no labels ({state.get('reason', 'unfinished; run `reliev3r label` again')})")
        job, folder = self._job, self._job.folder(task.name)
        source = {"labels_sha256": file_hash(task.out / "manifest.json"), **job.settings}
        if folder.is_dir() and made_from(folder) == source:
            return
        capture = labelled_capture(task)
        labels = load_labels(task.out, capture)
        quality = read_quality(task.out) or assess_labels(task.out, capture)
        if quality.verdict == "unusable" and not job.keep_unusable:
            raise LeftOut(f"its labels are unusable: {quality.sentences[0]}")
        scene = training_scene(job.names[task.name], capture, labels, quality, job.config, progress=progress)
        note = {"capture": task.name, "made_from": source, **scene.note}
        write_training_scene(dataclasses.replace(scene, note=note), job.layout, job.root)

    def _remove(self, task: CaptureTask) -> None:
        """A scene of earlier labels or settings must not be trained on; nothing else is touched."""
        folder = self._job.folder(task.name)
        if (folder / NOTE).is_file():
            shutil.rmtree(folder)


def capture_tasks(store: Path, captures: Path) -> list[CaptureTask]:
    """The captures of a store, or the one whose labels ``store`` holds, with their images.

    Raises:
        UserError: no such files, or no labels of these captures in ``store``.
    """
    if not store.is_dir():
        raise UserError(f"{store}: no such folder; give a folder of labels or a store that `reliev3r label` made")
    if not captures.exists():
        raise UserError(f"{captures}: no such capture or folder of captures; give what `reliev3r label` was given")
    tasks = find_captures(captures, store)
    if tasks is None:
        tasks = [CaptureTask(name=captures.resolve().name, path=captures.resolve(), out=store.resolve())]
    if not any(task.out.is_dir() and capture_state(task.out)["state"] != "unfinished" for task in tasks):
        raise UserError(
            f"{store}: has no labels of the captures in {captures}; give --captures what `reliev3r label` was given"
        )
    return tasks


def export_labels(
    job: ExportJob, tasks: Sequence[CaptureTask], open_pool: Callable[[], Pool], *, report: Report = silent
) -> Foundry:
    """Make a scene of every capture; those of which none can be made stop nobody.

    What a run (killed at any moment) left is kept by the next one, which must have the same settings. The same labels
    and settings give the same bytes.

    Raises:
        UserError: the root holds something else, or scenes of other settings; or it cannot be written.
    """
    root, kind = job.root, LAYOUTS[job.layout]
    head = {"format": FORMAT, "notice": NOTICE, **job.settings}
    _refuse_others(root, head)
    scenes = {task.name: job.folder(task.name) for task in tasks}
    try:
        root.mkdir(parents=True, exist_ok=True)
        write_json(root / FILE, head)
        for folder in {place.parent for place in scenes.values()}:
            remove_leftovers(folder, {place.name for place in scenes.values()})
        pool = open_pool()
        try:
            reasons = work_off(tasks, pool, "scenes", report)
        finally:
            pool.close()
        left_out = {name: told.removeprefix(_LEFT_OUT) for name, told in reasons.items() if told.startswith(_LEFT_OUT)}
        failed = {name: told for name, told in reasons.items() if name not in left_out}
        found = {name: folder for name, folder in sorted(scenes.items()) if name not in reasons}
        kind.write_index(root, [job.names[name] for name in found])
        write_json(
            root / FILE,
            {
                **head, "scenes": {name: folder.relative_to(root).as_posix() for name, folder in found.items()},
                "left_out": dict(sorted(left_out.items())), "failed": dict(sorted(failed.items())),
            },
        )  # fmt: skip
    except OSError as error:
        raise UserError(f"{root}: cannot be written ({error.strerror}); make room or choose another") from error
    _tell_strangers(root / kind.group, {folder.name for folder in scenes.values()})
    return Foundry(scenes=found, left_out=left_out, failed=failed)


def export_job(
    tasks: Sequence[CaptureTask], layout: str, root: Path, *, config: PrepareConfig = USUAL, keep_unusable: bool = False
) -> ExportJob:
    """The job of these captures.

    Raises:
        UserError: two captures would become one scene, or a scene's name is taken or too long.
    """
    kind = LAYOUTS[layout]
    names = scene_names([task.name for task in tasks], () if kind.group else (FILE, *kind.beside))
    return ExportJob(layout=layout, root=root.resolve(), names=names, config=config, keep_unusable=keep_unusable)


def _refuse_others(root: Path, head: Mapping[str, Any]) -> None:
    if not root.exists() or (root.is_dir() and not any(root.iterdir())):
        return
    if not (root / FILE).is_file():
        raise UserError(f"{root}: exists and holds no exported labels; choose another folder or remove it")
    before = read_json(root / FILE)
    differ = sorted(key for key in head if not isinstance(before, dict) or before.get(key) != head[key])
    if differ:
        raise UserError(f"{root}: its scenes were exported with other settings ({', '.join(differ)}); choose another")


def _tell_strangers(folder: Path, ours: set[str]) -> None:
    """Scenes of captures that are no longer asked for stay, and loaders find them."""
    others = sorted(file.parent.name for file in folder.glob(f"*/{NOTE}") if file.parent.name not in ours)
    if others:
        logger.warning("%s: %d scenes of other captures are there too: %s", folder, len(others), ", ".join(others[:8]))

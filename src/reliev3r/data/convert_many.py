"""All scenes of a dataset as capture folders, by many workers; a run that was stopped goes on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from reliev3r.core.cameras_json import CAMERAS_JSON
from reliev3r.core.errors import UserError
from reliev3r.core.files import read_json, remove_leftovers, write_json
from reliev3r.core.many.local import Pool
from reliev3r.core.many.run import work_off
from reliev3r.core.progress import Progress, Report, silent
from reliev3r.data.convert import convert_scene
from reliev3r.data.readers import READERS

FORMAT = "reliev3r-converted/1"
DATASET_JSON = "dataset.json"
"""Beside the capture folders: how they were made."""


@dataclass(frozen=True, kw_only=True)
class SceneTask:
    """One scene of many."""

    name: str
    """In its dataset."""
    out: Path
    """Its capture folder, absolute: workers may have another working directory."""


@dataclass(frozen=True, kw_only=True)
class ConvertJob:
    """How every scene of a dataset is converted; plain values, so that it can be sent anywhere."""

    kind: str
    """Of ``data.readers.READERS``."""
    root: Path
    """Absolute."""
    views: int | None = None
    truth: bool = True

    def worker(self) -> Converter:
        """As :class:`reliev3r.core.many.work.Job` says."""
        return Converter(self)

    def tasks(self, names: Sequence[str], out: Path) -> list[SceneTask]:
        """A capture folder below ``out`` for each scene of the dataset."""
        return [SceneTask(name=name, out=out.resolve() / name) for name in names]


class Converter:
    """Converts scenes in this process, one after the other."""

    def __init__(self, job: ConvertJob):
        self._job = job

    def work(self, task: SceneTask, progress: Progress | None = None) -> str | None:
        """Convert a scene unless it is there (folders appear whole); None, or why it cannot be read."""
        if (task.out / CAMERAS_JSON).is_file():
            return None
        try:
            scene = READERS[self._job.kind].open(self._job.root, task.name, self._job.views)
            convert_scene(scene, task.out, truth=self._job.truth, progress=progress)
        except UserError as error:
            return str(error)
        return None


def convert_dataset(
    job: ConvertJob,
    tasks: Sequence[SceneTask],
    out: Path,
    open_pool: Callable[[], Pool],
    *,
    report: Report = silent,
) -> dict[str, str]:
    """Convert all scenes to ``out``/SCENE and hand back why some could not be, by name; those stop nobody.

    What a run (killed at any moment) left is kept by the next one, which must have the same settings.

    Raises:
        UserError: ``out`` holds something else, or scenes that were converted otherwise; or it cannot be written.
    """
    made = {"format": FORMAT, "dataset": job.kind, "views": job.views, "truth": job.truth}
    _refuse_others(out, made)
    try:
        out.mkdir(parents=True, exist_ok=True)
        write_json(out / DATASET_JSON, made)
        for folder in {task.out.parent for task in tasks}:
            remove_leftovers(folder, {task.out.name for task in tasks if task.out.parent == folder})
        pool = open_pool()
        try:
            return work_off(tasks, pool, "scenes", report)
        finally:
            pool.close()
    except OSError as error:
        raise UserError(f"{out}: cannot be written ({error.strerror}); make room or choose another") from error


def _refuse_others(out: Path, made: Mapping[str, object]) -> None:
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    if not (out / DATASET_JSON).is_file():
        raise UserError(f"{out}: exists and holds no converted dataset; choose another folder or remove it")
    before = read_json(out / DATASET_JSON)
    if before != made:
        differ = sorted(key for key in made if not isinstance(before, dict) or before.get(key) != made[key])
        raise UserError(f"{out}: its scenes were converted with other settings ({', '.join(differ)}); choose another")

"""The folder of a run: who writes it, what it was told, and what may lie in it already."""

from __future__ import annotations

import logging
import os
import shutil
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from filelock import FileLock, Timeout

from reliev3r.core.errors import UserError
from reliev3r.core.files import read_json, refuse_links_out, remove_leftovers, write_json
from reliev3r.core.settings import from_plain, refuse_changes, to_plain
from reliev3r.data.video import FRAMES, MANIFEST
from reliev3r.model.load import RANDOM

logger = logging.getLogger(__name__)

T = TypeVar("T")

Resume = bool | Literal["auto"]
"""Go on with the run in the folder: no, yes (there must be one), or ``auto``: start it, or go on where there is one. So
one command line serves the first start and every restart (`torchrun --max-restarts`, a requeued job)."""

_LOCK, _OWNER = ".lock", ".owner.json"
_ELSEWHERE = 60.0
"""Seconds to wait for a lock whose owner is gone or on another machine: a file server frees it late."""


def first_process() -> bool:
    """Whether this process is the one that writes (torchrun and accelerate launch number them)."""
    return os.environ.get("RANK", "0") == "0"


def process_count() -> int:
    """How many processes train together (torchrun and accelerate launch say it)."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def one_process() -> bool:
    """Whether no other process trains with this one."""
    return process_count() == 1


def start_of(model: str, init_from: str | None) -> str:
    """For the model card: what a training began with."""
    if init_from is not None:
        return f"random weights, {init_from} in a part"
    return "random weights" if model == RANDOM else model


def absolute(path: str | None) -> str | None:
    """A path of the settings as it must be kept: a run is resumed from another folder, too."""
    return None if path is None else str(Path(path).resolve())


@dataclass(frozen=True, kw_only=True)
class RunFolder:
    """Where a verb that trains puts everything; ``config.json`` says what the run is."""

    path: Path
    verb: str
    """``fit``, ``train`` or ``adapt``."""
    inputs: Mapping[str, str]
    """What the run is made of and must stay the same when it goes on, by name: capture, model, footage."""

    @property
    def file(self) -> Path:
        """All settings, resolved."""
        return self.path / "config.json"

    @contextmanager
    def held(self) -> Iterator[None]:
        """Nobody else may write to the folder meanwhile; the first process of a run holds it for all.

        The system frees the lock when its owner dies, however it dies. A folder in which no run was begun is left as
        it was.

        Raises:
            UserError: another process is at work in it, it cannot be written, or a link in it leads elsewhere.
        """
        if not first_process() or (self.path.exists() and not self.path.is_dir()):
            yield
            return
        refuse_links_out(self.path)
        there, frames_there = self.path.is_dir(), (self.path / FRAMES).exists()
        lock = self._lock()
        try:
            remove_leftovers(self.path, {"config.json", FRAMES})  # of a process that was killed as it wrote
            yield
        finally:
            (self.path / _OWNER).unlink(missing_ok=True)
            if self._run() is None:
                (self.path / _LOCK).unlink(missing_ok=True)
                if not frames_there:
                    shutil.rmtree(self.path / FRAMES, ignore_errors=True)
            lock.release()
            if not there:
                with suppress(OSError):  # not empty: the run began
                    self.path.rmdir()

    def _lock(self) -> FileLock:
        lock, owner = FileLock(self.path / _LOCK), self.path / _OWNER
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock.acquire(timeout=0 if _is_alive(owner) else _ELSEWHERE, poll_interval=0.5)
            write_json(owner, {"host": socket.gethostname(), "pid": os.getpid()})
        except Timeout as error:
            raise UserError(f"{self.path}: {_said(owner)} is at work in it; wait for it, or choose another") from error
        except OSError as error:
            raise UserError(f"{self.path}: cannot be written ({error.strerror}); choose another folder") from error
        return lock

    def goes_on(self, resume: Resume) -> bool:
        """Whether the run in the folder goes on: as asked, or under ``auto`` where there is one."""
        return self._run() is not None if resume == "auto" else resume

    def settings(self, given: T, usual: T, *, resume: bool) -> T:
        """The settings that hold: those given, or on ``resume`` the run's own. Writes nothing.

        Args:
            given: as the user asked.
            usual: the same without any change: what differs from it was asked for, and must agree on ``resume``.
            resume: go on with the run in the folder.

        Raises:
            UserError: the folder holds something else, no run to go on with, or one that was told otherwise.
        """
        if resume:
            return self._stored(given, usual)
        # A run that failed before training may be tried again: its labels are used once more.
        unstarted = self._run() is not None and not (self.path / "training").exists()
        if self.path.exists() and not unstarted and (not self.path.is_dir() or self._is_used()):
            raise UserError(f"{self.path}: not an empty folder; choose another --out, or --resume the run in it")
        return given

    def begin(self, settings: object) -> None:
        """Write ``config.json``; the first process does."""
        if first_process():
            write_json(self.file, {"format": self._format, **self.inputs, "settings": to_plain(settings)})

    def _is_used(self) -> bool:
        """Locks, and what a kill left, do not count: nor do the frames of a video, chosen before a run begins."""
        chosen = self.path / FRAMES
        frames = chosen.name if (chosen / MANIFEST).is_file() else ""
        return any(not path.name.startswith(".") and path.name != frames for path in self.path.iterdir())

    @property
    def _format(self) -> str:
        return f"reliev3r-{self.verb}/2"

    def _run(self) -> dict[str, Any] | None:
        """What ``config.json`` says of a run of this verb; ``None`` where it is of something else."""
        try:
            run = read_json(self.file)
        except UserError:
            return None
        return run if isinstance(run, dict) and run.get("format") == self._format else None

    def _stored(self, given: T, usual: T) -> T:
        if not self.file.is_file():
            raise UserError(f"{self.file}: not found, so there is no run to resume; drop --resume")
        run = self._run()
        if run is None:
            raise UserError(f"{self.file}: is not of `reliev3r {self.verb}` (of this version); choose another --out")
        for name, value in self.inputs.items():
            if run.get(name) != value:
                raise UserError(f"{self.file}: this run has {name} {run.get(name)}, not {value}; choose another --out")
        kept = from_plain(type(given), run["settings"], source=str(self.file))
        refuse_changes(kept, given, usual, source=str(self.file))
        return kept


def at_work(folder: Path) -> bool:
    """Whether a process writes to a run; of one on another machine it is only known that it has not said it ended."""
    try:
        elsewhere = read_json(folder / _OWNER)["host"] != socket.gethostname()
    except (UserError, KeyError, TypeError):
        return False
    return elsewhere or _is_alive(folder / _OWNER)


def _is_alive(owner: Path) -> bool:
    """Whether the process that wrote this note runs on this machine; also where there is no note."""
    try:
        note = read_json(owner)
        if note["host"] != socket.gethostname():
            return False
        os.kill(note["pid"], 0)
    except (UserError, PermissionError, KeyError, TypeError):
        return True
    except ProcessLookupError:
        return False
    return True


def _said(owner: Path) -> str:
    try:
        note = read_json(owner)
        return f"process {note['pid']} on {note['host']}"
    except (UserError, KeyError, TypeError):
        return "another process"

"""Workers as actors of a Ray cluster: each holds what it works with, on a GPU where it is given one."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from reliev3r.core.errors import UserError, described, first_line
from reliev3r.core.many.local import Crashed, Event, Finished, Progressed
from reliev3r.core.many.work import ONE_THREAD, Job, Task, environment, limit_threads

_log = logging.getLogger(__name__)
LONGEST_WITHOUT = 600.0
"""Seconds that a run waits for a first worker, or for another one once all are lost."""
LOOK_EVERY = 30.0
"""Seconds between two looks for nodes that have joined."""
LOCAL = "local"
"""As an address: a Ray of our own on this machine, for the time of the run."""


class RayPool:
    """Actors on the cluster at ``address`` ("auto", HOST:PORT, ray://HOST:PORT) or in a local Ray.

    Every node needs this package and sees all data under the same paths.
    """

    def __init__(self, job: Job, workers: int | None, *, address: str, gpus_per_worker: float = 0.0):
        self._ray = _import_ray()
        self._ours = not self._ray.is_initialized()
        # Nodes elsewhere are told at a second a worker; what we start here inherits it.
        self._environment = {"env_vars": ONE_THREAD}
        if self._ours:
            self._environment = _connect(self._ray, address, workers)
        self._job, self._gpus, self._grows = job, gpus_per_worker, workers is None
        self._actors: list[Any] = []
        self._up: set[int] = set()
        self._awaited: dict[Any, int] = {}  # first answers of actors that wait for a place, and their slots
        self._results: dict[Any, int] = {}  # references to results, and the slots they will come from
        self._progress: dict[Any, int] = {}
        self._looked = self._answered = time.monotonic()
        try:
            for slot in range(workers or self._room()):
                self._start(slot)
        except UserError:
            self.close()
            raise

    @property
    def ready(self) -> Sequence[int]:
        """Slots whose actor has answered. Those of a lost node wait until Ray finds them another place, if ever; nodes
        that join get actors of their own where the number of workers was left open."""
        self._grow()
        for reference in self._done(self._awaited):
            slot = self._awaited.pop(reference)
            try:
                self._ray.get(reference)
                self._up.add(slot)
            except self._ray.exceptions.RayError:  # it died before it could begin
                self._start(slot)
        if self._up:
            self._answered = time.monotonic()
        elif time.monotonic() - self._answered > LONGEST_WITHOUT:
            raise UserError(
                f"--ray: no node of the cluster has had room for a worker for {LONGEST_WITHOUT / 60:g} minutes; add "
                "one and start again: what is done stays"
            )
        return sorted(self._up)

    def submit(self, slot: int, task: Task) -> None:
        """Call the actor."""
        actor = self._actors[slot]
        self._results[actor.work.remote(task)] = slot
        self._progress[actor.progress.remote()] = slot

    def events(self) -> list[Event]:
        """Results and actors that died; where there are none, how far the actors are."""
        waiting = [*self._results, *self._awaited]
        ready, _ = self._ray.wait(waiting, num_returns=1, timeout=0.5) if waiting else ([], [])
        return [self._event(reference) for reference in ready if reference in self._results] + self._progressed()

    def close(self) -> None:
        """Kill the actors, and the local Ray with them."""
        for actor in self._actors:
            self._ray.kill(actor)
        if self._ours:
            self._ray.shutdown()

    def _event(self, reference: Any) -> Event:
        slot = self._results.pop(reference)
        try:
            crash, failure = self._ray.get(reference)
        except self._ray.exceptions.RayError as error:  # the process, its node or the way to it is gone
            self._start(slot)
            return Crashed(slot=slot, reason=f"its worker died ({type(error).__name__})")
        return Finished(slot=slot, failure=failure) if crash is None else Crashed(slot=slot, reason=crash)

    def _progressed(self) -> list[Event]:
        events: list[Event] = []
        for reference in self._done(self._progress):
            slot = self._progress.pop(reference)
            try:
                pid, done, total, what = self._ray.get(reference)
            except self._ray.exceptions.RayError:
                continue  # the result's own reference says more
            events.append(Progressed(slot=slot, pid=pid, done=done, total=total, what=what))
            if slot in self._results.values():
                self._progress[self._actors[slot].progress.remote()] = slot
        return events

    def _done(self, waiting: dict[Any, int]) -> list[Any]:
        """Which of the references are answered by now."""
        references = list(waiting)
        ready, _ = self._ray.wait(references, num_returns=len(references), timeout=0) if references else ([], [])
        return list(ready)

    def _start(self, slot: int) -> None:
        """An actor for a slot, in the place of the one that is there."""
        self._up.discard(slot)
        if slot < len(self._actors):
            self._ray.kill(self._actors.pop(slot))
        actor = (
            self._ray.remote(_Actor)
            .options(num_cpus=1, num_gpus=self._gpus, max_concurrency=2, runtime_env=self._environment)
            .remote(self._job, os.getcwd())
        )
        self._actors.insert(slot, actor)
        self._awaited[actor.progress.remote()] = slot

    def _grow(self) -> None:
        """Look for nodes that have joined, now and then."""
        if not self._grows or time.monotonic() - self._looked < LOOK_EVERY:
            return
        self._looked = time.monotonic()
        with suppress(UserError):  # no room at all: the nodes are lost
            for slot in range(len(self._actors), self._room()):
                self._start(slot)

    def _room(self) -> int:
        """As many workers as the cluster has GPUs for, or cores where they need none."""
        resources = self._ray.cluster_resources()
        count = int(resources.get("GPU", 0) / self._gpus) if self._gpus else int(resources.get("CPU", 0))
        if count < 1:
            raise UserError(f"--gpus-per-worker {self._gpus}: the Ray cluster has {resources.get('GPU', 0):g} GPUs")
        return count


class _Actor:
    """A worker; ``progress`` is answered in a second thread while ``work`` runs."""

    def __init__(self, job: Job, folder: str):
        limit_threads()
        with suppress(OSError):
            os.chdir(folder)  # what the job names by a relative path lies there
        self._worker = job.worker()
        self._at: tuple[float, float, str] = (0, 1, "")

    def work(self, task: Task) -> tuple[str | None, str | None]:
        """(what crashed, why the task's input does not allow it)."""
        try:
            return None, self._worker.work(task, self._note)
        except Exception as error:  # a fault of ours, memory, the disk: the run decides
            return described(error), None

    def progress(self) -> tuple[int, float, float, str]:
        """Process id, done, total, what."""
        return (os.getpid(), *self._at)

    def _note(self, done: float, total: float, what: str) -> None:
        self._at = (done, total, what)


def _import_ray() -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nobody asked it to report home
    try:
        import ray
    except ImportError as error:
        raise UserError("--ray needs Ray on every node: pip install 'reliev3r[cluster]'") from error
    return ray


def _connect(ray: Any, address: str, workers: int | None) -> dict[str, Any]:
    """Start or join; the runtime environment that the actors need to compute in one thread."""
    quiet = {"logging_level": "ERROR", "log_to_driver": False}
    try:
        if address == LOCAL:
            with environment(ONE_THREAD):
                ray.init(
                    address=LOCAL, num_cpus=workers, include_dashboard=False, _node_ip_address="127.0.0.1", **quiet
                )  # nobody else is to reach it; Ray's own default adds a token
            return {}
        if os.environ.get("RAY_AUTH_MODE") != "token":
            _log.warning("--ray %s: RAY_AUTH_MODE=token is not set; whoever reaches the ports of a cluster without a "
                         "token can run code on it (docs/security.md)", address)  # fmt: skip
        ray.init(address=address, **quiet)
        return {"env_vars": ONE_THREAD}
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise UserError(
            f"--ray {address}: no Ray cluster there ({first_line(error)}); start one or use --ray local"
        ) from error

"""What the run needs of a pool of workers, wherever they are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from reliev3r.labels.scale.captures import CaptureTask


@dataclass(frozen=True, kw_only=True)
class Progressed:
    """A worker is at work."""

    slot: int
    pid: int
    """Of the worker, on its machine."""
    done: int
    total: int
    what: str


@dataclass(frozen=True, kw_only=True)
class Finished:
    """A worker is through with its capture."""

    slot: int
    failure: str | None
    """Why the capture cannot be labelled; the worker has noted that in the store."""


@dataclass(frozen=True, kw_only=True)
class Crashed:
    """A worker died or stumbled over a fault that says nothing about its capture; it is ready again."""

    slot: int
    reason: str


Event = Progressed | Finished | Crashed


@runtime_checkable
class Pool(Protocol):
    """Workers in numbered slots, each of which labels one capture at a time; one that dies is replaced."""

    @property
    def slots(self) -> int:
        """How many captures can be labelled at the same time."""
        ...

    def submit(self, slot: int, task: CaptureTask) -> None:
        """Give a capture to the idle worker of a slot."""
        ...

    def events(self) -> list[Event]:
        """What happened; waits up to half a second where nothing did."""
        ...

    def close(self) -> None:
        """Stop all workers at once, whatever they do: labels are written atomically."""
        ...

"""How long work says how far it is; the command line draws it."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[float, float, str], None]
"""(done, total, what is done now)"""
Report = Callable[[str, float, float, str], None]
"""(stage, done, total, what is done now): of work in several stages."""


def silent(stage: str, done: float, total: float, what: str) -> None:
    """A :data:`Report` that nobody reads."""


def staged(report: Report, stage: str) -> Progress:
    """The progress of one stage of a report."""
    return lambda done, total, what: report(stage, done, total, what)

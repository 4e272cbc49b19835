"""A run that is still at work: its best weights so far, predicted anew whenever there are better ones."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reliev3r.core.errors import UserError
from reliev3r.core.files import read_json
from reliev3r.data.capture import Capture, load_capture
from reliev3r.data.find_captures import CaptureTask
from reliev3r.export.write import found_views
from reliev3r.model.predict import reconstruct_capture
from reliev3r.runs.fit import finished_run
from reliev3r.runs.run_folder import at_work
from reliev3r.runs.view.scene import NETWORK
from reliev3r.runs.view.server import Viewer
from reliev3r.runs.view.shown import Shown, originals
from reliev3r.training.captures import labelled_capture
from reliev3r.training.monitor import read_metrics

_FORMATS = ("reliev3r-fit/", "reliev3r-train/", "reliev3r-adapt/")
_VIEWS = 8
"""Of a capture that the run was not made from: evenly spaced."""


@dataclass(frozen=True, kw_only=True, eq=False)
class State:
    """What a run has written so far."""

    shown: Shown
    metrics: list[dict[str, Any]]
    status: str


def states(run: Path, capture: Path | None, *, seconds: float = 3.0) -> Iterator[State]:
    """The run as it is, and again whenever its best weights, its metrics or who works on it changed; endless.

    Args:
        run: the folder of a `fit` or a `train`.
        capture: what a `train` is shown on; a `fit` is shown on its own capture.
        seconds: between two looks.

    Raises:
        UserError: no run of that kind.
    """
    if not (run / "config.json").is_file():
        raise UserError(f"{run / 'config.json'}: not found; --live takes the folder of a fit or a train that was begun")
    config = read_json(run / "config.json")
    if not isinstance(config, dict) or not str(config.get("format", "")).startswith(_FORMATS):
        raise UserError(f"{run / 'config.json'}: is not of a fit, a train or an adapt; --live takes the folder of one")
    return _states(run, capture, fitted=config["format"].startswith(_FORMATS[0]), seconds=seconds)


def _states(run: Path, capture: Path | None, *, fitted: bool, seconds: float) -> Iterator[State]:
    best, rows = run / "training" / "best" / "record.json", run / "metrics.jsonl"
    scene: Capture | None = None
    shown, weights, seen = Shown(title=run.name), "no weights yet", (-1, -1, "")
    while True:
        now = (_changed(best), _changed(rows), _work(run))
        if now != seen:
            if now[0] != seen[0] and now[0]:
                try:
                    scene = scene or _capture(run, capture, fitted=fitted)
                    weights = "curves only: --capture IMAGES shows what it makes of them"
                    if scene is not None:
                        step = int(read_json(best)["step"])
                        found, _ = found_views(reconstruct_capture(scene, best.parent), None)
                        shown = Shown(title=run.name, versions={NETWORK: found}, photograph=originals(scene))
                        weights = f"shown: the best weights, of step {step}"
                except (UserError, OSError, KeyError, TypeError, ValueError) as error:
                    weights = str(error)  # or replaced while it was read: the next look finds the new one
            seen = now
            metrics = read_metrics(rows)
            parts = [f"step {metrics[-1]['step']}" if metrics else "no step yet", weights, now[2]]
            yield State(shown=shown, metrics=metrics, status="; ".join(filter(None, parts)))
        time.sleep(seconds)


def follow(viewer: Viewer, found: Iterator[State]) -> None:
    """Show all :func:`states`; ends by Ctrl-C."""
    for state in found:
        viewer.show(state.shown, metrics=state.metrics, status=state.status)


def _capture(run: Path, given: Path | None, *, fitted: bool) -> Capture | None:
    if fitted:
        told = finished_run(run)
        return labelled_capture(CaptureTask(name=run.name, path=told.capture, out=told.labels.resolve()))
    return None if given is None else load_capture(given, views=_VIEWS)


def _changed(path: Path) -> int:
    """When a file was last written; 0 where there is none."""
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return 0


def _work(run: Path) -> str:
    """What is to be said of the process that writes to the run; nothing while it does."""
    if not run.is_dir():
        return "its folder is gone"
    return "" if at_work(run) else "nobody is at work in it: it ended, or died (--resume goes on)"

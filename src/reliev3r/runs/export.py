"""The verb ``export``: what a finished fit found, in the formats of other programs."""

from __future__ import annotations

from pathlib import Path

from reliev3r.core.reconstruction import Reconstruction
from reliev3r.data.capture import Capture
from reliev3r.data.find_captures import CaptureTask
from reliev3r.export.lens import straightened_tracks
from reliev3r.export.write import export_reconstruction
from reliev3r.runs.fit import finished_run
from reliev3r.runs.outputs import best_of, tracks_of
from reliev3r.training.captures import labelled_capture


def export_run(
    run: Path, out: Path, *, network: bool = False, overwrite: bool = False, keep: float = 0.8,
    depth_size: int | None = None,
) -> list[Path]:  # fmt: skip
    """Write the best there is of a run, or the ``network``'s own word, as the suffix of ``out`` says.

    Raises:
        UserError: not finished, ``out`` exists and ``overwrite`` is off, or photographs that are needed are gone.
    """
    best = best_of(run, network=network)
    tracks = straightened_tracks(tracks_of(run, finished_run(run).labels, network=network), best)
    return export_reconstruction(
        best,
        tracks,
        out,
        overwrite=overwrite,
        capture=_photographs(run) if network else run,
        keep=keep,
        depth_size=depth_size,
    )


def _photographs(run: Path) -> Capture | Path:
    """Those that the network saw: the run's own, unless refinement took the lens out of them."""
    if not (run / "refined").is_dir() or Reconstruction.load(run / "refined").radial is None:
        return run
    told = finished_run(run)
    return labelled_capture(CaptureTask(name=told.labels.name, path=told.capture, out=told.labels.resolve()))

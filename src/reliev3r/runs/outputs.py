"""Everything that a finished run hands to people and to other tools."""

from __future__ import annotations

import dataclasses
import logging
import shutil
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from reliev3r.core.errors import UserError
from reliev3r.core.files import read_json, write_json
from reliev3r.core.progress import Report, silent, staged
from reliev3r.core.reconstruction import Reconstruction
from reliev3r.core.types import Tracks
from reliev3r.data.capture import Capture
from reliev3r.data.intrinsics import cameras_of, focal_uncertainty
from reliev3r.evaluation.heldout_quality import Quality, assess
from reliev3r.export.cameras import write_cameras
from reliev3r.export.lens import straightened_capture, straightened_tracks
from reliev3r.export.write import ARRAYS, VIEW, only_views, write_folder
from reliev3r.geometry.radial import undistorted
from reliev3r.labels.pipeline import CaptureLabels
from reliev3r.labels.prepare import Prepared
from reliev3r.labels.store import load_tracks, read_tracks, write_tracks
from reliev3r.labels.tracks.dense import dense_tracks, tied_views
from reliev3r.report.html import write_report
from reliev3r.sfm.held_views import held_views
from reliev3r.sfm.lens import LensPrior
from reliev3r.sfm.place_views import trusted
from reliev3r.sfm.refine import RefineResult, refine_cameras
from reliev3r.training.monitor import read_metrics

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, eq=False)
class Fitted:
    """One capture after training: what every output is made of."""

    capture: Capture
    labels: CaptureLabels
    prepared: Prepared
    """What was trained on, and which tracks were held out."""
    reconstruction: Reconstruction
    """The network's last word."""
    quality: Quality
    """Of the reconstruction, by the held-out tracks."""
    notes: tuple[str, ...]
    """Warnings and choices, in plain language."""
    settings: dict[str, Any]
    """Of the run, as plain values."""


WITHOUT_EVIDENCE = "cameras_without_evidence.json"
"""In a run's folder: the cameras that are guesses, in the format of ``cameras.json``."""


TRACKS = "tracks.npz"
"""In ``refined/``: what the cameras were adjusted on, in pixels of the capture's images, which exports triangulate."""


def write_outputs(
    out: Path, fitted: Fitted, *, refine: bool, report: Report = silent
) -> tuple[RefineResult | None, list[str]]:
    """Write prediction, photographs, cameras, maps, point clouds, COLMAP model, figures and the report into ``out``.

    What other programs read is the best there is: with ``refine`` the refined cameras, if held-out tracks do not speak
    against them; ``quality.json`` says what was decided and why, as does the result's ``reason``. Views whose cameras
    no tracks hold in place are left out of it and named; their cameras are kept in :data:`WITHOUT_EVIDENCE`. The
    network's own word stays in ``prediction/``, the refined reconstruction goes to ``refined/``.

    Returns the refinement, if it was asked for, and sentences on what lies on top.
    """
    prepared, network = fitted.prepared, fitted.reconstruction
    tracks = fitted.labels.tracks.select_tracks(prepared.train_index)
    heldout = fitted.labels.tracks.select_tracks(prepared.heldout_index)
    network.save(out / "prediction")
    refined, notes, quality = None, list(fitted.notes), fitted.quality
    best, figures = network, {"network": dataclasses.asdict(quality)}
    if refine:
        more = dense_tracks(fitted.capture, tracks, progress=staged(report, "matches"))
        refined = refine_cameras(
            network, more, heldout, lens=_lens_prior(fitted.capture), guessed=~tied_views(tracks),
            progress=staged(report, "refine"),
        )  # fmt: skip
        report("refine", 1, 1, "")
        notes.append(refined.reason)
        shutil.rmtree(out / "refined", ignore_errors=True)  # of an earlier refinement
        figures["refined"] = {
            "kept": refined.kept, "reason": refined.reason,
            "lenses": [dataclasses.asdict(lens) for lens in refined.lenses],
        }  # fmt: skip
        if refined.kept:
            best = refined.reconstruction
            best.save(out / "refined")
            tracks = trusted(more, torch.tensor([name not in refined.guesses for name in best.names]))
            write_tracks(out / "refined" / TRACKS, tracks, {"of": "the cameras' last adjustment"})
            quality = assess(best.prediction, _on_the_grid(prepared.heldout, best))
            figures["refined"] |= dataclasses.asdict(quality)
    report("outputs", 0, 1, "writing cameras, points and the report")
    best = dataclasses.replace(best, capture=straightened_capture(fitted.capture, best))
    tracks, heldout = straightened_tracks(tracks, best), straightened_tracks(heldout, best)
    without = _guessed(best, tracks, heldout)
    alarms = list(quality.alarms)
    if without:
        alarms.append(_sentence(without, best))
        _log.warning(alarms[-1])
    _write_best(out, best, tracks, without, copy_images=bool(fitted.settings.get("copy_images")))
    write_json(out / "quality.json", {**figures, "without_evidence": without, "notes": notes, "meta": network.meta})
    write_report(
        out / "report.html",
        reconstruction=network,
        refined=best if refined is not None and refined.kept else None,
        tracks=tracks,
        heldout=heldout,
        label_depth=prepared.raw_depth,
        metrics=read_metrics(out / "metrics.jsonl"),
        photograph=best.capture.image,
        quality={**dataclasses.asdict(quality), "alarms": alarms},
        scores=None,
        notes=notes,
        settings=fitted.settings,
        look=VIEW,
    )
    report("outputs", 1, 1, "")
    said = [] if refined is None else [refined.reason]
    if refined is not None and refined.kept:
        said.append(f"under the refined cameras: {quality.summary}")
    return refined, said + alarms[len(quality.alarms) :]


def _lens_prior(capture: Capture) -> LensPrior | None:
    """What adjustment may change about the lenses: nothing where intrinsics were measured."""
    sigma = focal_uncertainty(capture)
    if sigma is None:
        return None
    rectified = any(frame.rectification is not None for frame in capture.frames)
    return LensPrior(camera_of=cameras_of(capture), focal_sigma=sigma, distortion=not rectified)


def _on_the_grid(heldout: Tracks, best: Reconstruction) -> Tracks:
    """Tracks on the network's pixels, without the distortion that refinement found."""
    if best.radial is None:
        return heldout
    return undistorted(heldout, best.prediction.K, torch.tensor(best.radial, dtype=torch.float64))


def best_of(run: Path, *, network: bool = False) -> Reconstruction:
    """What lies on top of a finished run, its capture not opened; ``network``: the network's own cameras instead.

    Raises:
        UserError: not finished, or damaged.
    """
    refined = run / "refined"
    found = Reconstruction.load(run / "prediction" if network or not refined.is_dir() else refined)
    quality = read_json(run / "quality.json")
    guessed = quality.get("without_evidence", []) if isinstance(quality, dict) else None
    if not isinstance(guessed, list) or not all(isinstance(name, str) for name in guessed):
        raise UserError(f"{run / 'quality.json'}: damaged; `reliev3r refine {run}` writes it anew")
    return _without(found, guessed)


def tracks_of(run: Path, labels: Path, *, network: bool = False) -> Tracks:
    """Those that the exports of a finished run triangulate: of its refinement, else of its ``labels``.

    Raises:
        UserError: damaged or gone.
    """
    dense = run / "refined" / TRACKS
    return read_tracks(dense)[0] if dense.is_file() and not network else load_tracks(labels)


def _guessed(reconstruction: Reconstruction, *tracks: Tracks) -> list[str]:
    """Names of the views that no tracks hold in place."""
    evidence = Tracks(
        uv=torch.cat([some.uv for some in tracks], dim=1), weight=torch.cat([some.weight for some in tracks], dim=1)
    )
    held = held_views(evidence, reconstruction.K_original, reconstruction.prediction.world_from_cam)
    return [name for name, tied in zip(reconstruction.names, held.tolist(), strict=True) if not tied]


def _without(reconstruction: Reconstruction, guessed: Collection[str]) -> Reconstruction:
    """Exports leave the guessed views out, unless that would leave no two."""
    found = torch.tensor([name not in guessed for name in reconstruction.names])
    return dataclasses.replace(reconstruction, found=found) if found.sum() >= 2 else reconstruction


def _sentence(guessed: list[str], reconstruction: Reconstruction) -> str:
    if len(reconstruction.names) - len(guessed) < 2:
        return "no camera has enough matches that agree with it: all of them are guesses"
    return (
        f"too few matches hold {', '.join(guessed)} in place: left out of the cameras, sparse/0 and transforms.json "
        f"({WITHOUT_EVIDENCE} has what the network guesses)"
    )


def _write_best(out: Path, best: Reconstruction, tracks: Tracks, guessed: list[str], *, copy_images: bool) -> None:
    shown = _without(best, guessed)
    write_folder(shown, tracks, out, without=[ARRAYS], copy_images=copy_images)  # ``prediction/`` has the arrays
    (out / WITHOUT_EVIDENCE).unlink(missing_ok=True)
    if shown.found is not None and guessed:
        write_cameras(only_views(best, (~shown.found).nonzero()[:, 0].tolist()), out / WITHOUT_EVIDENCE)

"""The verb ``reconstruct``: images in, reconstructions out, without training."""

from __future__ import annotations

import logging
from pathlib import Path

from reliev3r.core.device import Precision
from reliev3r.core.errors import UserError
from reliev3r.core.progress import Report, silent, staged
from reliev3r.core.reconstruction import Reconstruction
from reliev3r.data.capture import load_capture
from reliev3r.data.intrinsics import with_intrinsics
from reliev3r.export.write import export_reconstruction, refuse_taken
from reliev3r.model.load import PACKAGED, Model
from reliev3r.runs.held_matches import contradiction
from reliev3r.solve.capture import TrackChoice, reconstruct_groups

logger = logging.getLogger(__name__)


def reconstruct(
    images: Path,
    model: Model | Path | str = PACKAGED,
    *,
    intrinsics: str | None = None,
    views: int | None = None,
    image_size: int | None = None,
    tracks: TrackChoice = "auto",
    precision: Precision | None = None,
    device: str = "auto",
    cache: Path | None = None,
    report: Report | None = None,
) -> list[Reconstruction]:
    """Depth, confidence and cameras of a folder of images or a video: one reconstruction for each group of views that
    see something in common, the largest first.

    Args:
        images: a folder of images, a capture, or a video.
        model: a network, or the name of one: ``reliev3r-tiny`` (it comes with the package), a checkpoint's folder,
            ``pi3:PATH``, or another system's (``model.load``).
        intrinsics: FILE, fov:DEG or exif; by default the capture's own, else found from the matches or predicted.
        views: this many images, evenly spaced; of a video at most that many frames.
        image_size: long side in pixels of the network's images; by default the one that it was trained with.
        tracks: what cameras are solved from, where the network solves them (:func:`solve.capture.reconstruct_groups`).
        precision: of a network that regresses its cameras; by default the one that it was trained with.
        device: of a network that is named: auto (the accelerator where there is one), cpu, cuda, ...
        cache: folder for a video's frames.
        report: hears of the progress.

    Where a network predicts its cameras and matches between the images contradict them, a warning says so, and so does
    ``meta["contradicted"]``.

    Raises:
        UserError: bad images or checkpoint, images that share nothing, or unknown intrinsics that nothing tells.
    """
    report = report or silent
    capture = load_capture(images, views=views, cache=cache, progress=staged(report, "frames"))
    capture = with_intrinsics(capture, intrinsics)
    found = reconstruct_groups(
        capture, model, image_size=image_size, tracks=tracks, precision=precision, device=device, report=report
    )
    if "tracks" not in found[0].meta and (doubt := contradiction(found[0], capture)):  # solved ones come from matches
        logger.warning(doubt)
        found[0].meta["contradicted"] = doubt
    return found


def check_place(out: Path, *, overwrite: bool = False) -> None:
    """Refuse, before minutes of work, what :func:`write_groups` would refuse after them.

    Raises:
        UserError: unknown suffix, or a file that exists already and ``overwrite`` is off.
    """
    for target in _targets(out):
        refuse_taken(target, overwrite=overwrite)


def _targets(out: Path) -> list[Path]:
    return [out, out.with_suffix(".html")] if out.suffix == ".glb" else [out]


def write_groups(
    found: list[Reconstruction], out: Path, *, overwrite: bool = False, report: Report | None = None
) -> list[Path]:
    """Export the first to ``out``, and group N of the others beside it: ``scene.group2.glb``, or a folder
    ``groupN`` in it; returns what was written. A ``.glb`` has a page to look at it beside it (``scene.html``).
    ``report`` hears of the maps.

    Raises:
        UserError: unknown suffix, or a file that exists already and ``overwrite`` is off.
    """
    places = [out]
    for number in range(2, len(found) + 1):
        places.append(out.with_suffix(f".group{number}{out.suffix}") if out.suffix else out / f"group{number}")
    targets = [_targets(place) for place in places]
    for target in [*(target for each in targets[1:] for target in each), *targets[0][1:]]:  # before anything is written
        if target.exists() and not overwrite:
            raise UserError(f"{target}: exists already; choose another name, or --overwrite (Python: overwrite=True)")
    return [
        path
        for reconstruction, own in zip(found, targets, strict=True)
        for target in own
        for path in export_reconstruction(
            reconstruction, None, target, overwrite=overwrite, progress=staged(report or silent, "maps")
        )
    ]

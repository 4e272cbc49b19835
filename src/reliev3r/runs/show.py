"""What a network makes of a scene, in one figure: the paper's Figures 1 to 4, for a trained network."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from reliev3r.core.errors import UserError
from reliev3r.core.progress import Report, silent
from reliev3r.core.reconstruction import Reconstruction
from reliev3r.data.capture import Capture, load_capture
from reliev3r.data.find_captures import CaptureTask
from reliev3r.data.network_views import resize_depth
from reliev3r.evaluation.systems import select_frames
from reliev3r.geometry.sampling import evenly_spaced
from reliev3r.labels.store import CaptureLabels, load_labels
from reliev3r.model.load import Model
from reliev3r.model.predict import reconstruct_capture
from reliev3r.report.html import write_report
from reliev3r.report.showcase import write_showcase
from reliev3r.training.captures import labelled_capture

VIEWS = 8
"""As many as the paper's samples have."""


def show(
    model: Model | Path | str,
    capture: Path | str,
    out: Path,
    *,
    labels: Path | None = None,
    views: int = VIEWS,
    image_size: int | None = None,
    device: str = "auto",
    report: Report = silent,
) -> tuple[Path, ...]:
    """Write ``out/figure.png`` (a column for each view) and ``out/report.html`` (the same views one by one).

    Args:
        model: a network, or its name (``model.load``).
        capture: a folder of images, a capture folder or a video.
        out: folder for both files; it may hold those of an earlier call.
        labels: the capture's pseudo-labels, or the store that they lie in; without them the figure has no rows of them.
        views: evenly spaced, of those that were labelled.
        image_size: long side of the network's images; by default that of its training.
        device: of a network that is named.
        report: progress.

    Returns:
        The files.

    Raises:
        UserError: no such capture or labels, or unknown intrinsics that the network does not predict.
    """
    path = Path(capture)
    if views < 2:
        raise UserError(f"views={views}: a reconstruction needs at least 2 views")
    given = None
    if labels is None:
        scene = load_capture(path, views=views)
    else:
        folder = labels_of(path, labels)
        whole = labelled_capture(CaptureTask(name=path.name, path=path.resolve(), out=folder))
        scene = select_frames(whole, evenly_spaced(whole.names, views))
        given = load_labels(folder, scene)
    report("show", 0, 2, "network")
    reconstruction = reconstruct_capture(scene, model, image_size=image_size, device=device)
    report("show", 1, 2, "figure")
    tracks = None if given is None else given.tracks
    depth = None if given is None else depth_on_grid(given, scene, reconstruction)
    out.mkdir(parents=True, exist_ok=True)
    name = reconstruction.meta["system"].removeprefix("reliev3r reconstruct ").strip("()")
    files = (out / "figure.png", out / "report.html")
    write_showcase(
        files[0], reconstruction, tracks=tracks, label_depth=depth, photograph=scene.image,
        title=f"{Path(scene.root).name[:40]}, {len(scene.frames)} views, by {name}",
    )  # fmt: skip
    write_report(
        files[1], reconstruction=reconstruction, tracks=tracks, label_depth=None if depth is None else list(depth),
        photograph=scene.image,
    )  # fmt: skip
    report("show", 2, 2, "")
    return files


def labels_of(capture: Path, place: Path) -> Path:
    """The folder of a capture's labels: ``place`` itself, or the folder in that store which is called as the capture
    (or as the last parts of its path: `reliev3r label ROOT` names captures by their path in ROOT).

    Raises:
        UserError: there is none.
    """
    parts = capture.resolve().parts
    found = [place.joinpath(*parts[-count:]) for count in range(1, len(parts))]
    folder = next((each for each in (place, *found) if (each / "manifest.json").is_file()), None)
    if folder is None:
        raise UserError(f"{place}: has no finished labels of {capture}; run `reliev3r label {capture} --out {place}`")
    return folder


def depth_on_grid(labels: CaptureLabels, capture: Capture, reconstruction: Reconstruction) -> np.ndarray | None:
    """The expert's depth on the pixels of the prediction [v, h, w], 0 where unknown; None where it knows nothing."""
    height, width = reconstruction.prediction.depth.shape[-2:]
    maps = []
    for index, frame in enumerate(capture.frames):
        stored, region = labels.depth(index), tuple(reconstruction.regions[index].tolist())
        depth, valid = resize_depth(stored.depth, stored.valid, region, (frame.width, frame.height), (height, width))
        maps.append(np.where(valid, depth, 0))
    return np.stack(maps) if any(each.any() for each in maps) else None

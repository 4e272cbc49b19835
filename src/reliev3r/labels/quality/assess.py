"""Measure and judge the labels of one capture, and keep the result beside them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, get_args

import numpy as np

from reliev3r.core.errors import UserError
from reliev3r.core.files import file_hash, read_sealed, write_sealed
from reliev3r.core.progress import Progress
from reliev3r.core.settings import from_plain
from reliev3r.core.types import Tracks
from reliev3r.data.capture import Capture
from reliev3r.data.intrinsics import with_intrinsics
from reliev3r.geometry.sampling import evenly_spaced
from reliev3r.labels.expert import DepthMap
from reliev3r.labels.quality.cameras import (
    MOST_VIEWS,
    SampleSolve,
    advised_fov,
    judge_pairs,
    sample_intrinsics,
    solve_sample,
    track_parallax,
)
from reliev3r.labels.quality.figures import (
    DepthFigures,
    FovFigures,
    ImageFigures,
    LabelFigures,
    TrackFigures,
    compare_depth,
    given_fov,
)
from reliev3r.labels.quality.label_verdict import TURNED_ONLY, Finding, LabelVerdict, explain_pictures, judge_labels
from reliev3r.labels.quality.pictures import FILE as SHEET
from reliev3r.labels.quality.pictures import appearance, repetition, write_sheet
from reliev3r.labels.store import CaptureLabels, load_labels
from reliev3r.sfm.track_graph import connected_parts, lifetimes, sample_views, shared_tracks, survival

FORMAT = "reliev3r-label-quality/1"
FILE = "quality.json"
MOST_IMAGES = 24
"""Pictures that are looked at; of more, evenly spaced ones."""
_REPETITION_IMAGES = 3
_RELIABLE_DEG = 1.0  # tracks that span less have no depth to compare with


@dataclass(frozen=True, kw_only=True)
class LabelQuality:
    """Whether the labels of a capture are worth training on."""

    verdict: LabelVerdict
    findings: tuple[Finding, ...]
    """What is wrong, the gravest first; empty where the verdict is good."""
    figures: dict[str, Any]
    """``LabelFigures`` as JSON, rounded to four digits."""
    labels_sha256: str
    """Of the manifest of the labels that were judged."""

    @property
    def sentences(self) -> tuple[str, ...]:
        """Reason and remedy of each finding."""
        return tuple(f"{finding.reason}; {finding.remedy}" for finding in self.findings)


def assess_labels(folder: Path | str, capture: Capture) -> LabelQuality:
    """Judge the finished labels in ``folder`` of a capture, as it was labelled (intrinsics included).

    Deterministic; looks at samples of at most 24 pictures, 64 pairs, 12 views and 400 tracks, so that it costs seconds
    for any capture. Ground truth is not read.

    Raises:
        UserError: unfinished labels, labels of other images, or unreadable images.
    """
    labels = load_labels(folder, capture, check="size")
    verdict, findings = judge_labels(figures := measure(capture, labels.tracks, labels))
    return LabelQuality(
        verdict=verdict,
        findings=findings,
        figures=_rounded(dataclasses.asdict(figures)),
        labels_sha256=file_hash(Path(folder) / "manifest.json"),
    )


def write_quality(folder: Path | str, quality: LabelQuality) -> None:
    """Write ``quality.json`` beside the labels: the same labels give the same bytes."""
    folder = Path(folder)
    picture = {"picture_sha256": _picture_hash(folder)}
    write_sealed(folder / FILE, {"format": FORMAT, **dataclasses.asdict(quality), **picture})


def read_quality(folder: Path | str) -> LabelQuality | None:
    """The stored quality of the labels in ``folder``; None where there is none or the labels were made anew since."""
    folder = Path(folder)
    try:
        content = read_sealed(folder / FILE, FORMAT)
        del content["format"]
        if content.pop("picture_sha256") != _picture_hash(folder):
            return None
        if content["labels_sha256"] != file_hash(folder / "manifest.json"):
            return None
        where = str(folder / FILE)
        findings = tuple(from_plain(Finding, finding, source=where) for finding in content.pop("findings"))
        from_plain(LabelFigures, content["figures"], source=where)
        found = LabelQuality(findings=findings, **content)
        return found if found.verdict in get_args(LabelVerdict) else None
    except (UserError, OSError, AttributeError, KeyError, TypeError):
        return None


def quality_of(folder: Path | str, capture: Capture, *, progress: Progress | None = None) -> LabelQuality:
    """The stored quality where it is still true, else a new one, which is stored with a picture of the labels."""
    found = read_quality(folder)
    if found is None or not (Path(folder) / SHEET).is_file():
        if progress:
            progress(0, 1, "judging the labels")
        found = assess_labels(folder, capture)
        write_sheet(folder, capture, load_labels(folder, capture, check="size"))
        write_quality(folder, found)
        if progress:
            progress(1, 1, "judging the labels")
    return found


def _picture_hash(folder: Path) -> str | None:
    return file_hash(folder / SHEET) if (folder / SHEET).is_file() else None


def why_no_matches(capture: Capture) -> str:
    """What the pictures of a capture without any matches show, as the end of a sentence for the user."""
    finding = explain_pictures(_images(capture))
    if finding is None:
        return "they need much overlap: either they show different places, or they are too far apart"
    return f"{finding.reason}; {finding.remedy}"


def measure(capture: Capture, tracks: Tracks, labels: CaptureLabels | None) -> LabelFigures:
    """All figures of a capture from its tracks [v, m] and, where there are any, its depth maps."""
    pairs = judge_pairs(tracks, capture)
    solve = None
    if pairs is not None and pairs.turned_only < TURNED_ONLY:  # nothing to triangulate, else
        solve = solve_sample(tracks, capture)
    views = solve.views if solve is not None else sample_views(tracks, MOST_VIEWS)
    maps = {} if labels is None else {view: labels.depth(view) for view in views}
    return LabelFigures(
        views=len(capture.frames),
        tracks=_ties(capture, tracks),
        pairs=pairs,
        cameras=None if solve is None else solve.figures,
        images=_images(capture),
        depth=_depth(capture, maps, solve)
        if labels is not None and labels.fingerprints["depth"]["name"] != "none"
        else None,
        fov=_fov(capture, tracks, maps, solve),
    )


def _ties(capture: Capture, tracks: Tracks) -> TrackFigures:
    seen = tracks.visible
    parts = tuple(tuple(capture.names[view] for view in part) for part in connected_parts(seen))
    return TrackFigures(
        count=int((seen.sum(0) >= 2).sum()),
        per_view=tuple(shared_tracks(seen).diagonal().tolist()),
        survival=survival(seen),
        lifetimes=lifetimes(seen) if capture.ordered else None,
        parts=parts,
    )


def _images(capture: Capture) -> ImageFigures:
    looked_at = evenly_spaced(range(len(capture.frames)), MOST_IMAGES)
    closely = evenly_spaced(looked_at, _REPETITION_IMAGES)
    seen, repeats = [], []
    for view in looked_at:
        image = capture.image(view)
        seen.append(appearance(image))
        if view in closely:
            repeats.append(repetition(image))
    typical = max(median(figures.sharpness for figures in seen), 1e-12)
    return ImageFigures(
        frames=tuple(capture.names[view] for view in looked_at),
        sharpness=tuple(figures.sharpness / typical for figures in seen),
        blur=tuple(figures.blur for figures in seen),
        streak=tuple(figures.streak for figures in seen),
        texture=tuple(figures.texture for figures in seen),
        copies=median(figures.copies for figures in repeats),
        mirrored=median(figures.mirrored for figures in repeats),
    )


def _depth(capture: Capture, maps: dict[int, DepthMap], solve: SampleSolve | None) -> DepthFigures | None:
    """None where no view was looked at. An expert may leave out everything, which must show."""
    if not maps:
        return None
    compared = [] if solve is None else _compared(capture, maps, solve)

    def middle(name: str) -> float | None:
        return median(getattr(figures, name) for figures in compared) if compared else None

    return DepthFigures(
        views=len(maps),
        invalid=1 - float(np.mean([depth.valid.mean() for depth in maps.values()])),
        compared=len(compared),
        rank_correlation=middle("rank_correlation"),
        scale_error=middle("scale_error"),
        flat_error=middle("flat_error"),
    )


def _compared(capture: Capture, maps: dict[int, DepthMap], solve: SampleSolve) -> list[Any]:
    depth, certainty = solve.solve.track_depth
    K = sample_intrinsics(capture, solve.views, solve.fov_deg)
    reliable = (certainty > 0) & (track_parallax(solve.tracks, K, solve.solve).rad2deg() > _RELIABLE_DEG)
    found = []
    for row, view in enumerate(solve.views):
        use = reliable[row]
        size = (capture.frames[view].width, capture.frames[view].height)
        uv, target = solve.tracks.uv[row, use].double().numpy(), depth[row, use].double().numpy()
        found.append(compare_depth(maps[view], uv, target, size))
    return [figures for figures in found if figures is not None]


def _fov(capture: Capture, tracks: Tracks, maps: dict[int, DepthMap], solve: SampleSolve | None) -> FovFigures:
    expert = [float(np.degrees(depth.fov)) for depth in maps.values() if depth.fov is not None]
    by_tracks, given = None, given_fov(capture, 0)
    if solve is not None:
        by_tracks = solve.fov_deg
        if given is not None:
            by_tracks = advised_fov(tracks, solve.views, capture, given)
    return FovFigures(
        given=given, source=capture.K_source, exif=_exif_fov(capture),
        expert=median(expert) if expert else None, tracks=by_tracks,
    )  # fmt: skip


def _exif_fov(capture: Capture) -> float | None:
    try:
        return given_fov(with_intrinsics(dataclasses.replace(capture, frames=capture.frames[:1]), "exif"), 0)
    except UserError:
        return None


def _rounded(value: Any) -> Any:
    """Floats to four significant digits: beyond, machines may differ."""
    if isinstance(value, float):
        return float(f"{value:.4g}")
    if isinstance(value, dict):
        return {name: _rounded(item) for name, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_rounded(item) for item in value]
    return value

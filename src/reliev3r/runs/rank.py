"""The verb ``rank``: systems on footage without ground truth, ordered by how far they agree with its images."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from reliev3r.core.errors import UserError
from reliev3r.core.files import write_json
from reliev3r.core.progress import Report, silent, staged
from reliev3r.core.reconstruction import Reconstruction
from reliev3r.core.settings import to_plain
from reliev3r.data.capture import Capture, load_capture
from reliev3r.data.find_captures import find_captures
from reliev3r.data.intrinsics import with_intrinsics
from reliev3r.evaluation.predictions import PredictionFailed, predict_cell
from reliev3r.evaluation.systems import System, select_frames
from reliev3r.geometry.sampling import evenly_spaced
from reliev3r.labels.expert import TrackExpert
from reliev3r.report.comparison import ScenePicture, scene_picture
from reliev3r.report.ranking import write_ranking
from reliev3r.verdict.agreement import Agreement, agreement, nothing, tied_pairs
from reliev3r.verdict.evidence import MOST_FRAMES, Evidence, image_evidence
from reliev3r.verdict.ranking import RankConfig, Ranking, ranked, refuse_too_little

logger = logging.getLogger(__name__)

_PICTURED = 2
"""Captures that the page has pictures of."""


@dataclass(frozen=True, kw_only=True, eq=False)
class RankedCapture:
    """One capture with what all systems made of it."""

    capture: Capture
    """The frames that were compared, with the intrinsics that every system was given."""
    evidence: Evidence
    reconstructions: dict[str, Reconstruction]
    """By system, of the capture's frames in their order; those that failed are not in it."""


@dataclass(frozen=True, kw_only=True, eq=False)
class RankResult:
    """What ``rank`` hands back; ``ranking.json`` and ``ranking.html`` say it too."""

    ranking: Ranking
    captures: tuple[RankedCapture, ...]
    notes: tuple[str, ...]
    """What must be read beside the ranking."""
    failures: int
    """Systems that failed on a capture, counted once for each."""


def rank(
    systems: Sequence[System],
    footage: Path,
    out: Path,
    *,
    views: int | None = None,
    intrinsics: str | None = None,
    expert: TrackExpert | None = None,
    config: RankConfig | None = None,
    report: Report | None = None,
) -> RankResult:
    """:func:`compare`, and write ``out``/ranking.json and ``out``/ranking.html."""
    result = compare(
        systems, footage, out, views=views, intrinsics=intrinsics, expert=expert, config=config, report=report
    )
    _write(out, result, config or RankConfig())
    return result


def compare(
    systems: Sequence[System],
    footage: Path,
    out: Path,
    *,
    views: int | None = None,
    intrinsics: str | None = None,
    expert: TrackExpert | None = None,
    config: RankConfig | None = None,
    report: Report | None = None,
) -> RankResult:
    """Run systems on footage and rank them by matches found anew in its images; no ground truth is read.

    Predictions are kept in ``out``/predictions and not made twice, as those of ``evaluate``. What a system does not
    give - a view, a group of views, depth, everything - counts as missed in every pair of frames that it belongs to.

    Args:
        systems: named as for ``evaluate`` (:func:`~reliev3r.evaluation.systems.systems_from_specs`), in any order.
        footage: a capture (folder of images or video), a folder of captures, or a .txt file that lists captures.
        out: gets the predictions.
        views: this many frames of each capture, evenly spaced (a video: by motion); by default at most 48, or the
            frames of finished runs.
        intrinsics: FILE, fov:DEG or exif; by default the captures' own, else estimated from the matches.
        expert: finds the matches; by default SIFT.
        config: when two systems count as different.
        report: hears of the progress.

    Raises:
        UserError: bad footage, a finished run of other images, or too little evidence.
    """
    report = report or silent
    fingerprints = {system.name: system.fingerprint() for system in systems}
    opened = _opened(footage, out, systems, views, intrinsics, report)
    done: list[RankedCapture] = []
    agreements: dict[str, list[Agreement]] = {system.name: [] for system in systems}
    found, notes = _evidence(opened, expert, report)
    # Before hours of systems that nobody could tell apart
    refuse_too_little(sum(len(tied_pairs(evidence)) for _, evidence in found), [name for name, _ in opened], config)
    failures = 0
    for number, (capture, evidence) in enumerate(found):
        made: dict[str, Reconstruction] = {}
        for k, system in enumerate(systems):
            report("systems", number * len(systems) + k, len(found) * len(systems), f"{evidence.name}: {system.name}")
            try:
                made[system.name] = _made(system, fingerprints[system.name], evidence.name, capture, out)
            except PredictionFailed as error:
                failures += 1
                agreements[system.name].append(nothing(evidence, f"failed, and counts as missed everywhere: {error}"))
                logger.warning("%s failed on %s: %s", system.name, evidence.name, error)
            else:
                agreements[system.name].append(agreement(made[system.name], evidence))
        notes += _notes(capture, evidence)
        done.append(RankedCapture(capture=capture, evidence=evidence, reconstructions=made))
    report("systems", 1, 1, "")
    ranking = ranked(agreements, [each.evidence.name for each in done], config)
    return RankResult(ranking=ranking, captures=tuple(done), notes=tuple(notes), failures=failures)


def _opened(
    footage: Path, out: Path, systems: Sequence[System], views: int | None, intrinsics: str | None, report: Report
) -> list[tuple[str, Capture]]:
    """The captures of the footage by name, with the frames that are compared."""
    finished = [system for system in systems if system.frames is not None]
    if finished and views is not None:
        raise UserError(
            f"--views {views}: {finished[0].name} has frames of its own, which all others get; leave it out"
        )
    found = find_captures(footage, out)
    if found is not None and finished:
        raise UserError(f"{footage}: is a folder of captures, {finished[0].name} is of one; give --footage that one")
    paths = [(footage.stem, footage)] if found is None else [(task.name, task.path) for task in found]
    captures = []
    for name, path in paths:
        capture = load_capture(path, views=views, progress=staged(report, "frames"))
        capture = with_intrinsics(capture, intrinsics)
        captures.append((name, _compared_frames(capture, finished, limited=views is None)))
    return captures


def _compared_frames(capture: Capture, finished: Sequence[System], *, limited: bool) -> Capture:
    """All frames that any finished run has; else all there are, up to a number that can be matched in minutes."""
    if finished:
        own = {name for system in finished for name in select_frames(capture, system.frames or ()).names}
        return select_frames(capture, [name for name in capture.names if name in own])
    if limited and len(capture.frames) > MOST_FRAMES:
        logger.info("%s: %d of %d frames are compared; --views asks for more or fewer", capture.root, MOST_FRAMES,
                    len(capture.frames))  # fmt: skip
        return dataclasses.replace(capture, frames=tuple(evenly_spaced(capture.frames, MOST_FRAMES)))
    return capture


def _evidence(
    opened: Sequence[tuple[str, Capture]], expert: TrackExpert | None, report: Report
) -> tuple[list[tuple[Capture, Evidence]], list[str]]:
    """What the images of each capture say, and notes of those that are left out."""
    found, notes = [], []
    for name, capture in opened:
        evidence = image_evidence(capture, expert=expert, name=name, progress=staged(report, f"matches of {name}"))
        if evidence.K is None:
            _leave_out(name, alone=len(opened) == 1)
            notes.append(f"{name} is left out: its intrinsics are unknown, and the matches do not tell them.")
        else:
            found.append((_with_K(capture, evidence), evidence))
    return found, notes


def _leave_out(name: str, *, alone: bool) -> None:
    told = f"{name}: its intrinsics are unknown, and its matches are too few to tell them; give --intrinsics"
    if alone:
        raise UserError(f"{told} (fov:DEG or a file)")
    logger.warning("%s; left out", told)


def _with_K(capture: Capture, evidence: Evidence) -> Capture:
    """Every system gets the intrinsics that all are measured with."""
    if capture.has_K or evidence.K is None:
        return capture
    frames = [
        dataclasses.replace(frame, K=K.double().numpy()) for frame, K in zip(capture.frames, evidence.K, strict=True)
    ]
    return dataclasses.replace(capture, frames=tuple(frames), K_source="estimated from the matches")


def _made(system: System, fingerprint: dict[str, object], name: str, capture: Capture, out: Path) -> Reconstruction:
    if system.frames is None:
        return predict_cell(system, fingerprint, name, capture, out)
    return on_frames(system.run(capture, out), capture, system.name)


def on_frames(reconstruction: Reconstruction, capture: Capture, name: str) -> Reconstruction:
    """A finished reconstruction in the order of a capture's frames; views that it lacks count as not found.

    Raises:
        UserError: it was made of images of another size.
    """
    if reconstruction.names == capture.names and reconstruction.sizes == _sizes(capture):
        return reconstruction
    where = {own: index for index, own in enumerate(reconstruction.names)}
    for frame in capture.frames:
        if frame.name in where and reconstruction.sizes[where[frame.name]] != (frame.width, frame.height):
            raise UserError(
                f"{name}: its {frame.name} is an image of {reconstruction.sizes[where[frame.name]]} pixels, that of "
                f"{capture.root} of {(frame.width, frame.height)}; give --footage what it was made from"
            )
    index = [where.get(frame, 0) for frame in capture.names]
    present = torch.tensor([frame in where for frame in capture.names])
    found = present if reconstruction.found is None else present & reconstruction.found[index]
    radial = reconstruction.radial
    return dataclasses.replace(
        reconstruction, prediction=reconstruction.prediction.select_views(index), names=capture.names,
        image_files=tuple(frame.file for frame in capture.frames), image=reconstruction.image[index],
        sizes=_sizes(capture), regions=reconstruction.regions[index], found=found,
        radial=None if radial is None else tuple(radial[view] for view in index),
    )  # fmt: skip


def _sizes(capture: Capture) -> tuple[tuple[int, int], ...]:
    return tuple((frame.width, frame.height) for frame in capture.frames)


def _notes(capture: Capture, evidence: Evidence) -> list[str]:
    """What the evidence cannot say."""
    notes = []
    told = {frame for pair in tied_pairs(evidence) for frame in pair}
    alone = [name for frame, name in enumerate(capture.names) if frame not in told]
    if alone:
        some = ", ".join(alone[:5]) + (", ..." if len(alone) > 5 else "")
        notes.append(
            f"{evidence.name}: {len(alone)} of {len(capture.names)} frames share too few matches to be judged ({some})."
        )
    if capture.K_source is not None and capture.K_source.startswith("estimated"):
        assert capture.frames[0].K is not None
        fov = 2 * torch.atan(torch.tensor(capture.frames[0].width / (2 * capture.frames[0].K[0, 0]))).rad2deg()
        notes.append(f"{evidence.name}: the field of view is estimated from the matches, {float(fov):.0f} degrees; "
                     "systems that take intrinsics were given it.")  # fmt: skip
    return notes


def _write(out: Path, result: RankResult, config: RankConfig) -> None:
    facts = [
        {
            "name": each.evidence.name, "frames": list(each.capture.names), "intrinsics": each.capture.K_source,
            "matches": int((each.evidence.matches.visible.sum(0) > 1).sum()),
        }
        for each in result.captures
    ]  # fmt: skip
    write_json(out / "ranking.json", {
        "version": importlib.metadata.version("reliev3r"), **to_plain(result.ranking), "captures": facts,
        "notes": list(result.notes), "config": to_plain(config),
    })  # fmt: skip
    pictures = [picture for each in result.captures[:_PICTURED] for picture in _pictures(each, result.ranking)]
    write_ranking(
        out / "ranking.html", standings=result.ranking.standings, facts=_facts(result), notes=result.notes,
        pictures=pictures,
    )  # fmt: skip


def _facts(result: RankResult) -> str:
    frames = sum(len(each.capture.frames) for each in result.captures)
    names = ", ".join(result.ranking.captures[:3]) + (", ..." if len(result.captures) > 3 else "")
    return f"{names} · {frames} frames · {result.ranking.pairs} pairs of frames share matches"


def _pictures(each: RankedCapture, ranking: Ranking) -> list[ScenePicture]:
    """Of every system that gave something, the best first, beside the cameras solved from the matches."""
    solved = each.evidence.reference
    if solved is None:
        return []
    made = [(s.system, each.reconstructions[s.system]) for s in ranking.standings if s.system in each.reconstructions]
    pictures = [
        scene_picture(f"{system} · {each.evidence.name}", one, solved.world_from_cam, solved.reached)
        for system, one in made
    ]
    return [picture for picture in pictures if picture is not None]

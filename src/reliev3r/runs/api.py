"""The verbs as Python functions, behind ``import reliev3r``: paths may be text, settings are keywords."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from reliev3r.core.device import Precision
from reliev3r.core.errors import UserError
from reliev3r.core.progress import Report, silent, staged
from reliev3r.core.reconstruction import Reconstruction
from reliev3r.core.settings import flatten, to_plain, with_changes
from reliev3r.data.capture import Capture
from reliev3r.data.capture import load_capture as open_capture
from reliev3r.data.intrinsics import with_intrinsics
from reliev3r.evaluation.benchmarks import capture_benchmark, open_benchmark, with_depth_truth
from reliev3r.evaluation.pages import write_results
from reliev3r.evaluation.run import evaluate_benchmark
from reliev3r.evaluation.scores import Protocol
from reliev3r.evaluation.systems import fitted_frames, systems_from_specs
from reliev3r.evaluation.tables import Table
from reliev3r.labels.estimate_intrinsics import resolve_intrinsics
from reliev3r.labels.expert import DepthExpert, TrackExpert
from reliev3r.labels.pipeline import CaptureLabels, label_capture
from reliev3r.labels.quality.assess import LabelQuality, quality_of
from reliev3r.labels.registry import depth_expert, track_expert
from reliev3r.model.load import PACKAGED, Model, load_model
from reliev3r.runs.adapt.run import AdaptResult
from reliev3r.runs.adapt.run import adapt as run_adapt
from reliev3r.runs.adapt.settings import AdaptConfig
from reliev3r.runs.fit import FitConfig, FitResult
from reliev3r.runs.fit import fit as run_fit
from reliev3r.runs.run_folder import Resume, first_process
from reliev3r.runs.train import train_scenes
from reliev3r.solve.capture import TrackChoice, reconstruct_groups
from reliev3r.training.loop import TrainResult
from reliev3r.training.recipes import RECIPES, ScenesConfig

__all__ = ["load_capture", "load_model", "reconstruct", "label", "fit", "adapt", "train", "evaluate"]

T = TypeVar("T")


def load_capture(path: Path | str, *, views: int | None = None, intrinsics: str | Path | None = None) -> Capture:
    """Open the images of one static scene; pixels are read when they are needed.

    Args:
        path: a folder of images, a folder with ``images/`` and ``cameras.json`` (only its K is read), or a video.
        views: this many images, evenly spaced; of a video at most that many frames, by motion and sharpness.
        intrinsics: a JSON file, ``fov:DEG`` (horizontal), ``exif`` or ``estimate`` (unknown); by default those of
            ``cameras.json``, else of EXIF, else unknown.

    Raises:
        UserError: fewer than two images, unreadable ones, or intrinsics that do not fit them.
    """
    return with_intrinsics(open_capture(path, views=views), None if intrinsics is None else str(intrinsics))


def reconstruct(
    capture: Capture | Path | str,
    model: Model | Path | str = PACKAGED,
    *,
    image_size: int | None = None,
    tracks: TrackChoice = "auto",
    precision: Precision | None = None,
    device: str = "auto",
    report: Report | None = None,
) -> Reconstruction:
    """Depth, confidence and cameras of a capture, without training.

    With the network of the package, or any that solves its cameras: tracks, cameras solved from them, and depth swept
    under the cameras. ``found`` says which views hang together; ``meta["groups"]`` names them, and the views of other
    groups or of none are told in a warning. With any other network: one forward pass.

    Args:
        capture: an open one, or its path.
        model: a network, which runs where it is, or the name of one (:func:`load_model`), which runs on ``device``; by
            default the one that comes with the package.
        tracks: what cameras are solved from: ``sift``, ``network``, or ``auto`` (the one whose cameras explain more).
        report: hears of the progress.
        image_size: long side in pixels of the network's images; by default the one that it was trained with.
        precision: ``fp32``, ``bf16`` or ``auto``; by default the one that it was trained with. Of a network that
            regresses its cameras: where they are solved all is float32.
        device: of a network that is named: ``auto`` (the accelerator where there is one), ``cpu``, ``cuda``, ...

    Raises:
        UserError: bad images or weights, images that share nothing, or unknown intrinsics that nothing tells.
    """
    return reconstruct_groups(
        _opened(capture), model, image_size=image_size, tracks=tracks, precision=precision, device=device,
        report=report,
    )[0]  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class LabelResult(CaptureLabels):
    """The labels of one capture, and whether they are worth training on."""

    capture: Capture
    """The frames, with the intrinsics that they were labelled with."""
    quality: LabelQuality
    """Verdict, and what is wrong in plain language (``sentences``)."""


def label(
    capture: Capture | Path | str,
    out: Path | str,
    *,
    depth: str | DepthExpert = "depth-anything-v2-small",
    tracks: str | TrackExpert = "sift",
    intrinsics: str | Path | None = None,
    device: str = "auto",
    report: Report | None = None,
) -> LabelResult:
    """Make the pseudo-labels of one capture from its images alone; what is in ``out`` and still valid is reused.

    Args:
        capture: an open one, or its path. Frames of a video go to ``out`` where its path is given.
        out: folder of the labels.
        depth: an expert by name (``reliev3r experts`` lists them; ``folder:PATH`` takes maps that you made), or any
            object with the methods of :class:`~reliev3r.labels.expert.DepthExpert`.
        tracks: likewise (:class:`~reliev3r.labels.expert.TrackExpert`).
        intrinsics: as of :func:`load_capture`, also ``expert`` (what the depth expert predicts) or ``expert:EXPERT``;
            by default those of an open capture stay.
        device: of experts by name: ``auto`` (the accelerator where there is one), ``cpu``, ``cuda``, ...
        report: hears of the progress.

    Raises:
        UserError: bad images or maps, an expert that cannot run, or no matches at all.
    """
    folder, progress = Path(out), staged(report or silent, "labels")
    depth = depth_expert(depth, device=device) if isinstance(depth, str) else depth
    tracks = track_expert(tracks, device=device) if isinstance(tracks, str) else tracks
    frames = capture if isinstance(capture, Capture) else open_capture(capture, cache=folder, progress=progress)
    if intrinsics is not None or not isinstance(capture, Capture):
        spec = None if intrinsics is None else str(intrinsics)
        frames = resolve_intrinsics(frames, spec, depth=depth, out=folder, device=device, progress=progress)
    labels = label_capture(frames, depth=depth, tracks=tracks, out=folder, progress=progress)
    return LabelResult(**vars(labels), capture=frames, quality=quality_of(folder, frames, progress=progress))


def fit(
    capture: Capture | Path | str,
    out: Path | str,
    *,
    depth: str | None = None,
    tracks: str | None = None,
    minutes: float | None = None,
    steps: int | None = None,
    resume: Resume = False,
    report: Report | None = None,
    **changes: Any,
) -> FitResult:
    """Label one capture and train a network on the labels alone; cameras, depth, points and a report go to ``out``.

    Args:
        capture: an open one, or its path.
        out: a new or empty folder.
        depth: depth expert by name, for instance ``folder:PATH``.
        tracks: track expert by name.
        minutes: of training, at the most: it ends by itself where more time no longer pays (``full_time=True``: not).
        steps: of training, instead of minutes: the result is then a function of the seed.
        resume: go on with the interrupted run in ``out``; ``auto``: where there is one, else start.
        report: hears of the progress.
        changes: any other setting of :class:`~reliev3r.runs.fit.FitConfig`, two underscores for a dot:
            ``prepare__image_size=144``.

    Raises:
        UserError: bad input or settings, unusable labels, or an ``out`` that holds something else.
        KeyboardInterrupt: Ctrl-C; a checkpoint was saved.
    """
    named = {"depth": depth, "tracks": tracks, "minutes": minutes, "steps": steps}
    changes |= {name: value for name, value in named.items() if value is not None}
    if isinstance(capture, Capture) and "labels" not in changes:
        changes.setdefault("views", len(capture.frames))  # so that the command line goes on with the same frames
    config = _with_keywords(FitConfig(), changes, source="fit")
    source = capture if isinstance(capture, Capture) else Path(capture)
    result = run_fit(source, Path(out), config, resume=resume, report=report)
    if result is None:
        raise KeyboardInterrupt
    return result


def adapt(
    model: Path | str,
    footage: Path | str,
    out: Path | str,
    *,
    resume: Resume = False,
    report: Report | None = None,
    **changes: Any,
) -> AdaptResult | None:
    """Fine-tune a pretrained network on footage without annotation, and judge it on what it never saw.

    Args:
        model: name of a network (:func:`load_model`); never written to.
        footage: a capture (folder of images or video), a folder of captures, or a .txt file that lists captures.
        out: a new or empty folder.
        resume: go on with the interrupted run in ``out``; ``auto``: where there is one, else start.
        report: hears of the progress.
        changes: settings of :class:`~reliev3r.runs.adapt.settings.AdaptConfig`, two underscores for a dot.

    Returns ``None`` only where several processes train, in those that do not write.

    Raises:
        UserError: bad input or settings, unusable labels, or an ``out`` that holds something else.
        KeyboardInterrupt: Ctrl-C; a checkpoint was saved.
    """
    config = _with_keywords(AdaptConfig(), changes, source="adapt")
    result = run_adapt(str(model), Path(footage), Path(out), config, resume=resume, report=report)
    if result is None and first_process():
        raise KeyboardInterrupt
    return result


def train(
    recipe: str | ScenesConfig, out: Path | str, *, resume: Resume = False, report: Report | None = None, **changes: Any
) -> TrainResult:
    """Train a network across scenes; ``out``/checkpoint is the network.

    Args:
        recipe: complete settings, or the name of such (``training.recipes.RECIPES``), for instance ``tiny-cpu``.
        out: a new or empty folder.
        resume: go on with the interrupted run in ``out``; ``auto``: where there is one, else start.
        report: hears of the progress.
        changes: settings of :class:`~reliev3r.training.recipes.ScenesConfig`, two underscores for a dot:
            ``objective__tracks_weight=2``, ``captures__data=("IMAGES=STORE",)``.

    Raises:
        UserError: bad settings, or an ``out`` that holds something else.
        TrainingStopped: the loss is not finite, or the prediction has collapsed.
        KeyboardInterrupt: Ctrl-C; a checkpoint was saved.
    """
    if isinstance(recipe, str) and recipe not in RECIPES:
        raise UserError(f"train: no recipe {recipe!r}; choose one of {', '.join(RECIPES)}")
    start = RECIPES[recipe]() if isinstance(recipe, str) else recipe
    config = _with_keywords(start, changes, source="train")
    result = train_scenes(Path(out), config, resume=resume, recipe=start, report=report)
    if not result.finished:
        raise KeyboardInterrupt
    return result


def evaluate(
    systems: str | Sequence[str],
    *,
    capture: Path | str | None = None,
    benchmark: str | None = None,
    depth_truth: str | None = None,
    out: Path | str | None = None,
    protocol: Protocol | None = None,
    views: int | None = None,
    device: str = "auto",
    report: Report | None = None,
) -> Table:
    """Score systems against ground truth, side by side; ``print(table.to_text())`` shows them.

    Args:
        systems: ``fit:RUN``, ``fit:RUN@refined``, ``model:MODEL``, ``colmap`` or ``colmap-global``.
        capture: folder with ground truth (``cameras.json`` with poses; depth where there is any). Or:
        benchmark: ``synthetic``, ``captures:FOLDER``, ``FORMAT:FOLDER`` or a JSON file (docs/evaluation.md).
        depth_truth: depth from elsewhere as the truth: ``wai:PATH``, ``cut3r:PATH`` or ``colmap:PATH``, ``{scene}`` for
            a scene's name.
        out: folder for predictions, which are then not made twice, scores and pages; by default nothing is kept.
        protocol: ``strict``, ``mapanything`` or ``pi3``; by default the benchmark's.
        views: this many of each scene, evenly spaced; a ``fit:`` brings its own frames.
        device: of ``model:`` systems: ``auto`` (the accelerator where there is one), ``cpu``, ``cuda``, ...
        report: hears of the progress.

    Raises:
        UserError: unknown systems, or a scene that cannot be opened or has no truth.
    """
    chosen = systems_from_specs([systems] if isinstance(systems, str) else systems, device=device)
    with tempfile.TemporaryDirectory(prefix="reliev3r-") if out is None else nullcontext(str(out)) as folder:
        place = Path(folder)
        if capture is not None and benchmark is None:
            scenes = capture_benchmark(Path(capture), fitted_frames(chosen))
        elif benchmark is not None and capture is None:
            scenes = open_benchmark(benchmark, cache=place / "scenes")
        else:
            raise UserError("evaluate: give either capture=FOLDER or benchmark=NAME")
        if depth_truth is not None:
            scenes = with_depth_truth(scenes, depth_truth)
        progress = staged(report or silent, "evaluate")
        result = evaluate_benchmark(chosen, scenes, out=place, protocol=protocol, views=views, progress=progress)
        if out is not None:
            write_results(place, [result], scenes, chosen)
    return result.table()


def _opened(capture: Capture | Path | str) -> Capture:
    return capture if isinstance(capture, Capture) else load_capture(capture)


def _with_keywords(settings: T, changes: Mapping[str, Any], *, source: str) -> T:
    """Settings with the changes that keywords name; a part may also be given as a dictionary or as its dataclass."""
    return with_changes(settings, flatten({n.replace("__", "."): _plain(v) for n, v in changes.items()}), source=source)


def _plain(value: Any) -> Any:
    """As settings hold it: texts for paths, tuples for lists, dictionaries for dataclasses."""
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, list):
        return tuple(value)
    return to_plain(value) if hasattr(value, "__dataclass_fields__") else value

"""The command line: verbs to functions, progress bars, and errors as one line with exit code 2."""

# No postponed annotations here: tyro reads the fields' types where the verbs define them.
import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro
from tyro.conf import Positional, arg

from reliev3r.errors import UserError

if TYPE_CHECKING:
    from rich.progress import TaskID

Report = Callable[[str, float, float, str], None]


def main(argv: list[str] | None = None) -> int:
    """Run one verb; 0 is success, 2 bad input, 3 some captures of many failed, 130 an interrupt."""
    arguments = sys.argv[1:] if argv is None else argv
    verbs = {
        "demo": (demo, "render a synthetic capture, fit it, show table, picture and exports"),
        "fit": (fit, "label one capture and train a network on it, without annotation"),
        "train": (train, "train a network across scenes, weakly or fully supervised"),
        "reconstruct": (reconstruct, "a forward pass: images and a checkpoint to cameras, depth and points"),
        "evaluate": (evaluate, "score systems against a capture's ground truth"),
        "export": (export, "write a run's reconstruction in another format"),
        "label": (label, "make the pseudo-labels of a capture, or of thousands"),
        "labels": (labels, "look after labels that were made: verify, report"),
        "experts": (experts, "list the experts: licence, weights, installed or not, how to install"),
        "synth": (synth, "render a synthetic capture with exact ground truth"),
    }
    if not arguments or arguments[0] not in verbs:
        known = "\n".join(f"  {name:<12} {text}" for name, (_, text) in verbs.items())
        asked_for_help = bool(arguments) and arguments[0] in ("-h", "--help")
        stream = sys.stdout if asked_for_help else sys.stderr
        hint = "`reliev3r VERB --help` lists the options of a verb."
        print(f"usage: reliev3r VERB ...\n\n{known}\n\n{hint}", file=stream)
        return 0 if asked_for_help else 2
    _configure_logging()
    try:
        return verbs[arguments[0]][0](arguments[1:])
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


def _parse(kind: type, verb: str, argv: list[str]) -> Any:
    return tyro.cli(kind, prog=f"reliev3r {verb}", args=argv)


def fit(argv: list[str]) -> int:
    """``reliev3r fit CAPTURE --out RUN``."""
    from reliev3r.fit import FitConfig
    from reliev3r.fit import fit as run

    @dataclass(frozen=True)
    class Fit:
        """Label one capture and train a network on the labels alone; cameras, depth, points and a report come out."""

        capture: Positional[Path]
        """A folder of images, a folder with images/ + cameras.json (only its K is read), or a video."""
        out: Path
        """Where everything goes: a new or empty folder."""
        resume: bool = False
        """Go on with the interrupted run in --out, under its own settings."""
        config: Annotated[FitConfig, arg(name="")] = field(default_factory=FitConfig)

    given = _parse(Fit, "fit", argv)
    with progress_bars() as report:
        result = run(given.capture, given.out, given.config, resume=given.resume, report=report)
    if result is None:
        print(f"interrupted; go on with: reliev3r fit {given.capture} --out {given.out} --resume", file=sys.stderr)
        return 130
    print(_quality_text(result.quality))
    for note in result.notes:
        print(f"note: {note}")
    print(f"\nopen {given.out / 'report.html'}; cameras.json, scene.ply, scene.glb and sparse/0 (COLMAP) lie beside it")
    return 0


def train(argv: list[str]) -> int:
    """``reliev3r train RECIPE --out RUN``."""
    from reliev3r.train.recipes import RECIPES, ScenesConfig

    known = {name: recipe.__doc__ or "" for name, recipe in RECIPES.items()}
    if argv and argv[0] in ("--list", "-l"):
        print("\n".join(f"{name:<20} {text.splitlines()[0]}" for name, text in known.items()))
        return 0
    if not argv or argv[0] not in RECIPES:
        raise UserError(f"say which recipe to train: {', '.join(RECIPES)} (`reliev3r train --list` explains them)")
    recipe = argv[0]

    @dataclass(frozen=True)
    class Train:
        """Train a network across scenes, under a recipe whose every setting is a flag."""

        out: Path
        """Where everything goes: a new or empty folder."""
        resume: bool = False
        """Go on with the interrupted run in --out, under its own settings."""
        config: Annotated[ScenesConfig, arg(name="")] = field(default_factory=RECIPES[recipe])

    given = _parse(Train, f"train {recipe}", argv[1:])
    from reliev3r.scenes import train_scenes

    with progress_bars() as report:
        result = train_scenes(given.out, given.config, resume=given.resume, report=report)
    if not result.finished:
        print(f"interrupted; go on with: reliev3r train {recipe} --out {given.out} --resume", file=sys.stderr)
        return 130
    print(f"{result.steps} steps in {result.seconds / 60:.1f} minutes")
    for name in ("checkpoint", "training/best", "metrics.jsonl"):
        print(f"  {given.out / name}")
    return 0


def reconstruct(argv: list[str]) -> int:
    """``reliev3r reconstruct IMAGES --checkpoint CHECKPOINT --out scene.glb``."""

    @dataclass(frozen=True)
    class Reconstruct:
        """Cameras, depth and points of images in one forward pass of a trained network."""

        images: Positional[Path]
        """A folder of images, a capture folder, or a video."""
        checkpoint: Path
        """Folder with config.json and model.safetensors, for instance RUN/checkpoint."""
        out: Path
        """scene.glb, scene.ply, scene.npz, cameras.json, transforms.json, or a folder for all of them."""
        intrinsics: str | None = None
        """FILE, fov:DEG (horizontal) or exif; by default the capture's own, else the network's."""
        views: int | None = None
        image_size: int = 96
        """Long side of the network's images: the one it was trained with."""
        overwrite: bool = False

    given = _parse(Reconstruct, "reconstruct", argv)
    from reliev3r.export.write import export_reconstruction
    from reliev3r.reconstruct import reconstruct as run

    with progress_bars() as report:
        result = run(
            given.images, given.checkpoint, intrinsics=given.intrinsics, views=given.views,
            image_size=given.image_size, cache=None,
            progress=lambda done, total, what: report("frames", done, total, what),
        )  # fmt: skip
    for path in export_reconstruction(result, None, given.out, overwrite=given.overwrite, capture=given.images):
        print(path)
    return 0


def evaluate(argv: list[str]) -> int:
    """``reliev3r evaluate fit:RUN --capture CAPTURE --protocol strict --out DIR``."""

    @dataclass(frozen=True)
    class Evaluate:
        """Score systems against a capture's ground truth and print one table."""

        systems: Positional[tuple[str, ...]]
        """fit:RUN, fit:RUN@refined, colmap."""
        capture: Path
        """Capture folder with ground truth (cameras.json with poses; depth where there is any)."""
        out: Path | None = None
        """Folder for scores.json and scores.md."""
        protocol: Literal["strict", "mapanything", "pi3"] = "strict"
        views: int | None = None
        """Frames for systems that run now; with a fit: among the systems, its frames are used."""

    given = _parse(Evaluate, "evaluate", argv)
    from reliev3r.evaluate.systems import evaluate_systems

    with progress_bars() as report:
        table = evaluate_systems(
            given.systems, given.capture, given.protocol, views=given.views,
            progress=lambda done, total, what: report("evaluate", done, total, what),
        )  # fmt: skip
    print(table.to_text())
    if given.out is not None:
        _write_table(table, given.out)
    return 0


def export(argv: list[str]) -> int:
    """``reliev3r export RUN --out PATH``."""

    @dataclass(frozen=True)
    class Export:
        """Write a run's reconstruction in the format that the suffix of --out names."""

        run: Positional[Path]
        """Folder of a finished ``reliev3r fit``."""
        out: Path
        """FILE.glb, .ply, .npz, cameras.json, transforms.json (nerfstudio), or a folder for all, COLMAP included."""
        refined: bool = False
        """The refined cameras instead of the network's own."""
        keep: float = 0.8
        """Share of the pixels, the most confident ones, in point clouds."""
        overwrite: bool = False

    given = _parse(Export, "export", argv)
    from reliev3r.export.write import export_reconstruction
    from reliev3r.files import read_json
    from reliev3r.labels.store import load_tracks
    from reliev3r.reconstruction import Reconstruction

    reconstruction = Reconstruction.load(given.run / ("refined" if given.refined else "prediction"))
    capture = Path(read_json(given.run / "config.json")["capture"])
    paths = export_reconstruction(
        reconstruction, load_tracks(given.run / "labels"), given.out, overwrite=given.overwrite, capture=capture,
        keep=given.keep,
    )  # fmt: skip
    for path in paths:
        print(path)
    return 0


def label(argv: list[str]) -> int:
    """``reliev3r label ROOT --out LABELS``."""

    @dataclass(frozen=True)
    class Label:
        """Make pseudo-labels of one capture or of many; what is there and valid is reused (docs/labels.md)."""

        root: Positional[Path]
        """A capture (folder of images or video), a folder of captures, or a .txt file that lists captures."""
        out: Path
        """Folder of the labels; of many captures a store with one folder for each."""
        depth: str = "depth-anything-v2-small"
        """As `reliev3r experts` lists them; {capture} stands for each capture's path (folder:{capture}/depth)."""
        tracks: str = "sift"
        intrinsics: str | None = None
        """FILE, fov:DEG (horizontal), exif, expert, expert:EXPERT, or estimate."""
        views: int | None = None
        """Of each capture."""
        device: str = "cpu"
        """Of the experts: cpu or cuda."""
        judge: bool = True
        """Measure the labels of each capture and give a verdict; seconds a capture."""
        workers: int | None = None
        """Of many captures: processes on this machine (default 1), or Ray's actors (default: all that fit)."""
        ray: str | None = None
        """Of many captures: address of a Ray cluster (auto, HOST:PORT, ray://HOST:PORT), or local."""
        gpus_per_worker: float = 0.0
        """Of Ray's actors; 0.5 lets two share a GPU."""

    given = _parse(Label, "label", argv)
    from reliev3r.labels.scale import CaptureTask, LabelJob, find_captures

    if given.workers is not None and given.workers < 1:
        raise UserError(f"--workers {given.workers}: at least one is needed")
    job = LabelJob(
        depth=given.depth, tracks=given.tracks, intrinsics=given.intrinsics, views=given.views, device=given.device,
        judge=given.judge,
    )  # fmt: skip
    tasks = find_captures(given.root, given.out)
    if tasks is None:
        return _label_one(CaptureTask(name=given.root.name, path=given.root, out=given.out), job)
    return _label_many(tasks, job, given)


def _label_one(task: Any, job: Any) -> int:
    from reliev3r.labels.quality import quality_of
    from reliev3r.labels.scale.worker import label_path

    with progress_bars() as report:
        capture, labels = label_path(
            task, job, job.experts(task), lambda done, total, what: report("labels", done, total, what)
        )
    seen = (labels.tracks.weight > 0).sum(0)
    counts = f"{len(capture.frames)} frames, {len(seen)} tracks ({int((seen >= 3).sum())} of three views or more)"
    quality = quality_of(task.out, capture) if job.judge else None
    for sentence in quality.sentences if quality else ():
        print(f"note: {sentence}")
    print(f"{counts}: {quality.verdict}" if quality else counts)
    return 0


def _label_many(tasks: Any, job: Any, given: Any) -> int:
    """All captures into a store; exit code 3 if some could not be labelled."""
    from reliev3r.labels.scale import label_store
    from reliev3r.labels.scale.pool import Pool

    def open_pool() -> Pool:
        if given.ray is None:
            from reliev3r.labels.scale.local import LocalPool

            return LocalPool(job, min(given.workers or 1, len(tasks)))
        from reliev3r.labels.scale.cluster import RayPool

        return RayPool(job, given.workers, address=given.ray, gpus_per_worker=given.gpus_per_worker)

    with progress_bars() as report:
        index = label_store(tasks, given.out, job, open_pool, report=report)
    entries = {task.name: index[task.name] for task in tasks}
    failed = {name: entry for name, entry in entries.items() if entry["state"] != "done"}
    for name, entry in failed.items():
        print(f"failed: {name}: {entry.get('reason', 'unfinished')}")
    print(f"{len(entries) - len(failed)} of {len(entries)} captures labelled; index: {given.out / 'store.json'}")
    return 3 if failed else 0


def labels(argv: list[str]) -> int:
    """``reliev3r labels verify ROOT``, ``reliev3r labels report ROOT``."""
    verbs = {
        "verify": (_verify_labels, "find every damaged file of a folder of labels or a store"),
        "report": (_report_labels, "say which captures are good, weak or unusable, as JSON and HTML"),
    }
    if not argv or argv[0] not in verbs:
        known = "\n".join(f"  {name:<12} {text}" for name, (_, text) in verbs.items())
        asked_for_help = bool(argv) and argv[0] in ("-h", "--help")
        print(f"usage: reliev3r labels VERB ...\n\n{known}", file=sys.stdout if asked_for_help else sys.stderr)
        return 0 if asked_for_help else 2
    return verbs[argv[0]][0](argv[1:])


def _report_labels(argv: list[str]) -> int:
    @dataclass(frozen=True)
    class Report:
        """Gather the verdicts of a folder of labels or of a store in labels.json and labels.html."""

        root: Positional[Path]
        """A folder of labels, or a store of many."""
        out: Path | None = None
        """Folder of labels.json and labels.html: ROOT itself unless given."""

    given = _parse(Report, "labels report", argv)
    from reliev3r.files import write_json
    from reliev3r.labels.quality.gather import gather_quality
    from reliev3r.report.labels import summary, write_label_report

    out = given.out or given.root
    with progress_bars() as report:
        captures = gather_quality(given.root, progress=lambda done, total, what: report("report", done, total, what))
    write_json(out / "labels.json", summary(captures))
    write_label_report(out / "labels.html", captures)
    for capture in captures:
        if capture.verdict != "good":
            print(f"{capture.verdict}: {capture.name}: {capture.reasons[0]}")
    counts = ", ".join(f"{count} {verdict}" for verdict, count in summary(captures)["verdicts"].items() if count)
    print(f"{len(captures)} captures: {counts}; {out / 'labels.html'}")
    return 0


def _verify_labels(argv: list[str]) -> int:
    @dataclass(frozen=True)
    class Verify:
        """Find every damaged file: truncated, changed, missing, foreign, of another version. Exit code 2 if any."""

        root: Positional[Path]
        """A folder of labels, or a store of many."""
        json: bool = False
        """Print the result as JSON."""

    given = _parse(Verify, "labels verify", argv)
    import json

    from reliev3r.labels.verify import verify

    with progress_bars() as report:
        found = verify(given.root, progress=lambda done, total, what: report("verify", done, total, what))
    if given.json:
        print(json.dumps(found.to_json(), indent=1))
        return 2 if found.damaged else 0
    for damage in found.damaged:
        print(f"{damage.path}: {damage.problem}")
    failed = f" ({found.failed} failed when labelled)" if found.failed else ""
    print(
        f"{found.captures} captures{failed}, {found.files} files, {found.size / 1e6:.1f} MB: "
        + (f"{len(found.damaged)} damaged" if found.damaged else "all intact")
    )
    return 2 if found.damaged else 0


def experts(argv: list[str]) -> int:
    """``reliev3r experts``."""

    @dataclass(frozen=True)
    class Experts:
        """What --depth, --tracks and --intrinsics may name; nothing is loaded or downloaded."""

        kind: Literal["depth", "tracks", "fov", "all"] = "all"

    given = _parse(Experts, "experts", argv)
    from reliev3r.labels.experts import expert_table

    print(expert_table(given.kind))
    return 0


def synth(argv: list[str]) -> int:
    """``reliev3r synth --out CAPTURE``."""
    from reliev3r.synthetic.capture import SynthConfig, write_capture

    @dataclass(frozen=True)
    class Synth:
        """Render a textured room with objects: images, z-depth, intrinsics and cameras, exact and seeded."""

        out: Path
        config: Annotated[SynthConfig, arg(name="")] = field(default_factory=SynthConfig)

    given = _parse(Synth, "synth", argv)
    with progress_bars() as report:
        write_capture(given.out, given.config, progress=lambda done, total, what: report("render", done, total, what))
    print(given.out)
    return 0


def demo(argv: list[str]) -> int:
    """``reliev3r demo``."""

    @dataclass(frozen=True)
    class Demo:
        """The whole way at the size of a laptop: render, label, fit from random weights, evaluate, export."""

        out: Path = Path("demo")
        minutes: float = 6.0
        """Of training."""
        seed: int = 0

    given = _parse(Demo, "demo", argv)
    from reliev3r.demo import run_demo

    with progress_bars() as report:
        result, table = run_demo(given.out, minutes=given.minutes, seed=given.seed, report=report)
    print(table.to_text())
    _write_table(table, given.out / "run")
    print(_quality_text(result.quality))
    for name in ("report.html", "overview.png", "scene.glb", "scene.ply", "sparse/0", "cameras.json"):
        print(f"  {given.out / 'run' / name}")
    return 0


def _write_table(table: Any, out: Path) -> None:
    from reliev3r.files import atomic_path, write_json

    write_json(out / "scores.json", table.to_json())
    with atomic_path(out / "scores.md") as temporary:
        temporary.write_text(table.to_markdown(), encoding="utf8")


def _quality_text(quality: Any) -> str:
    """The truth-free figures in one paragraph."""
    if quality.median_angle_deg is None:
        return "no held-out tracks: nothing independent checks this reconstruction"
    return (
        f"held-out tracks (no ground truth needed): median {quality.median_angle_deg:.2f} degrees, mean "
        f"{quality.mean_angle_deg:.2f}, {100 * quality.share_below_1_deg:.0f} % below 1 degree; baseline / depth "
        f"{quality.baseline_to_depth:.2f}; {100 * quality.confident_share:.0f} % of the pixels confident"
    )


def _configure_logging() -> None:
    from rich.console import Console
    from rich.logging import RichHandler

    handler = RichHandler(console=Console(stderr=True), show_path=False, show_time=False, markup=False)
    logging.basicConfig(level=logging.WARNING, format="%(message)s", handlers=[handler])
    logging.getLogger("reliev3r").setLevel(logging.INFO)


@contextmanager
def progress_bars() -> Iterator[Report]:
    """One bar a stage, with rate and time left, on standard error."""
    from rich import progress
    from rich.console import Console

    columns = (
        progress.TextColumn("{task.description:<9}"), progress.BarColumn(bar_width=24), progress.TaskProgressColumn(),
        progress.TimeElapsedColumn(), progress.TextColumn("left"), progress.TimeRemainingColumn(),
        progress.TextColumn("{task.fields[what]}"),
    )  # fmt: skip
    with progress.Progress(*columns, console=Console(stderr=True)) as bars:
        tasks: "dict[str, TaskID]" = {}

        def report(stage: str, done: float, total: float, what: str) -> None:
            if stage not in tasks:
                tasks[stage] = bars.add_task(stage, total=total, what=what)
            bars.update(tasks[stage], completed=done, total=total, what=what)

        yield report


if __name__ == "__main__":
    sys.exit(main())

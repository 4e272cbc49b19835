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
    """Run one verb; 0 is success, 2 bad input, 130 an interrupt."""
    arguments = sys.argv[1:] if argv is None else argv
    verbs = {
        "demo": (demo, "render a synthetic capture, fit it, show table, picture and exports"),
        "fit": (fit, "label one capture and train a network on it, without annotation"),
        "reconstruct": (reconstruct, "a forward pass: images and a checkpoint to cameras, depth and points"),
        "evaluate": (evaluate, "score systems against a capture's ground truth"),
        "export": (export, "write a run's reconstruction in another format"),
        "label": (label, "make the pseudo-labels of a capture only"),
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
    """``reliev3r label CAPTURE --out LABELS``."""

    @dataclass(frozen=True)
    class Label:
        """Make the pseudo-labels of one capture; what is there and valid is reused."""

        capture: Positional[Path]
        out: Path
        depth: str = "depth-anything-v2-small"
        """depth-anything-v2-small[:DIR], depth-pro[:DIR], folder:PATH, folder-disparity:PATH, simulated, none."""
        tracks: str = "sift"
        intrinsics: str | None = None
        """FILE, fov:DEG (horizontal), exif, or estimate."""
        views: int | None = None

    given = _parse(Label, "label", argv)
    from reliev3r.data.capture import load_capture
    from reliev3r.data.intrinsics import with_intrinsics
    from reliev3r.labels.depth.registry import depth_expert
    from reliev3r.labels.pipeline import label_capture
    from reliev3r.labels.quality import check_labels
    from reliev3r.labels.tracks.registry import track_expert

    with progress_bars() as report:
        capture = load_capture(given.capture, views=given.views, cache=given.out)
        capture = with_intrinsics(capture, given.intrinsics)
        labels = label_capture(
            capture, depth=depth_expert(given.depth), tracks=track_expert(given.tracks), out=given.out,
            progress=lambda done, total, what: report("labels", done, total, what),
        )  # fmt: skip
    for note in check_labels(labels.tracks, capture.names):
        print(f"note: {note}")
    seen = (labels.tracks.weight > 0).sum(0)
    print(f"{len(capture.frames)} frames, {len(seen)} tracks ({int((seen >= 3).sum())} of three views or more)")
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

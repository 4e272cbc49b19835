"""Verbs about one capture: render, fit, reconstruct, export."""

# No postponed annotations here: tyro reads the fields' types where the verbs define them.
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from reliev3r.cli.terminal import parse, progress_bars, write_table
from reliev3r.core.progress import staged


def fit(argv: list[str]) -> int:
    """``reliev3r fit CAPTURE --out RUN``."""
    from reliev3r.runs.fit import FitConfig
    from reliev3r.runs.fit import fit as run

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

    given = parse(Fit, "fit", argv)
    with progress_bars() as report:
        result = run(given.capture, given.out, given.config, resume=given.resume, report=report)
    if result is None:
        print(f"interrupted; go on with: reliev3r fit {given.capture} --out {given.out} --resume", file=sys.stderr)
        return 130
    print(result.quality.summary)
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
        checkpoint: str
        """Folder with config.json and model.safetensors, for instance RUN/checkpoint; pi3:PATH (docs/weights.md); or
        another system's (docs/adapt.md), whose package must be installed."""
        out: Path
        """scene.glb, scene.ply, scene.npz, cameras.json, transforms.json, or a folder for all of them."""
        intrinsics: str | None = None
        """FILE, fov:DEG (horizontal) or exif; by default the capture's own, else the network's."""
        views: int | None = None
        image_size: int = 96
        """Long side of the network's images: the one it was trained with."""
        precision: Literal["auto", "fp32", "bf16"] = "auto"
        """auto: bf16 where the device multiplies bf16 matrices in hardware."""
        overwrite: bool = False

    given = parse(Reconstruct, "reconstruct", argv)
    from reliev3r.export.write import export_reconstruction
    from reliev3r.runs.reconstruct import reconstruct as run

    with progress_bars() as report:
        result = run(
            given.images, given.checkpoint, intrinsics=given.intrinsics, views=given.views,
            image_size=given.image_size, precision=given.precision,
            progress=staged(report, "frames"),
        )  # fmt: skip
    for path in export_reconstruction(result, None, given.out, overwrite=given.overwrite, capture=given.images):
        print(path)
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

    given = parse(Export, "export", argv)
    from reliev3r.core.files import read_json
    from reliev3r.core.reconstruction import Reconstruction
    from reliev3r.export.write import export_reconstruction
    from reliev3r.labels.store import load_tracks

    reconstruction = Reconstruction.load(given.run / ("refined" if given.refined else "prediction"))
    capture = Path(read_json(given.run / "config.json")["capture"])
    paths = export_reconstruction(
        reconstruction, load_tracks(given.run / "labels"), given.out, overwrite=given.overwrite, capture=capture,
        keep=given.keep,
    )  # fmt: skip
    for path in paths:
        print(path)
    return 0


def synth(argv: list[str]) -> int:
    """``reliev3r synth --out CAPTURE``."""
    from reliev3r.synthetic.capture import SynthConfig, write_capture

    @dataclass(frozen=True)
    class Synth:
        """Render a textured room with objects: images, z-depth, intrinsics and cameras, exact and seeded."""

        out: Path
        config: Annotated[SynthConfig, arg(name="")] = field(default_factory=SynthConfig)

    given = parse(Synth, "synth", argv)
    with progress_bars() as report:
        write_capture(given.out, given.config, progress=staged(report, "render"))
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

    given = parse(Demo, "demo", argv)
    from reliev3r.runs.demo import run_demo

    with progress_bars() as report:
        result, table = run_demo(given.out, minutes=given.minutes, seed=given.seed, report=report)
    print(table.to_text())
    write_table(table, given.out / "run")
    print(result.quality.summary)
    for name in ("report.html", "overview.png", "scene.glb", "scene.ply", "sparse/0", "cameras.json"):
        print(f"  {given.out / 'run' / name}")
    return 0

"""Verbs about one capture: fit it, refine, reconstruct and export."""

# No postponed annotations here: tyro reads the fields' types where the verbs define them.
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tyro.conf import Positional

from reliev3r.cli.terminal import (
    Resume,
    in_new_words,
    parse,
    parse_with_settings,
    progress_bars,
    resume_of,
    write_table,
)

SAME = ("depth", "tracks", "intrinsics", "labels", "views", "preset", "model", "init_from", "minutes", "steps", "seed",
        "precision", "device", "full_time", "refine", "copy_images", "force")  # fmt: skip
"""Flags of fit that are settings of the same name."""


def fit(argv: list[str]) -> int:
    """``reliev3r fit CAPTURE --out RUN``."""
    from reliev3r.runs.fit import FitConfig

    usual = FitConfig()

    @dataclass(frozen=True)
    class Fit:
        """Label one capture and train a network on the labels alone; cameras, depth, points and a report come out.

        Every other setting is written NAME=VALUE, for instance objective.depth.alpha=0.5; --help-all lists them.
        """

        capture: Positional[Path]
        """A folder of images, a folder with images/ + cameras.json (only its K is read), or a video."""
        out: Path
        """Where everything goes: a new or empty folder."""
        resume: Resume = "no"
        """Go on with the interrupted run in --out, under its own settings (--resume alone: yes); auto: start it, or go
        on where there is one, so that one command line serves every restart."""
        depth: str = usual.depth
        """Depth expert; `reliev3r experts` lists them: folder:PATH (your own maps), moge-2, onnx:FILE, none, ..."""
        tracks: str = usual.tracks
        """Track expert: sift, aliked, cotracker:FILE, ..."""
        intrinsics: str | None = None
        """FILE, fov:DEG (horizontal), exif, expert, or estimate; by default cameras.json, else EXIF, else estimate."""
        labels: str | None = None
        """Folder of labels that `reliev3r label` made of this capture, instead of making them."""
        views: int | None = None
        """This many images, evenly spaced; of a video at most that many frames, by motion and sharpness."""
        image_size: int = usual.prepare.image_size
        """Long side of the network's images in pixels."""
        preset: Literal["tiny", "small", "base", "large"] = usual.preset
        """Sizes of a random network; tiny trains on a CPU."""
        model: str = usual.model
        """The network to start from: random, the folder of a checkpoint, or pi3:PATH_OR_ID."""
        init_from: str | None = None
        """Weights for a part of a random network: dinov2:PATH (encoder) or vggt:PATH (encoder and decoder)."""
        minutes: float = usual.minutes
        """Of training, at the most: it ends by itself where more time no longer pays."""
        full_time: bool = False
        """Train for all of --minutes."""
        steps: int | None = None
        """Steps of the optimiser, instead of minutes: the same result on every run."""
        seed: int = usual.seed
        precision: Literal["auto", "fp32", "bf16"] = usual.precision
        """auto: bf16 where it is faster."""
        device: str = usual.device
        """auto (the accelerator where there is one), cpu, cuda, ..."""
        refine: bool = False
        """Bundle-adjust the cameras at the end; `reliev3r refine RUN` does so later."""
        copy_images: bool = False
        """RUN/images holds copies of all photographs instead of links: the folder stands alone."""
        force: bool = False
        """Train even on labels that were judged unusable."""

    flags = {name: name for name in SAME} | {"image_size": "prepare.image_size"}
    given, config = parse_with_settings(Fit, "fit", argv, usual, flags)
    from reliev3r.runs.fit import fit as run

    with progress_bars() as report:
        result = run(given.capture, given.out, config, resume=resume_of(given.resume), report=report)
    if result is None:
        print(f"interrupted; go on with: reliev3r fit {given.capture} --out {given.out} --resume", file=sys.stderr)
        return 130
    print(f"as the network predicts it: {result.quality.summary}")
    for note in result.notes:
        print(f"note: {note}")
    said = "trained until more time no longer paid; " if result.training.ending is not None else ""
    _point_at(given.out, refined=(given.out / "refined").is_dir(), said=said)
    return 0


def _point_at(run: Path, *, refined: bool, said: str = "") -> None:
    """Where the best there is lies."""
    kind = "refined cameras" if refined else "cameras as the network predicts them (--refine adjusts them)"
    print(
        f"\n{said}open {run / 'report.html'}; images/, sparse/0 (COLMAP), transforms.json, scene.glb with {kind}: {run}"
    )


def refine(argv: list[str]) -> int:
    """``reliev3r refine RUN``."""

    @dataclass(frozen=True)
    class Refine:
        """Bundle-adjust the cameras of a finished fit; they are kept where held-out tracks do not disagree."""

        run: Positional[Path]
        """Folder of a finished `reliev3r fit`."""

    given = parse(Refine, "refine", argv)
    from reliev3r.runs.refine import refine_run

    with progress_bars() as report:
        result = refine_run(given.run, report=report)
    print(result.reason)
    _point_at(given.run, refined=result.kept)
    return 0


def reconstruct(argv: list[str]) -> int:
    """``reliev3r reconstruct IMAGES --out scene.glb``."""
    from reliev3r.model.load import PACKAGED

    @dataclass(frozen=True)
    class Reconstruct:
        """Cameras, depth and points of images, without training and without any download."""

        images: Positional[Path]
        """A folder of images, a capture folder, or a video."""
        out: Path
        """scene.glb (scene.html to look at it is beside it), .html, .ply, .npz, .json, transforms.json, or a folder."""
        model: str = PACKAGED
        """The network of the package; a checkpoint's folder; or pi3:, vggt:, vggt-omega:, mapanything:, da3:PATH."""
        intrinsics: str | None = None
        """FILE, fov:DEG (horizontal) or exif; by default the capture's own, else found from the matches."""
        tracks: Literal["auto", "sift", "network"] = "auto"
        """What cameras are solved from; auto: the one whose cameras explain more of both."""
        views: int | None = None
        """This many images, evenly spaced; of a video at most that many frames."""
        image_size: int | None = None
        """Long side of the network's images in pixels; by default the one that it was trained with."""
        precision: Literal["auto", "fp32", "bf16"] | None = None
        """By default the one that it was trained with; auto: bf16 where it is faster. Of networks that regress their
        cameras: matching and the sweep are in float32."""
        device: str = "auto"
        """auto (the accelerator where there is one), cpu, cuda, ..."""
        overwrite: bool = False

    given = parse(Reconstruct, "reconstruct", in_new_words(argv))
    from reliev3r.runs.reconstruct import check_place, write_groups
    from reliev3r.runs.reconstruct import reconstruct as run

    check_place(given.out, overwrite=given.overwrite)
    with progress_bars() as report:
        result = run(
            given.images, given.model, intrinsics=given.intrinsics, views=given.views, image_size=given.image_size,
            tracks=given.tracks, precision=given.precision, device=given.device, report=report,
        )  # fmt: skip
        written = write_groups(result, given.out, overwrite=given.overwrite, report=report)
    for path in written:
        print(path)
    return 0


def show(argv: list[str]) -> int:
    """``reliev3r show MODEL CAPTURE --out DIR``."""

    @dataclass(frozen=True)
    class Show:
        """One figure of what a network makes of a scene, as the paper's: input, depth, confidence and, of labels,
        correspondences and monocular depth; and a page with the same views."""

        model: Positional[str]
        """The folder of a checkpoint, or any other network that `reliev3r reconstruct` takes."""
        capture: Positional[Path]
        """A folder of images, a capture folder, or a video."""
        out: Path
        """Folder of figure.png and report.html."""
        labels: Path | None = None
        """The capture's labels, or the store of `reliev3r label` that they lie in."""
        views: int = 8
        """Evenly spaced."""
        image_size: int | None = None
        """Long side of the network's images in pixels; by default the one that it was trained with."""
        device: str = "auto"
        """auto (the accelerator where there is one), cpu, cuda, ..."""

    given = parse(Show, "show", argv)
    from reliev3r.runs.show import show as run

    with progress_bars() as report:
        files = run(
            given.model, given.capture, given.out, labels=given.labels, views=given.views,
            image_size=given.image_size, device=given.device, report=report,
        )  # fmt: skip
    print(*files, sep="\n")
    return 0


def export(argv: list[str]) -> int:
    """``reliev3r export RUN --out PATH``."""

    @dataclass(frozen=True)
    class Export:
        """Write a run's reconstruction in the format that the suffix of --out names."""

        run: Positional[Path]
        """Folder of a finished `reliev3r fit`."""
        out: Path
        """FILE.glb, .html, .ply, .npz, cameras.json, transforms.json (nerfstudio), or a folder: all, with COLMAP."""
        network: bool = False
        """The network's own cameras, where the run has refined ones."""
        keep: float = 0.8
        """Share of the pixels, the most confident ones, in point clouds."""
        depth_size: int | None = None
        """Long side in pixels of depth maps and of those that become points, upsampled by the photographs: 512, or what
        these have, unless given; 0: as they were predicted."""
        overwrite: bool = False

    given = parse(Export, "export", argv)
    from reliev3r.runs.export import export_run

    paths = export_run(
        given.run, given.out, network=given.network, overwrite=given.overwrite, keep=given.keep,
        depth_size=given.depth_size,
    )  # fmt: skip
    for path in paths:
        print(path)
    return 0


def demo(argv: list[str]) -> int:
    """``reliev3r demo``."""

    @dataclass(frozen=True)
    class Demo:
        """The whole way at the size of a laptop: render, label, fit from random weights, evaluate, export."""

        out: Path = Path("demo")
        steps: int = 1000
        """Of training; about two minutes on two cores."""
        seed: int = 0
        device: str = "auto"
        """auto (the accelerator where there is one), cpu, cuda, ..."""

    given = parse(Demo, "demo", argv)
    from reliev3r.runs.demo import run_demo

    with progress_bars() as report:
        result, table = run_demo(given.out, steps=given.steps, seed=given.seed, device=given.device, report=report)
    print(table.to_text())
    write_table(table, given.out / "run")
    print(result.quality.summary)
    for name in ("report.html", "view.html", "overview.png", "scene.glb", "scene.ply", "sparse/0", "cameras.json"):
        print(f"  {given.out / 'run' / name}")
    return 0

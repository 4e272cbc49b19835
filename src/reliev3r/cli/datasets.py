"""Verbs about data: which formats are read, what lies in a folder, a scene as a capture folder, a rendered one."""

# No postponed annotations here: tyro reads the fields' types where the verbs define them.
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from reliev3r.cli.terminal import parse, progress_bars
from reliev3r.core.progress import staged


def datasets(argv: list[str]) -> int:
    """``reliev3r datasets [FORMAT:PATH]``."""

    @dataclass(frozen=True)
    class Datasets:
        """List the formats that are read, or the scenes that are found in a folder."""

        path: Positional[str] = ""
        """FORMAT:PATH, or PATH where the format shows; nothing: list the formats."""

    given = parse(Datasets, "datasets", argv)
    from reliev3r.data.readers import READERS, find_reader, list_scenes

    if not given.path:
        for name, reader in READERS.items():
            print(f"{name:<16} {reader.title}\n{'':<16}   {reader.layout}")
        return 0
    kind, root = find_reader(given.path)
    names = list_scenes(f"{kind}:{root}")
    print(f"{kind}: {READERS[kind].title}, {len(names)} scene{'s' if len(names) > 1 else ''}")
    for name in names:
        print(f"  {name}")
    return 0


def convert(argv: list[str]) -> int:
    """``reliev3r convert FORMAT:PATH --out CAPTURE``."""

    @dataclass(frozen=True)
    class Convert:
        """Write a scene of any dataset as a capture folder (docs/conventions.md), on which every other verb works."""

        scene: Positional[str]
        """FORMAT:PATH, or PATH where the format shows: a scene, or a dataset with --name."""
        out: Path
        """A new or empty folder."""
        name: str | None = None
        """Which scene of a dataset (`reliev3r datasets PATH` lists them)."""
        views: int | None = None
        """That many frames, evenly spaced; all by default."""
        truth: bool = True
        """Poses and depth too, where the dataset has them; --no-truth leaves images and intrinsics."""

    given = parse(Convert, "convert", argv)
    from reliev3r.data.convert import convert_scene
    from reliev3r.data.readers import open_scene

    scene = open_scene(given.scene, given.name, views=given.views)
    with progress_bars() as report:
        convert_scene(
            scene, given.out, truth=given.truth,
            progress=staged(report, "frames"),
        )  # fmt: skip
    print(given.out)
    for caveat in scene.caveats if given.truth else ():
        print(f"note: {caveat}")
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

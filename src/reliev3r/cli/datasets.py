"""Verbs about data: which formats are read, what lies in a folder, a scene as a capture folder, a rendered one."""

# No postponed annotations here: tyro reads the fields' types where the verbs define them.
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from tyro.conf import Positional, arg

from reliev3r.cli.terminal import parse, progress_bars
from reliev3r.core.errors import UserError
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
    """``reliev3r convert FORMAT:PATH --out CAPTURES``."""

    @dataclass(frozen=True)
    class Convert:
        """Write scenes of any dataset as capture folders (docs/conventions.md), on which every other verb works.

        One scene becomes OUT; of a dataset with several, each becomes OUT/SCENE, and a run that was stopped goes on.
        """

        scene: Positional[str]
        """FORMAT:PATH, or PATH where the format shows: a dataset, or one scene of it."""
        out: Path
        """A new or empty folder; of a dataset, also one that an earlier run began."""
        name: str | None = None
        """Only this scene of the dataset (`reliev3r datasets PATH` lists them)."""
        views: int | None = None
        """That many frames of each scene, evenly spaced; all by default."""
        truth: bool = True
        """Poses and depth too, where the dataset has them; --no-truth leaves images and intrinsics."""
        workers: int | None = None
        """Of many scenes: processes on this machine (default 1), or Ray's actors (default: all that fit)."""
        ray: str | None = None
        """Of many scenes: address of a Ray cluster (auto, HOST:PORT, ray://HOST:PORT), or local."""

    given = parse(Convert, "convert", argv)
    from reliev3r.data.readers import find_reader, list_scenes

    if given.workers is not None and given.workers < 1:
        raise UserError(f"--workers {given.workers}: at least one is needed")
    kind, root = find_reader(given.scene)
    names = list_scenes(f"{kind}:{root}")
    if given.name is None and len(names) > 1:
        return _convert_many(given, kind, root, names)
    return _convert_one(given, f"{kind}:{root}")


def _convert_one(given: Any, spec: str) -> int:
    from reliev3r.data.convert import convert_scene
    from reliev3r.data.readers import open_scene

    scene = open_scene(spec, given.name, views=given.views)
    with progress_bars() as report:
        convert_scene(scene, given.out, truth=given.truth, progress=staged(report, "frames"))
    print(given.out)
    for caveat in scene.caveats if given.truth else ():
        print(f"note: {caveat}")
    return 0


def _convert_many(given: Any, kind: str, root: Path, names: list[str]) -> int:
    """All scenes of a dataset; exit code 3 if some could not be converted."""
    from reliev3r.core.cameras_json import CAMERAS_JSON, read_about
    from reliev3r.core.many.run import open_pool
    from reliev3r.data.convert_many import ConvertJob, convert_dataset

    job = ConvertJob(kind=kind, root=root.resolve(), views=given.views, truth=given.truth)
    tasks = job.tasks(names, given.out)
    with progress_bars() as report:
        failures = convert_dataset(
            job, tasks, given.out, lambda: open_pool(job, len(tasks), workers=given.workers, ray=given.ray),
            report=report,
        )  # fmt: skip
    for name, reason in failures.items():
        print(f"failed: {name}: {reason}")
    print(f"{len(tasks) - len(failures)} of {len(tasks)} scenes converted: {given.out}")
    first = next((task.out for task in tasks if task.name not in failures), None)
    for caveat in read_about(first / CAMERAS_JSON).caveats if first is not None and given.truth else ():
        print(f"note: {caveat}")
    return 3 if failures else 0


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

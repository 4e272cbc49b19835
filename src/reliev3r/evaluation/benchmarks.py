"""Benchmarks: named lists of scenes and of the frames that every system gets, in the same order."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reliev3r.core.cameras_json import CAMERAS_JSON, read_about, refuse_unwritable_name
from reliev3r.core.errors import UserError
from reliev3r.core.files import inside, read_json
from reliev3r.data.capture import load_capture
from reliev3r.data.depth_truth.attach import PLACE, depth_folder, with_depth
from reliev3r.data.readers import READERS, list_scenes, open_scene
from reliev3r.data.truth import CameraFile, Scene
from reliev3r.evaluation.published import BENCHMARK_CAVEAT, PAPER_VIEWS
from reliev3r.evaluation.scores import Protocol
from reliev3r.evaluation.systems import select_frames
from reliev3r.synthetic.capture import SynthConfig, write_capture

KNOWN = "known are synthetic[:rooms=4,span=75,...], captures:FOLDER, FORMAT:FOLDER of a dataset, and a JSON file"
ROOMS_SEED = 5000
"""Seed of the first synthetic room: far from the rooms that recipes train on."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Benchmark:
    """Scenes, and by which rule (or list) each one's frames are chosen."""

    name: str
    scenes: tuple[str, ...]
    """Names, unique; a scene's folder of predictions is called so too."""
    open: Callable[[str, int | None], Scene]
    """A scene with its frames: the number of views is evenly spaced, at indices round(linspace(0, n - 1, views))."""
    root: str | None = None
    """"FORMAT:FOLDER" in which readers find the scenes; None where they lie apart."""
    views: int | None = None
    """Views a scene unless the user asks for others; None is all, or the fixed list."""
    protocol: Protocol = "strict"
    """Unless the user asks for another."""
    caveats: tuple[str, ...] = ()
    """What must stand beside its numbers."""


def open_benchmark(spec: str, *, cache: Path) -> Benchmark:
    """The benchmark that ``spec`` names.

    - ``synthetic`` or ``synthetic:rooms=4,span=75,...``: rooms rendered by seed into ``cache``; the options are
      ``rooms`` and every setting of ``reliev3r synth``.
    - ``captures:FOLDER``: a folder of capture folders with ground truth, all their frames.
    - ``FORMAT:FOLDER``: the scenes that a reader finds (``reliev3r.data.readers``), 8 views each; ``dl3dv-benchmark``
      and ``scannetpp`` are scored as the paper's tables are.
    - ``FILE.json``: ``{"scenes": [{"scene": "[FORMAT:]FOLDER", "frames": ["NAME", ...]}, ...]}``, optionally with
      "name" and "protocol". An entry with a "root" ("[FORMAT:]FOLDER" of many scenes) gives the scene's name in it.
      Relative folders start at the file's. Every evaluation writes such a file (``frames.json``).

    Raises:
        UserError: unknown, empty, or not as above.
    """
    kind, _, rest = spec.partition(":")
    if kind == "synthetic":
        return _synthetic(rest, cache)
    if spec.endswith(".json"):
        return _from_file(Path(spec))
    if rest:
        return _dataset("capture" if kind == "captures" else kind, Path(rest))
    raise UserError(f"unknown benchmark '{spec}'; {KNOWN}")


def capture_benchmark(root: Path, names: Sequence[str] | None = None) -> Benchmark:
    """One capture folder as a benchmark: the frames ``names``, or all of them.

    Raises:
        UserError: there is no capture.
    """
    return Benchmark(
        name=str(root),
        root=f"capture:{root.resolve()}",
        scenes=(root.resolve().name,),
        open=lambda scene, views: _with_frames(_capture_scene(root, scene, None if names else views), names),
    )


def with_depth_truth(benchmark: Benchmark, spec: str) -> Benchmark:
    """The same benchmark, under its own name, with depth from elsewhere as its scenes' truth.

    ``spec`` is KIND:PATH as :func:`reliev3r.data.depth_truth.attach.with_depth` takes it.

    Raises:
        UserError: an unknown KIND, or one folder for several scenes.
    """
    depth_folder(benchmark.scenes[0], spec)
    if len(benchmark.scenes) > 1 and PLACE not in spec:
        raise UserError(
            f"--depth-truth {spec}: {len(benchmark.scenes)} scenes; put {PLACE} where a scene's name stands"
        )
    return dataclasses.replace(benchmark, open=lambda scene, views: with_depth(benchmark.open(scene, views), spec))


def _synthetic(options: str, cache: Path) -> Benchmark:
    values = dict(part.partition("=")[::2] for part in options.split(",") if part)
    fields = {field.name: type(field.default) for field in dataclasses.fields(SynthConfig)}
    try:
        rooms = int(values.pop("rooms", "4"))
        given = {name: fields[name](value) for name, value in values.items()}
    except (KeyError, ValueError) as error:
        raise UserError(
            f"synthetic:{options}: {error} is no setting; give rooms=4,{',span=75,'.join(fields)}"
        ) from error
    base = SynthConfig(**{"seed": ROOMS_SEED, "views": 8, "width": 320, "height": 240, **given})
    configs = {f"room-{base.seed + k}": dataclasses.replace(base, seed=base.seed + k) for k in range(max(1, rooms))}

    def open_room(scene: str, views: int | None) -> Scene:
        folder = cache / scene
        settings = dataclasses.asdict(configs[scene])
        if not (folder / CAMERAS_JSON).is_file():
            write_capture(folder, configs[scene])
        elif read_about(folder / CAMERAS_JSON).synthetic != settings:
            raise UserError(f"{folder}: holds a room of other settings; remove it or choose another --out")
        return _capture_scene(folder, scene, views)

    return Benchmark(
        name=f"synthetic{':' if options else ''}{options}",
        root=f"capture:{cache.resolve()}",
        scenes=tuple(configs),
        open=open_room,
        caveats=("rendered rooms: exact truth, but no photographs",),
    )


def _dataset(kind: str, folder: Path) -> Benchmark:
    if kind not in READERS:
        raise UserError(f"unknown benchmark '{kind}:{folder}'; {KNOWN}; formats: {', '.join(READERS)}")
    root = f"{kind}:{folder.resolve()}"
    published = kind in ("dl3dv-benchmark", "scannetpp")
    return Benchmark(
        name=f"captures:{folder}" if kind == "capture" else kind,
        root=root,
        scenes=tuple(list_scenes(root)),
        open=lambda scene, views: open_scene(root, scene, views=views),
        views=None if kind == "capture" else PAPER_VIEWS,
        protocol="mapanything" if published else "strict",
        caveats=(BENCHMARK_CAVEAT,) if kind == "dl3dv-benchmark" else (),
    )


def _from_file(file: Path) -> Benchmark:
    content = read_json(file)
    try:
        entries = {_scene_name(entry): entry for entry in content["scenes"]}
        protocol = content.get("protocol", "strict")
        fixed = {name: tuple(map(str, entry["frames"])) for name, entry in entries.items() if entry.get("frames")}
    except (TypeError, KeyError, AttributeError) as error:
        raise UserError(f'{file}: needs {{"scenes": [{{"scene": "FOLDER", "frames": ["NAME", ...]}}]}}') from error
    if not entries or len(entries) != len(content["scenes"]):
        raise UserError(f"{file}: needs at least one scene, each with a name of its own")
    title = str(content.get("name", file.stem))
    refuse_unwritable_name(title, file)
    for name in entries:  # predictions go to folders of these names
        inside(file.parent, name, str(file))
        refuse_unwritable_name(name, file)
    if protocol not in ("strict", "mapanything", "pi3"):
        raise UserError(f"{file}: unknown protocol {protocol!r}; choose strict, mapanything or pi3")

    def open_entry(scene: str, views: int | None) -> Scene:
        names = fixed.get(scene)
        if names and views and views < len(names):
            raise UserError(f"{file}: lists {len(names)} frames of {scene}; leave out --views, the list is fixed")
        root, of_root = _place(entries[scene], file.parent)
        try:
            opened = open_scene(root, of_root, views=None if names else views)
        except UserError as error:
            raise UserError(f"{file}: {error}") from error
        return _with_frames(dataclasses.replace(opened, name=scene), names)

    return Benchmark(name=title, scenes=tuple(entries), open=open_entry, protocol=protocol)


def _scene_name(entry: Mapping[str, Any]) -> str:
    return entry["scene"] if "root" in entry else Path(entry["scene"].rpartition(":")[2]).name


def _place(entry: Mapping[str, Any], base: Path) -> tuple[str, str | None]:
    """ "[FORMAT:]FOLDER", absolute, and the scene's name in it where the entry gives one."""
    form, colon, folder = str(entry.get("root", entry["scene"])).rpartition(":")
    return f"{form}{colon}{base / folder}", entry["scene"] if "root" in entry else None


def _capture_scene(root: Path, name: str, views: int | None) -> Scene:
    return Scene(name=name, capture=load_capture(root, views=views), truth=CameraFile(root))


def _with_frames(scene: Scene, names: Sequence[str] | None) -> Scene:
    return scene if not names else dataclasses.replace(scene, capture=select_frames(scene.capture, names))

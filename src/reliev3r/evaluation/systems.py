"""What a system costs: seconds and peak memory, in the words that workers use too (``baselines.worker``)."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import time
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import torch

from reliev3r.baselines.colmap import SYSTEMS as COLMAPS
from reliev3r.baselines.colmap import reconstruct_colmap
from reliev3r.baselines.host import run_baseline
from reliev3r.baselines.registry import ADAPTERS, NAMES
from reliev3r.baselines.worker import peak_memory
from reliev3r.core.errors import UserError
from reliev3r.core.files import file_hash, read_json, refuse_no_file, tree_hash
from reliev3r.core.reconstruction import Reconstruction
from reliev3r.core.types import Prediction
from reliev3r.data.capture import Capture
from reliev3r.geometry.camera import K_of_crop_resize, ray_map
from reliev3r.model.load import PACKAGED

_RESET = Path("/proc/self/clear_refs")


@contextmanager
def measured() -> Iterator[dict[str, Any]]:
    """A dictionary that is filled at the end: ``seconds``, ``peak_rss_bytes`` (Linux), ``peak_cuda_bytes``.

    Resident memory is the whole process's highest within the block: the interpreter and its packages count, as they do
    in a worker.
    """
    cost: dict[str, Any] = {}
    with suppress(OSError):
        _RESET.write_text("5")  # the kernel starts to measure the peak anew
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    start = time.monotonic()
    yield cost
    cost["seconds"] = round(time.monotonic() - start, 2)
    cost.update(peak_memory("cuda" if torch.cuda.is_available() else "cpu"))


KNOWN = (
    "known are fit:RUN, fit:RUN@refined, reconstruct, reconstruct:MODEL, model:MODEL, model:MODEL@SIZE, "
    + ", ".join((*COLMAPS, *NAMES))
)
_THUMBNAIL = 64
"""Long side of the images that a cameras-only system carries along."""
_OPTIONS = {"baseline", "python", "repo", "weights", "device", "timeout_s", "memory_gb", "sizes", "prepare"}


@dataclass(frozen=True, kw_only=True, eq=False)
class System:
    """Something that reconstructs a capture."""

    name: str
    """As the user wrote it; heads its row."""
    run: Callable[[Capture, Path], Reconstruction]
    """Reconstruction of a capture; the folder takes logs."""
    fingerprint: Callable[[], dict[str, Any]]
    """Plain values that change when the system does: a cached prediction of another fingerprint is stale."""
    frames: tuple[str, ...] | None = None
    """The frames of a finished run, which has no others to give; None for a system that runs now."""
    made_from: Path | None = None
    """Capture that a finished run was made from, where it is known."""


def system_from_spec(
    spec: str, settings: Mapping[str, Mapping[str, Any]] | None = None, *, device: str = "auto"
) -> System:
    """The system that ``spec`` names.

    ``fit:RUN`` and ``fit:RUN@refined`` are what a run predicted (or RUN is the folder of a kept prediction);
    ``reconstruct`` is the verb, with the network of the package or ``reconstruct:MODEL``; ``colmap`` and
    ``colmap-global`` run with known intrinsics; ``model:MODEL`` is a forward pass of a network (``model.load`` says how
    it is named) on ``device``, ``@SIZE`` on images of that long side instead of its own; any other name is a baseline
    with its entry of ``settings`` (:func:`read_settings`), or an entry's own name.

    Raises:
        UserError: an unknown name, a run without the reconstruction asked for, no such checkpoint or weights.
    """
    kind, _, argument = spec.partition(":")
    if kind == "fit" and argument:
        return _fitted(spec, argument)
    if kind == "reconstruct":
        return _solved(spec, argument or PACKAGED, device)
    if kind in ("model", "ours") and argument:  # ours: its spelling in version 0.1
        return _model(spec, argument, device)
    if spec in COLMAPS:
        return System(name=spec, run=partial(_run_colmap, spec), fingerprint=_colmap_fingerprint)
    if settings is not None and spec in settings:
        return _baseline(spec, settings[spec])
    if spec in NAMES:
        raise UserError(f"{spec}: name its weights (and python, repo) in a file: --systems FILE with a table [{spec}]")
    raise UserError(f"unknown system '{spec}'; {KNOWN}")


def systems_from_specs(
    specs: Sequence[str], settings: Mapping[str, Mapping[str, Any]] | None = None, *, device: str = "auto"
) -> tuple[System, ...]:
    """Every system once, in the order given.

    Raises:
        UserError: none at all, or see :func:`system_from_spec`.
    """
    if not specs:
        raise UserError(f"name at least one system; {KNOWN}")
    return tuple(system_from_spec(spec, settings, device=device) for spec in dict.fromkeys(specs))


def fitted_frames(systems: Sequence[System]) -> tuple[str, ...] | None:
    """The frames of the first system that has its own."""
    return next((system.frames for system in systems if system.frames is not None), None)


def read_settings(file: Path) -> dict[str, dict[str, Any]]:
    """The tables of a TOML file: one a system, by the name that it has on the command line and in the tables.

    Keys: ``baseline`` (the adapter; by default the table's name), ``weights`` (a path, or "random" for tests of the
    interface), ``python``, ``repo``, ``device``, ``timeout_s``, ``memory_gb``, ``sizes``, ``prepare``. Relative paths
    start at the file's folder.

    Raises:
        UserError: not readable, or an entry that is no system.
    """
    refuse_no_file(file)
    try:
        content = tomllib.loads(file.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:  # endless nesting; integers of thousands of digits
        raise UserError(f"{file}: not readable as TOML ({error})") from error
    for name, entry in content.items():
        if not isinstance(entry, dict) or not entry.keys() <= _OPTIONS:
            raise UserError(f"{file}: [{name}] must be a table with keys among {', '.join(sorted(_OPTIONS))}")
        if entry.setdefault("baseline", name) not in NAMES:
            raise UserError(f"{file}: [{name}] needs baseline = one of {', '.join(NAMES)}")
        if "weights" not in entry:
            raise UserError(f'{file}: [{name}] needs weights = "PATH" (or "random", to try the interface)')
        for key in ("timeout_s", "memory_gb"):
            value = entry.get(key, 1)
            if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
                raise UserError(f"{file}: [{name}] {key} must be a number above 0, not {value!r}")
        for key, kind, words in (("sizes", dict, "a table"), ("prepare", dict, "a table"), ("device", str, "a text")):
            if key in entry and not isinstance(entry[key], kind):
                raise UserError(f"{file}: [{name}] {key} must be {words}, not {entry[key]!r}")
        for key in ("python", "repo", "weights"):
            value = entry.get(key)
            if value is not None and not isinstance(value, str):
                raise UserError(f"{file}: [{name}] {key} must be a path in quotes, not {value!r}")
            if value is not None and value != "random" and not (key == "python" and "/" not in value):
                entry[key] = str(file.parent / Path(value).expanduser())
    return content


def select_frames(capture: Capture, names: Sequence[str]) -> Capture:
    """The capture restricted to the frames ``names``, in that order.

    Raises:
        UserError: it lacks one of them.
    """
    frames = {frame.name: frame for frame in capture.frames}
    missing = [name for name in names if name not in frames]
    if missing:
        raise UserError(f"{capture.root}: has no frame '{missing[0]}'; name the capture that the frames are of")
    return dataclasses.replace(capture, frames=tuple(frames[name] for name in names))


def _fitted(spec: str, argument: str) -> System:
    refined = argument.endswith("@refined")
    run = Path(argument.removesuffix("@refined"))
    if not run.is_dir():
        raise UserError(f"{run}: no such run; make one with `reliev3r fit CAPTURE --out {run}`")
    folder = run / ("refined" if refined else "prediction")
    if not refined and (run / "prediction.json").is_file():
        folder = run  # kept by `evaluate` or `rank`
    if not (folder / "prediction.json").is_file():
        remedy = "fit with --refine (its log says if it was rejected)" if refined else "finish the run with --resume"
        raise UserError(f"{run}: holds no {'refined' if refined else 'predicted'} reconstruction; {remedy}")
    reconstruction = Reconstruction.load(folder)
    told = read_json(run / "config.json") if (run / "config.json").is_file() else None
    made_from = told.get("capture") if isinstance(told, dict) else None
    return System(
        name=spec,
        run=lambda capture, folder: reconstruction,
        fingerprint=lambda: {"arrays": file_hash(folder / "prediction.npz")},
        frames=reconstruction.names,
        made_from=Path(made_from) if isinstance(made_from, str) else None,
    )


def _model(spec: str, argument: str, device: str) -> System:
    from reliev3r.model.load import split_name, weights_hash
    from reliev3r.model.predict import reconstruct_capture
    from reliev3r.solve.loops import loop_pairs

    checkpoint, at, size = argument.rpartition("@")
    checkpoint, asked = (checkpoint, int(size)) if at and size.isdigit() else (argument, None)
    folder = Path(split_name(checkpoint)[1])
    if ":" not in checkpoint and not (folder / "config.json").is_file():
        raise UserError(f"{checkpoint}: no checkpoint (a folder with config.json and model.safetensors)")

    def run(capture: Capture, logs: Path) -> Reconstruction:
        with measured() as cost:
            result = reconstruct_capture(
                capture, checkpoint, image_size=asked, device=device, loops=loop_pairs(capture)
            )
        return dataclasses.replace(result, meta={**result.meta, **cost})

    def fingerprint() -> dict[str, Any]:
        settings = folder / "config.json"  # the image size that holds where none is asked for
        trained = file_hash(settings) if settings.is_file() else None
        return {"checkpoint": weights_hash(checkpoint), "config": trained, "image_size": asked}

    return System(name=spec, run=run, fingerprint=fingerprint)


def _solved(spec: str, model: str, device: str) -> System:
    """The verb ``reconstruct``; of several groups of views the largest, the views of the others count as not found."""
    from reliev3r.model.load import weights_hash
    from reliev3r.solve.capture import reconstruct_groups

    def run(capture: Capture, folder: Path) -> Reconstruction:
        with measured() as cost:
            result = reconstruct_groups(capture, model, device=device)[0]
        return dataclasses.replace(result, meta={**result.meta, **cost})

    version = importlib.metadata.version("reliev3r")
    return System(name=spec, run=run, fingerprint=lambda: {"checkpoint": weights_hash(model), "version": version})


def _baseline(name: str, entry: Mapping[str, Any]) -> System:
    options = {key: value for key, value in entry.items() if key != "baseline"}
    adapter, weights = entry["baseline"], entry["weights"]
    random = weights == "random"
    if random:
        options["weights"] = None
    elif not Path(weights).exists():
        raise UserError(f"{weights}: the weights of {name} are not there; `reliev3r baselines` says where to get them")

    def fingerprint() -> dict[str, Any]:
        shared = {key: options.get(key) for key in ("repo", "sizes", "prepare")}
        code = tree_hash(ADAPTERS, "*.py")  # adapters import each other
        return {**shared, "adapter": adapter, "code": code, "weights": weights if random else tree_hash(weights)}

    return System(
        name=name,
        run=lambda capture, folder: run_baseline(adapter, capture, log=folder / "worker.log", **options),
        fingerprint=fingerprint,
    )


def _colmap_fingerprint() -> dict[str, Any]:
    return {"pycolmap": importlib.metadata.version("pycolmap")}


def _run_colmap(name: str, capture: Capture, folder: Path) -> Reconstruction:
    for frame in capture.frames:
        if frame.K is None:
            raise UserError(f"{frame.path}: {name} is compared with known intrinsics; give them in cameras.json")
    K = torch.stack([torch.as_tensor(frame.K, dtype=torch.float64) for frame in capture.frames])
    with measured() as cost:
        world_from_cam, registered = reconstruct_colmap(capture, K, mapper=COLMAPS[name])

    first = capture.frames[0]
    shrink = _THUMBNAIL / max(first.width, first.height)
    height, width = max(1, round(first.height * shrink)), max(1, round(first.width * shrink))
    images = [cv2.resize(capture.image(i), (width, height), interpolation=cv2.INTER_AREA) for i in range(len(K))]
    small_K = [
        K_of_crop_resize(k, offset=(0.0, 0.0), scale=(width / frame.width, height / frame.height))
        for k, frame in zip(K, capture.frames)
    ]
    rays = ray_map(torch.stack(small_K), height, width).float()
    ones = torch.ones(rays.shape[:-1])
    return Reconstruction(
        prediction=Prediction(depth=ones, rays=rays, conf=ones, world_from_cam=world_from_cam.float()),
        names=capture.names,
        image_files=tuple(frame.file for frame in capture.frames),
        image=torch.stack([torch.from_numpy(image) for image in images]),
        sizes=tuple((frame.width, frame.height) for frame in capture.frames),
        regions=torch.tensor([[0.0, 0.0, frame.width, frame.height] for frame in capture.frames]),
        found=registered,
        predicts_depth=False,
        meta={"system": name, "intrinsics": "known", **cost},
    )

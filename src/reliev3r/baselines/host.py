"""Runs an upstream system in a worker process with its own interpreter, and checks what comes back.

The packages of these systems clash with each other and with ours, so each runs in ``worker.py`` under the interpreter
that has it. A request folder (``request.json``, ``images.npz``) goes in, ``result.json`` and ``result.npz`` come back;
whatever goes wrong on the other side is one line here.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image

from reliev3r.baselines.registry import ADAPTERS, NAMES
from reliev3r.baselines.worker import FORMAT
from reliev3r.core.arrays import ARRAY_ERRORS, read_npz
from reliev3r.core.errors import UserError
from reliev3r.core.files import read_json, tree_hash, write_json
from reliev3r.core.reconstruction import Reconstruction
from reliev3r.core.types import Prediction
from reliev3r.data.capture import Capture
from reliev3r.geometry.camera import ray_map

WORKER = Path(__file__).with_name("worker.py")
_LONGEST_WORDS = 300
_OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "PYTHONUNBUFFERED": "1"}
_SHAPES = {  # of a result's arrays: v views, h w pixels of its maps
    "world_from_cam": "v44",
    "regions": "v4",
    "found": "v",
    "depth": "vhw",
    "rays": "vhw3",
    "conf": "vhw",
    "K": "v33",
    "size": "2",
}
_TOLERANCE = 1e-3  # of rotations and rays


def run_baseline(
    name: str,
    capture: Capture,
    *,
    python: Path | str | None = None,
    repo: Path | str | None = None,
    weights: Path | str | None = None,
    device: str = "cpu",
    timeout_s: float = 3600,
    memory_gb: float | None = None,
    log: Path | None = None,
    sizes: dict[str, Any] | None = None,
    prepare: dict[str, Any] | None = None,
    adapters: Path | None = None,
) -> Reconstruction:
    """The reconstruction that the upstream system ``name`` makes of the capture's images.

    ``python`` is the interpreter that has the system's packages (default: this one), ``repo`` a checkout that is put on
    its import path, ``weights`` a checkpoint (``None``: random weights, for tests of the interface). ``memory_gb``
    limits the addresses of a CPU worker. All that the worker writes to its standard streams goes to ``log``. ``sizes``
    and ``prepare`` are passed to the adapter's functions ``build`` and ``prepare``; ``adapters`` is a folder of other
    adapters (tests). Seconds of the forward pass and of loading and peak memory in bytes land in ``meta``, and whether
    the system used the capture's intrinsics ("known") or not ("predicted").

    Raises:
        UserError: an unknown name; no such interpreter, checkout or weights; the worker failed, died, took too long or
            answered nonsense. One line, with the worker's last words.
    """
    if adapters is None and name not in NAMES:
        raise UserError(f"unknown baseline '{name}'; known are {', '.join(NAMES)}")
    for what, path in (("repo", repo), ("weights", weights)):
        if path is not None and not Path(path).exists():
            raise UserError(f"{path}: no such file or folder, given as --{what} of {name}")
    with tempfile.TemporaryDirectory(prefix="reliev3r-baseline-") as temporary:
        folder = Path(temporary)
        request = {
            "format": FORMAT,
            "adapter": name,
            "adapters": [str(path) for path in (adapters, ADAPTERS) if path is not None],
            "repo": None if repo is None else str(Path(repo).absolute()),
            "weights": None if weights is None else str(Path(weights).absolute()),
            "device": device,
            "sizes": sizes,
            "prepare": prepare or {},
            "views": len(capture.frames),
            "memory_gb": None if device.startswith("cuda") else memory_gb,  # CUDA reserves addresses without end
        }
        write_json(folder / "request.json", request)
        _write_images(folder / "images.npz", capture)
        log = log or folder / "worker.log"
        _run_worker(name, [str(python or sys.executable), str(WORKER), str(folder)], log, timeout_s)
        arrays, meta = _read_result(name, folder)
    arrays = check_result(name, arrays, views=len(capture.frames))
    used = "random" if weights is None else f"{Path(weights).name} sha256:{tree_hash(weights)[:16]}"
    return _reconstruction(capture, arrays, {"system": name, "device": device, "weights": used, **meta})


def _write_images(path: Path, capture: Capture) -> None:
    arrays = {f"image_{index}": capture.image(index) for index in range(len(capture.frames))}
    if capture.has_K:
        arrays["K"] = np.stack([np.asarray(frame.K, np.float64) for frame in capture.frames])
    np.savez(path, **arrays)  # type: ignore[arg-type]


def _run_worker(name: str, command: list[str], log: Path, timeout_s: float) -> None:
    """Run the worker in a process group of its own, none of which outlives this call.

    Raises:
        UserError: it cannot be started, fails, dies or takes too long.
    """
    environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PYTHONHOME")}
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "wb") as stream:
        try:
            process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,  # the worker ends when this closes, even if we are killed
                stdout=stream,
                stderr=subprocess.STDOUT,
                env={**environment, **_OFFLINE},
                start_new_session=True,
            )
        except OSError as error:
            raise UserError(
                f"{command[0]}: cannot be started ({error.strerror}); --python names an interpreter"
            ) from error
        try:
            code = process.wait(timeout_s)
        except subprocess.TimeoutExpired as error:
            raise UserError(f"{name}: no answer within {timeout_s:g} s; {_last_words(log)}") from error
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            if process.stdin is not None:
                process.stdin.close()
    if code < 0:
        why = ", as the system does when memory runs out" if -code == signal.SIGKILL else ""
        raise UserError(f"{name}: its worker died of {signal.Signals(-code).name}{why}; {_last_words(log)}")
    if code:
        raise UserError(f"{name}: its worker failed; {_last_words(log)}")


def _last_words(log: Path) -> str:
    """The last line of the log, which is where Python says what went wrong."""
    text = log.read_bytes()[-65536:].decode("utf8", errors="replace")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return f"its last words: {lines[-1][:_LONGEST_WORDS]}" if lines else "it said nothing"


def _read_result(name: str, folder: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Arrays and figures of the worker's answer.

    Raises:
        UserError: there is none, it is damaged, or of another version.
    """
    if not (folder / "result.json").is_file():
        raise UserError(f"{name}: its worker ended without a result")
    manifest = read_json(folder / "result.json")
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        version = manifest.get("format") if isinstance(manifest, dict) else None
        raise UserError(f"{name}: its worker answers in format {version}, this reliev3r reads {FORMAT}")
    try:
        return read_npz(folder / "result.npz"), dict(manifest["meta"])
    except ARRAY_ERRORS as error:
        raise UserError(f"{name}: its worker's result cannot be read ({error})".replace("\n", " ")) from error


def check_result(name: str, arrays: dict[str, np.ndarray], *, views: int) -> dict[str, np.ndarray]:
    """The arrays of a result, known names only, with ``found`` filled in and cameras not found set to the identity.

    Required are world_from_cam [v, 4, 4] and regions [v, 4], and rays [v, h, w, 3] or K [v, 3, 3]. depth and conf
    [v, h, w] may be missing; without depth and rays, ``size`` (h, w) says what K refers to. All float64, ``found``
    boolean.

    Raises:
        UserError: missing, of a wrong shape or type, not finite, or geometric nonsense; names system and quantity.
    """
    arrays = {key: value for key, value in arrays.items() if key in _SHAPES}
    for key, value in arrays.items():
        if value.dtype.kind not in "fiub":
            raise UserError(f"{name}: its {key} is of type {value.dtype}, not numbers")
    arrays.setdefault("found", np.ones(views, bool))
    _check_shapes(name, arrays, views)
    checked = {key: np.ascontiguousarray(value, np.float64) for key, value in arrays.items()}
    found = checked["found"] = arrays["found"].astype(bool)
    checked["world_from_cam"][~found] = np.eye(4)
    for key, value in checked.items():
        bad = int(np.count_nonzero(~np.isfinite(value)))
        if bad:
            raise UserError(f"{name}: its {key} has {bad} of {value.size} values that are not finite")
    _check_geometry(name, checked)
    if "rays" in checked and "depth" not in checked:
        checked["size"] = np.array(checked["rays"].shape[1:3], np.float64)
    return checked


def _check_shapes(name: str, arrays: dict[str, np.ndarray], views: int) -> None:
    for key in ("world_from_cam", "regions"):
        if key not in arrays:
            raise UserError(f"{name}: its result lacks {key}")
    if "rays" not in arrays and not ("K" in arrays and ("depth" in arrays or "size" in arrays)):
        raise UserError(f"{name}: its result has neither rays nor K with the size of its images")
    maps = arrays.get("depth", arrays.get("rays"))
    sides = {"v": views}
    if maps is not None and maps.ndim >= 3:
        sides.update(h=maps.shape[1], w=maps.shape[2])
    for key, value in arrays.items():
        wanted = tuple(sides.get(letter, -1) if letter.isalpha() else int(letter) for letter in _SHAPES[key])
        if value.shape != wanted or 0 in value.shape:
            raise UserError(f"{name}: its {key} has the shape {value.shape}, which does not fit {views} views")


def _check_geometry(name: str, arrays: dict[str, np.ndarray]) -> None:
    rotation, last_row = arrays["world_from_cam"][:, :3, :3], arrays["world_from_cam"][:, 3]
    squared = rotation @ rotation.swapaxes(1, 2)
    rigid = np.abs(squared - np.eye(3)).max() < _TOLERANCE and (np.linalg.det(rotation) > 0).all()
    if not rigid or np.abs(last_row - [0, 0, 0, 1]).max() > _TOLERANCE:
        raise UserError(f"{name}: its world_from_cam are not rigid transforms")
    if "depth" in arrays and not (arrays["depth"] > 0).all():
        raise UserError(f"{name}: its depth has values that are not positive")
    if "rays" in arrays and np.abs(arrays["rays"][..., 2] - 1).max() > _TOLERANCE:
        raise UserError(f"{name}: its rays do not have z = 1")
    if "K" in arrays and not (arrays["K"][:, [0, 1], [0, 1]] > 0).all():
        raise UserError(f"{name}: its K has a focal length that is not positive")
    if "size" in arrays and (arrays["size"] < 1).any():
        raise UserError(f"{name}: its size is not a height and a width")
    if not (arrays["regions"][:, 2:] > 0).all():
        raise UserError(f"{name}: its regions are empty")


def _reconstruction(capture: Capture, arrays: dict[str, np.ndarray], meta: dict[str, Any]) -> Reconstruction:
    predicts_depth = "depth" in arrays
    height, width = arrays["depth"].shape[1:] if predicts_depth else (int(side) for side in arrays["size"])
    if "rays" in arrays:
        rays = torch.from_numpy(arrays["rays"]).float()
    else:
        rays = ray_map(torch.from_numpy(arrays["K"]), height, width).float()
    ones = torch.ones(rays.shape[:-1])
    regions = arrays["regions"]
    seen = [_as_seen(capture.image(index), region, height, width) for index, region in enumerate(regions)]
    return Reconstruction(
        prediction=Prediction(
            depth=torch.from_numpy(arrays["depth"]).float() if predicts_depth else ones,
            rays=rays,
            conf=torch.from_numpy(_ranked(arrays["conf"])).float() if "conf" in arrays else ones,
            world_from_cam=torch.from_numpy(arrays["world_from_cam"]).float(),
        ),
        names=capture.names,
        image_files=tuple(frame.file for frame in capture.frames),
        image=torch.from_numpy(np.stack(seen)),
        sizes=tuple((frame.width, frame.height) for frame in capture.frames),
        regions=torch.from_numpy(regions).float(),
        found=torch.from_numpy(arrays["found"]),
        predicts_depth=predicts_depth,
        meta=meta,
    )


def _ranked(conf: Float[np.ndarray, "v h w"]) -> Float[np.ndarray, "v h w"]:
    """Confidence as rank among all pixels, in (0, 2): upstream scales cannot be compared, their orders can."""
    _, position, count = np.unique(conf, return_inverse=True, return_counts=True)
    rank = (np.cumsum(count) - 0.5 * count) / conf.size
    return (2 * rank[position].reshape(conf.shape)).clip(1e-6, 2 - 1e-6)


def _as_seen(
    image: UInt8[np.ndarray, "H W 3"], region: Float[np.ndarray, "4"], height: int, width: int
) -> UInt8[np.ndarray, "h w 3"]:
    """The part of an image that a map covers, at the map's size; white where it lies outside of the image."""
    left, top, right, bottom = region[0], region[1], region[0] + region[2], region[1] + region[3]
    beyond = max(-left, -top, right - image.shape[1], bottom - image.shape[0])
    margin = int(np.ceil(beyond - 1e-6)) if beyond > 1e-6 else 0
    if margin:
        image = np.pad(image, ((margin, margin), (margin, margin), (0, 0)), constant_values=255)
    edges = (image.shape[1], image.shape[0], image.shape[1], image.shape[0])
    box = [min(max(0.0, edge + margin), last) for edge, last in zip((left, top, right, bottom), edges)]
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC, box=tuple(box)))

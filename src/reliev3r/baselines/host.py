"""Runs an upstream system in a worker process with its own interpreter, and checks what comes back.

The packages of these systems clash with each other and with ours, so each runs in ``worker.py`` under the interpreter
that has it. A request folder (``request.json``, ``images.npz``) goes in, ``result.json`` and ``result.npz`` come back;
whatever goes wrong on the other side is one line here.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image

from reliev3r.baselines.registry import ADAPTERS, NAMES
from reliev3r.baselines.result import check_result
from reliev3r.baselines.worker import FORMAT
from reliev3r.core.errors import UserError
from reliev3r.core.files import read_json, tree_hash, write_json
from reliev3r.core.reconstruction import Reconstruction
from reliev3r.core.types import Prediction
from reliev3r.data.capture import Capture
from reliev3r.geometry.camera import ray_map

WORKER = Path(__file__).with_name("worker.py")
_LONGEST_WORDS = 300
_OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "PYTHONUNBUFFERED": "1"}


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
        with np.load(folder / "result.npz", allow_pickle=False) as arrays:
            return {key: arrays[key] for key in arrays.files}, dict(manifest["meta"])
    except (OSError, EOFError, ValueError, KeyError, TypeError, zipfile.BadZipFile, json.JSONDecodeError) as error:
        raise UserError(f"{name}: its worker's result cannot be read ({error})".replace("\n", " ")) from error


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

"""Runs one upstream system on one request, in that system's interpreter: ``PYTHON worker.py REQUEST_FOLDER``.

The folder holds ``request.json`` and ``images.npz`` (``host.py`` writes them); ``result.json`` and ``result.npz`` are
added. ``reliev3r`` is not imported: the other interpreter need not have it. Python 3.8 or newer, numpy, and whatever
the adapter needs. On failure the last line on standard error says what went wrong, and the exit code is 1.
"""

from __future__ import annotations

import importlib
import json
import os
import platform
import sys
import threading
import time
import traceback
import types
from typing import Any

FORMAT = "reliev3r-baseline/1"
PACKAGE = "reliev3r_adapters"


def main(folder: str) -> int:
    """Answer the request in ``folder``; 0 on success."""
    threading.Thread(target=_die_with_parent, daemon=True).start()
    try:
        _answer(folder)
    except BaseException as error:
        traceback.print_exc()
        words = " ".join(str(error).split())
        sys.stderr.write(f"{type(error).__name__}: {words}\n")
        sys.stderr.flush()
        return 1
    return 0


def _answer(folder: str) -> None:
    with open(os.path.join(folder, "request.json"), encoding="utf8") as file:
        request = json.load(file)
    if request["format"] != FORMAT:
        raise ValueError(f"the request is of format {request['format']}, this worker knows {FORMAT}")
    _limit_memory(request["memory_gb"])
    adapter = _load(request["adapter"], request["adapters"])
    import numpy as np

    with np.load(os.path.join(folder, "images.npz"), allow_pickle=False) as arrays:
        images = [arrays[f"image_{index}"] for index in range(request["views"])]
        K = arrays["K"] if "K" in arrays.files else None
    fewest = adapter.CARD.get("min_views", 1)
    if len(images) < fewest:
        raise ValueError(f"{request['adapter']} needs at least {fewest} views")
    device = request["device"]
    start = time.perf_counter()
    model = adapter.build(request["repo"], request["weights"], device, request["sizes"])
    load_seconds = time.perf_counter() - start
    inputs, regions = adapter.prepare(images, K, **request["prepare"])
    _synchronise(device)
    start = time.perf_counter()
    raw = adapter.run(model, inputs, device)
    _synchronise(device)
    seconds = time.perf_counter() - start
    arrays = {name: np.asarray(value) for name, value in adapter.decode(raw, inputs).items()}
    arrays["regions"] = np.asarray(regions, np.float64)
    meta = {"seconds": seconds, "load_seconds": load_seconds, "python": platform.python_version()}
    meta["intrinsics"] = "known" if "K" in inputs else "predicted"
    meta.update(peak_memory(device))
    _write(folder, arrays, {"format": FORMAT, "adapter": request["adapter"], "meta": meta})


def _load(name: str, folders: list[str]) -> Any:
    """The adapter ``name`` of the first folder that has it, and ``shared`` beside it, as a package of their own."""
    package = types.ModuleType(PACKAGE)
    package.__path__ = folders
    sys.modules[PACKAGE] = package
    return importlib.import_module(PACKAGE + "." + name)


def _write(folder: str, arrays: dict[str, Any], manifest: dict[str, Any]) -> None:
    """The manifest last: where it is, the arrays are whole."""
    import numpy as np

    np.savez(os.path.join(folder, "result.npz"), **arrays)
    with open(os.path.join(folder, "result.json.part"), "w", encoding="utf8") as file:
        json.dump(manifest, file)
    os.replace(os.path.join(folder, "result.json.part"), os.path.join(folder, "result.json"))


def _synchronise(device: str) -> None:
    if device.startswith("cuda"):
        import torch

        torch.cuda.synchronize(device)


def peak_memory(device: str) -> dict[str, int]:
    """Peak memory of this process in bytes, and of the GPU where one is used."""
    peak = {}
    try:
        with open("/proc/self/status", encoding="ascii") as file:  # getrusage would count the parent's pages too
            peak["peak_rss_bytes"] = 1024 * int(next(line for line in file if line.startswith("VmHWM")).split()[1])
    except (OSError, StopIteration):  # not Linux, or a sandbox that does not say
        import resource

        unit = 1 if sys.platform == "darwin" else 1024
        peak["peak_rss_bytes"] = unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    if device.startswith("cuda"):
        import torch

        peak["peak_cuda_bytes"] = int(torch.cuda.max_memory_allocated(device))
    return peak


def _limit_memory(gigabytes: float | None) -> None:
    """Allocations beyond the limit fail. The host gives none with CUDA, which reserves addresses without end."""
    if gigabytes is not None:
        import resource

        limit = int(gigabytes * 2**30)
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def _die_with_parent() -> None:
    """The host holds the other end of standard input; a killed host closes it."""
    while os.read(0, 4096):
        pass
    os._exit(1)


if __name__ == "__main__":
    sys.path.pop(0)  # this file's folder: its modules' names are not the upstream system's business
    code = main(sys.argv[1])
    sys.stdout.flush()
    os._exit(code)  # neither threads nor exit handlers of an upstream system hold it up

"""How smooth the viewers are: frames while the camera moves, the time to the first picture, and bytes.

    python benchmarks/viewer.py --out benchmarks/results/viewer_cpu.json [--points 200000 2000000] [--pictures DIR]

A rendered room as a reconstruction of that many pixels, in `reliev3r view` (viser) and as `view.html`, in a headless
Chromium that draws by software (SwiftShader): there is no graphics card here, and one draws points a hundred times as
fast. The mouse drags the scene around for some seconds; a frame is the time between two callbacks of
requestAnimationFrame, which the browser gives as fast as its pictures are finished. Beside it stand the processor's
seconds of all of the browser's processes over the number of frames, which other work on the machine hardly changes.
Bytes are those that the browser received, or the size of the file.
"""

from __future__ import annotations

import argparse
import math
import socket
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from about import about

from reliev3r.core.files import write_json
from reliev3r.core.reconstruction import Reconstruction
from reliev3r.core.types import Prediction
from reliev3r.export.view import write_view
from reliev3r.geometry.camera import ray_map
from reliev3r.runs.view.server import Viewer
from reliev3r.runs.view.shown import Shown
from reliev3r.synthetic.capture import SynthConfig, render_capture

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from browser import Browser, save

VIEWS = 16
SECONDS, FEWEST = 10.0, 20
"""Of a drag, and its frames at least."""
WINDOWS = {"desktop": (1280, 800), "narrow": (420, 800)}
"""In pixels; measured in the first, looked at in both."""
MIDDLE = (430, 430)
"""Of what is seen of the scene."""
METER = """
window.frameTimes = []; window.measuring = true; let last = performance.now();
const tick = () => {
  const now = performance.now(); window.frameTimes.push(now - last); last = now;
  if (window.measuring) requestAnimationFrame(tick);
};
requestAnimationFrame(tick)
"""


def scene(points: int) -> Reconstruction:
    """A rendered room with as many pixels; confidence is drawn at random."""
    height = round(math.sqrt(points / VIEWS * 3 / 4))
    width = points // (VIEWS * height)
    views, truth = render_capture(SynthConfig(seed=8, views=VIEWS, width=width, height=height, supersample=1))
    conf = torch.rand(truth.depth.shape, generator=torch.Generator().manual_seed(0))
    return Reconstruction(
        prediction=Prediction(
            depth=truth.depth, rays=ray_map(truth.K, height, width), conf=conf, world_from_cam=truth.world_from_cam
        ),
        names=tuple(f"{view:02d}" for view in range(VIEWS)),
        image_files=tuple(f"images/{view:02d}.png" for view in range(VIEWS)),
        image=(views.image.movedim(-3, -1) * 255).round().to(torch.uint8),
        sizes=((width, height),) * VIEWS, regions=torch.tensor([[0.0, 0.0, width, height]]).repeat(VIEWS, 1),
    )  # fmt: skip


def dragged(browser: Browser) -> dict[str, float]:
    """Milliseconds of the frames while the mouse turns the scene to and fro."""
    x, y = MIDDLE
    browser._mouse("mouseMoved", x, y, held=False)
    browser._mouse("mousePressed", x, y)
    for moves in range(1, 4):  # until the camera is on its way
        browser._mouse("mouseMoved", x + 10 * moves, y)
    browser.evaluate(METER)
    until, worked, moves = time.monotonic() + SECONDS, processor_seconds(browser), 0
    while time.monotonic() < until or browser.evaluate("window.frameTimes.length") <= FEWEST:
        moves += 1
        browser._mouse("mouseMoved", x + 80 * math.sin(0.15 * moves), y)
    frames = browser.evaluate("window.measuring = false, window.frameTimes")[1:]
    worked = processor_seconds(browser) - worked
    browser._mouse("mouseReleased", x, y)
    return {
        "median_ms": statistics.median(frames), "p90_ms": float(np.quantile(frames, 0.9)),
        "processor_ms": 1000 * worked / len(frames), "frames": len(frames),
    }  # fmt: skip


def processor_seconds(browser: Browser) -> float:
    """Of all its processes up to now."""
    import psutil

    first = psutil.Process(browser._process.pid)
    return sum(sum(each.cpu_times()[:2]) for each in [first, *first.children(recursive=True)])


def looked_at(browser: Browser, address: str, arrived: Callable[[], int], picture: Path | None) -> dict[str, float]:
    """Opened until something with a colour is seen, and until nothing more arrives; then dragged."""
    begin = time.monotonic()
    browser.open(address, WINDOWS["desktop"])
    while (np.ptp(browser.picture()[:, : 2 * MIDDLE[0]].astype(int), axis=-1) > 60).mean() < 0.01:
        assert time.monotonic() < begin + 300, f"{address} shows nothing"
    seen, before = time.monotonic() - begin, -1
    while before != (before := arrived()):
        time.sleep(2.0)
    found = dragged(browser)
    time.sleep(1.0)  # the camera rests
    for name, (width, height) in WINDOWS.items() if picture is not None else ():
        browser.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1,
                     mobile=False)  # fmt: skip
        assert picture is not None
        browser.settle()
        save(browser.picture(), picture.with_name(f"{picture.name}-{name}.png"))
    return {"first_picture_s": seen, **found}


class Counted:
    """A port of this machine that hands everything on to another one, and counts what comes back."""

    def __init__(self, port: int) -> None:
        self.bytes, self._port = 0, port
        self._door = socket.create_server(("127.0.0.1", 0))
        self.address = f"http://127.0.0.1:{self._door.getsockname()[1]}/"
        threading.Thread(target=self._answer, daemon=True).start()

    def _answer(self) -> None:
        while True:
            near, _ = self._door.accept()
            try:
                far = socket.create_connection(("127.0.0.1", self._port))
            except OSError:  # the viewer has ended, its page asks on
                near.close()
                continue
            for source, target, counts in ((near, far, False), (far, near, True)):
                threading.Thread(target=self._pass_on, args=(source, target, counts), daemon=True).start()

    def _pass_on(self, source: socket.socket, target: socket.socket, counts: bool) -> None:
        try:
            while part := source.recv(1 << 16):
                target.sendall(part)
                self.bytes += len(part) if counts else 0
            target.shutdown(socket.SHUT_WR)
        except OSError:  # the browser went to another page
            pass


Look = Callable[[str, Callable[[], int]], dict[str, float]]
"""Of an address, and of how many bytes of it have arrived."""


def served(made: Reconstruction, look: Look) -> dict[str, Any]:
    """`reliev3r view`."""
    viewer = Viewer(8765)
    try:
        viewer.show(Shown(title="benchmark", versions={"as predicted": made}))
        counted = Counted(int(viewer.address.rsplit(":", 1)[1]))
        found = look(counted.address, lambda: counted.bytes)
        return {**found, "bytes": counted.bytes}
    finally:
        viewer.close()


def shared(made: Reconstruction, look: Look, folder: Path) -> dict[str, Any]:
    """`view.html`."""
    page = folder / "view.html"
    points = write_view(made, page)
    return {**look(page.as_uri(), lambda: 0), "shown": points, "bytes": page.stat().st_size}


def main(argv: list[str] | None = None) -> None:
    """Measure all and print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--points", type=int, nargs="+", default=[200_000, 2_000_000])
    parser.add_argument("--pictures", type=Path, default=None, help="folder for screenshots")
    given = parser.parse_args(argv)
    if given.pictures is not None:
        given.pictures.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    for points in given.points:
        made = scene(points)
        for page in ("viser", "view.html"):
            picture = None if given.pictures is None else given.pictures / f"{page}-{points}"
            with tempfile.TemporaryDirectory() as folder:
                browser = Browser(Path(folder) / "profile")
                look = partial(looked_at, browser, picture=picture)
                try:
                    found = served(made, look) if page == "viser" else shared(made, look, Path(folder))
                finally:
                    browser.close()
            rows.append({"page": page, "points": points, **found})
            print(rows[-1], flush=True)
            write_json(given.out, {**about(), "graphics": "SwiftShader", "rows": rows})


if __name__ == "__main__":
    main()

"""A headless Chromium for tests, spoken to over a pipe (Chrome DevTools Protocol): no port, no package, no network."""

import base64
import json
import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
REASON = "no chromium here (`apt-get install chromium`)"
PATIENCE = 120.0
"""Seconds for an answer: a software renderer on a busy machine is slow."""


class Browser:
    """One page of one browser; WebGL is drawn by software (SwiftShader)."""

    def __init__(self, profile: Path) -> None:
        assert CHROMIUM is not None
        read_here, write_there = os.pipe()
        read_there, write_here = os.pipe()

        def hand_over() -> None:  # the browser reads from 3 and writes to 4
            os.dup2(read_there, 103)
            os.dup2(write_there, 104)
            os.dup2(103, 3)
            os.dup2(104, 4)

        options = ["--headless=new", "--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader",
                   "--remote-debugging-pipe", f"--user-data-dir={profile}", "--hide-scrollbars", "--no-first-run",
                   "--disable-dev-shm-usage", "--force-device-scale-factor=1", "--disable-background-networking",
                   "--disable-component-update", "--disable-sync", "about:blank"]  # fmt: skip
        self._process = subprocess.Popen(
            [CHROMIUM, *options], preexec_fn=hand_over, close_fds=False, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(read_there)
        os.close(write_there)
        self._in, self._out = os.fdopen(write_here, "wb", buffering=0), os.fdopen(read_here, "rb", buffering=0)
        self._number, self._rest = 0, b""
        self.requests: list[str] = []
        """Every address that was asked for since the page was opened."""
        self.complaints: list[str] = []
        """Errors of scripts, and what the console and the security policy said."""
        self._session = None
        targets = self.call("Target.getTargets")["targetInfos"]
        page = next(target for target in targets if target["type"] == "page")
        self._session = self.call("Target.attachToTarget", targetId=page["targetId"], flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")

    def close(self) -> None:
        """End the browser."""
        self._process.kill()
        self._process.wait()
        self._in.close()
        self._out.close()

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send a command and wait for its answer."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        self._in.write(json.dumps(message).encode() + b"\0")
        while True:
            answer = self._receive()
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                return answer["result"]

    def _receive(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            part = self._out.read(1 << 20)
            assert part, "the browser ended"
            self._rest += part
        text, self._rest = self._rest.split(b"\0", 1)
        message = json.loads(text)
        told = message.get("params", {})
        if message.get("method") == "Network.requestWillBeSent":
            self.requests.append(told["request"]["url"])
        if message.get("method") == "Runtime.exceptionThrown":
            self.complaints.append(json.dumps(told["exceptionDetails"])[:500])
        if message.get("method") == "Log.entryAdded" and told["entry"]["level"] == "error":
            self.complaints.append(told["entry"]["text"])
        return message

    def open(self, address: str, size: tuple[int, int] = (1280, 800)) -> None:
        """Load an address in a window of (width, height) pixels and wait until it is there."""
        self.call(
            "Emulation.setDeviceMetricsOverride", width=size[0], height=size[1], deviceScaleFactor=1, mobile=False
        )
        self.call("Page.navigate", url="about:blank")
        self.wait("location.href === 'about:blank'")
        self.requests, self.complaints = [], []
        self.call("Page.navigate", url=address)
        self.wait(f"location.href === {json.dumps(address)} && document.readyState === 'complete'")

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression (of a promise: what it holds)."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def wait(self, expression: str) -> None:
        """Until a JavaScript expression is true."""
        until = time.monotonic() + PATIENCE
        while not self.evaluate(expression):
            assert time.monotonic() < until, f"never true: {expression}"
            time.sleep(0.05)

    def settle(self) -> None:
        """Until two more frames were drawn."""
        self.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => done(1))))")

    def picture(self, element: str | None = None) -> np.ndarray:
        """What is seen of the page, or of the box of the element of an id: RGB [h, w, 3]."""
        self.settle()
        answer = self.call("Page.captureScreenshot", format="png")
        picture = cv2.imdecode(np.frombuffer(base64.b64decode(answer["data"]), np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
        if element is None:
            return picture
        left, top, right, bottom = map(round, self.box(element))
        return picture[top:bottom, left:right]

    def box(self, element: str) -> tuple[float, float, float, float]:
        """(left, top, right, bottom) of an element, by its id, in pixels of the window."""
        place = f"document.getElementById({json.dumps(element)}).getBoundingClientRect()"
        return tuple(self.evaluate(f"(b => [b.left, b.top, b.right, b.bottom])({place})"))

    def press(self, x: float, y: float, *, to: tuple[float, float] | None = None) -> None:
        """A click with the left button, or a drag."""
        end = to or (x, y)
        steps = [(x + (end[0] - x) * k / 5, y + (end[1] - y) * k / 5) for k in range(1, 6)] if to else []
        self._mouse("mouseMoved", x, y, held=False)
        self._mouse("mousePressed", x, y)
        for place in steps:
            self._mouse("mouseMoved", *place)
        self._mouse("mouseReleased", *end)
        self.settle()

    def _mouse(self, kind: str, x: float, y: float, *, held: bool = True) -> None:
        button = "left" if held else "none"
        self.call("Input.dispatchMouseEvent", type=kind, x=float(x), y=float(y), button=button, buttons=int(held),
                  clickCount=int(held))  # fmt: skip

    def slide(self, element: str, value: float) -> None:
        """Set a slider."""
        place = f"document.getElementById({json.dumps(element)})"
        self.evaluate(f"{place}.value = {value}; {place}.dispatchEvent(new Event('input'))")
        self.settle()


def save(picture: np.ndarray, path: Path) -> None:
    """As a PNG, for people."""
    cv2.imwrite(str(path), picture[..., ::-1])

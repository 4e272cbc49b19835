"""The points of a scene on the page: in parts by confidence, and fewer of each while the camera moves."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from typing import Any

import numpy as np

from reliev3r.export.cloud import Cloud

LAYERS = 20
"""Parts of the points by confidence, 5 % each: the slider shows and hides them, nothing is sent again."""
WHILE_MOVING = 250_000
"""Points that are drawn at most, of a scene with more, until the camera rests."""
REST = (1.0, 3.0, 10.0)
"""Seconds without a movement after which all points are back: at least, at first, and at most."""
GAPS = 8
"""Between two movements; their mean says how fast this browser draws."""


class PointLayers:
    """The points in a viser scene; each part in two clouds, an even selection of it and what that leaves out."""

    def __init__(self, scene: Any, cloud: Cloud, lock: Any) -> None:
        """Put the points of ``cloud`` (the most confident first) into the scene, hidden.

        Args:
            scene: of a viser server.
            cloud: they are sent once, here.
            lock: held while anything on the page is changed.
        """
        self._lock, self._spacing = lock, cloud.spacing
        self._every = max(1, math.ceil(len(cloud.points) / WHILE_MOVING))
        self._shown, self._size = 0, 1.0
        self._moves: deque[float] = deque(maxlen=GAPS + 1)
        self._waits = False
        self._layers: list[tuple[Any, Any]] = []
        if not len(cloud.points):
            return
        for number, part in enumerate(np.array_split(np.arange(len(cloud.points)), LAYERS)):
            chosen = np.arange(len(part)) % self._every == 0
            clouds = [
                scene.add_point_cloud(
                    f"/points/{number}/{name}", cloud.points[index].astype(np.float32), cloud.colours[index],
                    point_size=cloud.spacing, point_shape="circle", precision="float32", visible=False,
                ) if len(index) else None
                for name, index in (("some", part[chosen]), ("rest", part[~chosen]))
            ]  # fmt: skip
            self._layers.append((clouds[0], clouds[1]))

    def show(self, layers: int, size: float) -> None:
        """That many parts, in points of ``size`` (1: so that neighbours touch)."""
        self._shown, self._size = layers, size
        self._draw()

    def moved(self) -> None:
        """The camera has moved: of many points some are hidden until it rests."""
        if self._every == 1:
            return
        with self._lock:
            self._moves.append(time.monotonic())
            if not self._waits:
                self._waits = True
                self._draw()
                self._look_again(self._rest())

    def remove(self) -> None:
        """Take all points off the page."""
        for layer in self._layers:
            for cloud in layer:
                if cloud is not None:
                    cloud.remove()
        self._layers = []

    def _rest(self) -> float:
        """Seconds without a movement that mean rest here.

        A page sends the camera as often as it draws. All points take some ``every`` times as long as those shown now,
        and the page must be given the time for three such pictures: where it draws by software, a shorter rest would
        bring all points back between two pictures of one movement.
        """
        least, first, most = REST
        if len(self._moves) <= GAPS:
            return first
        return min(max(3 * self._every * (self._moves[-1] - self._moves[0]) / GAPS, least), most)

    def _look_again(self, seconds: float) -> None:
        timer = threading.Timer(seconds, self._rested)
        timer.daemon = True
        timer.start()

    def _rested(self) -> None:
        with self._lock:
            left = self._moves[-1] + self._rest() - time.monotonic()
            if left > 0:
                self._look_again(left)
                return
            self._waits = False
            self._draw()

    def _draw(self) -> None:
        # Half way to what the hidden ones covered: large dots cost as much as many.
        larger = self._every**0.25 if self._waits else 1.0
        for number, (some, rest) in enumerate(self._layers):
            visible = number < self._shown
            for cloud, seen in ((some, visible), (rest, visible and not self._waits)):
                if cloud is not None:
                    cloud.point_size = 0.75 * self._spacing * self._size * larger
                    cloud.visible = seen

"""Distances in the scene: two clicks on its points."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Float

_APERTURE = 0.01
"""Half the opening of a click in radians: about ten pixels of a usual window."""
_COLOUR = (255, 210, 60)


def clicked_point(
    origin: Float[np.ndarray, "3"], direction: Float[np.ndarray, "3"], points: Float[np.ndarray, "n 3"]
) -> Float[np.ndarray, "3"] | None:
    """The point that a click means: the foremost of those within its opening; ``None`` where there is none.

    Args:
        origin: of the click's ray.
        direction: of it, of any length.
        points: in the same frame.
    """
    towards = points - origin
    along = towards @ (direction / np.linalg.norm(direction))
    off = np.sqrt(np.maximum((towards**2).sum(1) - along**2, 0.0))
    hit = np.flatnonzero((along > 0) & (off <= _APERTURE * along))
    return points[hit[along[hit].argmin()]] if len(hit) else None


class Ruler:
    """A button, two clicks on points, and the distance between them in the reconstruction's own unit."""

    def __init__(self, server: Any, points: Callable[[], Float[np.ndarray, "n 3"]]) -> None:
        """Put the button on the page.

        Args:
            server: viser's.
            points: those that are shown at the time of a click.
        """
        self._server, self._points = server, points
        self._ends: list[np.ndarray] = []
        self._drawn: list[Any] = []
        self._on = server.gui.add_checkbox("Measure (click two points)", initial_value=False)
        self._told = server.gui.add_text("Distance", "", disabled=True, visible=False)
        self._on.on_update(self._switch)
        server.scene.remove_click_callback()  # of a scene before this one

    def _switch(self, _event: Any) -> None:
        self._server.scene.remove_click_callback()
        self._clear()
        self._told.visible = self._on.value
        if self._on.value:
            self._told.value = "click the first point"
            self._server.scene.on_click()(self._clicked)

    def _clicked(self, event: Any) -> None:
        point = clicked_point(np.array(event.ray_origin), np.array(event.ray_direction), self._points())
        if point is None:
            self._told.value = "no point there; click again"
            return
        if len(self._ends) == 2:
            self._clear()
        self._ends.append(point)
        self._draw(0.01 * float(np.linalg.norm(point - np.array(event.ray_origin))))

    def _draw(self, radius: float) -> None:
        scene, number = self._server.scene, len(self._ends)
        self._drawn.append(
            scene.add_icosphere(f"/ruler/{number}", radius=radius, color=_COLOUR, position=self._ends[-1])
        )
        if number < 2:
            self._told.value = "click the second point"
            return
        line = np.stack(self._ends)[None].astype(np.float32)
        self._drawn.append(
            scene.add_line_segments(
                "/ruler/line", line, np.array(_COLOUR, np.uint8), thickness=3.0, thickness_units="screen"
            )
        )
        distance = float(np.linalg.norm(self._ends[1] - self._ends[0]))
        self._told.value = f"{distance:.4g} (unit of the reconstruction)"

    def _clear(self) -> None:
        for handle in self._drawn:
            handle.remove()
        self._ends, self._drawn = [], []

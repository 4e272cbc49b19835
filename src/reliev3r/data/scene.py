"""A scene of a dataset: the capture that training and systems may see, and the truth that scoring may."""

from __future__ import annotations

from dataclasses import dataclass

from reliev3r.data.capture import Capture
from reliev3r.data.truth import TruthSource


@dataclass(frozen=True, kw_only=True, eq=False)
class Scene:
    """What a reader (``data.readers``) makes of one scene."""

    name: str
    """Unique in its dataset."""
    capture: Capture
    truth: TruthSource | None = None
    """Read when asked for; None where the dataset has none."""
    caveats: tuple[str, ...] = ()
    """What must stand beside numbers: where its truth comes from, what it cannot tell."""

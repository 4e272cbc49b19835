"""Track experts by name."""

from __future__ import annotations

from reliev3r.errors import UserError
from reliev3r.labels.expert import TrackExpert
from reliev3r.labels.tracks.sift import SiftTracks

TRACK_EXPERTS = ("sift",)


def track_expert(spec: str) -> TrackExpert:
    """The expert that ``spec`` names.

    Raises:
        UserError: no such expert.
    """
    if spec == "sift":
        return SiftTracks()
    raise UserError(f"track expert {spec!r}: choose one of {', '.join(TRACK_EXPERTS)}")

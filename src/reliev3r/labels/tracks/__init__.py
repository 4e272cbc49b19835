"""Track experts, one adapter a file."""

from reliev3r.labels.tracks.registry import TRACK_EXPERTS, track_expert

__all__ = ["TRACK_EXPERTS", "track_expert"]

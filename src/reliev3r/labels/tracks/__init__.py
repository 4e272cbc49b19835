"""Track experts, one adapter a file."""

from reliev3r.labels.tracks.registry import TRACK_EXPERT_INFO, TRACK_EXPERTS, track_expert

__all__ = ["TRACK_EXPERT_INFO", "TRACK_EXPERTS", "track_expert"]

"""Depth experts, one adapter a file."""

from reliev3r.labels.depth.registry import DEPTH_EXPERTS, depth_expert

__all__ = ["DEPTH_EXPERTS", "depth_expert"]

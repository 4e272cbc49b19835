"""Fields of view: intrinsics of captures that come without."""

from reliev3r.labels.fov.intrinsics import FOV_EXPERT_INFO, resolve_intrinsics

__all__ = ["FOV_EXPERT_INFO", "resolve_intrinsics"]

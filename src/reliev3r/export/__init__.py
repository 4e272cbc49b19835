"""Reconstructions in the formats of other programs."""

from reliev3r.export.write import export_reconstruction

__all__ = ["export_reconstruction"]

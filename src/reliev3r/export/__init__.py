"""Reconstructions in the formats of other programs."""

"""Reconstructions in the formats of other tools."""

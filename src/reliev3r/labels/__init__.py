"""Pseudo-labels: monocular depth and sparse tracks."""

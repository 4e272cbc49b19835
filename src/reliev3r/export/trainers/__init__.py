"""Pseudo-labels in the layouts that supervised trainers of other repositories read."""

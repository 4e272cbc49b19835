"""Depth that others computed for scenes whose dataset has none, in the layouts in which it is kept."""

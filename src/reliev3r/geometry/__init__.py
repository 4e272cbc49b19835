"""Cameras, rigid motions, alignment, robust statistics and sampling: pure functions of tensors."""

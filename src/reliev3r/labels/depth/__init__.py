"""Depth experts, one adapter a file."""

"""Weights of other networks: pi^3's in and out, VGGT's aggregator and DINOv2 as a start (docs/weights.md)."""

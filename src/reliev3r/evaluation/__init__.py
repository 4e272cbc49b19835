"""Metrics and protocols; scoring never runs a model."""

"""Rendered captures with exact ground truth, and simulated experts for controlled tests."""

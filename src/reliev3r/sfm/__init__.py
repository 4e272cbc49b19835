"""Cameras from tracks, whoever asks for them; no network and no ground truth."""

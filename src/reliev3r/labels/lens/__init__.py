"""Lens experts, one adapter a file: fields of view and distortion from single images."""

"""Captures as people have them: photographs, videos, intrinsics."""

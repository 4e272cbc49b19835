"""Photographs and tracks of a reconstruction whose refinement found the lens: both lose its distortion for export.

Other programs then read plain pinhole cameras, which all of them read alike; k1 would be another thing in each.
"""

from __future__ import annotations

import dataclasses

import torch

from reliev3r.core.reconstruction import Reconstruction
from reliev3r.core.types import Tracks
from reliev3r.data.capture import Capture, Frame
from reliev3r.data.lenses import Lens
from reliev3r.geometry.radial import undistorted


def straightened_tracks(tracks: Tracks, reconstruction: Reconstruction) -> Tracks:
    """Tracks [v, m] of the capture's images, in pixels of the images that the reconstruction is about."""
    if reconstruction.radial is None:
        return tracks
    return undistorted(tracks, reconstruction.K_original, torch.tensor(reconstruction.radial, dtype=torch.float64))


def straightened_capture(capture: Capture, reconstruction: Reconstruction) -> Capture:
    """The capture with the images that the reconstruction is about; other frames of it stay."""
    if reconstruction.radial is None:
        return capture
    found = dict(zip(reconstruction.names, zip(reconstruction.K_original.numpy(), reconstruction.radial)))

    def straightened(frame: Frame) -> Frame:
        if frame.name not in found:
            return frame
        K, k1 = found[frame.name]
        lens = Lens(
            model="SIMPLE_RADIAL", width=frame.width, height=frame.height, distortion=(k1,),
            fx=float(K[0, 0]), fy=float(K[1, 1]), cx=float(K[0, 2]), cy=float(K[1, 2]),
        )  # fmt: skip
        return dataclasses.replace(frame, K=K, rectification=lens.rectification() or frame.rectification)

    return dataclasses.replace(capture, frames=tuple(map(straightened, capture.frames)))

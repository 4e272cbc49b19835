"""A capture and its labels at the network's resolution."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from reliev3r.data.capture import Capture
from reliev3r.data.transforms import (
    MAX_STRETCH,
    K_in_region,
    choose_size,
    fit_region,
    resize_depth,
    resize_image,
    uv_in_region,
)
from reliev3r.geometry.sampling import inside
from reliev3r.labels.store import CaptureLabels
from reliev3r.types import DepthLabels, PseudoLabels, Tracks, Views


def network_views(capture: Capture, *, long_side: int, patch: int) -> tuple[Views, Float[Tensor, "v 4"]]:
    """Images [v ...] at a size that is a multiple of ``patch``, and the regions (left, top, width, height) they show.

    Regions are in original pixels (corner convention). ``K`` moves along, and is None unless every frame has one.
    """
    size = choose_size(capture.frames, long_side=long_side, patch=patch)
    stretch = MAX_STRETCH if capture.has_K else 1.0  # a network that predicts the focal length assumes square pixels
    regions = [fit_region(frame, size, max_stretch=stretch) for frame in capture.frames]
    images = [resize_image(capture.image(index), region, size) for index, region in enumerate(regions)]
    known = [torch.from_numpy(frame.K) for frame in capture.frames if frame.K is not None]
    K = None
    if len(known) == len(regions):
        K = torch.stack([K_in_region(k, region, size) for k, region in zip(known, regions, strict=True)]).float()
    return Views(image=torch.from_numpy(np.stack(images)), K=K), torch.tensor(regions, dtype=torch.float64)


def network_sample(
    capture: Capture, labels: CaptureLabels, *, long_side: int, patch: int
) -> tuple[Views, PseudoLabels, Float[Tensor, "v 4"]]:
    """:func:`network_views` together with the labels [v ...] on the same pixels.

    Depth is the mean of the valid pixels in each area. Observations outside the region have weight 0; no track is
    removed, so positions in the track axis stay those of ``labels``.
    """
    views, regions = network_views(capture, long_side=long_side, patch=patch)
    height, width = views.size
    depths, masks, uv = [], [], []
    for index, frame in enumerate(capture.frames):
        stored, region = labels.depth(index), tuple(regions[index].tolist())
        depth, valid = resize_depth(stored.depth, stored.valid, region, (frame.width, frame.height), (height, width))
        depths.append(depth)
        masks.append(valid)
        uv.append(uv_in_region(labels.tracks.uv[index], region, (height, width)))
    moved = torch.stack(uv)
    weight = torch.where(inside(moved, height, width), labels.tracks.weight, 0.0)
    depth_labels = DepthLabels(
        depth=torch.from_numpy(np.stack(depths)),
        valid=torch.from_numpy(np.stack(masks)),
        ambiguity=labels.ambiguity,
    )
    return views, PseudoLabels(depth=depth_labels, tracks=Tracks(uv=moved, weight=weight)), regions

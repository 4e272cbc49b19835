"""A set of views in one go: cameras solved in the forward pass, then their depth swept. What studies judge."""

from __future__ import annotations

import dataclasses

import torch

from reliev3r.core.types import Prediction, Views
from reliev3r.model.network import Reliev3R
from reliev3r.sfm.bundle_batched import seen_depth
from reliev3r.sfm.dense_depth import SolvedTracks, dense_depth, sweep_features
from reliev3r.sfm.dense_matches import mutual_matches
from reliev3r.sfm.match_cameras import bent_depth, cameras_from_matches

_TWO_VIEWS = 0.25
"""How certain the depth of a match is that two views see; 1 where more do."""


@torch.no_grad()
def swept_prediction(network: Reliev3R, views: Views) -> Prediction:
    """The network's prediction of one sample ``views`` [v ...], with its depth replaced by a plane sweep.

    Cameras are those of the forward pass. Depth comes out in their unit, at the size of the images. Confidence is in
    (0, 2): high where views agree on the swept depth.

    Args:
        network: one that solves its cameras, in evaluation mode.
        views: with known K.

    Raises:
        ValueError: K is unknown.
    """
    if views.K is None:
        raise ValueError("a sweep needs the intrinsics")
    plain = network.without_cameras(views.map(lambda x: x[None]))
    features = network.image_features(views.image)
    tracks = mutual_matches(features[None], views.size)
    solve = cameras_from_matches(plain.depth, views.K[None], tracks)
    depth, seen = seen_depth(solve.world_from_cam, solve.points, solve.sightings)
    count = (seen & solve.reached[..., None]).sum(-2, keepdim=True)
    certainty = torch.where(count > 2, 1.0, _TWO_VIEWS) * (seen & (count > 1))
    solved = SolvedTracks(tracks=tracks.map(lambda x: x[0]), depth=depth[0], certainty=certainty[0])
    found = dense_depth(
        sweep_features(features, views.image), views.image, views.K, solve.world_from_cam[0], solved,
        bent_depth(plain.depth, solve, tracks)[0],
    )  # fmt: skip
    return dataclasses.replace(
        plain.map(lambda x: x[0]), depth=found.depth, conf=found.confidence,
        world_from_cam=solve.world_from_cam[0], reached=solve.reached[0], has_cameras=True,
    )  # fmt: skip

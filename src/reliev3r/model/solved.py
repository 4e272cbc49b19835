"""Cameras solved in the forward pass, from the network's own matches and depth."""

from __future__ import annotations

import dataclasses

import torch
from jaxtyping import Float
from torch import Tensor

from reliev3r.core.types import Prediction
from reliev3r.sfm.dense_matches import DenseMatchConfig, mutual_matches
from reliev3r.sfm.match_cameras import MatchSolveConfig, bent_depth, cameras_from_matches


@torch.no_grad()
def with_solved_cameras(
    prediction: Prediction,
    features: Float[Tensor, "*b v c fh fw"],
    matches: DenseMatchConfig | None = None,
    solve: MatchSolveConfig | None = None,
) -> Prediction:
    """``prediction`` with cameras solved from ``features``, and its depth in their unit, bent to the solved points.

    Views that nothing ties (``reached`` False) keep the identity and their own depth. No gradient.
    """
    shape = prediction.depth.shape
    depth, K = prediction.depth.reshape(-1, *shape[-3:]), prediction.K.reshape(-1, shape[-3], 3, 3)
    tracks = mutual_matches(features.reshape(-1, *features.shape[-4:]), (shape[-2], shape[-1]), matches)
    found = cameras_from_matches(depth, K, tracks, solve)
    return dataclasses.replace(
        prediction, depth=bent_depth(depth, found, tracks).reshape(shape),
        world_from_cam=found.world_from_cam.reshape(*shape[:-2], 4, 4), reached=found.reached.reshape(shape[:-2]),
        has_cameras=True,
    )  # fmt: skip

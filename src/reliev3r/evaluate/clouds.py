"""Point clouds compared as surfaces: accuracy, completeness and normal consistency (protocol ``pi3``)."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from reliev3r.evaluate.alignment import icp
from reliev3r.geometry.align import umeyama

CLOUD_CAP = 1_000_000
"""Clouds with more points than this are thinned (evenly, the same pixels in both) before anything is searched."""
QUERY_CAP = 50_000
"""Nearest neighbours are sought *for* at most this many points (evenly spaced), *in* the whole cloud: the figures are
estimates without bias."""
NEIGHBOURS = 30
"""Points whose principal axes give a normal (Open3D's default)."""


def compare_clouds(
    predicted: Float[Tensor, "n 3"], true: Float[Tensor, "n 3"], *, threshold: float = 0.1
) -> dict[str, float]:
    """Surface distances after alignment, for clouds that correspond point by point; unit of ``true``.

    Sim(3) Umeyama over all points, then rigid ICP (``threshold``). ``accuracy``: distance from each predicted point to
    the nearest true one; ``completeness``: the other way round; ``normal_consistency``: |n . n'| at those neighbours,
    the mean of both ways. Normals by PCA of the 30 nearest points of the same cloud. Mean and median of each.
    Source: pi^3's ``mv_recon`` evaluation; the thinning (``CLOUD_CAP``, ``QUERY_CAP``) is ours.
    """
    predicted, true = _thin(predicted, CLOUD_CAP), _thin(true, CLOUD_CAP)
    scale, rotation, translation = umeyama(predicted, true)
    predicted = scale * predicted @ rotation.mT + translation
    moved = icp(_thin(predicted, QUERY_CAP), true, threshold=threshold)
    predicted = predicted @ moved[:3, :3].mT + moved[:3, 3]

    accuracy, there = _nearest(predicted, true)
    completeness, back = _nearest(true, predicted)
    pairs = {"accuracy": [accuracy], "completeness": [completeness], "normal_consistency": [there, back]}
    result = {}
    for name, values in pairs.items():
        result[f"{name}_mean"] = float(torch.stack([value.mean() for value in values]).mean())
        result[f"{name}_median"] = float(torch.stack([value.median() for value in values]).mean())
    return result


def _thin(points: Float[Tensor, "n 3"], cap: int) -> Float[Tensor, "k 3"]:
    """At most ``cap`` points, evenly spaced in the list."""
    if len(points) <= cap:
        return points
    return points[torch.linspace(0, len(points) - 1, cap, dtype=torch.float64).round().long()]


def _nearest(
    source: Float[Tensor, "n 3"], target: Float[Tensor, "m 3"]
) -> tuple[Float[Tensor, " k"], Float[Tensor, " k"]]:
    """For (some of) the source points: distance to the nearest target, and |cosine| between the two normals."""
    from scipy.spatial import cKDTree

    tree, own = cKDTree(target.numpy()), cKDTree(source.numpy())
    query = _thin(source, QUERY_CAP)
    distance, index = tree.query(query.numpy())
    nearest = target[torch.from_numpy(index)]
    cosine = (_normals(own, source, query) * _normals(tree, target, nearest)).sum(-1).abs()
    return torch.from_numpy(distance), cosine


def _normals(tree: Any, cloud: Float[Tensor, "n 3"], at: Float[Tensor, "k 3"]) -> Float[Tensor, "k 3"]:
    """Unit normals (sign open) of ``cloud`` at the points ``at``: least principal axis of the nearest neighbours."""
    _, index = tree.query(at.numpy(), k=min(NEIGHBOURS, len(cloud)))
    near = cloud[torch.from_numpy(index).reshape(len(at), -1)]
    centred = near - near.mean(-2, keepdim=True)
    return torch.linalg.eigh(centred.mT @ centred).eigenvectors[..., 0]

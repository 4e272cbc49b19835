"""Matching losses: they need no label but the tracks.

:func:`match_loss` teaches the dense features that cameras are solved from. :func:`correspondence_loss` is the auxiliary
one of networks that regress cameras: it compares a descriptor a patch, and among the tracks alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from reliev3r.core.errors import UserError
from reliev3r.core.types import Prediction, Tracks
from reliev3r.geometry.sampling import sample_features, spread_choice


@dataclass(frozen=True, kw_only=True)
class CorrespondenceConfig:
    """How descriptors are compared."""

    temperature: float = 0.1
    """Similarities, in [-1, 1], are divided by it."""
    tracks: int = 128
    """At most so many of a sample's tracks, spread evenly over those that two views see. Memory is views^2 tracks^2
    floats a sample: 4 MB at 8 views and 128 tracks, a few times that in training."""


def correspondence_loss(
    prediction: Prediction, tracks: Tracks, config: CorrespondenceConfig
) -> tuple[Float[Tensor, "*b v v k"], Float[Tensor, "*b v v k"]]:
    """-log of the share that view i's descriptor of a track gives to the same track in view j, among all the tracks
    seen in view j, for every ordered pair [i, j]; and its weight: the product of the two observations', 0 for i = j.

    InfoNCE (van den Oord et al. 2018, eq. 4). Descriptors that tell nothing apart give log n for n tracks in view j.
    Unreduced, non-negative; finite in value and gradient where no two views share a track.

    Raises:
        UserError: the prediction has no descriptors.
    """
    if prediction.descriptors is None:
        raise UserError(
            "the correspondence loss needs descriptors: give the network match_dim=64 and training mode, "
            "or set correspondence_weight to 0"
        )
    height, width = prediction.depth.shape[-2:]
    chosen, counts = spread_choice(tracks.visible.sum(-2) >= 2, config.tracks)
    chosen = chosen[..., None, :].expand(*tracks.weight.shape[:-1], -1)  # the same tracks in all views
    weight = tracks.weight.gather(-1, chosen) * counts[..., None, :]
    uv = tracks.uv.gather(-2, chosen[..., None].expand(*chosen.shape, 2))
    found = _look_up(prediction.descriptors, uv / uv.new_tensor([width, height]))

    views, count = weight.shape[-2:]
    flat = found.flatten(-3, -2)
    similarity = (flat @ flat.mT).unflatten(-1, (views, count)) / config.temperature  # [*b, i k, j, l]
    unseen = (weight <= 0)[..., None, :, :]
    total = similarity.masked_fill(unseen, -1e6).logsumexp(-1)  # finite: a view without tracks is no NaN
    total = total.unflatten(-2, (views, count)).transpose(-1, -2)
    same = torch.einsum("...ikc,...jkc->...ijk", found, found) / config.temperature
    pairs = 1 - torch.eye(views, device=weight.device, dtype=weight.dtype)
    return total - same, weight[..., :, None, :] * weight[..., None, :, :] * pairs[..., None]


def match_loss(
    prediction: Prediction, tracks: Tracks, count: int
) -> tuple[Float[Tensor, "*b v v k"], Float[Tensor, "*b v v k"]]:
    """-log of the share that view i's feature of a track gives to the track's place in view j, among *all* cells of
    view j, for every ordered pair [i, j]; and its weight: the product of the two observations', 0 for i = j.

    The place counts as the four cells around it, bilinearly. At most ``count`` of a sample's tracks, spread evenly over
    those that two views see. Features that tell nothing apart give log n for n cells. Unreduced; finite in value and
    gradient where no two views share a track.

    Raises:
        UserError: the prediction has no features.
    """
    if prediction.features is None:
        raise UserError(
            "the matching loss needs features: give the network cameras=solved and training mode, "
            "or set match_weight to 0"
        )
    height, width = prediction.depth.shape[-2:]
    chosen, counts = spread_choice(tracks.visible.sum(-2) >= 2, count)
    chosen = chosen[..., None, :].expand(*tracks.weight.shape[:-1], -1)
    weight = tracks.weight.gather(-1, chosen) * counts[..., None, :]
    uv = tracks.uv.gather(-2, chosen[..., None].expand(*chosen.shape, 2))
    batch, views = weight.shape[:-2], weight.shape[-2]
    features = prediction.features.reshape(-1, *prediction.features.shape[-4:])
    place = (uv / uv.new_tensor([width, height])).reshape(len(features), views, *uv.shape[-2:])
    asked = sample_features(features, place)
    cell, share = _cells_around(place, features.shape[-2], features.shape[-1])
    rows = []
    for view in range(views):  # one view's queries at a time: the largest array has views k cells numbers a sample
        logits = asked[:, view, None] @ features.flatten(-2)  # b j k n
        there = (logits.gather(-1, cell) * share).sum(-1)
        rows.append(logits.logsumexp(-1) - there)
    pairs = 1 - torch.eye(views, device=weight.device, dtype=weight.dtype)
    values = torch.stack(rows, dim=1).reshape(*batch, views, views, uv.shape[-2])
    return values, weight[..., :, None, :] * weight[..., None, :, :] * pairs[..., None]


def _cells_around(place: Float[Tensor, "*b 2"], rows: int, columns: int) -> tuple[Tensor, Tensor]:
    """(index [*b 4] of the cells whose centres are around places in [0, 1]^2, their bilinear shares)."""
    x = (place[..., 0] * columns - 0.5).clamp(0, columns - 1)
    y = (place[..., 1] * rows - 0.5).clamp(0, rows - 1)
    left, top = x.floor().clamp_max(columns - 2), y.floor().clamp_max(rows - 2)
    dx, dy = x - left, y - top
    first = (top * columns + left).long()
    index = torch.stack([first, first + 1, first + columns, first + columns + 1], dim=-1)
    return index, torch.stack([(1 - dx) * (1 - dy), dx * (1 - dy), (1 - dx) * dy, dx * dy], dim=-1)


def _look_up(descriptors: Float[Tensor, "*b v gh gw c"], place: Float[Tensor, "*b v k 2"]) -> Float[Tensor, "*b v k c"]:
    """Unit descriptors at places in [0, 1]^2 of the image (corner to corner), bilinearly, clamped to the border."""
    batch = place.shape[:-2]
    maps = descriptors.reshape(-1, *descriptors.shape[-3:]).movedim(-1, 1)
    grid = (2 * place - 1).reshape(maps.shape[0], 1, *place.shape[-2:])
    found = F.grid_sample(maps, grid, mode="bilinear", padding_mode="border", align_corners=False)
    return F.normalize(found[:, :, 0].mT, dim=-1).unflatten(0, batch)

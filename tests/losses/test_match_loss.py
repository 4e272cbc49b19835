"""InfoNCE over all cells: what it counts, and that the weak objective takes cameras from the labels."""

import dataclasses
import math

import pytest
import torch

import builders
from reliev3r.core.errors import UserError
from reliev3r.core.types import Tracks
from reliev3r.losses.full import SupervisedConfig, supervised
from reliev3r.losses.matching import match_loss
from reliev3r.losses.weak import ObjectiveConfig, objective

SIZE = (12, 16)


def with_features(features: torch.Tensor, **changes):
    views = features.shape[1]
    plain = builders.prediction(views, scenes=len(features), size=SIZE)
    return dataclasses.replace(plain, features=features, **changes)


def tracks_of(uv: torch.Tensor, weight: torch.Tensor) -> Tracks:
    return Tracks(uv=uv, weight=weight)


def test_features_that_tell_nothing_apart_cost_the_log_of_the_cells() -> None:
    features = torch.ones(1, 3, 8, 6, 8)
    uv = torch.rand(1, 3, 5, 2, generator=torch.Generator().manual_seed(0)) * torch.tensor([16.0, 12.0])
    values, weight = match_loss(with_features(features), tracks_of(uv, torch.ones(1, 3, 5)), 64)
    assert values.shape == weight.shape == (1, 3, 3, 5)
    torch.testing.assert_close(values, torch.full_like(values, math.log(48)))
    assert (weight.diagonal(dim1=1, dim2=2) == 0).all()
    assert weight.sum() == 6 * 5


def test_it_is_the_cross_entropy_of_the_bilinear_place() -> None:
    """By hand for one query: logits against all cells of the other view, the four around the place share the target."""
    features = torch.randn(1, 2, 8, 6, 8, generator=torch.Generator().manual_seed(1))
    features = 3 * torch.nn.functional.normalize(features, dim=2)
    uv = torch.tensor([[[[5.0, 7.0]], [[9.5, 3.25]]]])
    values, _ = match_loss(with_features(features), tracks_of(uv, torch.ones(1, 2, 1)), 64)
    # cells are 2 x 2 pixels: place (9.5, 3.25) is cell coordinate (4.25, 1.125) from the first centre
    around = torch.nn.functional.grid_sample(
        features[:, 0], torch.tensor([[[[5.0 / 8 - 1, 7.0 / 6 - 1]]]]), align_corners=False
    )[0, :, 0, 0]
    query = 3 * torch.nn.functional.normalize(around, dim=0)
    logits = torch.einsum("c,chw->hw", query, features[0, 1])
    corner = [((1, 4), 0.75 * 0.875), ((1, 5), 0.25 * 0.875), ((2, 4), 0.75 * 0.125), ((2, 5), 0.25 * 0.125)]
    expected = logits.flatten().logsumexp(0) - sum(share * logits[cell] for cell, share in corner)
    assert float(values[0, 0, 1, 0]) == pytest.approx(float(expected), rel=1e-4)


def test_descending_it_makes_matches() -> None:
    generator = torch.Generator().manual_seed(0)
    features = torch.nn.Parameter(torch.randn(1, 2, 16, 6, 8, generator=generator))
    uv = torch.rand(1, 2, 12, 2, generator=generator) * torch.tensor([16.0, 12.0])
    tracks = tracks_of(uv, torch.ones(1, 2, 12))
    optimizer = torch.optim.Adam([features], lr=0.1)
    losses = []
    for _ in range(60):
        values, weight = match_loss(with_features(4 * torch.nn.functional.normalize(features, dim=2)), tracks, 64)
        loss = (values * weight).sum() / weight.sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss))
    assert losses[-1] < 0.3 * losses[0]


def test_without_shared_tracks_it_is_finite() -> None:
    features = torch.ones(1, 3, 8, 6, 8, requires_grad=True)
    values, weight = match_loss(with_features(features), tracks_of(torch.zeros(1, 3, 4, 2), torch.zeros(1, 3, 4)), 64)
    assert (weight == 0).all()
    (values * weight).sum().backward()
    assert torch.isfinite(features.grad).all()
    empty = tracks_of(torch.zeros(1, 3, 0, 2), torch.zeros(1, 3, 0))
    assert match_loss(with_features(features), empty, 64)[0].shape == (1, 3, 3, 0)


def test_without_features_it_says_what_to_do() -> None:
    with pytest.raises(UserError, match="cameras=solved"):
        match_loss(builders.prediction(2, size=SIZE), tracks_of(torch.zeros(1, 2, 1, 2), torch.ones(1, 2, 1)), 64)


def test_the_weak_objective_sees_the_cameras_of_the_labels() -> None:
    labels = builders.taught(builders.labels(3, size=SIZE))
    features = torch.nn.functional.normalize(torch.randn(1, 3, 8, 6, 8), dim=2)
    eye = torch.eye(4).expand(1, 3, 4, 4)
    solved = with_features(features, has_cameras=False, world_from_cam=eye)
    told = dataclasses.replace(solved, world_from_cam=labels.cameras.world_from_cam, has_cameras=True)
    config = ObjectiveConfig(teacher_weight=1.0)
    one, other = (objective(each, labels, config, teacher=0.5) for each in (solved, told))
    assert one.parts.keys() == other.parts.keys() >= {"match", "tracks", "depth", "teacher"}
    torch.testing.assert_close(one.parts["depth"], other.parts["depth"])
    torch.testing.assert_close(one.parts["match"], other.parts["match"])
    wild = labels.cameras.world_from_cam.clone()
    wild[:, -1, :3, 3] += 100  # the last view is not reached: its camera means nothing and must not be heard
    elsewhere = dataclasses.replace(labels, cameras=dataclasses.replace(labels.cameras, world_from_cam=wild))
    torch.testing.assert_close(objective(solved, elsewhere, config, teacher=0.5).total, one.total)
    with pytest.raises(UserError, match="pseudo cameras"):
        objective(solved, dataclasses.replace(labels, cameras=None), config)


def test_truth_teaches_a_solving_network_depth_alone() -> None:
    labels = builders.full_labels(3, size=SIZE)
    features = torch.nn.functional.normalize(torch.randn(1, 3, 8, 6, 8), dim=2)
    parts = supervised(with_features(features, has_cameras=False), labels, SupervisedConfig()).parts
    assert {"points", "normals", "match"} <= parts.keys()
    assert not {"rotation", "translation"} & parts.keys()

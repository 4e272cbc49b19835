import warnings

import numpy as np
import pytest
import torch

from reliev3r.core.types import Tracks
from reliev3r.geometry.rigid import so3_exp
from reliev3r.labels.quality.cameras import unexplained_angle
from reliev3r.labels.quality.figures import spearman
from reliev3r.labels.quality.label_verdict import check_labels
from reliev3r.sfm.track_graph import connected_parts, shared_tracks


def tracks_between(views, *groups):
    """``groups``: (number of tracks, views that see them)."""
    columns = []
    for count, seen in groups:
        column = torch.zeros(views, count)
        column[list(seen)] = 1
        columns.append(column)
    weight = torch.cat(columns, dim=1)
    return Tracks(uv=torch.zeros(*weight.shape, 2), weight=weight)


def test_shared_tracks_by_hand():
    seen = tracks_between(3, (4, (0, 1)), (2, (0, 1, 2)), (7, (2,))).visible
    assert shared_tracks(seen).tolist() == [[6, 6, 2], [6, 6, 2], [2, 2, 2]]  # alone in view 2: ties nothing


def test_parts():
    seen = tracks_between(6, (50, (0, 2)), (50, (2, 4)), (40, (1, 5)), (7, (0, 1))).visible
    assert connected_parts(seen) == [[0, 2, 4], [1, 5], [3]]
    assert connected_parts(seen, min_shared=7) == [[0, 1, 2, 4, 5], [3]]
    assert connected_parts(tracks_between(2, (0, ())).visible) == [[0], [1]]


def test_a_single_track_ties_where_one_is_enough():
    seen = tracks_between(6, (1, (0, 2)), (1, (2, 5)), (1, (1, 4)), (3, (3,))).visible
    assert connected_parts(seen, min_shared=1) == [[0, 2, 5], [1, 4], [3]]


def test_well_tied_captures_give_no_warning():
    assert check_labels(tracks_between(3, (40, (0, 1, 2))), ["a", "b", "c"]) == []


def test_two_unrelated_sets_are_named():
    tracks = tracks_between(4, (40, (0, 2)), (40, (1, 3)))
    (warning,) = check_labels(tracks, ["a1", "b1", "a2", "b2"])
    assert "fall into 2 parts that no track connects (a1, a2; b1, b2)" in warning


def test_lonely_and_weak_images_are_named():
    tracks = tracks_between(4, (40, (0, 1)), (12, (1, 2)))
    lonely, weak = check_labels(tracks, ["a", "b", "c", "d"])
    assert "no track ties d to the other images" in lonely
    assert "few tracks tie c (12 tracks)" in weak
    assert "a (" not in weak


def test_long_lists_are_cut():
    tracks = tracks_between(20, (40, (0, 1)))
    (warning,) = check_labels(tracks, [f"n{index}" for index in range(20)])
    assert "and 6 more" in warning


def test_rank_correlation_by_hand():
    assert spearman(np.array([1.0, 2.0, 3.0, 4.0]), np.array([10.0, 30.0, 20.0, 40.0])) == pytest.approx(0.8)
    assert spearman(np.array([1.0, 1.0, 2.0]), np.array([3.0, 3.0, 1.0])) == pytest.approx(-1)  # ties share their rank
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert spearman(np.array([1.0, 2.0, 3.0]), np.full(3, 5.0)) == 0


def test_a_rotation_explains_all_rays_but_those_that_moved():
    generator = torch.Generator().manual_seed(0)
    rays = torch.nn.functional.normalize(torch.randn(60, 3, generator=generator).double(), dim=-1)
    turned = rays @ so3_exp(torch.tensor([0.1, -0.3, 0.2]).double()).T
    across = torch.nn.functional.normalize(torch.linalg.cross(turned[:5], turned[5:10]), dim=-1)
    turned[:5] = torch.cos(torch.tensor(0.2)) * turned[:5] + torch.sin(torch.tensor(0.2)) * across
    angle = unexplained_angle(rays, turned, scale=0.001)
    assert angle[5:].max() < 1e-4
    assert angle[:5].tolist() == pytest.approx([0.2] * 5, abs=1e-4)

"""Robust triangulation of whole tracks."""

import dataclasses
import math

import pytest
import torch

import small_scene
from reliev3r.geometry import triangulate as sparse
from reliev3r.geometry.align import align_cameras
from reliev3r.geometry.rigid import rigid_from, so3_exp
from reliev3r.geometry.triangulate import consistent_points, reprojection_errors

CAMERAS = small_scene.arc(6)
K = small_scene.K.expand(6, 3, 3)


def exact(count=60):
    points = small_scene.wall_points(count)
    return points, small_scene.observe(points, CAMERAS)


@pytest.mark.parametrize("at_once", [7, 10**6])
def test_exact_tracks_give_their_points_in_chunks_too(monkeypatch, at_once):
    monkeypatch.setattr(sparse, "_TRACKS_AT_ONCE", at_once)
    points, tracks = exact()
    found, kept = consistent_points(tracks, K, CAMERAS, max_angle=1e-4)
    paired = tracks.visible.sum(0) >= 2
    assert torch.equal(kept, tracks.visible & paired)
    torch.testing.assert_close(found[paired], points[paired], atol=1e-4, rtol=0)
    error, in_front = reprojection_errors(found, tracks, K, CAMERAS)
    assert error[kept].max() < 1e-3
    assert in_front[kept].all()


def test_a_false_observation_loses_its_say():
    points, tracks = exact()
    long = (tracks.visible.sum(0) >= 4).nonzero()[:, 0]
    uv = tracks.uv.clone()
    for i, track in enumerate(long.tolist()):
        view = tracks.visible[:, track].nonzero()[i % 4, 0]
        uv[view, track] += 60.0
    found, kept = consistent_points(dataclasses.replace(tracks, uv=uv), K, CAMERAS, max_angle=math.radians(0.5))
    assert torch.equal(kept[:, long].sum(0), tracks.visible[:, long].sum(0) - 1)
    torch.testing.assert_close(found[long], points[long], atol=1e-3, rtol=0)


def test_parallax_limit_and_tracks_seen_once():
    _, tracks = exact()
    weight = torch.zeros_like(tracks.weight)
    weight[:2] = tracks.weight[:2]  # neighbours only: about 10 degrees apart
    near = dataclasses.replace(tracks, weight=weight)
    both = (weight.sum(0) == 2).nonzero()[:, 0]
    assert len(both) > 10
    _, kept = consistent_points(near, K, CAMERAS, max_angle=1e-3, min_parallax=math.radians(5))
    assert kept[:2, both].all()
    assert kept.sum() == 2 * len(both)
    _, kept = consistent_points(near, K, CAMERAS, max_angle=1e-3, min_parallax=math.radians(20))
    assert not kept.any()


def test_no_tracks():
    _, tracks = exact(0)
    found, kept = consistent_points(tracks, K, CAMERAS, max_angle=0.1)
    assert found.shape == (0, 3)
    assert kept.shape == (6, 0)


@pytest.mark.parametrize("line", [False, True])
def test_align_cameras_recovers_a_similarity(line):
    source = CAMERAS.clone()
    if line:
        source[:, :3, 3] = torch.arange(6)[:, None] * torch.tensor([1.0, 0.5, 0.0], dtype=torch.float64)
    rotation = so3_exp(torch.tensor([0.4, -2.0, 0.7], dtype=torch.float64))
    target = rigid_from(rotation @ source[:, :3, :3], 2.5 * source[:, :3, 3] @ rotation.T + 3)
    scale, R, t = align_cameras(source, target)
    assert scale.item() == pytest.approx(2.5)
    torch.testing.assert_close(R, rotation)
    torch.testing.assert_close(t, torch.full((3,), 3.0).double())


def test_align_cameras_in_one_place_has_scale_one():
    source = CAMERAS.clone()
    source[:, :3, 3] = 1.0
    assert align_cameras(source, source)[0].item() == 1

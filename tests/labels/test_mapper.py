"""Many views: COLMAP's mapper on our own tracks."""

import dataclasses
import importlib.util
import math

import pytest
import torch

from reliev3r.core.types import Tracks
from reliev3r.geometry.camera import K_from_fov, project, transform
from reliev3r.geometry.rigid import invert, relative, rigid_from, rotation_angle, so3_exp
from reliev3r.geometry.triangulate import agreeing_points
from reliev3r.sfm import solve_cameras as choice
from reliev3r.sfm.camera_solve import SolveConfig
from reliev3r.sfm.focal import solve_focal
from reliev3r.sfm.solve_cameras import solve_cameras
from reliev3r.solve.cameras import Candidate, solve_groups

VIEWS, H, W = 16, 480, 640
assert VIEWS > choice.FEW_VIEWS


def round_walk(views: int = VIEWS, count: int = 700, seed: int = 0, false: float = 0.03):
    """Cameras around a cloud of points, 8 degrees apart; each point is seen by six views in a row."""
    g = torch.Generator().manual_seed(seed)
    points = 2 * torch.rand(count, 3, generator=g, dtype=torch.float64) - 1
    turn = torch.tensor([0.0, math.radians(8), 0.0], dtype=torch.float64)
    rotations = [so3_exp(view * turn) for view in range(views)]
    away = torch.tensor([0.0, 0.0, -4.0], dtype=torch.float64)
    cameras = torch.stack([rigid_from(rotation, rotation @ away) for rotation in rotations])
    K = K_from_fov(1.1, H, W).double().expand(views, 3, 3)
    uv = project(transform(invert(cameras), points.expand(views, count, 3)), K)
    uv = uv + 0.4 * torch.randn(uv.shape, generator=g, dtype=torch.float64)
    first = torch.randint(-4, views - 1, (count,), generator=g)
    place = torch.arange(views)[:, None]
    seen = (place >= first) & (place < first + 6)
    wrong = seen & (torch.rand(views, count, generator=g) < false)
    uv[wrong] = torch.rand(int(wrong.sum()), 2, generator=g, dtype=torch.float64) * torch.tensor([W, H])
    keep = seen.sum(0) >= 2
    return Tracks(uv=uv[:, keep].float(), weight=seen[:, keep].float()), K.float(), cameras, wrong[:, keep]


def worst_turn(found: torch.Tensor, true: torch.Tensor) -> float:
    a, b = relative(found.double()), relative(true)
    return float(rotation_angle(a[..., :3, :3].mT @ b[..., :3, :3]).rad2deg().max())


def test_many_views_are_solved_and_false_observations_told_apart() -> None:
    tracks, K, true, wrong = round_walk()
    solve = solve_cameras(tracks, K)
    assert solve.reached.all()
    assert worst_turn(solve.world_from_cam, true) < 0.3
    seen = tracks.visible
    assert float(solve.inlier[seen & ~wrong].float().mean()) > 0.95
    assert float(solve.inlier[seen & wrong].float().mean()) < 0.05
    z = transform(invert(solve.world_from_cam), solve.points.expand(VIEWS, -1, 3))[..., 2]
    assert float(z[solve.inlier].log().mean().exp()) == pytest.approx(1, rel=0.05)  # the unit of CameraLabels


def test_the_same_tracks_give_the_same_bits() -> None:
    tracks, K, *_ = round_walk()
    torch.set_num_threads(2)
    first = solve_cameras(tracks, K)
    torch.set_num_threads(1)
    second = solve_cameras(tracks, K)
    assert torch.equal(first.world_from_cam, second.world_from_cam)
    assert torch.equal(first.inlier, second.inlier)


def test_how_many_cameras_are_placed_is_heard_of() -> None:
    tracks, K, *_ = round_walk()
    heard = []
    solve = solve_cameras(tracks, K, progress=lambda done, total, what: heard.append((done, total, what)))
    assert torch.equal(solve.world_from_cam, solve_cameras(tracks, K).world_from_cam)
    assert heard[0] == (2, VIEWS, "cameras placed")
    assert heard[-1] == (VIEWS, VIEWS, "cameras placed")


def test_a_view_that_nothing_ties_is_left_out() -> None:
    tracks, K, true, _ = round_walk()
    weight = tracks.weight.clone()
    weight[5] = 0
    solve = solve_cameras(dataclasses.replace(tracks, weight=weight), K)
    assert solve.reached.tolist() == [view != 5 for view in range(VIEWS)]
    rest = [view for view in range(VIEWS) if view != 5]
    assert worst_turn(solve.world_from_cam[rest], true[rest]) < 0.3
    assert solve.labels.weight[5] == 0


def test_walks_that_share_nothing_come_back_as_groups() -> None:
    (a, K, *_), (b, *_) = round_walk(), round_walk(views=14, seed=1)
    uv = torch.zeros(VIEWS + 14, a.weight.shape[1] + b.weight.shape[1], 2)
    weight = torch.zeros(uv.shape[:2])
    for tracks, rows, columns in ((a, slice(0, VIEWS), slice(0, a.weight.shape[1])),
                                  (b, slice(VIEWS, None), slice(a.weight.shape[1], None))):  # fmt: skip
        uv[rows, columns], weight[rows, columns] = tracks.uv, tracks.weight
    candidate = Candidate(expert="made", tracks=Tracks(uv=uv, weight=weight), inlier_angle=0.004)
    groups = solve_groups(candidate, K[:1].expand(VIEWS + 14, 3, 3).double())
    assert [group.views for group in groups] == [list(range(VIEWS)), list(range(VIEWS, VIEWS + 14))]


def test_noise_gives_no_cameras() -> None:
    g = torch.Generator().manual_seed(0)
    uv = torch.rand(VIEWS, 200, 2, generator=g) * torch.tensor([W, H])
    K = K_from_fov(1.1, H, W).expand(VIEWS, 3, 3)
    solve = solve_cameras(Tracks(uv=uv, weight=torch.ones(VIEWS, 200)), K)
    assert solve is None or int(solve.reached.sum()) <= 3
    assert solve_cameras(Tracks(uv=uv[:, :0], weight=torch.ones(VIEWS, 0)), K) is None


@pytest.mark.slow
def test_an_unknown_focal_length_of_many_views_is_found_on_a_few_of_them() -> None:
    tracks, K, true, _ = round_walk(count=300, false=0)
    focal, solve = solve_focal(tracks, [(H, W)] * VIEWS)
    assert focal * W == pytest.approx(float(K[0, 0, 0]), rel=0.05)
    assert solve.reached.all()
    assert worst_turn(solve.world_from_cam, true) < 3


def test_without_pycolmap_the_slow_way_is_taken_and_told_once(monkeypatch, caplog) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "pycolmap" else find(name))
    choice._has_mapper.cache_clear()
    tracks, K, true, _ = round_walk(views=13, count=200, false=0)
    try:
        solve = solve_cameras(tracks, K, SolveConfig(seeds=1))
        assert solve_cameras(tracks.select_tracks(torch.arange(0)), K) is None
    finally:
        choice._has_mapper.cache_clear()
    assert worst_turn(solve.world_from_cam, true) < 0.5
    assert caplog.text.count("pycolmap is not installed") == 1


def test_points_and_who_agrees_do_not_depend_on_views_that_see_nothing() -> None:
    tracks, K, true, _ = round_walk(views=8, count=80)
    found = agreeing_points(tracks, K, true, max_angle=0.004)
    more = Tracks(uv=torch.cat([tracks.uv, tracks.uv]), weight=torch.cat([tracks.weight, 0 * tracks.weight]))
    again = agreeing_points(more, torch.cat([K, K]), torch.cat([true, true]), max_angle=0.004)
    torch.testing.assert_close(again.points, found.points)
    assert torch.equal(again.inlier[:8], found.inlier)
    assert not again.inlier[8:].any()
    torch.testing.assert_close(again.parallax, found.parallax)
    assert bool((found.parallax[found.inlier.any(0)] > 0).all())
    assert not found.parallax[~found.inlier.any(0)].any()

import math

import pytest
import torch

from reliev3r.core.types import DepthLabels, Tracks
from reliev3r.geometry.camera import K_from_fov, project, transform
from reliev3r.geometry.rigid import invert, relative, rigid_from, rotation_angle, so3_exp
from reliev3r.geometry.triangulate import parallax, world_rays
from reliev3r.labels.align_depth import RegisterConfig, register_depth
from reliev3r.sfm.camera_solve import SolveConfig
from reliev3r.sfm.focal import solve_focal
from reliev3r.sfm.solve_cameras import solve_cameras
from reliev3r.sfm.track_graph import balanced_tracks, pair_rarity

H, W = 72, 96


def scene(views=6, count=250, noise=0.05, false=0.0, fov=1.1, seed=0, spread=0.25):
    """Cameras on an arc around a cloud of points; tracks in pixels of a 96 x 72 image, seen by half of the views."""
    g = torch.Generator().manual_seed(seed)
    points = torch.rand(count, 3, generator=g, dtype=torch.float64) * 2 - 1
    cameras = []
    for i in range(views):
        rotation = so3_exp(torch.tensor([0.05 * math.sin(i), spread * i, 0.02 * i], dtype=torch.float64))
        cameras.append(
            rigid_from(rotation, rotation @ torch.tensor([0.0, 0.1 * math.cos(i), -4.0], dtype=torch.float64))
        )
    world_from_cam = torch.stack(cameras)
    K = K_from_fov(fov, H, W).double().expand(views, 3, 3)
    cam = transform(invert(world_from_cam), points.expand(views, count, 3))
    uv = project(cam, K) + noise * torch.randn(views, count, 2, generator=g, dtype=torch.float64)
    wrong = torch.rand(views, count, generator=g) < false
    uv[wrong] = torch.rand(int(wrong.sum()), 2, generator=g, dtype=torch.float64) * torch.tensor([W, H])
    seen = torch.rand(views, count, generator=g) < 0.5
    return Tracks(uv=uv.float(), weight=seen.float()), K.float(), world_from_cam, points, cam[..., 2], wrong


def pose_errors(a, b):
    a, b = relative(a.double()), relative(b.double())
    rotation = rotation_angle(a[..., :3, :3].mT @ b[..., :3, :3])
    s, t = a[..., :3, 3], b[..., :3, 3]
    scale = (s * t).sum() / (s * s).sum()
    return rotation.rad2deg().max().item(), ((scale * s - t).norm(dim=-1).max() / t.norm(dim=-1).max()).item()


@pytest.mark.parametrize("false", [0.0, 0.15])
def test_cameras_are_solved_from_tracks_alone(false: float) -> None:
    tracks, K, world_from_cam, *_, wrong = scene(false=false)
    solve = solve_cameras(tracks, K)
    assert solve.reached.all()
    rotation, translation = pose_errors(solve.world_from_cam, world_from_cam)
    assert rotation < 0.3
    assert translation < 0.02
    # false observations are told apart
    seen = tracks.weight > 0
    assert solve.inlier[seen & ~wrong].float().mean() > 0.85  # a pair with one false end loses the other
    if false:
        assert solve.inlier[seen & wrong].float().mean() < 0.15


def test_solved_depth_is_the_true_depth_up_to_one_factor() -> None:
    tracks, K, _, _, z, _ = scene()
    depth, certainty = solve_cameras(tracks, K).track_depth
    ratio = (depth / z)[certainty > 0]
    assert ratio.std() / ratio.mean() < 0.02
    assert certainty.unique().tolist() == [0, 0.25, 1]


def test_tracks_without_parallax_have_no_depth() -> None:
    tracks, K, *_ = scene()
    solve = solve_cameras(tracks, K, SolveConfig(min_parallax=math.radians(16)))
    rays = world_rays(tracks.to(torch.float64), K.double(), solve.world_from_cam)
    angle = parallax(rays, solve.inlier.double()).rad2deg()
    has_depth = solve.track_depth[1].any(0)
    assert (solve.inlier.any(0) & (angle < 16)).any()
    assert not has_depth[angle < 16].any()
    assert has_depth[angle > 16].all()


def test_solving_twice_gives_the_same() -> None:
    tracks, K, *_ = scene(views=4, count=100, false=0.1)
    a, b = solve_cameras(tracks, K), solve_cameras(tracks, K)
    assert torch.equal(a.world_from_cam, b.world_from_cam)


def test_a_view_that_nothing_ties_is_not_reached() -> None:
    tracks, K, world_from_cam, *_ = scene()
    weight = tracks.weight.clone()
    weight[3] = 0
    solve = solve_cameras(Tracks(uv=tracks.uv, weight=weight), K)
    assert solve.reached.tolist() == [True, True, True, False, True, True]
    assert solve.labels.weight.tolist() == [1, 1, 1, 0, 1, 1]
    keep = [0, 1, 2, 4, 5]
    assert pose_errors(solve.world_from_cam[keep], world_from_cam[keep])[0] < 0.3


def test_no_pair_no_solve() -> None:
    tracks, K, *_ = scene(count=5)
    assert solve_cameras(tracks, K) is None
    nothing = Tracks(uv=torch.zeros(3, 0, 2), weight=torch.zeros(3, 0))
    assert solve_cameras(nothing, K[:3]) is None


@pytest.mark.parametrize("fov", [0.8, 1.3])
def test_an_unknown_focal_length_is_found(fov: float) -> None:
    tracks, _, world_from_cam, *_ = scene(fov=fov, views=4, count=150)
    focal, solve = solve_focal(tracks, [(H, W)] * 4)
    assert focal == pytest.approx(0.5 / math.tan(fov / 2), rel=0.05)
    assert pose_errors(solve.world_from_cam, world_from_cam)[0] < 3


def test_rare_pairs_come_first() -> None:
    weight = torch.zeros(3, 12)
    weight[:2, :10] = 1
    weight[1:, 10:] = 1
    tracks = Tracks(uv=torch.zeros(3, 12, 2), weight=weight)
    rarity = pair_rarity(tracks)
    torch.testing.assert_close(rarity, torch.tensor([0.1] * 10 + [0.5] * 2))
    assert {10, 11} <= set(balanced_tracks(tracks, 4).tolist())


# registration --------------------------------------------------------------------------------------------------------


def label_of(depth: torch.Tensor) -> DepthLabels:
    return DepthLabels(depth=depth, valid=torch.ones_like(depth, dtype=torch.bool))


def grid_tracks(true: torch.Tensor, step: int = 6) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    v, u = torch.meshgrid(torch.arange(3, H, step), torch.arange(3, W, step), indexing="ij")
    uv = torch.stack([u, v], -1).reshape(1, -1, 2) + 0.5
    depth = true[:, v, u].reshape(1, -1)
    return uv, depth, torch.ones_like(depth)


def test_registration_undoes_a_smooth_distortion_and_the_scale() -> None:
    u = torch.linspace(0, 3, W).expand(1, H, W)
    true = 2 + 0.5 * torch.sin(u)
    expert = 3 * true * (1 + 0.15 * torch.cos(u))
    uv, depth, certainty = grid_tracks(true)
    registered = register_depth(label_of(expert), uv, depth, certainty)

    def rel(d):
        return ((d * (true / d).median() - true).abs() / true).mean()

    assert rel(registered.depth) < 0.25 * rel(expert)
    assert ((registered.depth - true).abs() / true).mean() < 0.03
    assert registered.trust.item() == 1


def test_wrong_tracks_bend_little() -> None:
    true = torch.full((1, H, W), 2.0) + torch.linspace(0, 1, W)
    uv, depth, certainty = grid_tracks(true)
    depth[0, ::10] *= 5
    registered = register_depth(label_of(true), uv, depth, certainty)
    assert ((registered.depth - true).abs() / true).mean() < 0.05


def test_a_patch_that_several_tracks_contradict_is_moved_where_a_lone_track_is_not() -> None:
    true = torch.full((1, H, W), 2.0) + torch.linspace(0, 1, W)
    uv, depth, certainty = grid_tracks(true, step=3)
    glass = true.clone()
    glass[:, 12:30, 12:30] *= 5  # as of something behind a window
    registered = register_depth(label_of(glass), uv, depth, certainty)
    assert ((registered.depth - true).abs() / true)[:, 14:28, 14:28].mean() < 0.05
    assert ((registered.depth - true).abs() / true).mean() < 0.05


def test_a_point_that_two_views_see_says_less() -> None:
    true = torch.full((1, H, W), 2.0)
    uv, depth, certainty = grid_tracks(true)
    wrong = depth * torch.where(torch.arange(depth.shape[1]) % 2 == 0, 1.2, 1.0)
    bent = register_depth(label_of(true), uv, wrong, certainty).depth
    doubted = torch.where(wrong > depth, 0.25 * certainty, certainty)
    less = register_depth(label_of(true), uv, wrong, doubted).depth
    assert (less / true).log().mean() < 0.6 * (bent / true).log().mean()


def test_an_expert_that_the_tracks_contradict_is_not_trusted() -> None:
    g = torch.Generator().manual_seed(0)
    true = 2 * torch.exp(0.6 * torch.randn(1, H, W, generator=g))
    uv, depth, certainty = grid_tracks(true)
    assert register_depth(label_of(torch.full_like(true, 2.0)), uv, depth, certainty).trust.item() < 0.35
    assert register_depth(label_of(true), uv, depth, certainty).trust.item() == 1


def test_views_without_tracks_keep_their_label() -> None:
    true = torch.rand(2, H, W) + 1
    uv, depth, certainty = (x.expand(2, *x.shape[1:]).clone() for x in grid_tracks(true[:1]))
    certainty[1] = 0
    registered = register_depth(label_of(true), uv, depth, certainty, RegisterConfig())
    assert torch.equal(registered.depth[1], true[1])
    assert registered.trust[1].item() == 0.5

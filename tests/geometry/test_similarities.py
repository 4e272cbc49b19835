"""Similarities from points, and frames from many similarities."""

import torch

from reliev3r.geometry.rigid import so3_exp
from reliev3r.geometry.similarities import Join, joined_frames, moved_cameras, robust_similarity, scale_of


def similarity(g: torch.Generator) -> torch.Tensor:
    found = torch.eye(4, dtype=torch.float64)
    found[:3, :3] = (0.5 + 2 * torch.rand((), generator=g, dtype=torch.float64)) * so3_exp(
        torch.randn(3, generator=g, dtype=torch.float64)
    )
    found[:3, 3] = 3 * torch.randn(3, generator=g, dtype=torch.float64)
    return found


def test_a_similarity_comes_back_though_a_third_of_the_points_is_wrong():
    g = torch.Generator().manual_seed(0)
    a_from_b, source = similarity(g), torch.randn(300, 3, generator=g, dtype=torch.float64)
    target = source @ a_from_b[:3, :3].T + a_from_b[:3, 3]
    target[:100] += 0.5 * torch.randn(100, 3, generator=g, dtype=torch.float64)
    found, apart = robust_similarity(source, target, torch.ones(300, dtype=torch.float64))
    torch.testing.assert_close(found, a_from_b, atol=1e-3, rtol=1e-3)
    assert apart < 1e-3
    found, apart = robust_similarity(source, target[torch.randperm(300, generator=g)], torch.ones(300).double())
    assert apart > 0.3  # nothing fits, and it says so


def test_weightless_points_are_not_heard():
    g = torch.Generator().manual_seed(1)
    a_from_b, source = similarity(g), torch.randn(40, 3, generator=g, dtype=torch.float64)
    target = source @ a_from_b[:3, :3].T + a_from_b[:3, 3]
    target[:25] = 7.0
    found, _ = robust_similarity(source, target, (torch.arange(40) >= 25).double())
    torch.testing.assert_close(found, a_from_b, atol=1e-6, rtol=1e-6)


def test_frames_come_back_from_their_joins_in_any_direction():
    g = torch.Generator().manual_seed(2)
    frames = torch.stack([torch.eye(4, dtype=torch.float64), *(similarity(g) for _ in range(4))])
    pairs = [(0, 1), (2, 1), (2, 3), (3, 4), (4, 0)]
    joins = [Join(a=a, b=b, a_from_b=frames[a].inverse() @ frames[b], weight=1.0 + a) for a, b in pairs]
    torch.testing.assert_close(joined_frames(joins, 5), frames, atol=1e-9, rtol=1e-9)


def test_a_loop_spreads_its_gap_evenly():
    """Four joins that each grow by a factor, and a fifth that says they must not."""
    grow = torch.diag(torch.tensor([1.1, 1.1, 1.1, 1.0], dtype=torch.float64))
    joins = [Join(a=k, b=k + 1, a_from_b=grow, weight=1.0) for k in range(4)]
    joins.append(Join(a=4, b=0, a_from_b=torch.eye(4, dtype=torch.float64), weight=1.0))
    sizes = scale_of(joined_frames(joins, 5)).log()
    gap = torch.tensor(1.1, dtype=torch.float64).log() / 5
    torch.testing.assert_close(sizes, torch.arange(5) * gap, atol=1e-9, rtol=0)


def test_cameras_stay_rigid():
    g = torch.Generator().manual_seed(3)
    a_from_b = similarity(g)
    cameras = torch.eye(4, dtype=torch.float64).repeat(2, 1, 1)
    cameras[1, :3, 3] = torch.tensor([1.0, 2.0, 3.0])
    moved = moved_cameras(a_from_b, cameras)
    assert torch.allclose(torch.det(moved[:, :3, :3]), torch.ones(2).double())
    apart = (moved[1, :3, 3] - moved[0, :3, 3]).norm()
    torch.testing.assert_close(apart, scale_of(a_from_b) * cameras[1, :3, 3].norm())

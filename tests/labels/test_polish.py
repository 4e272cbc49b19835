"""Bundle adjustment of batches of pseudo cameras."""

import dataclasses

import pytest
import torch

from reliev3r.geometry.camera import transform
from reliev3r.geometry.rigid import invert, relative, rigid_from, rotation_angle, so3_exp
from reliev3r.sfm import bundle_batched as module
from reliev3r.sfm.bundle_batched import PolishConfig, Sightings, polish, seen_depth

VIEWS, TRACKS = 4, 60


def scene(batch: int = 2, *, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, Sightings]:
    """True cameras, depth factors and points, and what is exactly measured of them."""
    g = torch.Generator().manual_seed(seed)
    rotation = so3_exp(0.2 * torch.randn(batch, VIEWS, 3, generator=g, dtype=torch.float64))
    cameras = rigid_from(rotation, torch.randn(batch, VIEWS, 3, generator=g, dtype=torch.float64))
    points = torch.randn(batch, TRACKS, 3, generator=g, dtype=torch.float64) + torch.tensor([0, 0, 6.0])
    factor = (0.5 * torch.randn(batch, VIEWS, generator=g, dtype=torch.float64)).exp()
    local = transform(invert(cameras), points[:, None].expand(-1, VIEWS, -1, -1))
    seen = torch.rand(batch, VIEWS, TRACKS, generator=g) > 0.2
    sightings = Sightings(
        points=local / factor[..., None, None], seen=seen & (seen.sum(1, keepdim=True) > 1),
        angle=torch.full((batch, VIEWS), 0.01, dtype=torch.float64), depth=0.2,
    )  # fmt: skip
    return cameras, factor, points, sightings


def shaken(cameras: torch.Tensor, factor: torch.Tensor, size: float) -> tuple[torch.Tensor, torch.Tensor]:
    """All but the first view somewhere near."""
    g = torch.Generator().manual_seed(7)
    free = torch.tensor([0.0] + [1.0] * (VIEWS - 1), dtype=torch.float64)[:, None]
    turn, shift = (size * free * torch.randn(*factor.shape, 3, generator=g, dtype=torch.float64) for _ in range(2))
    grown = (size * free[:, 0] * torch.randn(*factor.shape, generator=g, dtype=torch.float64)).exp()
    rotation = so3_exp(turn) @ cameras[..., :3, :3]
    return rigid_from(rotation, cameras[..., :3, 3] + shift), factor * grown


def worst(found: torch.Tensor, true: torch.Tensor) -> tuple[float, float]:
    """Largest rotation (degrees) and shift of a camera; the first view fixes the gauge."""
    turn = rotation_angle(found[..., :3, :3].mT @ true[..., :3, :3]).rad2deg()
    return float(turn.max()), float((found - true)[..., :3, 3].abs().max())


def test_exact_sightings_give_back_cameras_factors_and_points() -> None:
    cameras, factor, points, sightings = scene()
    start = shaken(cameras, factor, 0.05)
    assert worst(start[0], cameras)[0] > 2
    found, scales, tracks = polish(*start, sightings, 12)
    turn, shift = worst(found, cameras)
    assert turn < 1e-3
    assert shift < 1e-4
    torch.testing.assert_close(scales, factor, atol=0, rtol=1e-4)
    several = sightings.seen.any(1)
    torch.testing.assert_close(tracks[several], points[several], atol=1e-3, rtol=0)


def test_the_step_follows_the_gradient_of_the_cost(monkeypatch) -> None:
    cameras, factor, points, sightings = scene()
    cameras, factor = shaken(cameras, factor, 0.05)
    state = module._State(cameras=cameras, log_factor=factor.log(), points=points + 0.1)
    view = torch.zeros(2, VIEWS, 7, dtype=torch.float64, requires_grad=True)
    point = torch.zeros_like(points, requires_grad=True)
    cost = module._cost(sightings, module._moved(state, view, point)).sum()
    by_view, by_point = torch.autograd.grad(cost, (view, point))
    given = {}
    eliminated = module._eliminated

    def spy(*blocks):
        given.update(zip(("view", "point", "cross", "view_right", "point_right"), blocks, strict=False))
        return eliminated(*blocks)

    monkeypatch.setattr(module, "_eliminated", spy)
    module._step(sightings, state, torch.zeros(2, dtype=torch.float64))
    torch.testing.assert_close(given["view_right"], -by_view / 2)
    torch.testing.assert_close(given["point_right"], -by_point / 2)
    # the same step from the whole matrix
    b, v, m = sightings.seen.shape
    whole = torch.zeros(b, 7 * v + 3 * m, 7 * v + 3 * m, dtype=torch.float64)
    for i in range(v):
        rows = slice(7 * i, 7 * i + 7)
        whole[:, rows, rows] = given["view"][:, i]
        block = given["cross"][:, i].transpose(1, 2).reshape(b, 7, 3 * m)
        whole[:, rows, 7 * v :], whole[:, 7 * v :, rows] = block, block.mT
    for k in range(m):
        rows = slice(7 * v + 3 * k, 7 * v + 3 * k + 3)
        whole[:, rows, rows] = given["point"][:, k]
    right = torch.cat([given["view_right"].flatten(1), given["point_right"].flatten(1)], dim=1)
    whole, right = whole[:, 7:, 7:], right[:, 7:]  # the first view stays
    moved_views, moved_points = eliminated(*given.values(), module._free(sightings.seen))
    expected = torch.linalg.solve(whole, right)
    torch.testing.assert_close(moved_views[:, 1:].flatten(1), expected[:, : 7 * (v - 1)])
    torch.testing.assert_close(moved_points.flatten(1), expected[:, 7 * (v - 1) :])


def test_false_sightings_are_outvoted_and_told() -> None:
    cameras, factor, _, sightings = scene()
    g = torch.Generator().manual_seed(3)
    false = sightings.seen & (torch.rand(sightings.seen.shape, generator=g) < 0.15)
    astray = sightings.points + 1.5 * torch.randn(sightings.points.shape, generator=g, dtype=torch.float64)
    wrong = dataclasses.replace(sightings, points=torch.where(false[..., None], astray, sightings.points))
    found, _, tracks = polish(*shaken(cameras, factor, 0.03), wrong, 12)
    turn, shift = worst(found, cameras)
    assert turn < 0.5
    assert shift < 0.06
    depth, agrees = seen_depth(found, tracks, wrong)
    assert agrees[false].double().mean() < 0.2
    three = sightings.seen & ~false & ((sightings.seen & ~false).sum(1, keepdim=True) > 2)
    assert agrees[three].double().mean() > 0.9
    true = sightings.points[..., 2] * factor[..., None]
    gap = (depth / true - 1).abs()[agrees & three]
    assert gap.median() < 0.01


def test_the_unit_does_not_matter() -> None:
    cameras, factor, _, sightings = scene()
    start = shaken(cameras, factor, 0.05)
    found, *_ = polish(*start, sightings, 3)
    big = rigid_from(start[0][..., :3, :3], 1000 * start[0][..., :3, 3])
    larger, *_ = polish(big, 1000 * start[1], sightings, 3)
    torch.testing.assert_close(larger[..., :3, :3], found[..., :3, :3], atol=1e-6, rtol=0)
    torch.testing.assert_close(larger[..., :3, 3], 1000 * found[..., :3, 3], atol=1e-3, rtol=1e-6)


def test_nothing_seen_moves_nothing_and_samples_do_not_meet() -> None:
    cameras, factor, _, sightings = scene()
    seen = sightings.seen.clone()
    seen[0, 2] = False
    start = shaken(cameras, factor, 0.05)
    found, scales, _ = polish(*start, dataclasses.replace(sightings, seen=seen), 6)
    assert torch.equal(found[0, 2], start[0][0, 2])
    assert torch.equal(scales[0, 2], start[1][0, 2])
    assert torch.equal(found[:, 0], start[0][:, 0])
    blind, *_ = polish(*start, dataclasses.replace(sightings, seen=torch.zeros_like(seen)), 2)
    assert torch.equal(blind, start[0])
    alone, *_ = polish(*(x[1:] for x in start), sightings_of(sightings, seen, 1), 6)
    torch.testing.assert_close(found[1:], alone)
    assert relative(found).isfinite().all()


def sightings_of(sightings: Sightings, seen: torch.Tensor, index: int) -> Sightings:
    part = slice(index, index + 1)
    return Sightings(
        points=sightings.points[part], seen=seen[part], angle=sightings.angle[part], depth=sightings.depth
    )  # fmt: skip


@pytest.mark.parametrize("wrong", [{"steps": -1}, {"pixel": 0.0}, {"depth": -0.1}])
def test_settings_that_cannot_work_are_refused(wrong) -> None:
    with pytest.raises(ValueError, match="polish"):
        PolishConfig(**wrong)

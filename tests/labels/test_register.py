"""register_depth against a plain evaluation of its definition: every track at every pixel, in float64."""

import pytest
import torch
from torch import Tensor

from reliev3r.core.types import DepthLabels
from reliev3r.labels.align_depth import RegisterConfig, register_depth

H, W = 37, 53
DEFAULT = RegisterConfig(tolerated=0.02)  # low enough that no trust ends at 1, which would hide the scatter


def lower_median(values: Tensor, weight: Tensor) -> Tensor:
    """[... n] -> [...]: the smallest value at which the sorted weights reach half of their sum."""
    values, order = values.expand(weight.shape).sort(dim=-1)
    reached = weight.gather(-1, order).cumsum(-1) >= 0.5 * weight.sum(-1, keepdim=True)
    return values.gather(-1, reached.int().argmax(-1, keepdim=True))[..., 0]


def plain(depth: Tensor, uv: Tensor, target: Tensor, certainty: Tensor, config: RegisterConfig) -> tuple[Tensor, float]:
    """(registered depth, trust) of one view whose tracks lie on pixel centres."""
    depth, uv, target, certainty = (x.double() for x in (depth, uv, target, certainty))
    log_depth = depth.clamp_min(1e-6).log()
    column, row = uv[:, 0].clamp(0.5, W - 0.5).long(), uv[:, 1].clamp(0.5, H - 0.5).long()
    at_tracks = log_depth[row, column]
    ratio = target.log() - at_tracks
    median = lower_median(ratio, certainty)
    left, bend = ratio - median, torch.zeros(H * W, dtype=torch.float64)
    clip = 4 * lower_median(left.abs(), certainty).clamp_min(1e-3)
    v, u = torch.meshgrid(torch.arange(H) + 0.5, torch.arange(W) + 0.5, indexing="ij")
    pixels = torch.stack([u.double(), v.double()], dim=-1).reshape(-1, 2)

    def kernel(place: Tensor, log_place: Tensor, reach: float) -> Tensor:
        image = (place[:, None] - uv).square().sum(-1) / (reach * W) ** 2
        label = (log_place[:, None] - at_tracks).square() / config.similarity**2
        return certainty * torch.exp(-0.5 * (image + label))

    def location(weight: Tensor, gap: Tensor) -> Tensor:
        weight = torch.cat([weight, torch.full((len(weight), 1), config.prior, dtype=torch.float64)], dim=1)
        gap = torch.cat([gap, torch.zeros(1, dtype=torch.float64)])
        middle = lower_median(gap, weight)
        around = (gap - middle[:, None]).clamp(-clip, clip)
        return middle + (weight * around).sum(1) / weight.sum(1)

    for reach in config.reaches:
        among = kernel(uv, at_tracks, reach)
        scatter = lower_median((left - location(among - among.diag().diag(), left)).abs(), certainty)
        bend = bend + location(kernel(pixels, log_depth.reshape(-1), reach), left)
        left = left - location(among, left)
    trust = min(config.tolerated / max(scatter.item(), 1e-3), 1.0)
    return depth * (median + bend).reshape(H, W).exp(), trust


def random_view(left: float, top: float, count: int, seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """A label with an edge, and tracks in the part of the image up to ``left`` and ``top``; one in ten is wrong."""
    g = torch.Generator().manual_seed(seed)
    depth = 1 + torch.rand(H, W, generator=g) * 0.1 + 2 * (torch.arange(W) > 20)
    uv = (torch.rand(count, 2, generator=g) * torch.tensor([left * W, top * H])).floor() + 0.5
    true = 1.7 * depth * (1 + 0.2 * torch.sin(torch.arange(W) / 6))
    target = true[uv[:, 1].long(), uv[:, 0].long()] * torch.exp(0.05 * torch.randn(count, generator=g))
    target = torch.where(torch.rand(count, generator=g) < 0.1, 3 * target, target)
    certainty = torch.tensor([0.0, 0.25, 1.0])[torch.randint(3, (count,), generator=g)]
    return depth, uv, target, certainty


def compare(depth: Tensor, uv: Tensor, target: Tensor, certainty: Tensor, config: RegisterConfig = DEFAULT) -> Tensor:
    """The registered depths [v h w], after a comparison with the plain ones."""
    label = DepthLabels(depth=depth, valid=torch.ones_like(depth, dtype=torch.bool))
    registered = register_depth(label, uv, target, certainty, config)
    for view in range(len(depth)):
        use = certainty[view] > 0
        wanted, trust = plain(depth[view], uv[view, use], target[view, use], certainty[view, use], config)
        error = (registered.depth[view] - wanted).abs() / wanted.clamp_min(1e-6)
        assert error.median() < 2e-6
        assert error.max() < 5e-3  # rounding may move a weighted median to the next track
        assert trust < 1
        assert registered.trust[view].item() == pytest.approx(trust, rel=1e-3)
    return registered.depth


def test_tiles_do_not_show() -> None:
    parts = [(1.0, 1.0), (0.4, 1.0), (1.0, 0.3), (0.3, 0.3)]
    views = [random_view(*part, 400, seed) for seed, part in enumerate(parts)]
    compare(*(torch.stack(values) for values in zip(*views, strict=True)))


def test_without_a_prior_every_track_counts() -> None:
    view = [value[None] for value in random_view(0.7, 0.7, 400, 0)]
    compare(*view, RegisterConfig(reaches=(0.2, 0.1), similarity=1.0, prior=0.0, tolerated=0.02))


def test_tracks_in_one_corner_leave_the_other_corner_to_the_median() -> None:
    depth, uv, target, certainty = (value[None] for value in random_view(0.1, 0.1, 60, 0))
    registered = compare(depth, uv, target, certainty, RegisterConfig(reaches=(0.06, 0.03), tolerated=0.02))
    correction = registered[0] / depth[0]
    torch.testing.assert_close(correction[20:, 30:], correction[-1, -1].expand(H - 20, W - 30))
    assert correction[:4, :4].std() > 0.01


@pytest.mark.parametrize("far", [200.0, 1e6, 1e18, 1e30])
def test_a_track_far_outside_the_image_and_a_pixel_without_depth_disturb_nothing(far: float) -> None:
    depth, uv, target, certainty = (value[None] for value in random_view(1.0, 1.0, 300, 0))
    uv[0, 0], uv[0, 1], certainty[0, :2] = torch.tensor([far, -far]), torch.tensor([-far, 10.5]), 1
    depth[0, 5, 30] = 0
    assert compare(depth, uv, target, certainty).isfinite().all()


def test_tracks_may_be_more_precise_than_the_label() -> None:
    depth, *tracks = (value[None] for value in random_view(1.0, 1.0, 300, 0))
    assert compare(depth, *(value.double() for value in tracks)).dtype == torch.float32

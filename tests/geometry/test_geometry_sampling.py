"""Bilinear lookup, linear resizing, image bounds, depth edges and choices of pixels."""

import pytest
import torch

from reliev3r.geometry.camera import pixel_grid, ray_map
from reliev3r.geometry.sampling import depth_edges, evenly_spaced, inside, resize_linear, sample_bilinear, spread_choice


def test_lookup_at_pixel_centres_gives_the_pixels():
    values = torch.randn(4, 5)
    assert torch.allclose(sample_bilinear(values, pixel_grid(4, 5).reshape(-1, 2)), values.flatten())


def test_lookup_between_centres_by_hand():
    values = torch.tensor([[0.0, 1.0], [10.0, 11.0]])
    uv = torch.tensor([[1.0, 0.5], [0.5, 1.0], [1.0, 1.0], [0.75, 0.5]])
    assert sample_bilinear(values, uv).tolist() == [0.5, 5.0, 5.5, 0.25]


def test_lookup_outside_is_the_border_pixel():
    values = torch.tensor([[0.0, 1.0], [10.0, 11.0]])
    uv = torch.tensor([[-5.0, -5.0], [0.0, 0.0], [2.0, 2.0], [99.0, 0.5]])
    assert sample_bilinear(values, uv).tolist() == [0, 0, 11, 1]


@pytest.mark.parametrize("shape", [(1, 1), (1, 4), (4, 1)])
def test_lookup_in_maps_one_pixel_wide(shape):
    values = torch.arange(4.0)[: shape[0] * shape[1]].reshape(shape)
    assert sample_bilinear(values, torch.tensor([[0.2, 0.2]])).tolist() == [0]


def test_lookup_gradients_and_batch():
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(2, 5, 6, generator=generator).double().requires_grad_()
    uv = (0.6 + 4 * torch.rand(2, 3, 2, generator=generator)).double().requires_grad_()
    assert torch.autograd.gradcheck(sample_bilinear, (values, uv))
    assert torch.equal(sample_bilinear(values, uv)[1], sample_bilinear(values[1], uv[1]))


def test_inside_includes_the_border():
    uv = torch.tensor([[0.0, 0.0], [4.0, 3.0], [4.01, 1.0], [-0.01, 1.0]])
    assert inside(uv, 3, 4).tolist() == [True, True, False, False]


def test_depth_edges_are_relative_jumps():
    depth = torch.ones(6, 6)
    depth[:, 3:] = 1.02
    assert not depth_edges(depth).any()  # a 2 % step is no edge at 3 %
    depth[:, 3:] = 1.5
    edges = depth_edges(depth)
    assert edges[:, 2:4].all()
    assert not edges[:, [0, 1, 4, 5]].any()
    assert torch.equal(depth_edges(10 * depth), edges)


def test_resizing_to_the_same_size_changes_nothing():
    maps = torch.randn(2, 4, 5, 3)
    assert torch.allclose(resize_linear(maps, 4, 5), maps, atol=1e-6)


@pytest.mark.parametrize("size", [(9, 13), (3, 4)])
def test_resizing_agrees_with_torch(size):
    maps = torch.randn(2, 6, 8, 3)
    expected = torch.nn.functional.interpolate(maps.permute(0, 3, 1, 2), size, mode="bilinear", align_corners=False)
    assert torch.allclose(resize_linear(maps, *size), expected.permute(0, 2, 3, 1), atol=1e-5)


@pytest.mark.parametrize("size", [(48, 64), (5, 7)])
def test_resized_rays_of_a_pinhole_are_exact_to_the_border(size):
    def rays(height, width):
        K = torch.tensor([[0.9 * width, 0, 0.48 * width], [0, 1.1 * height, 0.53 * height], [0, 0, 1]])
        return ray_map(K.double(), height, width)

    assert torch.allclose(resize_linear(rays(12, 16), *size, extrapolate=True), rays(*size), atol=1e-12)
    assert not torch.allclose(resize_linear(rays(3, 4), *size), rays(*size), atol=1e-3)


def test_resizing_one_pixel():
    assert torch.equal(resize_linear(torch.full((1, 1, 1), 2.0), 2, 3, extrapolate=True), torch.full((2, 3, 1), 2.0))


@pytest.mark.parametrize("true", [0, 1, 7, 8, 9, 30, 50])
def test_a_choice_is_spread_over_the_true_entries(true: int):
    mask = torch.zeros(2, 50, dtype=torch.bool)
    mask[0, torch.randperm(50, generator=torch.Generator().manual_seed(0))[:true]] = True
    index, counts = spread_choice(mask, 8)
    assert index.shape == counts.shape == (2, 8)
    chosen = index[0][counts[0]].tolist()
    assert len(chosen) == len(set(chosen)) == min(true, 8)
    assert mask[0, chosen].all()
    assert not counts[1].any()
    rank = mask[0].cumsum(0)[chosen]
    assert (rank.diff() <= -(-true // 8) + 1).all()  # no gap is much longer than another


def test_a_choice_of_more_than_there_is_takes_everything():
    mask = torch.tensor([True, False, True])
    index, counts = spread_choice(mask, 5)
    assert index[counts].tolist() == [0, 2]


def test_items_are_chosen_evenly():
    assert evenly_spaced(range(50), 12) == [0, 4, 9, 13, 18, 22, 27, 31, 36, 40, 45, 49]
    assert evenly_spaced("abcd", 3) == ["a", "c", "d"]  # 1.5 is rounded to the even number
    assert evenly_spaced("abcd", 1) == ["a"]
    assert evenly_spaced(range(3), 12) == [0, 1, 2]
    assert evenly_spaced(range(3), None) == [0, 1, 2]

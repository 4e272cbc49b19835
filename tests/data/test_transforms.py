from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from reliev3r.data.capture import Frame
from reliev3r.data.network_views import (
    MAX_STRETCH,
    K_in_region,
    area_mean,
    choose_size,
    fit_region,
    resize_depth,
    resize_image,
    uv_in_region,
)
from reliev3r.geometry.camera import project


def frame(width, height):
    return Frame(name="a", file="a.png", path=Path("a.png"), width=width, height=height)


def test_size_follows_the_majority():
    wide, tall = frame(640, 480), frame(480, 640)
    assert choose_size([wide] * 3, long_side=112, patch=14) == (84, 112)
    assert choose_size([wide, tall, tall], long_side=112, patch=14) == (112, 84)
    assert choose_size([wide, tall], long_side=112, patch=14) == (84, 112)
    assert choose_size([frame(100, 100)], long_side=100, patch=14) == (98, 98)
    assert choose_size([wide, wide, frame(640, 100)], long_side=96, patch=8) == (72, 96)  # the median
    assert choose_size([frame(1000, 30)], long_side=96, patch=8) == (8, 96)


def test_region_by_hand():
    assert fit_region(frame(640, 480), (72, 96)) == (0, 0, 640, 480)
    assert fit_region(frame(640, 440), (72, 96)) == (0, 0, 640, 440)  # stretched by 1.09, nothing lost
    left, top, width, height = fit_region(frame(480, 640), (72, 96))  # upright among wide ones
    assert (left, width) == (0, 480)
    assert height == pytest.approx(480 / (96 / 72) * MAX_STRETCH)
    assert top == pytest.approx((640 - height) / 2)


@given(st.integers(1, 5000), st.integers(1, 5000), st.integers(1, 20), st.integers(1, 20))
def test_region_is_the_largest_allowed(width, height, rows, columns):
    assume(max(width, height) <= 40 * min(width, height))  # what is narrower is no frame
    size = (14 * rows, 14 * columns)
    left, top, region_width, region_height = fit_region(frame(width, height), size)
    stretch = (region_width / region_height) / (size[1] / size[0])
    assert 1 / MAX_STRETCH - 1e-9 <= stretch <= MAX_STRETCH + 1e-9
    assert left >= 0
    assert top >= 0
    assert left + region_width <= width + 1e-6
    assert top + region_height <= height + 1e-6
    cropped = region_width < width - 1e-6 or region_height < height - 1e-6
    assert not cropped or max(stretch, 1 / stretch) > MAX_STRETCH - 1e-9


def test_area_mean_by_hand():
    row = np.array([[1.0, 2.0, 3.0, 4.0]])
    np.testing.assert_allclose(area_mean(row, (0.0, 0.0, 4.0, 1.0), (1, 2)), [[1.5, 3.5]])
    # Borders inside pixels: [0.5, 2] is half of 1 and all of 2; [2, 3.5] all of 3 and half of 4.
    np.testing.assert_allclose(area_mean(row, (0.5, 0.0, 3.0, 1.0), (1, 2)), [[2.5 / 1.5, 5 / 1.5]])
    # Enlarged by two: linear between pixel centres, constant beyond the outermost.
    np.testing.assert_allclose(
        area_mean(row, (0.0, 0.0, 4.0, 1.0), (1, 8)), [[1, 1.25, 1.75, 2.25, 2.75, 3.25, 3.75, 4]], atol=1e-12
    )


@given(st.integers(0, 2**32 - 1), st.integers(2, 40), st.integers(1, 30), st.booleans())
def test_area_mean_equals_the_integral(seed, old, new, transposed):
    rng = np.random.default_rng(seed)
    if new > old:
        old, new = new, old
    values = rng.normal(size=(old, 1))
    fine = np.repeat(values, new, axis=0)  # every box is a whole number of fine pixels
    expected = fine.reshape(new, old, 1).mean(1)
    region, size = ((0.0, 0.0, float(old), 1.0), (1, new)) if transposed else ((0.0, 0.0, 1.0, float(old)), (new, 1))
    result = area_mean(values.T if transposed else values, region, size)
    np.testing.assert_allclose(result.ravel(), expected.ravel(), atol=1e-9)


def test_image_keeps_a_linear_ramp():
    u = np.arange(40, dtype=np.uint8) * 5
    image = np.broadcast_to(u[None, :, None], (30, 40, 3)).copy()
    small = resize_image(image, (3.3, 2.0, 30.0, 25.0), (10, 12))
    assert small.dtype == np.float32
    centre = 3.3 + (np.arange(12) + 0.5) * 30 / 12  # colour is 5 (u - 0.5) at corner-based u
    # The steps of the ramp are seen through a box of 2.5 pixels: exact to a fraction of a step.
    np.testing.assert_allclose(small[0, 4] * 255, 5 * (centre - 0.5), atol=0.6)
    assert abs(float((small[0, 4] * 255 - 5 * (centre - 0.5)).mean())) < 0.1  # and no shift


def test_depth_is_averaged_over_valid_pixels_only():
    depth = np.array([[2, 4, 9, 9], [2, 999, 9, 9]], np.float32)
    valid = np.array([[1, 1, 0, 0], [1, 0, 0, 0]], bool)
    small, found = resize_depth(depth, valid, (0.0, 0.0, 4.0, 2.0), (4, 2), (1, 2))
    np.testing.assert_array_equal(found, [[True, False]])
    np.testing.assert_allclose(small, [[(2 + 4 + 2) / 3, 1]], rtol=1e-6)


def test_depth_of_another_resolution_covers_the_same_image():
    v, u = np.mgrid[:60, :80] + 0.5
    full = (1 + u + 2 * v).astype(np.float32)  # linear, so that means are values at the centre
    half = full.reshape(30, 2, 40, 2).mean((1, 3))
    region, size = (8.0, 6.0, 64.0, 48.0), (12, 16)
    a, valid_a = resize_depth(full, np.ones_like(full, bool), region, (80, 60), size)
    b, valid_b = resize_depth(half, np.ones_like(half, bool), region, (80, 60), size)
    assert valid_a.all()
    assert valid_b.all()
    np.testing.assert_allclose(a, b, rtol=1e-5)
    np.testing.assert_allclose(a[0, 0], 1 + (8 + 2) + 2 * (6 + 2), rtol=1e-6)


@given(st.integers(100, 2000), st.integers(100, 2000), st.integers(0, 2**16))
def test_K_and_pixels_move_together(width, height, seed):
    generator = torch.Generator().manual_seed(seed)
    size = (56, 84)
    region = fit_region(frame(width, height), size)
    K = torch.tensor([[0.9 * width, 0, 0.47 * width], [0, 0.95 * width, 0.51 * height], [0, 0, 1]]).double()
    points = torch.randn(20, 3, generator=generator).double()
    points[:, 2] = points[:, 2].abs() + 1
    moved = uv_in_region(project(points, K), region, size)
    torch.testing.assert_close(moved, project(points, K_in_region(K, region, size)))


def test_region_corners_become_image_corners():
    region = fit_region(frame(480, 640), (72, 96))
    corners = torch.tensor([region[:2], (region[0] + region[2], region[1] + region[3])])
    torch.testing.assert_close(uv_in_region(corners, region, (72, 96)), torch.tensor([[0.0, 0], [96, 72]]))

import numpy as np
import pytest

from reliev3r.sfm.two_view import epipolar_distance, estimate_fundamental

K_A = np.array([[500.0, 0, 320], [0, 510, 240], [0, 0, 1]])
K_B = np.array([[450.0, 0, 300], [0, 450, 250], [0, 0, 1]])


def two_views(count=200, noise=0.3, outliers=0.4, seed=0):
    """Matches of a random cloud: (uv_a, uv_b, is_true, F)."""
    rng = np.random.default_rng(seed)
    points = rng.uniform([-2, -1.5, 4], [2, 1.5, 8], (count, 3))
    angle = 0.3
    rotation = np.array([[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]])
    translation = np.array([-1.5, 0.2, 0.4])
    local = points @ rotation.T + translation
    uv_a = points @ K_A.T
    uv_b = local @ K_B.T
    uv_a, uv_b = uv_a[:, :2] / uv_a[:, 2:], uv_b[:, :2] / uv_b[:, 2:]
    uv_a += rng.normal(0, noise, uv_a.shape)
    uv_b += rng.normal(0, noise, uv_b.shape)
    true = np.arange(count) >= outliers * count
    uv_b[~true] = rng.uniform([0, 0], [640, 480], (int((~true).sum()), 2))
    tx = np.array([[0, -translation[2], translation[1]], [translation[2], 0, -translation[0]], [0, 0, 0]])
    tx[2, :2] = [-translation[1], translation[0]]
    F = np.linalg.inv(K_B).T @ tx @ rotation @ np.linalg.inv(K_A)
    return uv_a, uv_b, true, F


def test_distance_by_hand():
    rows = np.array([[0.0, 0, 0], [0, 0, -1], [0, 1, 0]])
    a, b = np.array([[3.0, 5.0], [3.0, 5.0]]), np.array([[40.0, 5.0], [40.0, 7.5]])
    np.testing.assert_allclose(epipolar_distance(rows, a, b), [0, 2.5])


def test_distance_is_the_larger_one_of_both_images():
    uv_a, uv_b, true, F = two_views(noise=0.0)
    np.testing.assert_allclose(epipolar_distance(F, uv_a[true], uv_b[true]), 0, atol=1e-6)
    swapped = epipolar_distance(F.T, uv_b, uv_a)
    np.testing.assert_allclose(epipolar_distance(F, uv_a, uv_b), swapped, atol=1e-9)


@pytest.mark.parametrize("known", [True, False])
def test_geometry_is_found_among_false_matches(known):
    uv_a, uv_b, true, _ = two_views()
    K_a, K_b = (K_A, K_B) if known else (None, None)
    F = estimate_fundamental(uv_a, uv_b, K_a, K_b, threshold=1.5)
    clean_a, clean_b, _, _ = two_views(noise=0.0, outliers=0.0)
    assert np.median(epipolar_distance(F, clean_a, clean_b)) < 0.3
    inlier = epipolar_distance(F, uv_a, uv_b) < 1.5
    assert inlier[true].mean() > 0.97
    assert inlier[~true].mean() < 0.1


def test_refinement_reaches_the_noise_floor():
    uv_a, uv_b, _, _ = two_views(count=400, outliers=0.0)
    F = estimate_fundamental(uv_a, uv_b, K_A, K_B, threshold=1.5)
    clean_a, clean_b, _, _ = two_views(count=400, noise=0.0, outliers=0.0)
    assert np.median(epipolar_distance(F, clean_a, clean_b)) < 0.06  # 0.3 pixels of noise over 400 matches


def test_same_matches_give_the_same_geometry():
    uv_a, uv_b, _, _ = two_views()
    for K in (K_A, None):
        first, second = (estimate_fundamental(uv_a, uv_b, K, K, threshold=1.5) for _ in range(2))
        np.testing.assert_array_equal(first, second)


def test_eight_equal_points_do_not_crash():
    same = np.full((8, 2), 7.0)
    for K in (K_A, None):
        F = estimate_fundamental(same, same, K, K, threshold=1.5)
        assert F is None or np.isfinite(F).all()

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reliev3r.training.batches import ASPECTS, assign_bucket, bucket_sizes


@given(st.integers(60, 600), st.sampled_from([8, 14, 16]))
def test_buckets_fill_the_budget_in_whole_patches(side, patch) -> None:
    sizes = bucket_sizes(side * side, patch)
    assert len(set(sizes)) == len(sizes)
    for height, width in sizes:
        assert height % patch == 0
        assert width % patch == 0
        assert height * width <= side * side
    if side >= 12 * patch:
        for aspect in ASPECTS:
            height, width = assign_bucket((1000, round(1000 * aspect)), sizes)
            assert abs(math.log(width / height / aspect)) < 0.1
        assert min(height * width for height, width in sizes) > 0.85 * side * side


def test_buckets_by_hand() -> None:
    assert bucket_sizes(224 * 224, 14, [1.0]) == [(224, 224)]
    assert bucket_sizes(2 * 112 * 112, 14, [0.5, 2.0]) == [(224, 112), (112, 224)]
    assert bucket_sizes(64, 8) == [(8, 8)]  # equal ones count once


def test_photographs_find_their_bucket() -> None:
    sizes = bucket_sizes(518 * 392, 14)
    for (height, width), aspect in zip(sizes, ASPECTS, strict=True):
        assert assign_bucket((1000, round(1000 * aspect)), sizes) == (height, width)
    assert assign_bucket((3000, 4000), sizes) == sizes[4]
    assert assign_bucket((4000, 100), sizes) == sizes[0]
    for height, width in sizes:
        assert assign_bucket((height, width), sizes) == (height, width)


def test_what_cannot_work_is_refused() -> None:
    with pytest.raises(ValueError, match="do not hold a patch"):
        bucket_sizes(100, 14)
    with pytest.raises(ValueError, match=r"within 0\.5 and 2"):
        bucket_sizes(10_000, 8, [3.0])

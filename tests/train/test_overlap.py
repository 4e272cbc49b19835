import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from reliev3r.core.errors import UserError
from reliev3r.train.sampling import CurriculumConfig, closeness_at, select_views


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def along_a_path(views: int) -> torch.Tensor:
    """100 tracks between neighbours, 10 fewer with every further step, none after ten."""
    index = torch.arange(views)
    return (110 - 10 * (index[:, None] - index).abs()).clamp_min(0).float()


def mean_extent(closeness: float) -> float:
    shared = along_a_path(24)
    chosen = torch.stack([select_views(shared, 4, closeness, seeded(seed)) for seed in range(100)])
    return float((chosen.max(1).values - chosen.min(1).values).float().mean())


@given(st.integers(2, 12), st.floats(0, 1), st.integers(0, 10_000))
def test_views_are_different_and_each_is_tied_to_one_before(views, closeness, seed) -> None:
    shared = torch.diag(torch.full((views - 1,), 5.0), 1)  # a chain
    shared = shared + shared.mT
    count = 1 + seed % views
    chosen = select_views(shared, count, closeness, seeded(seed)).tolist()
    assert len(set(chosen)) == count
    assert max(chosen) - min(chosen) == count - 1  # a connected set of a chain is a stretch of it


def test_closest_views_are_neighbours() -> None:
    assert mean_extent(1.0) == 3  # four in a row


def test_lower_closeness_widens() -> None:
    extents = [mean_extent(closeness) for closeness in (1.0, 0.8, 0.5, 0.0)]
    assert extents == sorted(extents)
    assert extents[-1] > 3 * extents[0]


def test_an_unconnected_view_comes_last() -> None:
    shared = along_a_path(5)
    shared[2], shared[:, 2] = 0, 0
    shared[2, 2] = 50  # the diagonal is not read
    for seed in range(20):
        for closeness in (0.0, 0.5, 1.0):
            assert select_views(shared, 5, closeness, seeded(seed))[-1] == 2
    assert sorted(select_views(torch.zeros(4, 4), 4, 1.0, seeded()).tolist()) == [0, 1, 2, 3]


def test_half_way_draws_by_ties() -> None:
    shared = torch.tensor([[0.0, 30.0, 10.0], [30.0, 0.0, 0.0], [10.0, 0.0, 0.0]])
    drawn = [select_views(shared, 2, 0.5, seeded(seed)).tolist() for seed in range(900)]
    seconds = [second for first, second in drawn if first == 0]
    assert abs(seconds.count(1) / len(seconds) - 0.75) < 0.08


def test_selection_is_a_function_of_the_generator() -> None:
    shared = along_a_path(30)
    assert torch.equal(select_views(shared, 8, 0.3, seeded(4)), select_views(shared, 8, 0.3, seeded(4)))


def test_schedule() -> None:
    config = CurriculumConfig(start=0.9, end=0.1, until=0.5)
    assert [closeness_at(p, config) for p in (0.0, 0.25, 0.5, 1.0)] == pytest.approx([0.9, 0.5, 0.1, 0.1])
    assert closeness_at(0.0, CurriculumConfig(until=0.0)) == 0.0


def test_what_cannot_work_is_refused() -> None:
    with pytest.raises(ValueError, match="cannot choose 3 of 2"):
        select_views(torch.ones(2, 2), 3, 0.5, seeded())
    with pytest.raises(UserError, match="curriculum"):
        CurriculumConfig(start=1.2)

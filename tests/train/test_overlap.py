import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from reliev3r.training.batches import select_views


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def along_a_path(views: int) -> torch.Tensor:
    """100 tracks between neighbours, 10 fewer with every further step, none after ten."""
    index = torch.arange(views)
    return (110 - 10 * (index[:, None] - index).abs()).clamp_min(0).float()


@given(st.integers(2, 12), st.floats(0, 3), st.integers(0, 10_000))
def test_views_are_different_and_each_is_tied_to_one_before(views, power, seed) -> None:
    shared = torch.diag(torch.full((views - 1,), 5.0), 1)  # a chain
    shared = shared + shared.mT
    count = 1 + seed % views
    chosen = select_views(shared, count, power, seeded(seed)).tolist()
    assert len(set(chosen)) == count
    assert max(chosen) - min(chosen) == count - 1  # a connected set of a chain is a stretch of it


def test_an_unconnected_view_comes_last() -> None:
    shared = along_a_path(5)
    shared[2], shared[:, 2] = 0, 0
    shared[2, 2] = 50  # the diagonal is not read
    for seed in range(20):
        for power in (0.0, 1.0):
            assert select_views(shared, 5, power, seeded(seed))[-1] == 2
    assert sorted(select_views(torch.zeros(4, 4), 4, 1.0, seeded()).tolist()) == [0, 1, 2, 3]


@pytest.mark.parametrize(("power", "share"), [(1.0, 0.75), (0.0, 0.5)])
def test_views_are_drawn_by_the_power_of_their_ties(power, share) -> None:
    shared = torch.tensor([[0.0, 30.0, 10.0], [30.0, 0.0, 0.0], [10.0, 0.0, 0.0]])
    drawn = [select_views(shared, 2, power, seeded(seed)).tolist() for seed in range(900)]
    seconds = [second for first, second in drawn if first == 0]
    assert abs(seconds.count(1) / len(seconds) - share) < 0.08


def test_selection_is_a_function_of_the_generator() -> None:
    shared = along_a_path(30)
    assert torch.equal(select_views(shared, 8, 0.5, seeded(4)), select_views(shared, 8, 0.5, seeded(4)))


def test_what_cannot_work_is_refused() -> None:
    with pytest.raises(ValueError, match="cannot choose 3 of 2"):
        select_views(torch.ones(2, 2), 3, 1.0, seeded())
    with pytest.raises(ValueError, match="power -1"):
        select_views(torch.ones(2, 2), 2, -1.0, seeded())

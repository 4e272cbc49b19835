"""What a scheduler sends to a run, and what a state from elsewhere may hold."""

import signal

import pytest
import torch

from reliev3r.core.errors import UserError
from reliev3r.training.parallel import Workers, place_optimizer_state


def test_sigterm_is_noted_by_a_lone_process_as_ctrl_c_is() -> None:
    workers, before = Workers("ddp", "cpu"), signal.getsignal(signal.SIGTERM)
    for number in (signal.SIGTERM, signal.SIGINT):
        workers.interrupted = False
        with workers.listening():
            signal.raise_signal(number)
            assert workers.interrupted
    assert signal.getsignal(signal.SIGTERM) is before


def optimizer(shape=(4, 3)) -> torch.optim.Optimizer:
    weight = torch.nn.Parameter(torch.zeros(shape))
    made = torch.optim.AdamW([weight])
    weight.sum().backward()
    made.step()
    return made


def test_a_state_of_these_weights_is_placed() -> None:
    mine = optimizer()
    placed = place_optimizer_state(mine.state_dict(), mine)
    assert torch.equal(placed["state"][0]["exp_avg"], mine.state_dict()["state"][0]["exp_avg"])


@pytest.mark.parametrize("shape", [(3,), (4, 4), (1, 3), (400, 300)])
def test_a_state_of_other_shapes_is_refused_before_anything_is_written_by_it(shape) -> None:
    """A fused optimiser takes the parameter's shape for the state's and writes beyond its end."""
    with pytest.raises(UserError, match="of another network"):
        place_optimizer_state(optimizer(shape).state_dict(), optimizer())


def test_a_state_of_more_weights_is_refused() -> None:
    state = optimizer().state_dict()
    state["state"][7] = state["state"][0]
    with pytest.raises(UserError, match="of another network"):
        place_optimizer_state(state, optimizer())

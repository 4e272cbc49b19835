"""Muon: equal steps in all directions for matrices, AdamW for the rest."""

import copy
import dataclasses

import pytest
import torch
from jaxtyping import TypeCheckError
from torch import nn

from reliev3r.training.config import TrainConfig
from reliev3r.training.optimizer import Muon, make_optimizer, matrices, orthogonal, parameter_groups

CONFIG = TrainConfig(steps=10, optimizer="muon", lr=1e-3, muon_lr=0.02, weight_decay=0.1)


@pytest.mark.parametrize("shape", [(40, 30), (30, 40), (16, 16)])
def test_singular_values_become_alike(shape) -> None:
    matrix = torch.randn(*shape, generator=torch.Generator().manual_seed(0)) @ torch.diag(
        torch.logspace(-1, 1, shape[1])
    )
    before, values = torch.linalg.svdvals(matrix), torch.linalg.svdvals(orthogonal(matrix))
    assert float(values.max()) < 1.3
    assert float(values.median()) > 0.6
    assert float(values.min() / values.max()) > 5 * float(before.min() / before.max())
    u, _, vh = torch.linalg.svd(matrix, full_matrices=False)
    assert float((orthogonal(matrix) * (u @ vh)).sum() / min(shape)) > 0.65  # near the nearest orthogonal matrix


def small() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 24, 3), nn.GroupNorm(8, 24), nn.Flatten(), nn.Linear(24 * 36, 16), nn.Linear(16, 3)
    )


def test_which_weights_it_moves() -> None:
    model = small()
    assert matrices(model) == {"0.weight", "3.weight"}
    groups = parameter_groups(model, CONFIG)
    by_muon = [group for group in groups if group["muon"]]
    assert sum(len(group["params"]) for group in by_muon) == 2
    assert all(group["share"] == pytest.approx(20) and group["weight_decay"] == 0.1 for group in by_muon)
    adamw = parameter_groups(model, dataclasses.replace(CONFIG, optimizer="adamw"))
    assert not any(group["muon"] for group in adamw)
    assert isinstance(make_optimizer(model, CONFIG), Muon)


def step(model: nn.Module, optimizer: torch.optim.Optimizer, seed: int) -> float:
    x = torch.randn(8, 3, 8, 8, generator=torch.Generator().manual_seed(seed))
    for group in optimizer.param_groups:
        group["lr"] = CONFIG.lr * group["share"]
    loss = (model(x) - x.mean((2, 3))).square().mean()
    loss.backward()
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return float(loss)


def test_it_learns_and_goes_on_from_its_state_bit_by_bit() -> None:
    model = small()
    optimizer = make_optimizer(model, CONFIG)
    losses = [step(model, optimizer, seed) for seed in range(30)]
    assert losses[-1] < 0.7 * losses[0]
    twin = copy.deepcopy(model)
    other = make_optimizer(twin, CONFIG)
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for seed in (100, 101):
        assert step(model, optimizer, seed) == step(twin, other, seed)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), twin.parameters(), strict=True))


def test_the_step_has_the_size_of_the_learning_rate() -> None:
    model = nn.Linear(64, 32, bias=False)
    before = model.weight.detach().clone()
    optimizer = make_optimizer(model, dataclasses.replace(CONFIG, weight_decay=0.0))
    optimizer.param_groups[0]["lr"] = 0.02
    model(torch.randn(4, 64)).square().sum().backward()
    optimizer.step()
    values = torch.linalg.svdvals(before - model.weight.detach())
    assert float(values.max()) < 0.02 * 1.3


@pytest.mark.parametrize("changes", [{"optimizer": "sgd"}, {"muon_lr": 0.0}])
def test_settings_that_cannot_be_are_told(changes) -> None:
    with pytest.raises((ValueError, TypeCheckError), match=r"optimizer|muon_lr"):
        dataclasses.replace(CONFIG, **changes)

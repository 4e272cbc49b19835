"""The whole training step, a run, and a forward pass on a GPU that is not there: nothing mixes devices, nothing waits.

First the audit itself, by faults that it must find (``pretend_cuda.py`` says how it works).
"""

import dataclasses

import pytest
import torch

import builders
from pretend_cuda import CUDA, cuda, pretend, pretends
from reliev3r.model.network import Reliev3R
from reliev3r.model.predict import predict
from reliev3r.runs.train import network_of, objective_of
from reliev3r.synthetic.room_stream import StreamConfig, SyntheticStream
from reliev3r.training.batches import SceneBatchConfig, SceneBatches
from reliev3r.training.config import TrainConfig
from reliev3r.training.loop import train
from reliev3r.training.recipes import RECIPES


def there() -> torch.Tensor:
    return pretend(torch.rand(3, 3))


PLANTED = {
    "mixed add": lambda: there() + torch.rand(3, 3),
    "mixed gather": lambda: torch.gather(there(), 0, torch.zeros(3, 3, dtype=torch.long)),
    "mixed stack": lambda: torch.stack([there()[0, 0], torch.tensor(1.0)]),
    "mixed where": lambda: torch.where(there() > 0, torch.rand(3, 3), there()),
    "mixed index_select": lambda: torch.rand(3, 3).index_select(0, there()[0].long()),
    "mixed linear": lambda: torch.nn.Linear(3, 3)(there()),
    "arrays numpy": lambda: there().numpy(),
    "generators multinomial": lambda: torch.multinomial(there(), 1, generator=torch.Generator()),
    "generators rand": lambda: torch.rand(3, device="cuda", generator=torch.Generator()),
}
WAITS = {
    "item": lambda: there().sum().item(),
    "__bool__": lambda: bool((there() > 0).all()),
    "nonzero": lambda: there().nonzero(),
    "mask": lambda: there()[there() > 0.5],
    "cpu": lambda: there().cpu(),
    "to": lambda: there().to("cpu"),
}
FINE = {
    "a number": lambda: there() + torch.tensor(1.0),
    "made there": lambda: torch.arange(3, device=there().device) + there()[0],
    "made like it": lambda: torch.cat([there(), there().new_zeros(1, 3), torch.zeros_like(there())]),
    "brought there": lambda: torch.rand(3, 3).to(there().device) + there(),
    "its own generator": lambda: torch.rand(3, device="cuda", generator=torch.Generator("cuda")),
    "an index": lambda: there()[torch.tensor([0, 2])],
}


@pytest.mark.parametrize("fault", PLANTED)
def test_planted_faults_are_found(fault) -> None:
    with cuda() as audit:
        PLANTED[fault]()
    assert [found.startswith(fault) for found in audit.faults] == [True]


@pytest.mark.parametrize("wait", WAITS)
def test_planted_waits_are_found(wait) -> None:
    with cuda() as audit:
        WAITS[wait]()
    assert not audit.faults
    assert [found.startswith(wait) for found in audit.waits] == [True]


@pytest.mark.parametrize("name", FINE)
def test_what_is_right_is_not_told(name) -> None:
    with cuda() as audit:
        FINE[name]()
    assert not audit.faults + audit.waits


def small(recipe: str):
    """A recipe, all but its sizes."""
    start = RECIPES[recipe]()
    network = dataclasses.replace(
        start.network, dim=32, heads=2, encoder_depth=1, decoder_depth=2, patch_size=8, encoder_grid=4, head_dim=32,
        head_heads=2, head_depth=1, camera_dim=16, feature_dim=8,
    )  # fmt: skip
    return dataclasses.replace(
        start, model="random", network=network, stream=StreamConfig(height=24, width=32),
        batch=dataclasses.replace(start.batch, views=(3, 3), images=6, tracks=32),
    )  # fmt: skip


def on_the_gpu(network: Reliev3R) -> Reliev3R:
    for tensor in (*network.parameters(), *network.buffers()):
        pretend(tensor)
    return network


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_step_of_every_recipe(recipe) -> None:
    config = small(recipe)
    network, objective = network_of(config).train(), objective_of(config)
    stream = SyntheticStream(config.stream, supervision=config.supervision, device=torch.device("cpu"))
    batches = SceneBatches([stream], [1.0], SceneBatchConfig(**vars(config.batch)), seed=0)
    views, labels = batches(0, 0)
    with cuda() as audit:
        views, labels = views.to(CUDA), labels.to(CUDA)
        on_the_gpu(network)
        for progress in (0.0, 0.9):
            loss = objective(network(views), labels, progress)
            loss.total.backward()
        assert loss.total.device == CUDA
    assert not audit.faults
    assert not audit.waits
    assert torch.isfinite(loss.total)


def test_rooms_are_rendered_and_changed_there() -> None:
    config = small("small-gpu")
    with cuda() as audit:
        stream = SyntheticStream(config.stream, supervision="weak", device=CUDA)
        views, labels = SceneBatches([stream], [1.0], config.batch, seed=0)(0, 0)
        assert pretends(views.image)
        assert pretends(labels.tracks.uv)
    assert not audit.faults


def test_a_run_waits_once_a_step(tmp_path) -> None:
    """For whether loss and gradient are finite; everything else it says, it says every ``log_every`` steps."""
    config = small("tiny-cpu-regressed")
    stream = SyntheticStream(config.stream, supervision="weak", device=torch.device("cpu"))
    batches = SceneBatches([stream], [1.0], config.batch, seed=0)
    settings = TrainConfig(steps=4, log_every=2, save_every=1e9, precision="fp32", ema=0.9, alarm_checks=3)
    network = network_of(config)
    with cuda() as audit:
        assert train(network, objective_of(config), batches, settings, folder=tmp_path).finished
        assert all(pretends(parameter) for parameter in network.parameters())
    assert not audit.faults
    in_steps = {found: count for found, count in audit.waits.items() if "loop.py:step" in found}
    assert in_steps == {"__bool__ loop.py:step < loop.py:train": 4}


@pytest.mark.parametrize("cameras", ["regressed", "solved"])
def test_a_forward_pass(cameras) -> None:
    network = builders.network(cameras=cameras, patch_size=8, feature_dim=8)
    views = builders.views(3, (24, 32)).map(lambda x: x[0])
    with cuda() as audit:
        found = predict(network.to("cuda"), views)
        assert not pretends(found.depth)
    assert not audit.faults
    assert {wait.split(" ")[0] for wait in audit.waits} == {"cpu"}  # the results

"""Solved cameras never ask the device for a number: on the meta device, which has none, everything still runs.

A sync (``item``, ``bool``, a mask as an index) and a tensor left on the CPU both raise there. On a GPU the one would
cost time, and the other would raise.
"""

import contextlib
import dataclasses

import pytest
import torch

from reliev3r.core.types import DepthLabels, PseudoLabels, Tracks, Views
from reliev3r.losses.matching import match_loss
from reliev3r.model.network import PRESETS, Reliev3R
from reliev3r.sfm.batched import with_pseudo_cameras

VIEWS, SIDE, TRACKS = 3, 48, 32


@pytest.fixture(autouse=True)
def no_autocast(monkeypatch) -> None:
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: contextlib.nullcontext())  # it knows no meta device


@pytest.fixture
def network() -> Reliev3R:
    with torch.device("meta"):
        return Reliev3R(dataclasses.replace(PRESETS["tiny"], patch_size=16))


def views() -> Views:
    return Views(
        image=torch.empty(2, VIEWS, 3, SIDE, SIDE, device="meta"), K=torch.empty(2, VIEWS, 3, 3, device="meta")
    )


def tracks() -> Tracks:
    uv = torch.empty(2, VIEWS, TRACKS, 2, device="meta")
    return Tracks(uv=uv, weight=torch.empty(2, VIEWS, TRACKS, device="meta"))


def test_the_meta_device_tells_syncs_and_tensors_that_lie_elsewhere() -> None:
    x = torch.empty(3, device="meta")
    with pytest.raises(RuntimeError):
        bool((x > 0).any())
    with pytest.raises(RuntimeError):
        x + torch.ones(3)


def test_the_forward_pass_with_its_solve(network) -> None:
    with torch.no_grad():
        prediction = network.eval()(views())
    assert prediction.has_cameras
    assert prediction.reached is not None
    for name in ("depth", "conf", "world_from_cam", "reached"):
        assert getattr(prediction, name).device.type == "meta", name


def test_the_training_pass_with_its_matching_loss(network) -> None:
    prediction = network.train()(views())
    values, weight = match_loss(prediction, tracks(), 16)
    (values * weight).sum().backward()
    assert network.match_branch is not None
    assert all(parameter.grad is not None for parameter in network.match_branch.parameters())


def test_the_pseudo_cameras_of_a_batch() -> None:
    depth = torch.empty(2, VIEWS, SIDE, SIDE, device="meta")
    valid = torch.empty(depth.shape, device="meta", dtype=torch.bool)
    labels = with_pseudo_cameras(PseudoLabels(depth=DepthLabels(depth=depth, valid=valid), tracks=tracks()), views().K)
    assert labels.cameras is not None
    assert labels.cameras.world_from_cam.device.type == "meta"

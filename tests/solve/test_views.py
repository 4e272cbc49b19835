"""Depth swept over one set of views."""

import dataclasses

import pytest
import torch

from reliev3r.evaluation.protocols import strict_figures
from reliev3r.model.load import load_network
from reliev3r.solve.views import swept_prediction
from reliev3r.synthetic.room_stream import StreamConfig, SyntheticStream


@pytest.fixture(scope="module")
def room():
    stream = SyntheticStream(StreamConfig(width=128, height=96, span=(16.0, 24.0)), supervision="full")
    return stream.render(7, views=4)


@pytest.fixture(scope="module")
def network():
    return load_network("reliev3r-tiny").eval()


def test_the_sweep_betters_the_depth_of_the_forward_pass(room, network) -> None:
    views, truth = room
    swept = swept_prediction(network, views)
    with torch.no_grad():
        plain = network(views.map(lambda x: x[None])).map(lambda x: x[0])
    found, before = strict_figures(swept, truth), strict_figures(plain, truth)
    assert found["auc30"] > 95
    assert found["depth_rel"] < 0.15
    assert found["depth_rel"] < before["depth_rel"]
    assert swept.has_cameras
    assert ((swept.conf > 0) & (swept.conf < 2)).all()


def test_an_unknown_K_is_refused(room, network) -> None:
    with pytest.raises(ValueError, match="intrinsics"):
        swept_prediction(network, dataclasses.replace(room[0], K=None))

"""One small rendered room that each reader's test writes into its dataset's layout."""

import pytest
import torch
from here_pool import HerePool
from reader_room import Room

from reliev3r.synthetic.capture import SynthConfig, render_capture
from reliev3r.synthetic.render import render
from reliev3r.synthetic.scene import make_scene


@pytest.fixture(scope="session")
def room() -> Room:
    """Four views of 96 x 72 pixels."""
    _, sampled = render_capture(SynthConfig(seed=5, views=4, width=96, height=72, fov=60.0, span=25.0, supersample=1))
    K = sampled.K.double()
    K[:, 0, 2] += 2.0  # off centre, so that an exchanged axis or a flipped image shows
    K[:, 1, 2] -= 1.5
    views, truth = render(make_scene(5, "masonry"), K, sampled.world_from_cam, (72, 96))
    assert truth.valid.all()
    rgb = (views.image.movedim(1, -1) * 255).round().to(torch.uint8).numpy()
    pose = truth.world_from_cam.double().numpy()
    return Room(rgb=rgb, depth=truth.depth.double().numpy(), K=K[0].numpy(), world_from_cam=pose)


@pytest.fixture
def here(monkeypatch):
    """Workers in this process: what crosses to others is tried by one test of its own."""
    pools = []

    def pool(job, workers):
        pools.append(HerePool(job))
        return pools[-1]

    monkeypatch.setattr("reliev3r.core.many.local.LocalPool", pool)
    return pools

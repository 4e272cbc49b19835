"""One small rendered room that each reader's test writes into its dataset's layout."""

import pytest
from here_pool import HerePool
from layouts import Room

from reliev3r.synthetic.capture import SynthConfig


@pytest.fixture(scope="session")
def room() -> Room:
    """Four views of 96 x 72 pixels; off centre, so that an exchanged axis or a flipped image shows."""
    config = SynthConfig(seed=5, views=4, width=96, height=72, fov=60.0, span=25.0, supersample=1)
    return Room.of(config, shift=(2.0, -1.5))


@pytest.fixture
def here(monkeypatch):
    """Workers in this process: what crosses to others is tried by one test of its own."""
    pools = []

    def pool(job, workers):
        pools.append(HerePool(job))
        return pools[-1]

    monkeypatch.setattr("reliev3r.core.many.local.LocalPool", pool)
    return pools

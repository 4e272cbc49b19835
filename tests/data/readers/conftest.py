"""One small rendered room that each reader's test writes into its dataset's layout."""

import pytest
from layouts import Room

from reliev3r.synthetic.capture import SynthConfig


@pytest.fixture(scope="session")
def room() -> Room:
    """Four views of 96 x 72 pixels; off centre, so that an exchanged axis or a flipped image shows."""
    config = SynthConfig(seed=5, views=4, width=96, height=72, fov=60.0, span=25.0, supersample=1)
    return Room.of(config, shift=(2.0, -1.5))

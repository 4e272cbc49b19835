"""FLARE from its own code, with random weights. Its widths and depths are fixed in the code: 1.4 billion weights."""

import pytest
from upstream_systems import System, check


@pytest.mark.slow
def test_released_size(tmp_path):
    system = System("flare", "flare", "einops", "scipy", "huggingface_hub")
    check(system.run(tmp_path, prepare={"long_side": 256}), (192, 256))

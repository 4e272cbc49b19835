"""MV-DUSt3R+ from its own code, with random weights."""

import pytest
from upstream_systems import System, check

SMALL = {
    "enc_embed_dim": 192,
    "enc_depth": 2,
    "enc_num_heads": 3,
    "dec_embed_dim": 192,
    "dec_depth": 2,
    "dec_num_heads": 3,
}


@pytest.fixture(scope="module")
def system():
    return System("mvdust3r", "mvdust3r", "einops", "scipy", "cv2", "huggingface_hub")


def test_small(system, tmp_path):
    check(system.run(tmp_path, sizes=SMALL), (224, 224))


@pytest.mark.slow
def test_released_size(system, tmp_path):
    check(system.run(tmp_path), (224, 224))

"""RayZer from its own code, with random weights."""

import pytest
from upstream_systems import System, check

SMALL = {
    "transformer": {"d": 128, "encoder_n_layer": 2, "encoder_geom_n_layer": 1, "decoder_n_layer": 1},
    "scene_latent": {"length": 16},
}


@pytest.fixture(scope="module")
def system():
    return System("rayzer", "rayzer", "einops", "easydict", "yaml", "imageio", "jaxtyping")


def test_small(system, tmp_path):
    result = system.run(tmp_path, sizes=SMALL)
    assert not result.predicts_depth
    check(result, (256, 256))


@pytest.mark.slow
def test_released_size(system, tmp_path):
    check(system.run(tmp_path), (256, 256))

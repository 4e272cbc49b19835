"""Depth Anything 3 from its own code, with random weights; a checkout named Depth-Anything-3 (2c21ea8)."""

import pytest
from upstream_systems import TRANSFORMS, System, assert_same_pixels, check, differ

from reliev3r.core.errors import UserError

SMALL = {"model_name": "da3-small"}  # as released
LOAD = (
    TRANSFORMS
    + """
shared.add_repo(repo, "src")
from depth_anything_3.utils.io.input_processor import InputProcessor
def load(folder, paths):
    return InputProcessor()(paths, sequential=True)[0]
"""
)
SAVE = """
import json, os
from reliev3r_adapters import da3
from safetensors.torch import save_file
state = da3.build(repo, None, "cpu", {"model_name": "da3-small"}).state_dict()
os.makedirs(out)
state = {"model." + name: 1.1 * value if value.ndim > 1 else value.clone() for name, value in state.items()}
save_file({**state, "model.gs_head.weight": torch.ones(1)}, out + "/model.safetensors")
json.dump({"model_name": "da3-small"}, open(out + "/config.json", "w"))
json.dump({"model_name": "da3mono-large"}, open(out + "/mono.json", "w"))
"""


@pytest.fixture(scope="module")
def system():
    return System("da3", "Depth-Anything-3", "omegaconf", "einops", "addict", "cv2", "safetensors")


def test_small(system, tmp_path):
    random = system.run(tmp_path, sizes=SMALL, prepare={"side": 70})
    check(random, (56, 70))
    weights = tmp_path / "weights"
    system.script(SAVE, weights)
    loaded = system.run(tmp_path, prepare={"side": 70}, weights=weights)
    check(loaded, (56, 70))
    assert differ(random, loaded)
    (weights / "mono.json").replace(weights / "config.json")
    with pytest.raises(UserError, match="da3mono-large predicts no cameras"):
        system.run(tmp_path, prepare={"side": 70}, weights=weights)


def test_pixels_are_upstreams(system):
    assert_same_pixels(system, LOAD)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["da3-large", "da3nested-giant-large"])
def test_released_size(system, tmp_path, name):
    check(system.run(tmp_path, sizes={"model_name": name}, prepare={"side": 70}), (56, 70))

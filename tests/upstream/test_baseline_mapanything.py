"""MapAnything from its own code, with random weights."""

import pytest
from upstream_systems import System, assert_same_pixels, check, differ

SMALL = {
    "model/encoder": "dinov2_large",
    "model.encoder.size": "small",
    "model/info_sharing": "aat_ifr_24_layers",
    "model.info_sharing.module_args.depth": 4,
    "model.info_sharing.module_args.indices": "[1,2]",
}
LOAD = """
shared.add_repo(repo)
from mapanything.utils.image import load_images
def load(folder, paths):
    return torch.cat([view["img"] for view in load_images(paths)])
"""
SAVE = """
import hydra, json, os
from omegaconf import OmegaConf
from safetensors.torch import save_file
from reliev3r_adapters import mapanything
sizes = {sizes}
state = mapanything.build(repo, None, "cpu", sizes).state_dict()
os.makedirs(out)
state = {{name: 1.1 * value if value.ndim > 1 else value.clone() for name, value in state.items()}}
save_file(state, out + "/model.safetensors")
overrides = ["model=mapanything", "machine=default"] + [f"{{k}}={{v}}" for k, v in sizes.items()]
with hydra.initialize_config_dir(repo + "/configs", version_base=None):
    config = hydra.compose("train", overrides)
json.dump(OmegaConf.to_container(config.model.model_config, resolve=True), open(out + "/config.json", "w"))
"""


@pytest.fixture(scope="module")
def system():
    return System("mapanything", "map-anything", "torchvision", "uniception", "hydra", "einops")


@pytest.mark.slow  # its prediction heads alone have 40 M parameters
def test_small(system, tmp_path):
    random = system.run(tmp_path, sizes=SMALL, prepare={"side": 70})
    check(random, (56, 70))
    system.script(SAVE.format(sizes=SMALL), tmp_path / "weights")
    loaded = system.run(tmp_path, prepare={"side": 70}, weights=tmp_path / "weights")
    check(loaded, (56, 70))
    assert differ(random, loaded)


def test_pixels_are_upstreams(system):
    assert_same_pixels(system, LOAD)


@pytest.mark.slow
def test_released_size(system, tmp_path):
    check(system.run(tmp_path, prepare={"side": 70}), (56, 70))

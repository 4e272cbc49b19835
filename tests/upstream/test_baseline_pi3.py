"""pi^3 and Pi3X from their own code, with random weights."""

import pytest
from upstream_systems import System, assert_same_pixels, check, differ

SMALL = {"encoder": "dinov2_vits14_reg", "decoder_size": "small"}
LOAD = """
import types
shared.add_repo(repo)
sys.modules["plyfile"] = types.SimpleNamespace(PlyData=None, PlyElement=None)  # of other functions of that module
from pi3.utils.basic import load_images_as_tensor
def load(folder, paths):
    return load_images_as_tensor(folder, verbose=False)
"""
SAVE = """
from reliev3r_adapters import pi3
from safetensors.torch import save_file
model = pi3.build(repo, None, "cpu", {sizes})
save_file({{name: 1.1 * value if value.ndim > 1 else value for name, value in model.state_dict().items()}}, out)
"""


@pytest.mark.slow  # 250 M parameters, the least that upstream's classes allow
def test_small(tmp_path):
    system = System("pi3", "Pi3", "safetensors", "huggingface_hub")
    random = system.run(tmp_path, sizes=SMALL, prepare={"pixels": 6000})
    check(random, (70, 84))
    system.script(SAVE.format(sizes=SMALL), tmp_path / "model.safetensors")
    loaded = system.run(tmp_path, sizes=SMALL, prepare={"pixels": 6000}, weights=tmp_path / "model.safetensors")
    check(loaded, (70, 84))
    assert differ(random, loaded)
    assert loaded.meta["weights"].startswith("model.safetensors sha256:")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["pi3", "pi3x"])
def test_released_size(name, tmp_path):
    system = System(name, "Pi3", "safetensors", "huggingface_hub")
    check(system.run(tmp_path, prepare={"pixels": 6000}), (70, 84))


def test_pixels_are_upstreams():
    assert_same_pixels(System("pi3", "Pi3", "torchvision", "huggingface_hub"), LOAD)

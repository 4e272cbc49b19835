"""DA3MONO's own class on its smallest backbone, with random weights."""

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from reliev3r.core.errors import UserError
from reliev3r.data.capture import load_capture
from reliev3r.labels.expert import DepthExpert
from reliev3r.labels.registry import depth_expert

pytestmark = pytest.mark.usefixtures("da3")


@pytest.fixture
def weights(tmp_path, monkeypatch):
    """The file as upstream publishes it, of a network whose sky head calls about a third of a random image sky."""
    from depth_anything_3.cfg import create_object, load_config
    from depth_anything_3.registry import MODEL_REGISTRY
    from omegaconf import OmegaConf

    config = load_config(MODEL_REGISTRY["da3mono-large"])
    config.net.update({"name": "vits", "out_layers": [2, 5, 8, 11]})
    config.head.update({"dim_in": 384, "features": 32, "out_channels": [16, 16, 32, 32]})
    OmegaConf.save(config, tmp_path / "small.yaml")
    monkeypatch.setitem(MODEL_REGISTRY, "da3mono-large", str(tmp_path / "small.yaml"))
    torch.manual_seed(0)
    network = create_object(load_config(MODEL_REGISTRY["da3mono-large"])).eval()
    last = network.head.scratch.sky_output_conv2[-1]
    with torch.no_grad():
        last.bias.fill_(10.0)  # no ReLU cuts now
        sky = network(torch.randn(1, 1, 3, 84, 112))["sky"]
        last.bias.add_(0.3 - sky.quantile(2 / 3))
    save_file({f"model.{name}": value for name, value in network.state_dict().items()}, tmp_path / "model.safetensors")
    return tmp_path / "model.safetensors"


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for seed, name in enumerate("ab"):
        noise = np.random.default_rng(seed).integers(0, 255, (96, 128, 3), dtype=np.uint8)
        Image.fromarray(noise).save(folder / f"{name}.png")
    return load_capture(folder)


def test_depth_is_upstreams_and_the_sky_is_invalid(weights, photos):
    from depth_anything_3.cfg import create_object, load_config
    from depth_anything_3.registry import MODEL_REGISTRY

    expert = depth_expert(f"da3-mono:{weights.parent}")
    assert isinstance(expert, DepthExpert)
    assert expert.ambiguity == "scale+shift"
    state = torch.random.get_rng_state()
    found = expert.predict(photos.image(0), photos.frames[0], photos)
    assert torch.equal(state, torch.random.get_rng_state())
    assert found.depth.shape == (378, 504)  # 504 on the long side, multiples of 14
    assert found.fov is None
    network = create_object(load_config(MODEL_REGISTRY["da3mono-large"])).eval()
    network.load_state_dict({name.removeprefix("model."): value for name, value in load_file(weights).items()})
    large = np.asarray(Image.fromarray(photos.image(0)).resize((504, 378), Image.Resampling.BICUBIC))
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    with torch.inference_mode():
        own = network(((torch.from_numpy(large) / 255 - mean) / std).permute(2, 0, 1)[None, None])
    ground = (own["sky"][0, 0] < 0.3).numpy()
    assert 0.02 < ground.mean() < 0.98
    np.testing.assert_array_equal(found.valid, ground)
    np.testing.assert_allclose(found.depth[ground], own["depth"][0, 0].numpy()[ground], rtol=1e-4)
    sky_depth = own["depth"][0, 0].numpy()[~ground]
    assert np.ptp(sky_depth) == 0, "what the mask is for"


def test_missing_and_foreign_weights_are_refused(weights, photos):
    state = load_file(weights)
    del state[next(name for name in state if "refinenet1" in name)]
    save_file(state, weights)
    with pytest.raises(UserError, match=r"model\.safetensors: its weights do not fill a DepthAnything3Net"):
        depth_expert(f"da3-mono:{weights}").predict(photos.image(0), photos.frames[0], photos)

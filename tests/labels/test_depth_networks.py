"""The adapters of transformers' networks, through the real classes with small random weights."""

import math
import sys

import numpy as np
import pytest
import torch
from miniatures import write_depth_pro

from reliev3r.core.errors import UserError
from reliev3r.labels.depth.depth_anything_v2 import depth_from_disparity
from reliev3r.labels.expert import DepthExpert
from reliev3r.labels.registry import depth_expert

transformers = pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def depth_anything(tmp_path_factory):
    """Folder of a tiny Depth Anything."""

    def build(kind="relative"):
        backbone = transformers.Dinov2Config(
            hidden_size=16, num_hidden_layers=4, num_attention_heads=2, image_size=28, patch_size=14,
            out_features=["stage1", "stage2", "stage3", "stage4"], reshape_hidden_states=False,
        )  # fmt: skip
        config = transformers.DepthAnythingConfig(
            backbone_config=backbone, reassemble_hidden_size=16, neck_hidden_sizes=[4, 4, 8, 8],
            fusion_hidden_size=8, head_hidden_size=4, depth_estimation_type=kind, max_depth=20, patch_size=14,
        )  # fmt: skip
        torch.manual_seed(0)
        model = transformers.DepthAnythingForDepthEstimation(config)
        with torch.no_grad():  # random weights may give a dead ReLU
            for parameter in model.head.conv3.parameters():
                parameter.copy_(parameter.abs() + 0.1)
        folder = tmp_path_factory.mktemp(kind)
        model.save_pretrained(folder)
        return folder

    return build


@pytest.fixture(scope="module")
def depth_pro(tmp_path_factory):
    """Folder of a tiny Depth Pro."""
    folder = tmp_path_factory.mktemp("depth_pro")
    write_depth_pro(folder)
    return folder


def picture(height=30, width=40):
    return np.random.default_rng(0).integers(0, 255, (height, width, 3), dtype=np.uint8)


def test_depth_anything_gives_depth_from_disparity(depth_anything, photos):
    expert = depth_expert(f"depth-anything-v2-small:{depth_anything()}")
    assert isinstance(expert, DepthExpert)
    result = expert.predict(picture(), photos.frames[0], photos)
    assert result.depth.shape == (518, 686)  # short side 518, multiples of 14, aspect kept
    assert result.valid.all()
    # What the network itself says about an even grey, which no resizing changes:
    network = transformers.DepthAnythingForDepthEstimation.from_pretrained(expert.weights)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    pixels = ((128 / 255 - mean) / std)[None, :, None, None].expand(1, 3, 518, 686)
    with torch.no_grad():
        disparity = network(pixel_values=pixels).predicted_depth[0].numpy()
    depth = expert.predict(np.full((30, 40, 3), 128, np.uint8), photos.frames[0], photos).depth
    np.testing.assert_allclose(depth, depth_from_disparity(disparity, floor=0.05), rtol=1e-3)


def test_metric_depth_anything_is_depth_already(depth_anything, photos):
    folder = depth_anything("metric")
    grey = np.full((30, 40, 3), 128, np.uint8)
    result = depth_expert(f"depth-anything-v2-small:{folder}").predict(grey, photos.frames[0], photos)
    assert result.valid.all()
    assert 0 < result.depth.min() <= result.depth.max() <= 20


def test_disparity_convention_by_hand():
    disparity = np.array([[1.0, 0.5], [0.0, 1.0]])
    np.testing.assert_allclose(
        depth_from_disparity(disparity, floor=0.05), 1 / (disparity / np.percentile(disparity, 99) + 0.05)
    )
    assert (depth_from_disparity(np.zeros((2, 2)), floor=0.05) == 0).all()


def test_depth_pro_turns_canonical_inverse_depth_into_depth(depth_pro, photos):
    expert = depth_expert(f"depth-pro:{depth_pro}")
    image = picture()
    result = expert.predict(image, photos.frames[0], photos)
    assert result.depth.shape == (30, 40)
    assert result.valid.all()
    # The library's own steps (its processor needs torchvision), at the input size of this configuration, 128.
    network = transformers.DepthProForDepthEstimation.from_pretrained(depth_pro)
    pixels = (torch.from_numpy(image).permute(2, 0, 1)[None] / 255 - 0.5) / 0.5
    pixels = torch.nn.functional.interpolate(pixels, (128, 128), mode="bilinear")
    with torch.no_grad():
        output = network(pixel_values=pixels)
    focal = 0.5 * 40 / torch.tan(0.5 * torch.deg2rad(output.field_of_view[0]))
    inverse = torch.nn.functional.interpolate(output.predicted_depth[None] * 40 / focal, (30, 40), mode="bilinear")
    np.testing.assert_allclose(result.depth, 1 / inverse[0, 0].clamp(1e-4, 1e4), rtol=1e-4)
    degrees = float(output.field_of_view[0])
    assert result.fov == (pytest.approx(math.radians(degrees)) if 2 < degrees < 170 else None)


def test_depth_pro_of_a_large_image_stays_at_network_resolution(depth_pro, photos):
    result = depth_expert(f"depth-pro:{depth_pro}").predict(picture(200, 300), photos.frames[0], photos)
    assert result.depth.shape == (128, 128)


def test_fingerprint_follows_the_weights(depth_anything):
    folder = depth_anything()
    spec = f"depth-anything-v2-small:{folder}"
    first = depth_expert(spec).fingerprint()
    assert first == depth_expert(spec).fingerprint()
    weights = folder / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(bytes(content))
    assert depth_expert(spec).fingerprint() != first


@pytest.mark.parametrize("name", ["depth-anything-v2-small", "depth-pro"])
def test_folder_without_weights(tmp_path, name):
    with pytest.raises(UserError, match=r"needs config\.json and \*\.safetensors of "):
        depth_expert(f"{name}:{tmp_path}").fingerprint()


@pytest.mark.parametrize("name", ["depth-anything-v2-small", "depth-pro"])
def test_offline_without_a_copy_says_how_to_get_one(tmp_path, monkeypatch, name):
    import huggingface_hub

    def offline(*args, **kwargs):
        raise huggingface_hub.errors.LocalEntryNotFoundError("no network")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", offline)
    with pytest.raises(UserError, match=rf"hf download .* --local-dir DIR`, then use {name}:DIR; or .*--depth none"):
        depth_expert(name).fingerprint()


def test_pickled_weights_are_not_loaded(depth_anything, tmp_path):
    folder = depth_anything()
    torch.save({}, tmp_path / "pytorch_model.bin")
    (tmp_path / "config.json").write_text((folder / "config.json").read_text())
    with pytest.raises(UserError, match="safetensors"):
        depth_expert(f"depth-anything-v2-small:{tmp_path}").fingerprint()


def test_weights_of_another_model_are_refused(depth_anything, depth_pro, photos):
    expert = depth_expert(f"depth-pro:{depth_anything()}")
    with pytest.raises(UserError, match=r"do not fill|holds no readable"):
        expert.predict(picture(), photos.frames[0], photos)


def test_damaged_weights_are_refused(depth_anything, photos):
    folder = depth_anything()
    (folder / "model.safetensors").write_bytes(b"x" * 100)
    with pytest.raises(UserError, match="holds no readable DepthAnythingForDepthEstimation"):
        depth_expert(f"depth-anything-v2-small:{folder}").predict(picture(), photos.frames[0], photos)


def test_without_transformers_the_remedy_is_named(depth_anything, photos, monkeypatch):
    expert = depth_expert(f"depth-anything-v2-small:{depth_anything()}")
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(UserError, match=r"pip install 'reliev3r\[experts\]'"):
        expert.predict(picture(), photos.frames[0], photos)

"""MoGe-2's and MoGe-3's own classes at the smallest backbone, with random weights.

MoGe-3's refiner is its own, of layers in plain torch (sparse_layers.py) in place of FlexGEMM's, which need a GPU.
"""

import importlib
import importlib.util
import math

import numpy as np
import pytest
import sparse_layers
import torch
from PIL import Image

from reliev3r.core.errors import UserError
from reliev3r.data.capture import load_capture
from reliev3r.labels.depth.moge import RELEASES, MoGe
from reliev3r.labels.estimate_intrinsics import resolve_intrinsics
from reliev3r.labels.expert import DepthExpert
from reliev3r.labels.registry import depth_expert

HEAD = {
    "res_block_in_norm": "none",
    "res_block_hidden_norm": "none",
    "resamplers": ["bilinear"] * 4,
    "dim_in": [16, 8, 8, 8, 8],
    "num_res_blocks": [0, 0, 0, 0, 0],
    "dim_res_blocks": [16, 8, 8, 8, 8],
}
CONFIG = {
    "encoder": {"backbone": "dinov2_vits14", "intermediate_layers": [5, 11], "dim_out": 16},
    "neck": {**HEAD, "dim_in": [18, 2, 2, 2, 2], "dim_out": [None] * 5},
    "points_head": {**HEAD, "dim_out": [None] * 4 + [3]},
    "mask_head": {**HEAD, "dim_out": [None] * 4 + [1]},
    "scale_head": {"dims": [384, 16, 1]},
    "num_tokens_range": [40, 60],
}
REFINER = {
    "in_channels": 3,
    "out_channels": 1,
    "encoder_channels": 18,
    "model_channels": [4, 4, 8, 8, 8],
    "encoder_blocks_per_level": 1,
    "decoder_blocks_per_level": 1,
}
CONFIGS = {
    "moge-2": {**CONFIG, "remap_output": "exp"},
    "moge-3": {**CONFIG, "refiner": REFINER, "refiner_depth_resolution": 256},
}


@pytest.fixture(scope="module", params=CONFIGS)
def version(request, moge):
    """With what lets MoGe-3 run without a GPU."""
    if importlib.util.find_spec(RELEASES[request.param].module) is None:
        pytest.skip(f"the MoGe that is here has no {RELEASES[request.param].module}")
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "moge-3":
            sparse_layers.install(patch)
            patch.setattr(MoGe, "__post_init__", lambda self: None)
        yield request.param


@pytest.fixture(scope="module")
def network(version):
    """Upstream's class."""
    return importlib.import_module(RELEASES[version].module).MoGeModel


@pytest.fixture(scope="module")
def checkpoint(version, network, tmp_path_factory):
    """model.pt as upstream writes it; the mask rejects about a tenth of a random image."""
    torch.manual_seed(0)
    model = network(**CONFIGS[version]).eval()
    with torch.no_grad():
        accepted = model(torch.from_numpy(picture()).permute(2, 0, 1)[None] / 255, num_tokens=60)["mask"]
        last_bias(model.state_dict(), "mask_head").sub_(torch.logit(accepted).quantile(0.1))
    path = tmp_path_factory.mktemp("moge") / "model.pt"
    torch.save({"model_config": CONFIGS[version], "model": model.state_dict()}, path)
    return path


def picture(height=90, width=120, seed=0):
    return np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8)


def last_bias(state, head):
    """The tensor itself."""
    return state[[name for name in state if name.startswith(head) and name.endswith("bias")][-1]]


@pytest.fixture
def photos(tmp_path):
    for seed, name in enumerate("abc"):
        Image.fromarray(picture(seed=seed)).save(tmp_path / f"{name}.png")
    return load_capture(tmp_path)


def test_depth_mask_and_field_of_view_are_upstreams(version, network, checkpoint, photos):
    expert = depth_expert(f"{version}:{checkpoint}")
    assert isinstance(expert, DepthExpert)
    image = photos.image(0)
    found = expert.predict(image, photos.frames[0], photos)
    pixels = torch.from_numpy(image).permute(2, 0, 1) / 255
    own = network.from_pretrained(checkpoint).eval().infer(pixels, use_fp16=False)
    assert found.depth.shape == (90, 120)
    np.testing.assert_array_equal(found.valid, own["mask"].numpy())
    assert 0.01 < found.valid.mean() < 0.99
    assert torch.isinf(own["depth"][~own["mask"]]).all(), "what the guard is for"
    assert np.isfinite(found.depth).all()
    np.testing.assert_allclose(found.depth[found.valid], own["depth"][own["mask"]].numpy(), rtol=1e-5)
    fov = 2 * math.atan(0.5 / float(own["intrinsics"][0, 0]))
    assert found.fov == (pytest.approx(fov, rel=1e-5) if math.radians(2) < fov < math.radians(170) else None)


def test_large_images_are_shrunk_and_folders_searched(version, checkpoint, photos):
    found = depth_expert(f"{version}:{checkpoint.parent}").predict(picture(600, 2048), photos.frames[0], photos)
    assert found.depth.shape == (300, 1024)


def test_an_all_masked_image_has_neither_depth_nor_field_of_view(version, checkpoint, photos, tmp_path):
    content = torch.load(checkpoint, weights_only=True)
    last_bias(content["model"], "mask_head").sub_(100)
    torch.save(content, tmp_path / "model.pt")
    found = depth_expert(f"{version}:{tmp_path}").predict(photos.image(0), photos.frames[0], photos)
    assert not found.valid.any()
    assert found.fov is None  # upstream says 90 degrees of the diagonal


@pytest.mark.filterwarnings("ignore:1 parameter")
def test_missing_weights_are_refused_where_upstream_goes_on(version, network, checkpoint, photos, tmp_path):
    content = torch.load(checkpoint, weights_only=True)
    del content["model"][next(iter(content["model"]))]
    torch.save(content, tmp_path / "model.pt")
    network.from_pretrained(tmp_path / "model.pt")  # MoGe-2's pinned commit: without a word
    with pytest.raises(UserError, match=f"lacks 1 weights of a {RELEASES[version].title} network"):
        depth_expert(f"{version}:{tmp_path}").predict(photos.image(0), photos.frames[0], photos)


def test_foreign_files_are_refused(version, photos, tmp_path):
    torch.save({"weights": torch.zeros(2)}, tmp_path / "model.pt")
    with pytest.raises(UserError, match=rf"model\.pt: holds no readable {RELEASES[version].title} checkpoint"):
        depth_expert(f"{version}:{tmp_path}").predict(photos.image(0), photos.frames[0], photos)


def test_the_other_versions_checkpoint_is_refused(version, checkpoint, photos, tmp_path):
    content = torch.load(checkpoint, weights_only=True)
    (other,) = CONFIGS.keys() - {version}
    torch.save({**content, "model_config": CONFIGS[other]}, tmp_path / "model.pt")
    with pytest.raises(UserError, match=f"no {RELEASES[version].title} checkpoint: .*; .* use {other}:"):
        depth_expert(f"{version}:{tmp_path}").predict(photos.image(0), photos.frames[0], photos)


def test_moge_3_refines_its_depth(version, network, checkpoint, photos):
    if version == "moge-2":
        pytest.skip("MoGe-2 has no refiner")
    found = depth_expert(f"moge-3:{checkpoint}").predict(photos.image(0), photos.frames[0], photos)
    pixels = torch.from_numpy(photos.image(0)).permute(2, 0, 1) / 255
    steps = network.from_pretrained(checkpoint).eval().infer(pixels, refine_steps=3, return_per_step=True)
    first, *_, last = steps["depth_per_step"]
    np.testing.assert_allclose(found.depth[found.valid], last[steps["mask"]].numpy(), rtol=1e-5)
    assert not np.allclose(found.depth[found.valid], first[steps["mask"]].numpy(), rtol=1e-2)


def test_the_layers_in_plain_torch_convolve_and_pool():
    torch.manual_seed(0)
    coords = torch.nonzero(torch.rand(2, 5, 6, 7) < 0.3).int()
    feats = torch.rand(len(coords), 3)
    dense = torch.zeros(2, 5, 6, 7, 3)
    dense[tuple(coords.long().T)] = feats
    layer = sparse_layers.SubmanifoldConv3d(3, 4, 3, algorithm="implicit_gemm")
    found, cache = layer(feats, coords, dense.shape)
    weight = layer.weight.permute(0, 4, 1, 2, 3)
    whole = torch.nn.functional.conv3d(dense.permute(0, 4, 1, 2, 3), weight, layer.bias, padding=1)
    torch.testing.assert_close(found, whole.permute(0, 2, 3, 4, 1)[tuple(coords.long().T)])
    torch.testing.assert_close(layer(feats, coords, dense.shape, neighbor_cache=cache)[0], found)
    pool = sparse_layers.SparsePool3d(2, 2, "mean")
    mean, pooled, _, _ = pool(feats, coords, dense.shape, output_shape=None)
    inside = (coords // torch.tensor([1, 2, 2, 2]) == pooled[3]).all(dim=1)
    torch.testing.assert_close(mean[3], feats[inside].mean(dim=0))


@pytest.fixture
def pinhole(version, checkpoint, monkeypatch):
    """An expert whose network sees, in every image, a slanted plane through a lens of 60 degrees."""
    expert = depth_expert(f"{version}:{checkpoint}")

    def forward(image, num_tokens, **steps):
        _, _, height, width = image.shape
        focal = 0.5 * width / math.tan(math.radians(30))
        v, u = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
        z = 2 + v / height
        points = torch.stack([(u - width / 2) / focal * z, (v - height / 2) / focal * z, z - 0.7], dim=-1)
        mask = (u < width / 4).float()
        return {"points": points[None], "mask": 1 - mask[None], "metric_scale": torch.tensor([3.0])}

    monkeypatch.setattr(expert._model, "forward", forward)
    return expert


def test_depth_and_field_of_view_of_a_known_geometry(pinhole, photos):
    found = pinhole.predict(photos.image(0), photos.frames[0], photos)
    assert math.degrees(found.fov) == pytest.approx(60, abs=0.5)  # upstream solves it on 64 x 64 points
    np.testing.assert_array_equal(found.valid, np.broadcast_to(np.arange(120) + 0.5 >= 30, (90, 120)))
    depth = 3 * (2 + (np.arange(90) + 0.5) / 90)
    np.testing.assert_allclose(found.depth[:, 30:], np.broadcast_to(depth[:, None], (90, 90)), rtol=0.02)


def test_its_field_of_view_becomes_the_captures_intrinsics(version, pinhole, photos, tmp_path):
    known = resolve_intrinsics(photos, "expert", depth=pinhole, out=tmp_path / "labels")
    assert known.K_source == f"expert {version}"
    for frame in known.frames:
        assert frame.K[0, 0] == pytest.approx(60 / math.tan(math.radians(30)), rel=0.01)
    assert (tmp_path / "labels" / "depth" / "c.npz").is_file()  # no second run of the network for the labels

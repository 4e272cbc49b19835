"""MapAnything and Depth Anything 3 as trainable modules, through their own code with random weights.

RELIEV3R_UPSTREAM holds checkouts named map-anything and da3; RELIEV3R_PACKAGES the folders of what they import (hydra,
omegaconf, einops, uniception, timm, torchvision; addict), separated as PATH is. Depth Anything 3 runs in the size that
is released as DA3-SMALL, MapAnything in the released layout, smaller. Of Depth Anything 3's user interface two modules
that are never called here, export and image files, are stand-ins: they import video and web packages.
"""

import copy
import json
import sys
import types

import pytest
import torch
from foreign_checks import check_inputs, check_learning, check_lora, sample, upstream_at
from safetensors.torch import load_file, save_model

from conftest import needs
from reliev3r.baselines.adapters.shared import repair_torchvision
from reliev3r.core.errors import UserError
from reliev3r.core.types import Views
from reliev3r.geometry.rigid import invert
from reliev3r.model.load import load_model, weights_hash

INF = float("inf")
CONFIG = {
    "name": "mapanything",
    "encoder_config": {
        "encoder_str": "dinov2", "name": "dinov2_small", "data_norm_type": "dinov2", "size": "small",
        "with_registers": False, "uses_torch_hub": True, "gradient_checkpointing": False,
        "norm_returned_features": False, "keep_first_n_layers": 3,
    },
    "info_sharing_config": {
        "model_type": "alternating_attention", "model_return_type": "intermediate_features",
        "custom_positional_encoding": None,
        "module_args": {
            "name": "aat", "indices": [1, 2], "norm_intermediate": True, "size": "small", "depth": 4, "dim": 64,
            "distinguish_ref_and_non_ref_views": True, "gradient_checkpointing": False, "num_heads": 4,
            "mlp_ratio": 4, "qkv_bias": True, "qk_norm": False, "init_values": 0.1,
        },
    },
    "pred_head_config": {
        "type": "dpt+pose", "adaptor_type": "raydirs+depth+pose+confidence+mask",
        "feature_head": {"feature_dim": 32, "hooks": [0, 1, 2, 3], "checkpoint_gradient": False},
        "regressor_head": {"output_dim": 6, "checkpoint_gradient": False},
        "pose_head": {"num_resconv_block": 2, "rot_representation_dim": 4},
        "scale_head": {"output_dim": 1},
        "adaptor_config": {"input_dim": 6, "use_factored_predictions_for_global_pointmaps": False},
        "dpt_adaptor": {
            "name": "dense", "ray_directions_mode": "linear", "ray_directions_normalize_to_unit_sphere": True,
            "ray_directions_normalize_to_unit_image_plane": False, "ray_directions_vmin": -INF,
            "ray_directions_vmax": INF, "ray_directions_clamp_min_of_z_dir": False, "ray_directions_z_dir_min": -INF,
            "depth_mode": "exp", "depth_vmin": 0, "depth_vmax": INF, "confidence_type": "exp", "confidence_vmin": 1,
            "confidence_vmax": INF,
        },
        "pose_adaptor": {
            "name": "pose", "cam_trans_mode": "linear", "cam_trans_vmin": -INF, "cam_trans_vmax": INF,
            "quaternions_mode": "linear", "quaternions_normalize": True, "quaternions_vmin": -INF,
            "quaternions_vmax": INF,
        },
        "scale_adaptor": {"name": "scale", "mode": "exp", "vmin": 1e-8, "vmax": INF},
    },
    "geometric_input_config": {
        "ray_dirs_encoder_config": {"name": "r", "in_chans": 3, "encoder_str": "dense_rep_encoder", "apply_pe": False},
        "depth_encoder_config": {"name": "d", "in_chans": 1, "encoder_str": "dense_rep_encoder", "apply_pe": False},
        "cam_rot_encoder_config": {"name": "q", "in_chans": 4, "encoder_str": "global_rep_encoder"},
        "cam_trans_encoder_config": {"name": "t", "in_chans": 3, "encoder_str": "global_rep_encoder"},
        "scale_encoder_config": {"name": "s", "in_chans": 1, "encoder_str": "global_rep_encoder"},
        "overall_prob": 0.9, "dropout_prob": 0.05, "ray_dirs_prob": 0.5, "depth_prob": 0.5, "cam_prob": 0.5,
        "sparse_depth_prob": 0.5, "sparsification_removal_percent": 0.9, "depth_scale_norm_all_prob": 0.05,
        "pose_scale_norm_all_prob": 0.05,
    },
    "pretrained_checkpoint_path": "/never/read.pth",
    "load_specific_pretrained_submodules": False,
    "specific_pretrained_submodules": [],
    "torch_hub_force_reload": False,
    "use_register_tokens_from_encoder": True,
    "info_sharing_mlp_layer_str": "swiglufused",
}  # fmt: skip


@pytest.fixture(scope="module")
def mapanything(tmp_path_factory):
    """A folder as upstream hands it out: config.json, and weights of which shared ones are stored once."""
    upstream_at("RELIEV3R_MAPANYTHING", "map-anything")
    for package in ("hydra", "omegaconf", "einops", "uniception", "timm", "torchvision"):
        needs(package, "RELIEV3R_PACKAGES")
    needs("mapanything", "RELIEV3R_MAPANYTHING")
    repair_torchvision()
    torch.manual_seed(0)
    network = upstream_mapanything(CONFIG)
    network.dpt_regressor_head.conv2[-1].bias.data[:3] = torch.tensor([0, 0, 2.0])  # rays forwards
    folder = tmp_path_factory.mktemp("mapanything")
    save_model(network, str(folder / "model.safetensors"))
    (folder / "config.json").write_text(json.dumps(CONFIG))
    return folder


def upstream_mapanything(config):
    from mapanything.models import MapAnything

    from reliev3r.model.foreign.mapanything import _encoders_without_network

    with _encoders_without_network("here"):
        return MapAnything(**{**copy.deepcopy(config), "pretrained_checkpoint_path": None})


@pytest.fixture(scope="module")
def da3(tmp_path_factory):
    """A folder as upstream hands it out."""
    upstream_at("RELIEV3R_DA3", "da3", "src")
    for package in ("omegaconf", "einops", "addict"):
        needs(package, "RELIEV3R_PACKAGES")
    needs("depth_anything_3", "RELIEV3R_DA3")
    from depth_anything_3.cfg import create_object, load_config
    from depth_anything_3.registry import MODEL_REGISTRY

    torch.manual_seed(0)
    network = create_object(load_config(MODEL_REGISTRY["da3-small"]))
    network.cam_dec.fc_fov[0].bias.data[:] = 1.0  # radians: the ReLU after it
    folder = tmp_path_factory.mktemp("da3")
    save_model(torch.nn.ModuleDict({"model": network}), str(folder / "model.safetensors"))
    (folder / "config.json").write_text(json.dumps({"model_name": "da3-small", "config": {}}))
    return folder


@pytest.fixture
def da3_interface(monkeypatch):
    """Upstream's own class for users."""
    for name, attribute in (("export", "export"), ("io.input_processor", "InputProcessor")):
        module = types.ModuleType(f"depth_anything_3.utils.{name}")
        setattr(module, attribute, object)
        monkeypatch.setitem(sys.modules, module.__name__, module)
    needs("evo")
    from depth_anything_3.api import DepthAnything3

    return DepthAnything3


def test_mapanything_learns_with_gradients_everywhere(mapanything):
    network = load_model(f"mapanything:{mapanything}")
    parts = ("encoder.model.patch_embed", "info_sharing.self_attention_blocks.0.attn.qkv", "pose_head",
             "dpt_feature_head", "fusion_norm_layer")  # fmt: skip
    check_learning(network, *parts, fov_weight=0.0)  # random rays are those of no camera
    unused = [name for name, p in network.named_parameters() if not p.requires_grad]
    assert {name.split(".")[1] for name in unused} == {"ray_dirs_encoder", "depth_encoder", "depth_scale_encoder",
        "cam_rot_encoder", "cam_trans_encoder", "cam_trans_scale_encoder"}  # fmt: skip


def test_mapanything_predicts_what_upstream_infers(mapanything):
    network = load_model(f"mapanything:{mapanything}")
    check_inputs(network)
    views, _ = sample()
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    images = ((views.image - mean[:, None, None]) / std[:, None, None]).unbind(1)
    theirs = network.network.infer(
        [{"img": image, "data_norm_type": ["dinov2"]} for image in images],
        memory_efficient_inference=False, use_amp=False, apply_mask=False, mask_edges=False,
    )  # fmt: skip
    with torch.no_grad():
        ours = network(views)
    for view, their in enumerate(theirs):
        front = their["depth_z"][..., 0] > 0.05 * their["depth_z"].median()
        assert front.float().mean() > 0.5
        torch.testing.assert_close(ours.depth[:, view][front], their["depth_z"][..., 0][front], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(ours.points_cam[:, view][front], their["pts3d_cam"][front], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(ours.world_from_cam[:, view], their["camera_poses"], rtol=1e-4, atol=1e-5)
        higher = ours.conf[:, view] > ours.conf[:, view].median()
        assert their["conf"][higher].min() >= their["conf"][~higher].max()


def test_mapanything_is_written_back_as_upstreams_folder_after_lora(mapanything, tmp_path):
    network = load_model(f"mapanything:{mapanything}")
    check_lora(network, share=0.05).save_pretrained(tmp_path)
    assert set(load_file(tmp_path / "model.safetensors")) == set(load_file(mapanything / "model.safetensors"))
    assert json.loads((tmp_path / "config.json").read_text()) == CONFIG
    assert weights_hash(f"mapanything:{tmp_path}") != weights_hash(f"mapanything:{mapanything}")
    from mapanything.models import MapAnything

    from reliev3r.model.foreign.mapanything import _encoders_without_network

    with _encoders_without_network("here"):
        theirs = MapAnything.from_pretrained(str(tmp_path), pretrained_checkpoint_path=None, strict=True)
    ours = network.network.state_dict()
    assert all(torch.equal(theirs.state_dict()[name], value) for name, value in ours.items())
    views, _ = sample()
    torch.testing.assert_close(load_model(f"mapanything:{tmp_path}")(views).depth, network(views).depth)


def test_mapanything_refuses_what_it_would_have_to_download(mapanything, tmp_path):
    (tmp_path / "model.safetensors").symlink_to(mapanything / "model.safetensors")
    config = copy.deepcopy(CONFIG)
    config["encoder_config"] = {"encoder_str": "radio", "name": "radio", "data_norm_type": "radio",
                                "uses_torch_hub": True, "model_version": "radio_v2.5-l"}  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match="would be downloaded"):
        load_model(f"mapanything:{tmp_path}")


def test_da3_learns_with_gradients_everywhere(da3):
    check_learning(load_model(f"da3:{da3}"), "model.backbone.pretrained.patch_embed",
                   "model.backbone.pretrained.blocks.0.attn.qkv", "model.cam_dec.fc_t", "model.cam_dec.fc_fov",
                   "model.head.projects", "model.backbone.pretrained.camera_token")  # fmt: skip


@pytest.mark.parametrize("count", [2, 3, 5])
def test_da3_predicts_what_upstreams_interface_does(da3, da3_interface, count):
    network = load_model(f"da3:{da3}")
    image = torch.rand(1, count, 3, 28, 42, generator=torch.Generator().manual_seed(0))
    normal = (image - torch.tensor([0.485, 0.456, 0.406])[:, None, None]) / torch.tensor([0.229, 0.224, 0.225])[
        :, None, None
    ]
    theirs = da3_interface.from_pretrained(str(da3))
    with torch.no_grad():
        raw, ours = theirs.model(normal), network(Views(image=image))
    torch.testing.assert_close(ours.depth, raw.depth, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(ours.K, raw.intrinsics, rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(invert(ours.world_from_cam)[..., :3, :], raw.extrinsics, rtol=1e-5, atol=1e-5)
    higher = ours.conf > ours.conf.median()
    assert raw.depth_conf[higher].min() >= raw.depth_conf[~higher].max()


def test_da3_is_written_back_as_upstreams_folder_after_lora(da3, da3_interface, tmp_path):
    network = load_model(f"da3:{da3}")
    check_inputs(network)
    check_lora(network, share=0.02).save_pretrained(tmp_path)
    given, saved = load_file(da3 / "model.safetensors"), load_file(tmp_path / "model.safetensors")
    assert set(saved) == set(given)
    changed = {name for name in given if not torch.equal(given[name], saved[name])}
    assert changed
    assert all(".attn." in name and "cam_enc" not in name for name in changed)
    theirs = da3_interface.from_pretrained(str(tmp_path), strict=True)
    assert all(torch.equal(theirs.state_dict()[name], value) for name, value in saved.items())


def test_a_nested_da3_hands_its_metric_branch_through(da3, tmp_path):
    from depth_anything_3.cfg import create_object, load_config
    from depth_anything_3.registry import MODEL_REGISTRY

    from reliev3r.model.foreign.da3 import wrap

    settings = load_config(MODEL_REGISTRY["da3-small"])
    network = create_object(settings)
    network.cam_enc = None
    tensors = {f"model.da3.{name[6:]}": value for name, value in load_file(da3 / "model.safetensors").items()}
    tensors |= {"model.da3_metric.head.weight": torch.ones(2), "model.da3.gs_head.weight": torch.ones(3)}
    nested = wrap(network, tensors, "here", config={"model_name": "da3nested-giant-large"}, nested=True).eval()
    views, _ = sample()
    with torch.no_grad():
        torch.testing.assert_close(nested(views).depth, load_model(f"da3:{da3}")(views).depth)
    nested.save_pretrained(tmp_path)
    assert set(load_file(tmp_path / "model.safetensors")) == set(tensors)


@pytest.mark.parametrize(("name", "reason"), [("da3mono-large", "no cameras"), ("da3-tiny", "upstream has da3-base")])
def test_da3_refuses_networks_that_cannot_be_adapted(da3, tmp_path, name, reason):
    (tmp_path / "model.safetensors").symlink_to(da3 / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"model_name": name}))
    with pytest.raises(UserError, match=reason):
        load_model(f"da3:{tmp_path}")

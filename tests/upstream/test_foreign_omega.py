"""VGGT-Omega as a trainable module: its own class at a narrower width, with random weights.

RELIEV3R_VGGT_OMEGA, or vggt-omega below RELIEV3R_UPSTREAM, is a checkout of facebookresearch/vggt-omega (39a0cb8). Its
class builds all of its 24 + 24 + 24 blocks at any width; DINOv3 is in its own code, no other package is asked for.
"""

import pytest
import torch
from foreign_checks import check_inputs, check_learning, check_lora, sample, upstream_at
from safetensors.torch import load_file

from conftest import needs
from reliev3r.core.errors import UserError
from reliev3r.core.types import Views
from reliev3r.geometry.camera import K_from_fov
from reliev3r.geometry.rigid import invert, rigid_from, so3_exp
from reliev3r.model.load import load_model, weights_hash
from reliev3r.model.predict import predict

WIDTH = 64


@pytest.fixture(scope="module")
def omega(tmp_path_factory):
    """A file as upstream hands it out: the state of its class, by torch.save."""
    upstream_at("RELIEV3R_VGGT_OMEGA", "vggt-omega")
    needs("vggt_omega", "RELIEV3R_VGGT_OMEGA")
    file = tmp_path_factory.mktemp("omega") / "vggt_omega.pt"
    torch.save(random_omega().state_dict(), file)
    return file


def random_omega(**parts):
    """Upstream's class with weights that do something: as built, its blocks are scaled by 1e-5."""
    from vggt_omega.models import VGGTOmega

    torch.manual_seed(0)
    network = VGGTOmega(embed_dim=WIDTH, **parts)
    for module in network.modules():
        if hasattr(module, "bias_mask"):  # NaN until a checkpoint is loaded; keys have no bias
            query, key, value = module.bias_mask.chunk(3)
            query.fill_(1), key.fill_(0), value.fill_(1)
        if hasattr(module, "gamma"):
            torch.nn.init.constant_(module.gamma, 0.3)
    torch.nn.init.normal_(network.dense_head.proj_conf.weight, std=0.05)
    network.camera_head.camera_branch[-1].bias.data[7:] = 1.0  # radians: a ReLU after it
    return network


def test_omega_learns_with_gradients_everywhere(omega) -> None:
    check_learning(load_model(f"vggt-omega:{omega}"), "aggregator.patch_embed.patch_embed",
                   "aggregator.patch_embed.blocks.0.attn.qkv", "aggregator.frame_blocks.0.attn.qkv",
                   "aggregator.inter_frame_blocks.2", "aggregator.register_token", "camera_head.trunk",
                   "camera_head.camera_branch", "dense_head.projects", "dense_head.proj_conf")  # fmt: skip


@pytest.mark.parametrize("count", [1, 3])
def test_omega_predicts_what_upstreams_forward_does(omega, count) -> None:
    from vggt_omega.utils.pose_enc import encoding_to_camera

    network = load_model(f"vggt-omega:{omega}")
    image = torch.rand(1, count, 3, 48, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        raw, ours = network.network(image), network(Views(image=image))
    torch.testing.assert_close(ours.depth, raw["depth"][..., 0], rtol=1e-5, atol=1e-6)
    extrinsics, K = encoding_to_camera(raw["pose_enc"], (48, 64))
    torch.testing.assert_close(ours.K, K, rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(invert(ours.world_from_cam)[..., :3, :], extrinsics, rtol=1e-5, atol=1e-5)
    higher = ours.conf > ours.conf.median()
    assert raw["depth_conf"][higher].min() >= raw["depth_conf"][~higher].max()


def test_omega_known_cameras_come_back_from_upstreams_encoding(omega, monkeypatch) -> None:
    from vggt_omega.utils.pose_enc import extri_intri_to_pose_encoding

    generator = torch.Generator().manual_seed(0)
    world_from_cam = rigid_from(so3_exp(torch.randn(1, 4, 3, generator=generator)),
                                torch.randn(1, 4, 3, generator=generator))  # fmt: skip
    K = K_from_fov(0.9, 48, 64).expand(1, 4, 3, 3) * torch.tensor([[1.0, 1, 1], [1, 1.1, 1], [1, 1, 1]])
    encoding = extri_intri_to_pose_encoding(invert(world_from_cam)[..., :3, :], K, (48, 64))
    network = load_model(f"vggt-omega:{omega}")
    monkeypatch.setattr(network.network.camera_head, "forward", lambda *_, **__: encoding)
    with torch.no_grad():
        ours = network(Views(image=torch.rand(1, 4, 3, 48, 64)))
    torch.testing.assert_close(ours.world_from_cam, world_from_cam, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(ours.K, K, rtol=1e-4, atol=1e-3)


def test_omega_is_written_back_as_upstreams_state_after_lora(omega, tmp_path) -> None:
    network = load_model(f"vggt-omega:{omega}")
    check_inputs(network)
    merged = check_lora(network, share=0.05)
    merged.save_pretrained(tmp_path)
    given, saved = torch.load(omega, weights_only=True), load_file(tmp_path / "model.safetensors")
    random_omega().load_state_dict(saved, strict=True)
    changed = {name for name in given if not torch.equal(given[name], saved[name])}
    assert changed
    assert all(".attn." in name and name.endswith(("qkv.weight", "proj.weight")) for name in changed)
    assert weights_hash(f"vggt-omega:{tmp_path}") != weights_hash(f"vggt-omega:{omega}")
    again = load_model(f"vggt-omega:{tmp_path}")
    views, _ = sample(64)
    with torch.no_grad():
        torch.testing.assert_close(again(views).depth, merged.eval()(views).depth)
    assert "FAIR Noncommercial Research License" in (tmp_path / "README.md").read_text()


def test_omega_for_text_is_shown_smaller_images_and_keeps_its_head(omega, tmp_path) -> None:
    state = random_omega(enable_alignment=True).state_dict()
    torch.save(state, tmp_path / "text.pt")
    network = load_model(f"vggt-omega:{tmp_path / 'text.pt'}")
    assert (load_model(f"vggt-omega:{omega}").image_size, network.image_size) == (512, 256)
    network.save_pretrained(tmp_path / "saved")
    saved = load_file(tmp_path / "saved" / "model.safetensors")
    assert set(saved) == set(state)
    assert torch.equal(saved["text_alignment_head.language_token"], state["text_alignment_head.language_token"])


def test_omega_in_bf16_keeps_its_heads_in_float32(omega) -> None:
    network = load_model(f"vggt-omega:{omega}")
    views, _ = sample(64)
    exact, half = (predict(network, views, bf16=bf16) for bf16 in (False, True))
    assert half.depth.dtype == torch.float32
    error = (half.depth / exact.depth).log().abs().median()
    assert 0 < error < 0.05


def test_omega_other_weights_are_named(omega, tmp_path) -> None:
    state = torch.load(omega, weights_only=True)
    for change, reason in (
        ({"aggregator.camera_token": torch.ones(1, 2, 1, 4096)}, "aggregator.camera_token is missing or of another"),
        ({"camera_head.trunk_norm.bias": torch.ones(3)}, "camera_head.trunk_norm.bias is missing or has another shape"),
        ({"track_head.weight": torch.ones(3)}, "holds track_head.weight"),
    ):
        torch.save({**state, **change}, tmp_path / "other.pt")
        with pytest.raises(UserError, match=reason):
            load_model(f"vggt-omega:{tmp_path / 'other.pt'}")
    with pytest.raises(UserError, match=r"ask for access .*vggt_omega_1b_512.pt"):
        load_model("vggt-omega:facebook/VGGT-Omega")

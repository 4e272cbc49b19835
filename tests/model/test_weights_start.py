"""Encoders of DINOv2 in both layouts, against transformers' own code; VGGT's aggregator by its names."""

import dataclasses
import re

import pytest
import torch
from safetensors.torch import load_file, save_file

import builders
from reliev3r.core.errors import UserError
from reliev3r.model.load import initial_network, load_network
from reliev3r.model.network import Reliev3R
from reliev3r.model.transformer import resample_positions

CONFIG = dataclasses.replace(builders.SMALLEST, encoder_depth=2, decoder_depth=4, patch_size=14)


@pytest.fixture
def dinov2(tmp_path):
    """transformers' network with random weights, saved by transformers."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    model = transformers.Dinov2WithRegistersModel(
        transformers.Dinov2WithRegistersConfig(
            hidden_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=56, patch_size=14
        )
    ).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    model.save_pretrained(tmp_path / "dinov2")
    return model, tmp_path / "dinov2"


def patch_tokens(model, image):
    with torch.no_grad():
        return model(image).last_hidden_state[:, 5:]


@pytest.mark.parametrize("names", ["as saved", "in memory"])
def test_transformers_dinov2_gives_the_same_tokens(dinov2, tmp_path, names) -> None:
    theirs, where = dinov2
    if names == "in memory":  # transformers 4 and 5 name the attention differently
        where = tmp_path / "memory.safetensors"
        save_file(theirs.state_dict(), where)
        assert set(load_file(where)) != set(load_file(tmp_path / "dinov2" / "model.safetensors"))
    ours = initial_network("random", CONFIG, init_from=f"dinov2:{where}").eval()
    for size in ((56, 56), (42, 70)):
        image = torch.randn(2, 3, *size)
        with torch.no_grad():
            torch.testing.assert_close(ours.encoder(image), patch_tokens(theirs, image), atol=1e-4, rtol=1e-4)


def own_layout(encoder) -> dict:
    """As DINOv2's own .pth files have it, mask token included."""
    return {**{name: value.clone() for name, value in encoder.state_dict().items()}, "mask_token": torch.zeros(1, 32)}


def test_dinov2s_own_layout_fills_the_encoder_alone(tmp_path) -> None:
    torch.manual_seed(3)
    source = Reliev3R(CONFIG).encoder
    torch.save(own_layout(source), tmp_path / "dinov2_reg.pth")
    torch.manual_seed(0)
    ours = initial_network("random", CONFIG, init_from=f"dinov2:{tmp_path / 'dinov2_reg.pth'}")
    torch.manual_seed(0)
    fresh = Reliev3R(CONFIG)
    expected = {**fresh.state_dict(), **{f"encoder.{name}": value for name, value in source.state_dict().items()}}
    assert all(torch.equal(value, expected[name]) for name, value in ours.state_dict().items())
    assert not torch.equal(source.pos_embed, fresh.encoder.pos_embed)


def test_positions_come_to_our_grid(tmp_path) -> None:
    source = Reliev3R(dataclasses.replace(CONFIG, encoder_grid=7)).encoder
    # a table that is linear in x stays so, whatever the grid
    ramp = (torch.arange(7) + 0.5).expand(7, 7).reshape(1, 49, 1).expand(1, 49, 32) / 7
    with torch.no_grad():
        source.pos_embed[:, 1:] = ramp
    torch.save(own_layout(source), tmp_path / "seven.pth")
    table = initial_network("random", CONFIG, init_from=f"dinov2:{tmp_path / 'seven.pth'}").encoder.pos_embed
    assert table.shape == (1, 17, 32)
    assert torch.equal(table[:, :1], source.pos_embed[:, :1])
    rows = table[0, 1:, 0].reshape(4, 4)
    torch.testing.assert_close(rows, (torch.arange(4) + 0.5).expand(4, 4) / 4, atol=0.05, rtol=0)
    torch.testing.assert_close(resample_positions(ramp, 7, 7), ramp, atol=1e-5, rtol=0)


def test_dinov2_without_registers_needs_a_network_without(tmp_path) -> None:
    tensors = own_layout(Reliev3R(CONFIG).encoder)
    del tensors["register_tokens"]
    torch.save(tensors, tmp_path / "plain.pth")
    with pytest.raises(UserError, match="1 missing: register_tokens"):
        initial_network("random", CONFIG, init_from=f"dinov2:{tmp_path / 'plain.pth'}")
    plain = initial_network(
        "random", dataclasses.replace(CONFIG, encoder_registers=0), init_from=f"dinov2:{tmp_path / 'plain.pth'}"
    )
    assert plain.encoder.register_tokens.shape == (1, 0, 32)


def test_another_width_or_patch_is_named(tmp_path) -> None:
    torch.save(own_layout(Reliev3R(CONFIG).encoder), tmp_path / "small.pth")
    other = dataclasses.replace(CONFIG, patch_size=12)
    with pytest.raises(UserError, match=r"patch_embed\.proj\.weight 32x3x14x14 instead of 32x3x12x12"):
        initial_network("random", other, init_from=f"dinov2:{tmp_path / 'small.pth'}")


def test_dinov3_is_refused_in_one_line(tmp_path) -> None:
    save_file(
        {"embeddings.cls_token": torch.zeros(1, 1, 32), "layer.0.norm1.weight": torch.zeros(32)},
        tmp_path / "v3.safetensors",
    )
    with pytest.raises(UserError, match="no learned positions"):
        initial_network("random", CONFIG, init_from=f"dinov2:{tmp_path / 'v3.safetensors'}")


@pytest.fixture
def vggt(tmp_path):
    """(tensors, file) of VGGT's names: an aggregator of three blocks of each kind, and its heads."""
    torch.manual_seed(5)
    other = Reliev3R(dataclasses.replace(CONFIG, decoder_depth=6))
    tensors = {
        "aggregator.camera_token": torch.zeros(1, 2, 1, 32),
        "aggregator.register_token": torch.zeros(1, 2, 4, 32),
    }
    tensors["depth_head.norm.weight"] = torch.zeros(64)
    for name, value in own_layout(other.encoder).items():
        tensors[f"aggregator.patch_embed.{name}"] = value
    for index, block in enumerate(other.decoder):
        kind = "global_blocks" if index % 2 else "frame_blocks"
        for name, value in block.state_dict().items():
            tensors[f"aggregator.{kind}.{index // 2}.{name}"] = torch.randn_like(value)
    save_file(tensors, tmp_path / "model.safetensors")
    return tensors, tmp_path / "model.safetensors"


def test_vggt_fills_encoder_and_alternating_blocks(vggt) -> None:
    tensors, path = vggt
    torch.manual_seed(0)
    ours = initial_network("random", CONFIG, init_from=f"vggt:{path}")
    state = ours.state_dict()
    for ours_block, theirs in enumerate(("frame_blocks.0", "global_blocks.0", "frame_blocks.1", "global_blocks.1")):
        for part in ("attn.qkv.weight", "attn.k_norm.bias", "ls2.gamma", "mlp.fc2.weight"):
            assert torch.equal(state[f"decoder.{ours_block}.{part}"], tensors[f"aggregator.{theirs}.{part}"])
    assert torch.equal(
        state["encoder.blocks.1.attn.qkv.weight"], tensors["aggregator.patch_embed.blocks.1.attn.qkv.weight"]
    )
    torch.manual_seed(0)
    fresh = Reliev3R(CONFIG).state_dict()
    others = [name for name in state if not name.startswith(("encoder.", "decoder."))]
    assert all(torch.equal(state[name], fresh[name]) for name in others)


def test_what_vggt_lacks_is_named_as_vggt_names_it(vggt) -> None:
    deeper = dataclasses.replace(CONFIG, decoder_depth=8)
    with pytest.raises(UserError, match=re.escape("aggregator.frame_blocks.3.norm1.weight")):
        initial_network("random", deeper, init_from=f"vggt:{vggt[1]}")


@pytest.mark.parametrize("kind", ["vggt", "dinov2"])
def test_a_part_is_no_checkpoint(kind) -> None:
    with pytest.raises(UserError, match=f"fills a part .* give it as --init-from {kind}:x"):
        load_network(f"{kind}:x")


@pytest.mark.parametrize("init_from", ["pi3:x", "folder", "dinov2:"])
def test_only_parts_fill_a_random_network(init_from) -> None:
    with pytest.raises(UserError, match="a whole network is --model"):
        initial_network("random", CONFIG, init_from=init_from)


def test_parts_and_a_whole_network_are_one_too_many() -> None:
    with pytest.raises(UserError, match="brings all weights; drop one"):
        initial_network("RUN/checkpoint", CONFIG, init_from="dinov2:x")

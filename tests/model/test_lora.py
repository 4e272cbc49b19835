"""Low-rank adapters: how many weights they train, that they start as nothing, merge exactly and come back from disk."""

import copy

import pytest
import torch

from reliev3r.core.errors import UserError
from reliev3r.core.types import Views
from reliev3r.model.lora import Lora, LoraConfig, train_last
from reliev3r.model.network import PRESETS, Reliev3R


def views() -> Views:
    generator = torch.Generator().manual_seed(0)
    K = torch.tensor([[40.0, 0, 24], [0, 40, 18], [0, 0, 1]]).expand(1, 3, 3, 3)
    return Views(image=torch.rand(1, 3, 3, 36, 48, generator=generator), K=K)


def tiny() -> Reliev3R:
    torch.manual_seed(0)
    return Reliev3R(PRESETS["tiny"]).eval()


def trained(network: Reliev3R) -> Lora:
    """Adapters that are no longer at their start."""
    lora = Lora(network, LoraConfig(rank=4))
    generator = torch.Generator().manual_seed(1)
    for name, parameter in network.named_parameters():
        if "lora_B" in name:
            parameter.data = 0.05 * torch.randn(parameter.shape, generator=generator)
    return lora


def gap(a, b) -> float:
    return max(float((x - y).abs().max()) for x, y in ((a.depth, b.depth), (a.world_from_cam, b.world_from_cam)))


def test_rank_8_trains_less_than_one_per_cent_of_large() -> None:
    with torch.device("meta"):
        network = Reliev3R(PRESETS["large"])
        total = sum(parameter.numel() for parameter in network.parameters())
        Lora(network, LoraConfig(rank=8))
    blocks = 24 + 36 + 2 * 5 + 5
    open_weights = sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)
    assert open_weights == blocks * 8 * (1024 + 3 * 1024 + 1024 + 1024)
    assert open_weights < 0.01 * total


def test_every_attention_projection_of_tiny_and_nothing_else() -> None:
    network = tiny()
    Lora(network, LoraConfig(rank=2))
    open_names = {name for name, parameter in network.named_parameters() if parameter.requires_grad}
    assert len(open_names) == 2 * 2 * (2 + 4 + 2)  # A and B of qkv and proj of all blocks
    assert all(".lora_" in name for name in open_names)


def test_adapters_start_as_nothing_and_merge_exactly() -> None:
    network, seen = tiny(), views()
    with torch.no_grad():
        before = network(seen)
        lora = Lora(network, LoraConfig())
        assert gap(network(seen), before) == 0
        lora.merge()
        lora = trained(network)
        unmerged = network(seen)
        assert gap(unmerged, before) > 1e-2
        merged = lora.merge()
    assert merged is network
    assert set(merged.state_dict()) == set(tiny().state_dict())
    with torch.no_grad():
        assert gap(merged(seen), unmerged) < 1e-5


def test_peft_reads_what_was_saved(tmp_path) -> None:
    from peft import PeftModel

    network, seen = tiny(), views()
    base = copy.deepcopy(network)
    trained(network).save(tmp_path / "adapter")
    assert {path.name for path in (tmp_path / "adapter").iterdir()} == {
        "adapter_config.json", "adapter_model.safetensors",
    }  # fmt: skip
    with torch.no_grad():
        again = PeftModel.from_pretrained(base, str(tmp_path / "adapter"))
        assert gap(again(seen), network(seen)) == 0


def test_the_last_blocks() -> None:
    network = tiny()
    train_last(network, network.decoder, 1, {"depth_head.proj.weight"})
    names = {name for name, parameter in network.named_parameters() if parameter.requires_grad}
    assert names == {f"decoder.3.{name}" for name, _ in network.decoder[3].named_parameters()} | {
        "depth_head.proj.weight"
    }
    with pytest.raises(UserError, match="4 blocks"):
        train_last(network, network.decoder, 5, set())

"""What every wrapped network must do, whatever its weights: learn, take any input, carry low-rank adapters."""

import os
from pathlib import Path

import pytest
import torch

from reliev3r.baselines.adapters.shared import repair_torchvision
from reliev3r.core.types import PseudoLabels, Views
from reliev3r.geometry.camera import K_from_fov
from reliev3r.losses.tracks import ReprojectionConfig
from reliev3r.losses.weak import ObjectiveConfig, objective
from reliev3r.model.load import ForeignNetwork
from reliev3r.model.lora import Lora, LoraConfig
from reliev3r.synthetic.experts import DepthNoise, TrackNoise, simulate_depth, simulate_tracks
from reliev3r.synthetic.room_stream import StreamConfig, SyntheticStream


def upstream_at(variable: str, checkout: str, inside: str = "") -> None:
    """Let ``variable`` name a checkout below RELIEV3R_UPSTREAM (or its folder src), unless it is set."""
    root = Path(os.environ.get("RELIEV3R_UPSTREAM", "/nowhere"))
    for folder in (root / checkout / inside, root / "src" / checkout / inside):
        if folder.is_dir():
            os.environ.setdefault(variable, str(folder))


def sample(side: int = 56) -> tuple[Views, PseudoLabels]:
    """Three square views of a rendered room, with simulated labels; one batch dimension."""
    stream = SyntheticStream(StreamConfig(height=side, width=side, supersample=1), supervision="full")
    seen, truth = stream.render(0, views=3)
    labels = PseudoLabels(
        depth=simulate_depth(truth, DepthNoise(), 0), tracks=simulate_tracks(truth, TrackNoise(count=128), 0), K=seen.K
    )
    return Views(image=seen.image[None].cpu()), labels.map(lambda x: x[None].cpu())


def check_learning(network: ForeignNetwork, *parts: str, fov_weight: float = 1.0) -> None:
    """The weak objective falls in five steps, and its gradient reaches each of ``parts``; the network stays changed."""
    views, labels = sample(4 * network.patch_size)
    settings = ObjectiveConfig(reprojection=ReprojectionConfig(form="focal_angle"), fov_weight=fov_weight)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4)
    network.train()
    losses = []
    for step in range(5):
        loss = objective(network(views), labels, settings).total
        optimizer.zero_grad()
        loss.backward()
        for part in parts if step == 0 else ():
            gradients = [
                p.grad for n, p in network.named_parameters() if n.startswith(f"network.{part}") and p.grad is not None
            ]
            assert gradients, part
            assert all(g.isfinite().all() for g in gradients), part
            assert max(float(g.abs().max()) for g in gradients) > 0, part
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.98 * losses[0], losses


def check_inputs(network: ForeignNetwork) -> None:
    """Known intrinsics are used, batches are free, poses are rotations, sizes that do not fit are refused."""
    side = 4 * network.patch_size
    views, _ = sample(side)
    network.eval()
    state = network.state_dict()
    assert len({value.data_ptr() for value in state.values()}) == len(state)  # safetensors holds each once
    assert {name for name, _ in network.named_parameters()} <= set(state)
    network.load_state_dict(state)
    K = K_from_fov(1.0, side, side).expand(1, 3, 3, 3)
    with torch.no_grad():
        known = network(Views(image=views.image, K=K))
        single = network(Views(image=views.image[0], K=K[0]))
    torch.testing.assert_close(known.K, K, rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(single.depth, known.depth[0], rtol=1e-4, atol=1e-5)
    assert (known.depth > 0).all()
    rotation = known.world_from_cam[..., :3, :3]
    torch.testing.assert_close(rotation @ rotation.mT, torch.eye(3).expand_as(rotation), atol=1e-5, rtol=0)
    with pytest.raises(ValueError, match="multiple"):
        network(Views(image=torch.rand(2, 3, side - 6, side)))


def check_lora(network: ForeignNetwork, *, share: float) -> ForeignNetwork:
    """Rank 2 trains less than ``share`` of the weights, the last blocks among them; the network, merged."""
    views, labels = sample(4 * network.patch_size)
    repair_torchvision()  # peft asks transformers, which imports any that is found
    lora = Lora(network, LoraConfig(rank=2))
    trained = sum(p.numel() for p in network.parameters() if p.requires_grad)
    assert 0 < trained < share * sum(p.numel() for p in network.parameters())
    last = network.trunk()[-1]
    assert any(p.requires_grad for p in last.parameters())
    optimizer = torch.optim.AdamW([p for p in network.parameters() if p.requires_grad], lr=0.1)
    before = network(views).detach()
    objective(network(views), labels, ObjectiveConfig()).total.backward()
    optimizer.step()
    with torch.no_grad():
        adapted = network(views)
        merged = lora.merge()
        after = merged(views)
    moved, error = ((other.depth - adapted.depth).abs().max() for other in (before, after))
    assert 0 < error < 0.01 * moved
    return merged

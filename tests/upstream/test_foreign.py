"""Other systems' networks as trainable modules, through their own code with small random weights."""

import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from conftest import needs
from reliev3r.geometry.camera import K_from_fov
from reliev3r.losses.objective import ObjectiveConfig, objective
from reliev3r.losses.reprojection import ReprojectionConfig
from reliev3r.model.lora import Lora, LoraConfig, trained_count
from reliev3r.synthetic.experts import DepthNoise, TrackNoise, simulate_depth, simulate_tracks
from reliev3r.synthetic.stream import StreamConfig, SyntheticStream
from reliev3r.types import PseudoLabels, Views


@pytest.fixture(scope="module")
def vggt():
    """VGGT's own parts, assembled smaller than its constructor can."""
    root = Path(os.environ.get("RELIEV3R_UPSTREAM", "/nowhere"))
    for folder in (root / "vggt", root / "src" / "vggt"):
        if folder.is_dir():
            os.environ.setdefault("RELIEV3R_VGGT", str(folder))
    needs("einops", "RELIEV3R_PACKAGES")
    needs("vggt", "RELIEV3R_VGGT")
    from vggt.heads.camera_head import CameraHead
    from vggt.heads.dpt_head import DPTHead
    from vggt.models.aggregator import Aggregator

    from reliev3r.model.foreign.vggt import VggtNetwork

    class Small(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.aggregator = Aggregator(embed_dim=64, depth=4, num_heads=4, patch_embed="conv",
                                         retained_layer_idx=[0, 1, 2, 3])  # fmt: skip
            self.camera_head = CameraHead(dim_in=128, num_heads=4, trunk_depth=1)
            self.depth_head = DPTHead(dim_in=128, output_dim=2, activation="exp", conf_activation="expp1",
                                      features=32, out_channels=[16, 32, 32, 32],
                                      intermediate_layer_idx=[0, 1, 2, 3])  # fmt: skip

        def forward(self, images):
            tokens, start = self.aggregator(images)
            depth, conf = self.depth_head(tokens, images=images, patch_start_idx=start)
            return {"pose_enc": self.camera_head(tokens)[-1], "depth": depth, "depth_conf": conf}

    torch.manual_seed(0)
    network = VggtNetwork(Small(), rest={"track_head.unused": torch.ones(2)})
    head = network.network.camera_head.pose_branch.fc2
    head.bias.data = torch.tensor([0, 0, 0, 0, 0, 0, 1.0, 0.25, 0.3])  # four refinements add up to about a radian
    return network


def sample() -> tuple[Views, PseudoLabels]:
    stream = SyntheticStream(StreamConfig(height=56, width=56, supersample=1), supervision="full")
    seen, truth = stream.render(0, views=3)
    labels = PseudoLabels(
        depth=simulate_depth(truth, DepthNoise(), 0), tracks=simulate_tracks(truth, TrackNoise(count=128), 0), K=seen.K
    )
    batched = labels.map(lambda x: x[None].cpu())
    return Views(image=seen.image[None].cpu()), batched


def test_vggt_learns_by_the_weak_objective_with_gradients_everywhere(vggt) -> None:
    views, labels = sample()
    settings = ObjectiveConfig(reprojection=ReprojectionConfig(form="focal_angle"), fov_weight=1.0)
    optimizer = torch.optim.AdamW(vggt.parameters(), lr=1e-4)
    vggt.train()
    losses = []
    for step in range(5):
        loss = objective(vggt(views), labels, settings).total
        optimizer.zero_grad()
        loss.backward()
        if step == 0:
            for part in ("aggregator.patch_embed", "aggregator.frame_blocks.0.attn.qkv", "camera_head.trunk",
                         "depth_head"):  # fmt: skip
                gradients = [
                    p.grad for n, p in vggt.named_parameters() if n.startswith(f"network.{part}") and p.grad is not None
                ]
                assert gradients, part
                assert max(float(g.abs().max()) for g in gradients) > 0, part
        optimizer.step()
        losses.append(float(loss))
    assert losses[-1] < losses[0]
    assert losses[-1] < 0.98 * losses[0], losses


def test_vggt_takes_known_intrinsics_and_any_batch(vggt) -> None:
    views, _ = sample()
    vggt.eval()
    K = K_from_fov(1.0, 56, 56).expand(1, 3, 3, 3)
    with torch.no_grad():
        known = vggt(Views(image=views.image, K=K))
        single = vggt(Views(image=views.image[0], K=K[0]))
    torch.testing.assert_close(known.K, K, rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(single.depth, known.depth[0])
    assert (known.depth > 0).all()
    rotation = known.world_from_cam[..., :3, :3]
    torch.testing.assert_close(rotation @ rotation.mT, torch.eye(3).expand_as(rotation), atol=1e-5, rtol=0)
    with pytest.raises(ValueError, match="multiple"):
        vggt(Views(image=torch.rand(2, 3, 50, 56)))


def test_vggt_cameras_are_upstreams(vggt) -> None:
    from vggt.utils.pose_enc import pose_encoding_to_extri_intri

    from reliev3r.geometry.rigid import invert
    from reliev3r.model.foreign.vggt import cameras

    encoding = torch.randn(1, 5, 9, generator=torch.Generator().manual_seed(0))
    encoding[..., 7:] = 0.5 + encoding[..., 7:].abs().clamp_max(1.5)
    extrinsics, K = pose_encoding_to_extri_intri(encoding, (28, 42))
    ours_K, world_from_cam = cameras(encoding, 28, 42)
    torch.testing.assert_close(ours_K, K)
    torch.testing.assert_close(invert(world_from_cam)[..., :3, :], extrinsics, atol=1e-5, rtol=1e-5)


def test_vggt_is_written_back_as_upstreams_file_after_lora(vggt, tmp_path) -> None:
    views, _ = sample()
    lora = Lora(vggt, LoraConfig(rank=2))
    assert 0 < trained_count(vggt) < 0.2 * sum(p.numel() for p in vggt.parameters())
    merged = lora.merge()
    merged.save_pretrained(tmp_path)
    saved = load_file(tmp_path / "model.safetensors")
    assert set(saved) == {*merged.network.state_dict(), "track_head.unused"}
    with torch.no_grad():
        assert merged(views).depth.isfinite().all()

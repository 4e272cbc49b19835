"""Other systems' networks as trainable modules, through their own code with small random weights."""

import pytest
import torch
from foreign_checks import check_inputs, check_learning, check_lora, upstream_at
from safetensors.torch import load_file

from conftest import needs


@pytest.fixture(scope="module")
def vggt():
    """VGGT's own parts, assembled smaller than its constructor can."""
    upstream_at("RELIEV3R_VGGT", "vggt")
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


def test_vggt_learns_by_the_weak_objective_with_gradients_everywhere(vggt) -> None:
    check_learning(
        vggt, "aggregator.patch_embed", "aggregator.frame_blocks.0.attn.qkv", "camera_head.trunk", "depth_head"
    )


def test_vggt_takes_known_intrinsics_and_any_batch(vggt) -> None:
    check_inputs(vggt)


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
    merged = check_lora(vggt, share=0.2)
    merged.save_pretrained(tmp_path)
    assert set(load_file(tmp_path / "model.safetensors")) == {*merged.network.state_dict(), "track_head.unused"}

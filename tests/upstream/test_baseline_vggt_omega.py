"""VGGT-Omega from its own code, with random weights; a checkout named vggt-omega (39a0cb8)."""

import pytest
import torch
from upstream_systems import TRANSFORMS, System, assert_same_pixels, check, differ

from reliev3r.core.errors import UserError

SMALL = {"embed_dim": 64}
LOAD = (
    TRANSFORMS
    + """
shared.add_repo(repo)
from vggt_omega.utils.load_fn import load_and_preprocess_images
def load(folder, paths):
    return load_and_preprocess_images(paths)
"""
)
SAVE = """
from reliev3r_adapters import vggt_omega
state = vggt_omega.build(repo, None, "cpu", {"embed_dim": 64, "enable_alignment": True}).state_dict()
torch.save({name: 1.5 * value if value.ndim > 1 else value for name, value in state.items()}, out)
"""
ENCODING = """
from reliev3r_adapters import shared, vggt_omega
shared.add_repo(repo)
from vggt_omega.utils.pose_enc import extri_intri_to_pose_encoding
generator = torch.Generator().manual_seed(0)
turn = torch.linalg.qr(torch.randn(5, 3, 3, generator=generator)).Q
turn = turn * torch.linalg.det(turn).sign()[:, None, None]
w2c = torch.cat([turn, torch.randn(5, 3, 1, generator=generator)], -1)
K = torch.tensor([[50.0, 0, 21], [0, 40, 14], [0, 0, 1]]).repeat(5, 1, 1)
encoding = extri_intri_to_pose_encoding(w2c[None], K[None], (28, 42))[0]
c2w = torch.linalg.inv(torch.cat([w2c, torch.tensor([[[0, 0, 0, 1.0]]]).expand(5, 1, 4)], 1).double())
c2w = torch.linalg.inv(c2w[0]) @ c2w
ones = np.ones((5, 28, 42))
ours = vggt_omega.decode({"pose_enc": encoding.numpy(), "depth": ones[..., None], "depth_conf": ones}, {})
focal = np.abs(ours["K"] / K.numpy() - 1)[:, [0, 1], [0, 1]].max()
print(max(np.abs(ours["world_from_cam"] - c2w.numpy()).max(), focal))
"""


@pytest.fixture(scope="module")
def system():
    return System("vggt_omega", "vggt-omega")


def test_small(system, tmp_path):
    random = system.run(tmp_path, sizes=SMALL, prepare={"side": 64})
    check(random, (48, 80))
    system.script(SAVE, tmp_path / "model.pt")  # of the checkpoint with a head for text
    loaded = system.run(tmp_path, sizes=SMALL, prepare={"side": 64}, weights=tmp_path / "model.pt")
    check(loaded, (48, 80))
    assert differ(random, loaded)
    state = torch.load(tmp_path / "model.pt", weights_only=True)
    del state["camera_head.trunk_norm.bias"]
    torch.save(state, tmp_path / "less.pt")
    with pytest.raises(UserError, match=r"the checkpoint lacks 1 weights, the first is camera_head.trunk_norm.bias"):
        system.run(tmp_path, sizes=SMALL, prepare={"side": 64}, weights=tmp_path / "less.pt")


def test_known_cameras_come_back_from_upstreams_encoding(system):
    assert float(system.script(ENCODING).splitlines()[-1]) < 1e-5


def test_pixels_are_upstreams(system):
    assert_same_pixels(system, LOAD)


@pytest.mark.slow
def test_released_size(system, tmp_path):
    check(system.run(tmp_path, prepare={"side": 64}), (48, 80))

"""VGGT from its own code (or a fork with the same interface), with random weights."""

import pytest
from upstream_systems import System, assert_same_pixels, check, differ

from reliev3r.core.errors import UserError

SMALL = {
    "aggregator": {"embed_dim": 64, "num_heads": 4, "patch_embed": "conv"},
    "camera_head": {"num_heads": 4, "trunk_depth": 1},
    "depth_head": {"features": 32, "out_channels": [16, 32, 32, 32]},
}
LOAD = """
shared.add_repo(repo)
from vggt.utils.load_fn import load_and_preprocess_images
def load(folder, paths):
    return load_and_preprocess_images(paths)
"""
SAVE = """
from reliev3r_adapters import vggt
state = vggt.build(repo, None, "cpu", {sizes}).state_dict()
state = {{name: 1.5 * value if value.ndim > 1 else value for name, value in state.items()}}
state["track_head.unused"] = torch.zeros(1)
torch.save(state, out)
"""
ENCODING = """
from reliev3r_adapters import shared, vggt
shared.add_repo(repo)
from vggt.utils.pose_enc import pose_encoding_to_extri_intri
encoding = torch.randn(5, 9, generator=torch.Generator().manual_seed(0))
encoding[:, 7:] = 0.5 + 2 * encoding[:, 7:].sigmoid()  # below a half turn
w2c, K = pose_encoding_to_extri_intri(encoding[None], (28, 42))
c2w = torch.linalg.inv(torch.cat([w2c[0], torch.tensor([[[0, 0, 0, 1.0]]]).expand(5, 1, 4)], 1).double())
c2w = torch.linalg.inv(c2w[0]) @ c2w
ones = np.ones((5, 28, 42))
ours = vggt.decode({"pose_enc": encoding.numpy(), "depth": ones[..., None], "depth_conf": ones}, {})
focal = np.abs(ours["K"] / K[0].numpy() - 1)[:, [0, 1], [0, 1]].max()
print(max(np.abs(ours["world_from_cam"] - c2w.numpy()).max(), focal))
"""


@pytest.fixture(scope="module")
def system():
    return System("vggt", "vggt", "einops", "huggingface_hub")


def test_small(system, tmp_path):
    random = system.run(tmp_path, sizes=SMALL, prepare={"side": 70})
    check(random, (56, 70))
    system.script(SAVE.format(sizes=SMALL), tmp_path / "model.pt")
    loaded = system.run(tmp_path, sizes=SMALL, prepare={"side": 70}, weights=tmp_path / "model.pt")
    check(loaded, (56, 70))
    assert differ(random, loaded)


def test_weights_of_another_size_are_refused(system, tmp_path):
    wider = {**SMALL, "camera_head": {"num_heads": 4, "trunk_depth": 2}}
    system.script(SAVE.format(sizes=wider), tmp_path / "model.pt")
    with pytest.raises(UserError, match=r"ValueError: the checkpoint has unknown .* weights, the first is camera_head"):
        system.run(tmp_path, sizes=SMALL, prepare={"side": 70}, weights=tmp_path / "model.pt")


def test_pose_encoding_is_read_as_upstream_reads_it(system):
    assert float(system.script(ENCODING).splitlines()[-1]) < 1e-5


def test_pixels_are_upstreams():
    assert_same_pixels(System("vggt", "vggt", "torchvision"), LOAD)


@pytest.mark.slow
def test_released_size(system, tmp_path):
    check(system.run(tmp_path, prepare={"side": 70}), (56, 70))

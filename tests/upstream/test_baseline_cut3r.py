"""CUT3R from its own code, with random weights."""

import pytest
from upstream_systems import System, assert_same_pixels, check, differ

SMALL = {"enc_embed_dim": 256, "enc_depth": 2, "dec_embed_dim": 192, "dec_depth": 10, "state_size": 16}
LOAD = """
shared.add_repo(repo, "src")
from dust3r.utils.image import load_images
def load(folder, paths):
    return torch.cat([view["img"] for view in load_images(paths, 512, verbose=False)])
"""
SAVE = """
import argparse
from reliev3r_adapters import cut3r
state = cut3r.build(repo, None, "cpu", {sizes}).state_dict()
state = {{"module." + name: 1.1 * value if value.ndim > 1 else value for name, value in state.items()}}
text = "open(" + repr(out + ".evaluated") + ", 'w').close()"  # upstream's loader evaluates this
torch.save({{"model": state, "args": argparse.Namespace(model=text)}}, out)
"""
ROTARY = """
from reliev3r_adapters import cut3r, shared
shared.add_repo(repo, "src")
shared.repair_torchvision()
import dust3r.model
from models.pos_embed import RoPE2D
tokens = torch.randn(2, 3, 5, 16, generator=torch.Generator().manual_seed(0))
positions = torch.tensor([[[0, 0], [1, 4], [7, 2], [3, 3], [30, 9]]]).expand(2, 5, 2)
theirs = RoPE2D(100.0)(tokens, positions)
cut3r._allow_negative_positions()
ours = RoPE2D(100.0)
assert ours(tokens, positions - 31).isfinite().all()
print(float((ours(tokens, positions) - theirs).abs().max()))
"""


@pytest.fixture(scope="module")
def system():
    return System("cut3r", "CUT3R", "torchvision", "einops", "transformers", "accelerate", "scipy")


def test_small(system, tmp_path):
    random = system.run(tmp_path, sizes=SMALL, prepare={"side": 64})
    check(random, (48, 64))
    system.script(SAVE.format(sizes=SMALL), tmp_path / "cut3r.pth")
    loaded = system.run(tmp_path, sizes=SMALL, prepare={"side": 64}, weights=tmp_path / "cut3r.pth")
    check(loaded, (48, 64))
    assert differ(random, loaded)
    assert not (tmp_path / "cut3r.pth.evaluated").exists()


def test_rotary_embedding_is_upstreams_where_that_works(system):
    assert float(system.script(ROTARY).splitlines()[-1]) < 1e-5


def test_pixels_are_upstreams(system):
    assert_same_pixels(system, LOAD, mixed=False)


@pytest.mark.slow
def test_released_size(system, tmp_path):
    check(system.run(tmp_path, prepare={"side": 64}), (48, 64))

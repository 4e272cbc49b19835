"""What is built around MoGe-2 and MoGe-3, with a stand-in of their package whose answers are known."""

import math
import sys

import numpy as np
import pytest
import torch

from reliev3r.cli import main
from reliev3r.core.errors import UserError
from reliev3r.labels.catalogue import all_experts, licence_of
from reliev3r.labels.depth.moge import MoGe
from reliev3r.labels.estimate_intrinsics import resolve_intrinsics
from reliev3r.labels.expert import DepthExpert, NoDepth
from reliev3r.labels.registry import depth_expert

VERSIONS = ("moge-2", "moge-3")
NETWORK = """
import torch

class MoGeModel(torch.nn.Module):
    def __init__(self, masked, refiner=None):
        super().__init__()
        self.masked = masked
        self.metres = torch.nn.Parameter(torch.zeros(()))

    def infer(self, pixels, **told):
        self.told = told
        assert 0 <= pixels.min() <= pixels.max() <= 1
        height, width = pixels.shape[-2:]
        depth = torch.full((height, width), float(self.metres))
        depth[:, : round(self.masked * width)] = torch.inf
        return {"depth": depth, "intrinsics": torch.tensor([[0.5, 0, 0.5], [0, 0.7, 0.5], [0, 0, 1]])}
"""


@pytest.fixture
def package(tmp_path, monkeypatch):
    """The folder of the modules moge.model.v2 and .v3, as installed."""
    for name in [name for name in sys.modules if name.split(".")[0] in ("moge", "flex_gemm")]:
        monkeypatch.delitem(sys.modules, name)
    folder = tmp_path / "site" / "moge" / "model"
    folder.mkdir(parents=True)
    for module in ("../__init__.py", "__init__.py", "v2.py", "v3.py"):
        (folder / module).write_text(NETWORK if module.startswith("v") else "")
    monkeypatch.syspath_prepend(tmp_path / "site")
    yield folder
    for name in [name for name in sys.modules if name.split(".")[0] == "moge"]:
        del sys.modules[name]


@pytest.fixture
def cpu_will_do(monkeypatch):
    monkeypatch.setattr(MoGe, "__post_init__", lambda self: None)


@pytest.fixture
def weights(tmp_path):
    """model.pt of a version."""

    def written(version, masked=0.5, **state):
        config = {"masked": masked} | ({"refiner": {"in_channels": 3}} if version == "moge-3" else {})
        torch.save({"model_config": config, "model": state or {"metres": torch.tensor(4.0)}}, tmp_path / "model.pt")
        return tmp_path / "model.pt"

    return written


@pytest.mark.parametrize("version", VERSIONS)
def test_what_is_masked_is_invalid_and_the_field_of_view_is_in_image_widths(
    version, package, cpu_will_do, weights, photos
):
    expert = depth_expert(f"{version}:{weights(version)}", device="cpu")
    assert isinstance(expert, DepthExpert)
    found = expert.predict(photos.image(1), photos.frames[1], photos)
    np.testing.assert_array_equal(found.valid, np.broadcast_to(np.arange(40) >= 20, (30, 40)))
    np.testing.assert_array_equal(found.depth[found.valid], 4.0)
    assert math.degrees(found.fov) == pytest.approx(90)
    assert expert.ambiguity == "scale"
    settings = {"refine_steps": 3} if version == "moge-3" else {}
    assert expert._model.told == {"resolution_level": 9, "use_fp16": False, **settings}
    printed = expert.fingerprint()
    assert printed.pop("weights_sha256")
    assert printed == {"name": version, "version": 1, "resolution_level": 9, "long_side": 1024, **settings}


@pytest.mark.parametrize("version", VERSIONS)
def test_a_map_that_is_all_masked_is_empty_and_its_field_of_view_is_not_believed(
    version, package, cpu_will_do, weights, photos
):
    expert = depth_expert(f"{version}:{weights(version, masked=1)}", device="cpu")
    found = expert.predict(photos.image(1), photos.frames[1], photos)
    assert not found.valid.any()
    assert found.fov is None


@pytest.mark.parametrize("version", VERSIONS)
def test_its_field_of_view_becomes_the_captures(version, package, cpu_will_do, weights, photos, tmp_path):
    spec = f"expert:{version}:{weights(version)}"
    known = resolve_intrinsics(photos, spec, depth=NoDepth(), out=tmp_path / "labels", device="cpu")
    assert known.K_source == f"expert {version}"
    np.testing.assert_allclose([frame.K[0, 0] for frame in known.frames], 20, rtol=1e-6)


@pytest.mark.parametrize(("version", "other"), [VERSIONS, VERSIONS[::-1]])
def test_the_other_versions_checkpoint_is_refused(version, other, package, cpu_will_do, weights, photos):
    with pytest.raises(UserError, match=rf"model\.pt: no MoGe-{version[-1]} checkpoint: .* {other}:.*model\.pt"):
        depth_expert(f"{version}:{weights(other)}", device="cpu").predict(photos.image(0), photos.frames[0], photos)


@pytest.mark.parametrize("version", VERSIONS)
def test_weights_that_are_missing_are_refused(version, package, cpu_will_do, weights, photos):
    path = weights(version, something=torch.tensor(0.0))
    with pytest.raises(UserError, match=f"lacks 1 weights of a MoGe-{version[-1]} network"):
        depth_expert(f"{version}:{path}", device="cpu").predict(photos.image(0), photos.frames[0], photos)


@pytest.mark.parametrize(
    ("version", "break_it", "missing"),
    [
        ("moge-2", lambda v3: v3.with_name("v2.py").unlink(), "moge.model.v2"),
        ("moge-3", lambda v3: v3.unlink(), "moge.model.v3"),  # the package of before
        ("moge-3", lambda v3: v3.write_text("from flex_gemm.ops import NeighborCache"), "flex_gemm"),
    ],
)
def test_what_is_not_installed_is_named_with_the_command(
    version, break_it, missing, package, cpu_will_do, weights, photos, monkeypatch
):
    break_it(package / "v3.py")
    if missing == "flex_gemm":
        monkeypatch.setitem(sys.modules, "flex_gemm", None)
    said = rf"^{version} needs its package \(.*{missing}.*\): pip install .*MoGe@\w{{40}} "
    with pytest.raises(UserError, match=said):
        depth_expert(f"{version}:{weights(version)}", device="cpu").predict(photos.image(0), photos.frames[0], photos)


def test_moge_3_is_refused_without_a_gpu_before_anything_is_read_or_written(photos, tmp_path, capsys):
    asked = ["label", str(tmp_path), "--out", str(tmp_path / "labels"), "--device", "cpu"]
    for flags in (["--depth", "moge-3"], ["--depth", "none", "--intrinsics", "expert:moge-3"]):
        assert main([*asked, *flags]) == 2
        assert "moge-3 needs a GPU" in capsys.readouterr().err
    assert not (tmp_path / "labels").exists()


def test_both_are_listed_with_a_command_of_their_own():
    both = [info for info in all_experts() if "moge-" in info.name]
    assert [info.kind for info in both] == ["depth", "depth", "fov", "fov"]
    assert len({info.install for info in both}) == 2
    assert {licence_of("depth", version) for version in VERSIONS} == {"MIT"}

"""What is built around AnyCalib, with a stand-in of its class whose answers are known; tests/upstream has its own."""

import math
import sys
from types import ModuleType

import numpy as np
import pytest
import torch
from counting_experts import CountingTracks

from reliev3r.core.errors import UserError
from reliev3r.labels.catalogue import licence_of
from reliev3r.labels.estimate_intrinsics import resolve_intrinsics
from reliev3r.labels.expert import LensExpert, LensGuess, NoDepth
from reliev3r.labels.pipeline import label_capture
from reliev3r.labels.registry import depth_expert, lens_expert
from reliev3r.labels.store import read_manifest


class Network(torch.nn.Module):
    """AnyCalib's interface: the learned number is the focal length as a share of the longer side."""

    def __init__(self, model_id=None, fallback_to_sac=True):
        super().__init__()
        assert model_id is None, "an id would be downloaded"
        assert not fallback_to_sac
        self.share = torch.nn.Parameter(torch.tensor(0.0))

    def predict(self, pixels, cam_id):
        assert pixels.shape[0] == 1
        assert 0 <= pixels.min() <= pixels.max() <= 1
        height, width = pixels.shape[-2:]
        focal = float(self.share) * max(height, width)
        if focal < 0:
            print("WARNING: Linear fit failed")
            return {"intrinsics": [torch.ones(3)], "success": torch.tensor([False])}
        k1 = [-0.1] if cam_id == "simple_radial:1" else []
        return {"intrinsics": [torch.tensor([focal, width / 2 + 7, height / 2, *k1])]}


@pytest.fixture
def weights(monkeypatch, tmp_path):
    module = ModuleType("anycalib")
    module.AnyCalib = Network
    monkeypatch.setitem(sys.modules, "anycalib", module)

    def written(share, name="anycalib_gen.pt"):
        torch.save({"share": torch.tensor(share)}, tmp_path / name)
        return tmp_path / name

    return written


def test_the_focal_length_is_in_pixels_of_the_image_and_its_centre_is_kept(weights, photos, tmp_path):
    spec = f"expert:anycalib:{weights(0.8, 'anycalib_pinhole.pt').parent}"
    assert isinstance(lens_expert(spec.removeprefix("expert:")), LensExpert)
    known = resolve_intrinsics(photos, spec, depth=NoDepth(), out=tmp_path / "labels")
    assert known.K_source == "expert anycalib"
    for frame in known.frames:
        np.testing.assert_allclose(frame.K, [[32, 0, 20], [0, 32, 15], [0, 0, 1]], rtol=1e-6)
        assert frame.rectification is None


def test_radial_distortion_is_taken_out(weights, photos, tmp_path):
    known = resolve_intrinsics(photos, f"expert:anycalib-radial:{weights(0.8)}", depth=NoDepth(), out=tmp_path / "l")
    frame = known.frames[0]
    assert frame.rectification.lens["distortion"] == pytest.approx((-0.1,))
    np.testing.assert_allclose(frame.K, [[32, 0, 20], [0, 32, 15], [0, 0, 1]], rtol=1e-6)
    uv = frame.rectification.stored_uv()[0, 0]  # the first pixel's centre, by hand
    x, y = (0.5 - 20) / 32, (0.5 - 15) / 32
    bent = 1 - 0.1 * (x * x + y * y)
    np.testing.assert_allclose(uv, [32 * x * bent + 20, 32 * y * bent + 15], atol=1e-3)
    with pytest.raises(UserError, match=r"a\.png: its lens is known and taken out already"):
        resolve_intrinsics(known, f"expert:anycalib-radial:{weights(0.8)}", depth=NoDepth(), out=tmp_path / "l")


@pytest.mark.parametrize("share", [-1.0, 0.01, 100.0])
def test_a_fit_that_failed_and_lenses_that_cannot_be_are_none(weights, photos, tmp_path, share, capsys):
    with pytest.raises(UserError, match=r"a\.png: anycalib predicts no field of view"):
        resolve_intrinsics(photos, f"expert:anycalib:{weights(share)}", depth=NoDepth(), out=tmp_path / "labels")
    assert not capsys.readouterr().out


def test_a_distortion_that_folds_the_image_is_none(photos):
    frame = photos.frames[0]  # 40 x 30: the corner is at 25 pixels
    assert LensGuess.of(frame, 25.0, -0.33) == LensGuess(focal=25.0, k1=-0.33)
    assert LensGuess.of(frame, 25.0, -0.34) is None
    assert LensGuess.of(frame, 25.0, math.nan) is None


def test_what_is_missing_is_told_in_one_line(weights, photos, tmp_path, monkeypatch):
    frame, image = photos.frames[0], photos.image(0)
    with pytest.raises(
        UserError, match=r"nowhere\.pt: not found; get it with `hf download javrtg/AnyCalib anycalib_gen"
    ):
        lens_expert(f"anycalib-radial:{tmp_path / 'nowhere.pt'}").lens(image, frame, photos)
    file = weights(0.8)
    torch.save({"other": torch.zeros(1)}, file)
    with pytest.raises(UserError, match="its weights do not fill"):
        lens_expert(f"anycalib:{file}").lens(image, frame, photos)
    file.write_bytes(b"no weights")
    with pytest.raises(UserError, match="not readable as weights"):
        lens_expert(f"anycalib:{file}").lens(image, frame, photos)
    monkeypatch.setitem(sys.modules, "anycalib", None)
    monkeypatch.setattr("reliev3r.labels.lens.anycalib.read_state", lambda path: {})
    with pytest.raises(UserError, match=r"needs its package .* pip install --no-deps .*javrtg/AnyCalib@"):
        lens_expert(f"anycalib:{file}").lens(image, frame, photos)
    with pytest.raises(UserError, match=r"expert:magic: choose one of .*expert:anycalib\[:FILE or DIR\]"):
        lens_expert("magic")


def test_it_is_no_depth_expert_and_its_licence_is_known():
    with pytest.raises(UserError, match="choose one of"):
        depth_expert("anycalib")
    assert licence_of("intrinsics", "anycalib-radial") == "Apache-2.0"
    assert licence_of("intrinsics", "moge-2") == "MIT"


def test_its_lens_reaches_the_labels(weights, photos, tmp_path):
    spec, out = f"expert:anycalib-radial:{weights(0.8)}", tmp_path / "labels"
    known = resolve_intrinsics(photos, spec, depth=NoDepth(), out=out)
    label_capture(known, depth=NoDepth(), tracks=CountingTracks(), out=out)
    manifest = read_manifest(out)
    assert manifest["K_source"] == "expert anycalib-radial"
    assert "SIMPLE_RADIAL" in str(manifest["frames"][0])

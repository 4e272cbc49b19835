"""AnyCalib's own class on a smaller backbone, with random weights, and its own fit of rays that are known."""

import math

import numpy as np
import pytest
import torch
from PIL import Image

from reliev3r.core.errors import UserError
from reliev3r.data.capture import load_capture
from reliev3r.labels.estimate_intrinsics import resolve_intrinsics
from reliev3r.labels.expert import LensExpert, NoDepth
from reliev3r.labels.registry import lens_expert

pytestmark = pytest.mark.usefixtures("anycalib")


@pytest.fixture
def checkpoint(tmp_path, monkeypatch):
    """As upstream publishes it, a plain dictionary of tensors; of ViT-S in place of ViT-L."""
    from anycalib import AnyCalib
    from anycalib.model import dinov2
    from anycalib.model.vision_transformer import vit_small

    small = {"embed_dim": 384, "constructor": vit_small, "out_index": [2, 5, 8, 11]}
    monkeypatch.setitem(dinov2.DINOV2_CFG, "dinov2_vitl14", small)
    monkeypatch.setattr(AnyCalib, "RESOLUTION", 20_000)
    torch.manual_seed(0)
    path = tmp_path / "weights" / "anycalib_pinhole.pt"
    path.parent.mkdir()
    torch.save(AnyCalib().state_dict(), path)
    return path


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for seed, (name, size) in enumerate({"a": (90, 120), "b": (120, 90), "c": (90, 120)}.items()):
        noise = np.random.default_rng(seed).integers(0, 255, (*size, 3), dtype=np.uint8)
        Image.fromarray(noise).save(folder / f"{name}.png")
    return load_capture(folder)


def looking_through(expert, focal_share, k1=0.0):
    """Let the expert's head answer with the rays of a lens whose focal length is a share of the longer side (4:3)."""
    from anycalib.cameras import CameraFactory

    def forward(features):
        height, width = (7 * side for side in features.shape[-2:])  # of the image that the network was given
        camera = CameraFactory.create_from_id("simple_radial:1")
        full = (1024, 768) if width > height else (768, 1024)
        shrunk = max(width / full[0], height / full[1])  # then cropped to multiples of 14
        params = torch.tensor([focal_share * 1024 * shrunk, width / 2, height / 2, k1])
        uv = camera.pixel_grid_coords(height, width, params, 0.5).reshape(-1, 2)
        rays, _ = camera.unproject(params, uv)
        rays = rays.reshape(1, height, width, 3).movedim(-1, 1)
        return {"rays": rays, "tangent_coords": rays[:, :2]}

    expert._model.head.forward = forward
    return expert


def test_random_weights_run_and_give_a_lens_or_none(checkpoint, photos):
    from anycalib import AnyCalib

    expert = lens_expert(f"anycalib:{checkpoint}")
    assert isinstance(expert, LensExpert)
    assert expert.fingerprint()["name"] == "anycalib"
    frame, image = photos.frames[0], photos.image(0)
    found = expert.lens(image, frame, photos)
    assert found == expert.lens(image, frame, photos)
    network = AnyCalib(fallback_to_sac=False).eval()
    network.load_state_dict(torch.load(checkpoint, weights_only=True))
    large = np.array(Image.fromarray(image).resize((1024, 768), Image.Resampling.BICUBIC))
    own = network.predict(torch.from_numpy(large).permute(2, 0, 1)[None] / 255, "simple_pinhole")["intrinsics"][0]
    focal = float(own[0]) * 120 / 1024
    possible = math.isfinite(focal) and focal > 0 and 2 < math.degrees(2 * math.atan(60 / focal)) < 170
    assert found.focal == pytest.approx(focal, rel=1e-4) if possible else found is None


@pytest.mark.parametrize("index", [0, 1])
def test_the_focal_length_of_known_rays_is_found(checkpoint, photos, index):
    expert = looking_through(lens_expert(f"anycalib:{checkpoint.parent}"), 0.9)
    found = expert.lens(photos.image(index), photos.frames[index], photos)
    assert found.focal == pytest.approx(0.9 * 120, rel=3e-3)
    assert found.k1 == 0


@pytest.mark.parametrize("k1", [-0.12, 0.08])
def test_radial_distortion_becomes_the_frames_rectification(checkpoint, photos, tmp_path, monkeypatch, k1):
    expert = looking_through(lens_expert(f"anycalib-radial:{checkpoint}"), 0.9, k1)
    monkeypatch.setattr("reliev3r.labels.estimate_intrinsics.lens_expert", lambda spec, device: expert)
    known = resolve_intrinsics(photos, "expert:anycalib-radial", depth=NoDepth(), out=tmp_path)
    assert known.K_source == "expert anycalib-radial"
    for frame in known.frames:
        assert frame.K[0, 0] == pytest.approx(108, rel=3e-3)
        assert frame.rectification.lens["model"] == "SIMPLE_RADIAL"
        assert frame.rectification.lens["distortion"][0] == pytest.approx(k1, abs=2e-3)


def test_missing_and_foreign_weights_are_refused(checkpoint, photos):
    state = torch.load(checkpoint, weights_only=True)
    del state[next(name for name in state if name.startswith("decoder"))]
    torch.save(state, checkpoint)
    with pytest.raises(UserError, match="its weights do not fill a AnyCalib"):
        lens_expert(f"anycalib:{checkpoint}").lens(photos.image(0), photos.frames[0], photos)

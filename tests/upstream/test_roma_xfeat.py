"""RoMa and XFeat through their authors' own code, beside ours.

RELIEV3R_ROMA: a folder with romatch and what it imports (einops, loguru) where it is not installed; needs torchvision.
torchvision: where that does not fit the installed torch, a stand-in with vgg19_bn and three transforms is enough.
RELIEV3R_XFEAT: a checkout of github.com/verlab/accelerated_features.
"""

import dataclasses
import importlib.util
import os
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from reliev3r.labels.registry import track_expert
from reliev3r.labels.tracks.matcher import ImageMatcher


def picture(height, width, seed=0):
    noise = np.random.default_rng(seed).integers(0, 255, (height // 4, width // 4, 3), dtype=np.uint8)
    return cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)


def needs(package, variable):
    folder = os.environ.get(variable)
    if folder and Path(folder).is_dir() and folder not in sys.path:
        sys.path.append(folder)
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not there; name its folder in {variable}")


@pytest.fixture
def roma(tmp_path):
    """A folder of random weights of the full size, there being no other: 2 GB and half a minute."""
    needs("romatch", "RELIEV3R_ROMA")
    needs("torchvision", "RELIEV3R_ROMA")
    import romatch
    from romatch.models.transformer import vit_large

    torch.manual_seed(0)
    dino = vit_large(img_size=518, patch_size=14, init_values=1.0, ffn_layer="mlp", block_chunks=0).state_dict()
    torch.save(dino, tmp_path / "dinov2_vitl14_pretrain.pth")
    original = torch.nn.Module.load_state_dict
    loaded = {}

    def keep(self, state, *args, **kwargs):  # roma_outdoor loads its weights last: take its own random ones instead
        if not state:
            loaded.update(self.state_dict())
            return None
        return original(self, state, *args, **kwargs)

    torch.nn.Module.load_state_dict = keep
    try:
        romatch.roma_outdoor(
            torch.device("cpu"),
            weights={},
            dinov2_weights=dino,
            coarse_res=112,
            upsample_res=112,
            use_custom_corr=False,
        )
    finally:
        torch.nn.Module.load_state_dict = original
    torch.save(loaded, tmp_path / "roma_outdoor.pth")
    return tmp_path


@pytest.mark.slow
def test_roma_matches_on_a_grid_in_pixels_of_either_image(roma):
    expert = track_expert(f"roma:{roma}")
    assert isinstance(expert.matcher, ImageMatcher)
    assert len(expert.fingerprint()["weights_sha256"]) == 64
    matcher = dataclasses.replace(expert.matcher, coarse=112, fine=112, certainty=-1.0, matches=400)
    first, second = picture(96, 128), picture(120, 90, seed=1)
    found = matcher.match_images(first, second)
    again = matcher.match_images(first, second)
    np.testing.assert_array_equal(found.second, again.second)  # no random sampling
    assert 300 < len(found.first) <= 400
    assert 0 <= found.confidence.min() <= found.confidence.max() <= 1
    for uv, size in ((found.first, [128, 96]), (found.second, [90, 120])):
        assert (uv >= 0).all()
        assert (uv <= size).all()
    # romatch's own conversion of its own warp gives the same points
    from PIL import Image

    with torch.inference_mode():
        warp, _certainty = matcher._model.match(Image.fromarray(first), Image.fromarray(second))
    theirs = matcher._model.to_pixel_coordinates(warp[0].reshape(-1, 4), 96, 128, 120, 90)
    rows = {tuple(np.round([*a, *b], 2)) for a, b in zip(theirs[0].tolist(), theirs[1].tolist())}
    assert all(tuple(np.round([*a, *b], 2)) in rows for a, b in zip(found.first, found.second))


def test_xfeat_of_kornia_finds_what_the_authors_find(tmp_path):
    needs("modules", "RELIEV3R_XFEAT")
    from modules.xfeat import XFeat

    torch.manual_seed(0)
    authors = XFeat(weights=None, top_k=500, detection_threshold=0.0)
    authors.dev = torch.device("cpu")
    torch.save(authors.net.state_dict(), tmp_path / "xfeat.pt")
    matcher = dataclasses.replace(track_expert(f"xfeat:{tmp_path}").matcher, features=500, detection=0.0)
    image = picture(96, 128)
    ours = matcher.detect(image)
    theirs = authors.detectAndCompute(torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255)[0]
    found = {tuple(row) for row in (ours.uv - 0.5).round(3).tolist()}
    expected = {tuple(row) for row in theirs["keypoints"].numpy().astype(float).round(3).tolist()}
    inside = {(x, y) for x, y in expected if 2 <= x < 126 and 2 <= y < 94}  # kornia leaves out the border
    assert len(found) > 50
    assert len(found & inside) > 0.95 * len(found)

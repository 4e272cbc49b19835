"""LoMa's own class with random weights, beside upstream's own way from two files to pixels."""

import dataclasses
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from reliev3r.core.errors import UserError
from reliev3r.data.capture import load_capture
from reliev3r.labels.expert import TrackExpert
from reliev3r.labels.expert_weights import without_download
from reliev3r.labels.registry import track_expert
from reliev3r.labels.tracks.matcher import FeatureMatcher

pytestmark = pytest.mark.usefixtures("loma")
FIRST, SECOND = (190, 250), (240, 170)
"""Height and width of the two images."""
SMALL = {"detector_side": 128, "descriptor_side": 112, "features": 300, "confidence": 0.0}


def random_state(kind):
    """Of the network that upstream builds, with random weights in place of all that it would download."""
    import loma
    from loma.descriptor.transformer import vit_large

    def answer(url, **_):
        if url.endswith("dad.pth"):
            return None
        return vit_large(img_size=518, patch_size=14, init_values=1.0, ffn_layer="mlp", block_chunks=0).state_dict()

    with without_download("it", Path(), "cpu", load_state_dict_from_url=answer):
        torch.manual_seed(0)
        network = loma.LoMa(dataclasses.replace(getattr(loma, kind)(), weights_url=None))
    with torch.no_grad():
        network.log_assignment[-1].final_proj.weight.mul_(20)  # random ones tell no keypoints apart
    return network.state_dict()


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory, loma):
    """The small model, under upstream's name."""
    path = tmp_path_factory.mktemp("loma") / "loma_B128.pth"
    torch.save(random_state("LoMaB128"), path)
    return path


@pytest.fixture(scope="module")
def matcher(checkpoint):
    expert = track_expert(f"loma:{checkpoint}")
    assert isinstance(expert, TrackExpert)
    assert isinstance(expert.matcher, FeatureMatcher)
    assert expert.fingerprint()["model"] == "loma_B128"
    return dataclasses.replace(expert.matcher, **SMALL)


def picture(height, width, seed=0):
    noise = np.random.default_rng(seed).integers(0, 255, (height // 4, width // 4, 3), dtype=np.uint8)
    return cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    for seed, size in enumerate((FIRST, SECOND)):
        Image.fromarray(picture(*size, seed)).save(folder / f"{seed}.png")
    return load_capture(folder)


def test_features_and_matches_are_upstreams(matcher, photos):
    from loma.loma import filter_matches, to_pixel_coords

    paths = [str(frame.path) for frame in photos.frames]
    state = torch.random.get_rng_state()
    a, b = (matcher.detect(photos.image(index)) for index in range(2))
    found = matcher.match(a, b)
    assert torch.equal(state, torch.random.get_rng_state())
    model = matcher._model
    theirs = []
    with torch.inference_mode():
        model._detector.resize = 128
        for path in paths:
            keypoints = model._detector.detect_from_path(path, num_keypoints=300)["keypoints"]
            described = model._descriptor.describe_keypoints_from_path(path, keypoints, H=112, W=112)["descriptions"]
            theirs.append((keypoints, described))
        scores = model(theirs[0][0], theirs[1][0], theirs[0][1], theirs[1][1])["scores"]
    second, _, score, _ = filter_matches(scores, 0.0)
    for features, (keypoints, described), (height, width) in zip((a, b), theirs, (FIRST, SECOND)):
        inside = (keypoints[0].abs() <= 1).all(-1)
        assert inside.sum() > 280
        pixels = to_pixel_coords(keypoints[0, inside], height, width)
        np.testing.assert_allclose(features.uv, pixels.numpy(), atol=1e-3)
        np.testing.assert_allclose(features.descriptor * features.length, described[0, inside].numpy(), rtol=1e-3)
        np.testing.assert_allclose(np.linalg.norm(features.descriptor, axis=1), 1, atol=1e-5)
        assert features.size == (width, height)
    if all((keypoints.abs() <= 1).all() for keypoints, _ in theirs):  # else the indices are others
        first = np.nonzero(second[0].numpy() >= 0)[0]
        np.testing.assert_array_equal(found.first, first)
        np.testing.assert_array_equal(found.second, second[0].numpy()[first])
        np.testing.assert_allclose(1 - found.doubt, score[0].float().numpy()[first], atol=1e-6)
    assert len(found.first) > 5
    assert found.sure.all()


def test_a_score_at_a_pixel_is_a_keypoint_at_its_centre(matcher, monkeypatch):
    """At 256 x 192 the detector sees every other pixel."""
    peaks = np.array([[0, 0], [127, 95], [40, 17]])  # x, y

    def scores(images):
        assert images.shape == (1, 3, 96, 128)
        found = torch.full((1, 1, 96, 128), -50.0)
        for x, y in peaks:
            found[0, 0, y, x] = 50.0
        return found

    monkeypatch.setattr(matcher._model._detector, "forward_impl", scores)
    uv = dataclasses.replace(matcher, features=3)
    uv.__dict__.update(_model=matcher._model)
    found = uv.detect(picture(192, 256)).uv
    expected = 2 * (peaks + 0.5)
    np.testing.assert_allclose(found[np.lexsort(found.T)], expected[np.lexsort(expected.T)], atol=1e-3)


def test_images_of_any_size_and_from_images_to_tracks(checkpoint, matcher, photos):
    for size in ((33, 257), (8, 9)):
        features = matcher.detect(picture(*size))
        assert ((features.uv >= 0) & (features.uv <= features.size)).all()
    expert = dataclasses.replace(track_expert(f"loma:{checkpoint}"), matcher=matcher)
    tracks = expert.track(photos)
    assert tracks.uv.shape[0] == 2
    assert bool(tracks.uv.isfinite().all())


@pytest.fixture
def telling(checkpoint):
    """Its matcher compares the descriptors as they come, by what they differ in: random layers see all alike."""
    matcher = dataclasses.replace(track_expert(f"loma:{checkpoint}").matcher, **SMALL)
    model, known = matcher._model, matcher.detect(picture(*FIRST, 7))
    with torch.no_grad():
        for block in (block for layer in model.transformers for block in layer.children()):
            block.ffn[-1].weight.zero_()
            block.ffn[-1].bias.zero_()
        entered = model.input_proj(torch.from_numpy(known.descriptor * known.length))
        _, spread, axes = torch.linalg.svd(entered - entered.mean(0), full_matrices=False)
        whitened = axes[:100] * (len(entered) ** 0.5 / spread[:100, None])
        final = model.log_assignment[-1].final_proj
        final.weight.zero_()
        final.weight[:100] = 2 * whitened
        final.bias.copy_(-final.weight @ entered.mean(0))
    return dataclasses.replace(matcher, confidence=0.1), model


def test_keypoints_of_a_pair_are_matched_as_they_belong_together(telling):
    matcher, model = telling
    matcher.__dict__.update(_model=model)
    wide = picture(192, 256 + 64)
    left, right = (np.ascontiguousarray(wide[:, shift : shift + 256]) for shift in (0, 64))
    a, b = matcher.detect(left), matcher.detect(right)
    itself = matcher.match(a, a)
    assert len(itself.first) > 250
    assert (itself.first == itself.second).mean() > 0.99
    found = matcher.match(a, b)
    assert 0 <= found.doubt.min() <= found.doubt.max() <= 0.9
    apart = b.uv[found.second] - a.uv[found.first]
    true = np.abs(apart - [-64, 0]).max(1) < 1
    assert true.sum() > 40
    assert true.mean() > 0.6
    backwards = matcher.match(b, a)
    assert {*zip(found.first, found.second)} == {*zip(backwards.second, backwards.first)}


def test_loading_fills_everything_and_leaves_the_rest(checkpoint, tmp_path):
    kept, state = torch.hub.load_state_dict_from_url, torch.random.get_rng_state()
    model = track_expert(f"loma:{checkpoint.parent}").matcher._model
    assert torch.hub.load_state_dict_from_url is kept
    assert torch.equal(state, torch.random.get_rng_state())
    weights = torch.load(checkpoint, weights_only=True)
    for name, value in model.state_dict().items():
        assert torch.equal(value, weights[name]), name
    # further layers are not this model's, as upstream has it; anything else is foreign
    deeper = {**weights, "transformers.9.self_attn.Wqkv.bias": torch.zeros(1)}
    torch.save(deeper, tmp_path / "loma_B128.pth")
    assert track_expert(f"loma:{tmp_path}").matcher._model is not model
    for name in ("posenc.Wr.weight", "_detector.encoder.layers.0.bias"):
        torch.save({key: value for key, value in weights.items() if key != name}, tmp_path / "loma_B128.pth")
        with pytest.raises(UserError, match=r"loma_B128\.pth: its weights do not fill a LoMa"):
            track_expert(f"loma:{tmp_path}").matcher.detect(picture(*FIRST))
    torch.save(weights, tmp_path / "loma_L.pth")  # of another model's name
    with pytest.raises(UserError, match=r"loma_L\.pth: its weights do not fill a LoMa"):
        track_expert(f"loma:{tmp_path / 'loma_L.pth'}").matcher.detect(picture(*FIRST))


@pytest.mark.slow
def test_the_default_model_sees_what_upstream_sees_at_its_published_size(tmp_path, photos):
    """LoMa-B with DINOv2, at 1024 and 784 pixels."""
    torch.save(random_state("LoMaB"), tmp_path / "loma_B.pt")
    matcher = track_expert(f"loma:{tmp_path}").matcher
    found = matcher.detect(photos.image(0))
    (tmp_path / "loma_B.pt").unlink()
    keypoints, described, height, width = matcher._model.detect_and_describe(str(photos.frames[0].path))
    inside = (keypoints[0].abs() <= 1).all(-1)
    pixels = (keypoints[0, inside] + 1) / 2 * torch.tensor([width, height])
    assert len(pixels) > 2000
    np.testing.assert_allclose(found.uv, pixels.numpy(), atol=1e-3)
    np.testing.assert_allclose(found.descriptor * found.length, described[0, inside].numpy(), rtol=1e-3, atol=1e-4)

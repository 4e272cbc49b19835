"""RoMa v2's own class at its published size, with random weights, and its own conversions of a warp that is known."""

import dataclasses
import logging
from pathlib import Path

import numpy as np
import pytest
import torch

from reliev3r.core.errors import UserError
from reliev3r.labels.expert import TrackExpert
from reliev3r.labels.expert_weights import without_download
from reliev3r.labels.registry import track_expert
from reliev3r.labels.tracks import romav2 as ours
from reliev3r.labels.tracks.matcher import ImageMatcher

pytestmark = [pytest.mark.usefixtures("romav2"), pytest.mark.slow]
FIRST, SECOND = (96, 128), (120, 90)
"""Height and width of the two images; neither side of the second is a multiple of the network's patches."""
FINE = 160


def random_network():
    """As upstream builds it, but for the weights: they stay random."""
    RoMaV2, vit_large = ours.RomaV2Matcher(weights="")._import()

    def dinov3(*args, **kwargs):
        network = vit_large(**ours._VITL16)
        network.init_weights()
        return ours._of_its_own_class(network)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RoMaV2, "load_state_dict", lambda self, state: None)
        with without_download("it", Path(), "cpu", load=dinov3, load_state_dict_from_url=lambda *_, **__: {}):
            torch.manual_seed(0)
            return RoMaV2()


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory, romav2):
    """1.1 GB under upstream's name."""
    path = tmp_path_factory.mktemp("romav2") / "romav2.0.1.pt"
    torch.save(random_network().state_dict(), path)
    yield path
    path.unlink()


@pytest.fixture(scope="module")
def matcher(checkpoint):
    expert = track_expert(f"romav2:{checkpoint.parent}")
    assert isinstance(expert, TrackExpert)
    assert isinstance(expert.matcher, ImageMatcher)
    assert len(expert.fingerprint()["weights_sha256"]) == 64
    return dataclasses.replace(expert.matcher, coarse=64, fine=FINE, overlap=0.0, matches=400)


def pictures():
    rng = np.random.default_rng(0)
    return [rng.integers(0, 255, (*size, 3), dtype=np.uint8) for size in (FIRST, SECOND)]


def upstreams_rows(matcher, first, second):
    """All of upstream's own matches, by its own conversion: x and y in the first image, then in the second."""
    model = matcher._model
    found = model.match(first, second)
    from romav2.geometry import get_normalized_grid

    grid = get_normalized_grid(1, FINE, FINE)
    there, back = (torch.cat(pair, -1) for pair in ((grid, found["warp_AB"]), (found["warp_BA"], grid)))
    rows = torch.cat([there.reshape(-1, 4), back.reshape(-1, 4)])
    pixels = model.to_pixel_coordinates(rows, *first.shape[:2], *second.shape[:2])
    overlap = torch.cat([found["overlap_AB"].ravel(), found["overlap_BA"].ravel()])
    return torch.cat([*pixels, overlap[:, None]], -1).double().numpy()


def test_matches_are_upstreams_in_pixels_of_either_image(matcher, recwarn):
    first, second = pictures()
    torch.set_float32_matmul_precision("high")
    try:
        state = torch.random.get_rng_state()
        found = matcher.match_images(first, second)
        assert torch.get_float32_matmul_precision() == "high"
        assert torch.equal(state, torch.random.get_rng_state())
    finally:
        torch.set_float32_matmul_precision("highest")
    assert not recwarn
    again = matcher.match_images(first, second)
    np.testing.assert_array_equal(found.second, again.second)  # nothing is sampled at random
    assert 100 < len(found.first) <= 400
    for uv, (height, width) in ((found.first, FIRST), (found.second, SECOND)):
        assert (uv > 0).all()
        assert (uv < [width, height]).all()
    rows = upstreams_rows(matcher, first, second)
    mine = np.concatenate([found.first, found.second, found.confidence[:, None]], 1)
    nearest = np.array([np.abs(rows - row).max(1).min() for row in mine])
    assert nearest.max() < 1e-4


HOMOGRAPHY = np.array([[0.8, 0.1, 4.0], [-0.05, 1.1, 3.0], [4e-4, -3e-4, 1.0]])
"""Pixels of the second image from those of the first, corner convention."""


def mapped(H, uv):
    moved = np.concatenate([uv, np.ones((*uv.shape[:-1], 1))], -1) @ H.T
    return moved[..., :2] / moved[..., 2:]


def knowing(matcher, H, shapes=(FIRST, SECOND)):
    """The same expert, whose network answers with a homography that holds in the images' own pixels."""
    found = dataclasses.replace(matcher, overlap=0.5)
    found.__dict__.update(_file=matcher._file, _model=matcher._model)
    warps = []
    for turn, (source, target) in ((H, shapes), (np.linalg.inv(H), shapes[::-1])):
        at = (np.stack(np.meshgrid(np.arange(FINE), np.arange(FINE)), -1) + 0.5) / FINE * source[::-1]
        warps.append(torch.from_numpy(mapped(turn, at) / target[::-1] * 2 - 1).float()[None])
    sure = torch.tensor([9.0, 1.0, 0.0, 1.0]).expand(1, FINE, FINE, 4)
    answer = {"warp_AB": warps[0], "warp_BA": warps[1], "confidence_AB": sure, "confidence_BA": sure}
    return found, lambda *_, **__: answer


@pytest.mark.parametrize("same", [True, False])
def test_a_known_warp_comes_out_in_our_pixels_and_in_upstreams(matcher, monkeypatch, same):
    H = np.eye(3) if same else HOMOGRAPHY
    first, second = pictures()
    second = first if same else second
    expert, answer = knowing(matcher, H, (first.shape[:2], second.shape[:2]))
    monkeypatch.setattr(expert._model, "forward", answer)
    found = expert.match_images(first, second)
    assert len(found.first) > 200
    assert np.abs(found.second - mapped(H, found.first)).max() < 1e-3
    # either image is looked up at the centres of its cells: of cells of width 128 / 160, at (k + 0.5) * 0.8
    cells = found.first / [FIRST[1], FIRST[0]] * FINE - 0.5
    regular = np.abs(cells - cells.round()).max(1) < 1e-3
    assert regular.mean() > 0.3
    assert regular.all() == same
    for uv, image in ((found.first, first), (found.second, second)):  # what leaves an image is no match
        assert (uv > 0).all()
        assert (uv < image.shape[1::-1]).all()
    # upstream's own sampling and conversion of the same answer
    model = expert._model
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        sampled = model.sample(model.match(first, second), 100)[0]
    theirs = [uv.double().numpy() for uv in model.to_pixel_coordinates(sampled, *first.shape[:2], *second.shape[:2])]
    assert np.abs(theirs[1] - mapped(H, theirs[0])).max() < 1e-3


def test_what_does_not_overlap_is_left_out(matcher, monkeypatch):
    first, _ = pictures()
    expert, answer = knowing(matcher, np.eye(3), (FIRST, FIRST))
    for name in ("confidence_AB", "confidence_BA"):
        confidence = answer()[name].clone()
        confidence[:, :, FINE // 2 :, 0] = -9.0
        answer()[name] = confidence
    monkeypatch.setattr(expert._model, "forward", answer)
    found = expert.match_images(first, first)
    assert len(found.first) > 100
    assert found.first[:, 0].max() < 64
    assert found.confidence.min() > 0.99


def test_the_second_network_of_a_process_does_not_answer_for_the_first(matcher, checkpoint, tmp_path):
    """romav2 replaces a method of DINOv3's class."""
    first, second = pictures()
    before = matcher.match_images(first, second)
    state = torch.load(checkpoint, weights_only=True)
    state["f.norm.weight"] = -3 * state["f.norm.weight"]
    torch.save(state, tmp_path / "romav2.0.1.pt")
    del state
    other = dataclasses.replace(matcher, weights=str(tmp_path))
    found = other.match_images(first, second)
    assert other.fingerprint() != matcher.fingerprint()
    (tmp_path / "romav2.0.1.pt").unlink()
    assert len(found.first) != len(before.first) or np.abs(found.second - before.second).max() > 1e-3
    after = matcher.match_images(first, second)
    np.testing.assert_array_equal(after.second, before.second)


def test_loading_leaves_everything_as_it_was(checkpoint, caplog, capfd):
    import torch._dynamo.config as config

    kept = (torch.hub.load, torch.hub.load_state_dict_from_url, config.automatic_dynamic_shapes)
    state = torch.random.get_rng_state()
    with caplog.at_level(logging.INFO):
        model = track_expert(f"romav2:{checkpoint}").matcher._model
    assert (torch.hub.load, torch.hub.load_state_dict_from_url, config.automatic_dynamic_shapes) == kept
    assert config.automatic_dynamic_shapes  # torch's default
    assert torch.equal(state, torch.random.get_rng_state())
    assert not any(capfd.readouterr())
    assert (model.H_lr, model.W_lr, model.H_hr, model.W_hr) == (800, 800, 1280, 1280)
    assert model.bidirectional
    for name, value in torch.load(checkpoint, weights_only=True).items():
        assert torch.equal(model.state_dict()[name], value), name


def test_the_backbone_is_the_one_that_upstream_asks_the_hub_for(monkeypatch):
    from dinov3.models import vision_transformer

    hub = pytest.importorskip("dinov3.hub.backbones", reason="DINOv3 is not a checkout but a package without its hub")
    asked = []

    class Recorder(vision_transformer.DinoVisionTransformer):
        def __init__(self, **settings):
            torch.nn.Module.__init__(self)
            given = {**self.__init__.__wrapped__.__kwdefaults__, **settings}
            asked.append({name: given[name] for name in self.__init__.__wrapped__.__kwdefaults__})

        __init__.__wrapped__ = vision_transformer.DinoVisionTransformer.__init__

        def init_weights(self):
            pass

    monkeypatch.setattr(vision_transformer, "DinoVisionTransformer", Recorder)
    hub.dinov3_vitl16(pretrained=False)
    vision_transformer.vit_large(**ours._VITL16)
    assert asked[0] == asked[1]


def test_foreign_weights_are_refused(checkpoint, tmp_path):
    state = torch.load(checkpoint, weights_only=True)
    del state["matcher.omega"]  # random at first, and no parameter: nothing else would tell
    torch.save(state, tmp_path / "romav2.0.1.pt")
    with pytest.raises(
        UserError, match=r"romav2\.0\.1\.pt: its weights do not fill a RoMaV2; use the matching checkpoint"
    ):
        track_expert(f"romav2:{tmp_path}").matcher.match_images(*pictures())
    (tmp_path / "romav2.0.1.pt").unlink()

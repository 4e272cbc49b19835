"""The adapters of learned matchers through kornia's and transformers' own classes with small random weights."""

import dataclasses
import sys
from itertools import combinations

import cv2
import numpy as np
import pytest
import torch

from reliev3r.core.errors import UserError
from reliev3r.data.capture import load_capture
from reliev3r.labels.catalogue import TRACK_EXPERT_INFO, TRACK_EXPERTS
from reliev3r.labels.expert import ExpertInfo, TrackExpert
from reliev3r.labels.registry import track_expert
from reliev3r.labels.tracks.matcher import FeatureMatcher, ImageMatcher, PointMatches
from reliev3r.labels.tracks.pairwise import PairwiseTracks


def picture(height=96, width=128, seed=0):
    """Blobs of many sizes, RGB."""
    noise = np.random.default_rng(seed).integers(0, 255, (height // 4, width // 4, 3), dtype=np.uint8)
    return cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)


def shifted_pair(shift=16):
    """Two views of a poster: what is at u in the first is at u - shift in the second."""
    poster = picture(96, 128 + shift)
    return np.ascontiguousarray(poster[:, :128]), np.ascontiguousarray(poster[:, shift:])


def shifts(matcher, first, second):
    a, b = matcher.detect(first), matcher.detect(second)
    found = matcher.match(a, b)
    return b.uv[found.second] - a.uv[found.first], found


# kornia


@pytest.fixture(scope="module")
def aliked_file(tmp_path_factory):
    """A checkpoint as upstream publishes it: without the computed buffer of kornia's class."""
    feature = pytest.importorskip("kornia.feature")
    torch.manual_seed(0)
    state = feature.ALIKED("aliked-t16").state_dict()
    path = tmp_path_factory.mktemp("aliked") / "aliked-t16.pth"
    torch.save({name: value for name, value in state.items() if name != "dkd.hw_grid"}, path)
    return path


@pytest.fixture(scope="module")
def xfeat_file(tmp_path_factory):
    feature = pytest.importorskip("kornia.feature")
    torch.manual_seed(0)
    model = feature.XFeat()
    path = tmp_path_factory.mktemp("xfeat") / "xfeat.pt"
    torch.save(model.net.state_dict(), path)
    return path


def test_aliked_finds_what_upstream_finds_in_corner_pixels(aliked_file):
    from kornia.feature import ALIKED

    matcher = track_expert(f"aliked:{aliked_file}").matcher
    assert isinstance(matcher, FeatureMatcher)
    image = picture()
    features = matcher.detect(image)
    upstream = ALIKED("aliked-t16", max_num_keypoints=matcher.features, detection_threshold=matcher.detection).eval()
    upstream.load_state_dict(torch.load(aliked_file, weights_only=True), strict=False)
    with torch.no_grad():
        (expected,) = upstream(torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255)
    assert len(features.uv) > 20
    np.testing.assert_allclose(features.uv, expected.keypoints.numpy() + 0.5, atol=1e-4)
    np.testing.assert_allclose(features.descriptor, expected.descriptors.numpy(), atol=1e-5)
    assert features.size == (128, 96)


@pytest.mark.parametrize("kind", ["aliked", "xfeat"])
def test_a_shift_is_found_with_random_weights(kind, aliked_file, xfeat_file):
    """Convolutions commute with shifts by their stride, whatever their weights."""
    matcher = track_expert(f"{kind}:{aliked_file if kind == 'aliked' else xfeat_file}").matcher
    if kind == "xfeat":
        matcher = dataclasses.replace(matcher, detection=0.0)
    shift, found = shifts(matcher, *shifted_pair(32))
    true = np.abs(shift - [-32, 0]).max(1) < 0.6
    assert found.sure.sum() >= 10
    assert true[found.sure].mean() > 0.7
    assert found.doubt.min() >= 0


def test_xfeat_keypoints_are_pixel_centres(xfeat_file):
    matcher = dataclasses.replace(track_expert(f"xfeat:{xfeat_file}").matcher, detection=0.0)
    whole = matcher.detect(picture(96, 128)).uv
    np.testing.assert_allclose(whole % 1, 0.5, atol=1e-6)
    # at 110 x 150 the network sees 96 x 128: centres of its pixels, scaled
    scaled = matcher.detect(picture(110, 150)).uv * [128 / 150, 96 / 110]
    np.testing.assert_allclose(scaled % 1, 0.5, atol=1e-3)


def test_aliked_with_lightglue(tmp_path, aliked_file):
    from kornia.feature import LightGlue

    torch.manual_seed(0)
    glue = LightGlue(None, input_dim=128, n_layers=2)
    with torch.no_grad():
        for layer in glue.log_assignment:  # random ones are not sure of anything
            layer.final_proj.weight.copy_(1000 * torch.eye(256))
    # published under the names of the first release
    state = {}
    for name, value in glue.state_dict().items():
        parts = name.split(".")
        if parts[0] == "transformers":
            name = ".".join([parts[2], parts[1], *parts[3:]])
        state[name] = value
    torch.save(state, tmp_path / "aliked_lightglue.pth")
    torch.manual_seed(0)
    from kornia.feature import ALIKED

    torch.save(ALIKED("aliked-n16").state_dict(), tmp_path / "aliked-n16.pth")
    matcher = track_expert(f"aliked:{tmp_path}").matcher
    alone = track_expert(f"aliked:{tmp_path / 'aliked-n16.pth'}").matcher
    assert matcher.fingerprint()["weights_sha256"] != alone.fingerprint()["weights_sha256"]
    for name, value in matcher._lightglue.state_dict().items():
        if name in glue.state_dict():
            torch.testing.assert_close(value, glue.state_dict()[name])
    image = picture(192, 256)
    a, b = matcher.detect(image), matcher.detect(image[:, ::-1])
    glue.conf.filter_threshold = matcher._lightglue.conf.filter_threshold = 0.0
    sides = [
        {
            "keypoints": torch.from_numpy(x.uv - 0.5).float()[None],  # pixel centres at integers, as kornia detects
            "descriptors": torch.from_numpy(x.descriptor)[None],
            "image_size": torch.tensor([[256, 192]]),
        }
        for x in (a, b)
    ]
    with torch.no_grad():
        expected = glue.eval()({"image0": sides[0], "image1": sides[1]})
    found = matcher.match(a, b)
    assert len(found.first) > 0
    np.testing.assert_array_equal(np.stack([found.first, found.second], 1), expected["matches"][0].numpy())
    np.testing.assert_allclose(1 - found.doubt, expected["scores"][0].numpy(), atol=1e-6)


# transformers


@pytest.fixture(scope="module")
def lightglue_folder(tmp_path_factory):
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    detector = transformers.SuperPointConfig(
        encoder_hidden_sizes=[8, 8, 16, 16],
        decoder_hidden_size=16,
        descriptor_decoder_dim=32,
        keypoint_threshold=0.0,
        max_keypoints=300,
    )
    config = transformers.LightGlueConfig(
        keypoint_detector_config=detector, descriptor_dim=32, num_hidden_layers=2, num_attention_heads=2,
        filter_threshold=0.0,
    )  # fmt: skip
    model = transformers.LightGlueForKeypointMatching(config)
    with torch.no_grad():
        for layer in model.match_assignment_layers:  # random ones are not sure of anything
            layer.final_projection.weight.copy_(8 * torch.eye(32))
    folder = tmp_path_factory.mktemp("lightglue")
    model.save_pretrained(folder)
    return folder


def test_lightglue_sees_the_same_as_upstream(lightglue_folder):
    import transformers

    expert = track_expert(f"superpoint-lightglue:{lightglue_folder}")
    matcher = dataclasses.replace(expert.matcher, confidence=0.0, features=10**6)
    assert isinstance(matcher, FeatureMatcher)
    first, second = shifted_pair(8)
    a, b = matcher.detect(first), matcher.detect(second)
    found = matcher.match(a, b)
    upstream = transformers.LightGlueForKeypointMatching.from_pretrained(lightglue_folder).eval()
    grey = torch.stack(
        [torch.from_numpy(x).float() @ torch.tensor([0.2989, 0.5870, 0.1140]) / 255 for x in (first, second)]
    )
    with torch.no_grad():
        expected = upstream(pixel_values=grey[None, :, None])
    size = torch.tensor([128.0, 96.0])
    uv = [(expected.keypoints[0, k][expected.mask[0, k] > 0] * size).numpy() + 0.5 for k in (0, 1)]
    np.testing.assert_allclose(np.sort(a.uv, 0), np.sort(uv[0], 0), atol=1e-4)
    rows = np.nonzero(expected.matches[0, 0].numpy() >= 0)[0]
    theirs = {(*uv[0][r].round(2), *uv[1][expected.matches[0, 0, r]].round(2)) for r in rows}
    ours = {(*a.uv[i].round(2), *b.uv[j].round(2)) for i, j in zip(found.first, found.second)}
    assert len(theirs) > 5
    assert len(ours & theirs) > 0.95 * max(len(ours), len(theirs))
    # the model is as it was
    assert type(matcher._model.keypoint_detector).__name__ == "SuperPointForKeypointDetection"


def test_lightglue_of_images_of_two_sizes(lightglue_folder):
    matcher = dataclasses.replace(track_expert(f"superpoint-lightglue:{lightglue_folder}").matcher, confidence=0.0)
    a, b = matcher.detect(picture(96, 128)), matcher.detect(picture(75, 61))
    assert b.size == (61, 75)  # of the image, although cells of 8 pixels leave a rest
    found = matcher.match(a, b)
    assert found.first.max() < len(a.uv)
    assert found.second.max() < len(b.uv)


@pytest.fixture(scope="module")
def loftr_folder(tmp_path_factory):
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.EfficientLoFTRConfig(
        stage_num_blocks=[1, 1, 1, 1], out_features=[16, 16, 32, 64], hidden_size=64, num_attention_layers=1,
        num_attention_heads=8, coarse_matching_border_removal=0,
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("loftr")
    transformers.EfficientLoFTRForKeypointMatching(config).save_pretrained(folder)
    return folder


class Shifted(torch.nn.Module):
    """The real backbone, whose coarse features are replaced by random ones that moved by (4, 1) cells."""

    def __init__(self, backbone):
        super().__init__()
        self.backbone = backbone

    def forward(self, pixel_values, **kwargs):
        output = self.backbone(pixel_values, **kwargs)
        coarse = output.feature_maps[0]
        _, _, channels, height, width = coarse.shape
        torch.manual_seed(1)
        wide = 8 * torch.randn(1, 1, channels, height + 1, width + 4)
        moved = torch.cat([wide[..., :height, :width], wide[..., 1:, 4:]], dim=1)
        output.feature_maps = (moved, *output.feature_maps[1:])
        return output


def test_efficientloftr_pairs_the_right_cells(loftr_folder):
    """Only the coarse features are made up: all that pairs and refines them is upstream's."""
    matcher = track_expert(f"efficientloftr:{loftr_folder}").matcher
    assert isinstance(matcher, ImageMatcher)
    matcher._model.efficientloftr = Shifted(matcher._model.efficientloftr)
    found = matcher.match_images(picture(128, 192), picture(128, 192))
    cells = (found.second - found.first) / 8
    right = np.abs(cells - [-4, -1]).max(1) < 1.3  # the refinement adds half a window on either side
    assert right.sum() > 280  # 300 cells have their partner in the other image
    assert 0 <= found.confidence.min() <= found.confidence.max() <= 1
    for uv in (found.first, found.second):
        assert (uv >= 0).all()
        assert (uv <= [192, 128]).all()


def test_efficientloftr_of_images_of_two_sizes(loftr_folder):
    matcher = dataclasses.replace(track_expert(f"efficientloftr:{loftr_folder}").matcher, confidence=-1.0)
    matcher._model.efficientloftr = Shifted(matcher._model.efficientloftr)
    found = matcher.match_images(picture(130, 190), picture(260, 380))
    assert len(found.first) > 150
    np.testing.assert_allclose(np.median(found.second / 2 - found.first, 0), [-32 * 190 / 192, -8 * 130 / 128], atol=4)


# from matches without keypoints to tracks


@dataclasses.dataclass(frozen=True, kw_only=True)
class PosterMatcher:
    """Knows that all images are one poster shifted by 10 pixels each: dense matches, each pair with its own noise."""

    name = "poster"
    cell: float = 2.0

    def fingerprint(self):
        return {"cell": self.cell}

    def match_images(self, first, second):
        index = [int(image[0, 0, 0]) for image in (first, second)]
        rng = np.random.default_rng(100 * index[0] + index[1])
        poster = np.random.default_rng(0).uniform([60, 5], [200, 115], (400, 2))
        depth = np.random.default_rng(1).uniform(0.5, 1.5, (400, 1))
        uv = [poster - depth * [10.0 * i, 3.0 * i] + rng.normal(0, 0.2, poster.shape) for i in index]
        chosen = rng.permutation(400)[:300]
        return PointMatches(first=uv[0][chosen], second=uv[1][chosen], confidence=rng.uniform(0.5, 1, 300))


@pytest.fixture
def posters(tmp_path):
    from PIL import Image

    for k in range(4):
        Image.new("RGB", (200, 120), (k, 0, 0)).save(tmp_path / f"{k}.png")
    return load_capture(tmp_path)


def test_matches_without_keypoints_become_long_tracks(posters):
    expert = PairwiseTracks(matcher=PosterMatcher())
    assert isinstance(expert.matcher, ImageMatcher)
    seen = []
    tracks = expert.track(posters, progress=lambda *args: seen.append(args[:2]))
    assert seen[-1] == (10, 10)
    assert seen == [(done, 10) for done in range(1, 11)]
    length = tracks.visible.sum(0)
    assert (length == 4).sum() > 100
    first, last = tracks.uv[0, length == 4], tracks.uv[3, length == 4]
    slope = (first - last)[:, 0] / (first - last)[:, 1]
    assert (slope - 10 / 3).abs().median() < 0.4
    apart = PairwiseTracks(matcher=PosterMatcher(cell=0.01)).track(posters)  # hardly anything joins
    assert (apart.visible.sum(0) == 2).float().mean() > 0.7


def test_lightglue_labels_a_capture(lightglue_folder, rendered):
    """From images to tracks through the real class; random weights find something or nothing, but of the right form."""
    expert = track_expert(f"superpoint-lightglue:{lightglue_folder}")
    assert isinstance(expert, TrackExpert)
    capture = load_capture(rendered, views=2)
    tracks = expert.track(capture)
    assert tracks.uv.shape[0] == 2
    assert bool(tracks.uv.isfinite().all())


def test_aliked_labels_a_real_capture(shared_data):
    pytest.importorskip("kornia")
    weights = shared_data / "models" / "aliked" / "aliked-t16.pth"
    if not weights.is_file():
        pytest.skip(f"no {weights}")
    expert = track_expert(f"aliked:{weights}")
    tracks = dataclasses.replace(expert, long_side=320).track(load_capture(shared_data / "tum_fr2_desk", views=3))
    shared = tracks.visible.float() @ tracks.visible.float().T
    assert shared.min() > 50
    assert expert.fingerprint()["model"] == "aliked-t16"


# names, weights, remedies


def test_every_expert_is_described():
    assert all(isinstance(info, ExpertInfo) and info.kind == "tracks" for info in TRACK_EXPERT_INFO)
    assert [info.name for info in TRACK_EXPERT_INFO] == list(TRACK_EXPERTS)
    names = {info.name.partition("[")[0].partition(":")[0] for info in TRACK_EXPERT_INFO}
    assert names >= {"sift", "aliked", "superpoint-lightglue", "efficientloftr", "xfeat", "roma", "romav2", "loma"}
    for info in TRACK_EXPERT_INFO:
        assert info.licence
        assert bool(info.looked_for) == (info.weights != "none")


def test_fingerprints_tell_experts_and_settings_apart(aliked_file, xfeat_file, lightglue_folder, loftr_folder):
    specs = [
        "sift", f"aliked:{aliked_file}", f"xfeat:{xfeat_file}", f"superpoint-lightglue:{lightglue_folder}",
        f"efficientloftr:{loftr_folder}",
    ]  # fmt: skip
    prints = [track_expert(spec).fingerprint() for spec in specs]
    assert [p["name"] for p in prints] == [spec.partition(":")[0] for spec in specs]
    assert all(p["weights_sha256"] for p in prints[1:])
    for a, b in combinations(prints, 2):
        assert a != b
    for spec, before in zip(specs, prints):
        expert = track_expert(spec)
        assert expert.fingerprint() == before
        assert dataclasses.replace(expert, min_inliers=16).fingerprint() != before
        field = next(
            f.name for f in dataclasses.fields(expert.matcher) if isinstance(getattr(expert.matcher, f.name), float)
        )
        other = dataclasses.replace(expert.matcher, **{field: 0.123})
        assert dataclasses.replace(expert, matcher=other).fingerprint() != before
    content = aliked_file.read_bytes()
    longer = aliked_file.with_name("aliked-n16.pth")
    longer.write_bytes(content + b"x")
    changed = track_expert(f"aliked:{longer}").fingerprint()
    assert changed["weights_sha256"] != prints[1]["weights_sha256"]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("aliked:{}", r"no such weights; get aliked-n16.pth from github"),
        ("xfeat:{}", r"no such weights; get xfeat.pt from github"),
        ("roma:{}", r"no such weights; get roma_outdoor.pth from github"),
        ("romav2:{}", r"no such weights; get romav2.0.1.pt from https://github.com/Parskatt/RoMaV2/.*DINOv3 License"),
        ("loma:{}", r"no such weights; get loma_B.pt from https://github.com/davnords/storage/"),
        ("superpoint-lightglue:{}", r"needs config.json and \*.safetensors of ETH-CVG"),
        ("efficientloftr:{}", r"needs config.json and \*.safetensors of zju-community"),
    ],
)
def test_missing_weights_name_the_remedy(tmp_path, spec, message):
    with pytest.raises(UserError, match=message):
        track_expert(spec.format(tmp_path)).fingerprint()


def test_nothing_is_downloaded(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(UserError, match=r"no aliked-n16.pth or .* in .*; get aliked-n16.pth from"):
        track_expert("aliked").fingerprint()
    for name, file in (("romav2", "romav2.0.1.pt"), ("loma", "loma_B.pt")):
        with pytest.raises(
            UserError, match=rf"{name}: no {file}.* in .*checkpoints; get {file} from .* use {name}:PATH"
        ):
            track_expert(name).fingerprint()
    import huggingface_hub

    def cache_only(*args, local_files_only=False, **kwargs):
        assert local_files_only
        raise huggingface_hub.errors.LocalEntryNotFoundError("not there")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", cache_only)
    for name in ("superpoint-lightglue", "efficientloftr"):
        with pytest.raises(UserError, match=rf"run `hf download .*`, then use {name}:DIR"):
            track_expert(name).fingerprint()


def test_foreign_and_executable_weights_are_refused(tmp_path, aliked_file, xfeat_file):
    wrong = tmp_path / "aliked-n16.pth"
    wrong.write_bytes(xfeat_file.read_bytes())
    with pytest.raises(UserError, match="its weights do not fill a ALIKED"):
        track_expert(f"aliked:{wrong}").matcher.detect(picture())
    wrong.write_bytes(aliked_file.read_bytes())  # of the smaller model
    with pytest.raises(UserError, match="its weights do not fill a ALIKED"):
        track_expert(f"aliked:{wrong}").matcher.detect(picture())
    torch.save(PosterMatcher(), tmp_path / "xfeat.pt")  # an object, not tensors
    with pytest.raises(UserError, match="not readable as weights"):
        track_expert(f"xfeat:{tmp_path}").matcher.detect(picture())
    (tmp_path / "mine.pth").write_bytes(aliked_file.read_bytes())
    with pytest.raises(UserError, match="its name must tell the model"):
        track_expert(f"aliked:{tmp_path / 'mine.pth'}").matcher.detect(picture())


@pytest.mark.parametrize("spec", ["xfeat", "roma", "sift:x", "magic", "aliked-n16"])
def test_specs_that_name_nothing(spec):
    with pytest.raises(UserError, match="choose one of sift, network"):
        track_expert(spec)


def test_without_the_package_the_remedy_is_named(aliked_file, monkeypatch):
    monkeypatch.setitem(sys.modules, "kornia", None)
    with pytest.raises(UserError, match=r"aliked needs kornia: pip install 'reliev3r\[matchers\]'"):
        track_expert(f"aliked:{aliked_file}").fingerprint()

"""What is built around RoMa v2 and LoMa, with stand-ins whose answers are known; tests/upstream has their classes."""

import dataclasses
import sys
from types import ModuleType

import numpy as np
import pytest
import torch

from reliev3r.core.errors import UserError
from reliev3r.labels.catalogue import licence_of
from reliev3r.labels.expert_weights import without_download
from reliev3r.labels.registry import track_expert
from reliev3r.labels.tracks.matcher import FeatureMatcher, ImageMatcher
from reliev3r.labels.tracks.roma import matches_on_grid

FIRST, SECOND = np.zeros((30, 40, 3), np.uint8), np.zeros((20, 50, 3), np.uint8)


def centres(height, width):
    """Pixel centres of a map, where -1 and 1 are its edges."""
    x, y = np.meshgrid((np.arange(width) + 0.5) / width, (np.arange(height) + 0.5) / height)
    return 2 * np.stack([x, y], -1) - 1


def test_a_warp_becomes_pixels_of_either_image():
    places = centres(6, 8)
    warp, certainty = np.concatenate([places, places[:, ::-1]], -1), np.ones((6, 8))
    certainty[:, :3] = 0.4
    found = matches_on_grid(warp, certainty, FIRST, SECOND, least=0.4, most=1000)
    assert len(found.first) == 6 * 5  # what is as certain as the least is not above it
    np.testing.assert_allclose(found.first[0], [3.5 * 40 / 8, 0.5 * 30 / 6])
    np.testing.assert_allclose(found.second[0], [4.5 * 50 / 8, 0.5 * 20 / 6])
    np.testing.assert_allclose(found.first[:, 0] / 40 + found.second[:, 0] / 50, 1)
    some = matches_on_grid(warp, certainty, FIRST, SECOND, least=0.0, most=10)
    assert len(some.first) == 10
    assert np.ptp(some.first[:, 1]) > 15  # from all over the image
    none = matches_on_grid(warp, certainty, FIRST, SECOND, least=1.0, most=10)
    assert none.first.shape == none.second.shape == (0, 2)


class RoMaV2(torch.nn.Module):
    """Mirrors the image, in a map of 8 x 8; the last two columns leave the second image."""

    @dataclasses.dataclass(frozen=True)
    class Cfg:
        setting: str

    def __init__(self, cfg):
        super().__init__()
        assert cfg.setting == "precise"
        state = torch.hub.load_state_dict_from_url("https://github.com/...", map_location="cpu")
        self.f = torch.hub.load(repo_or_dir="facebookresearch/dinov3:adc2544", model="dinov3_vitl16")
        self.gain = torch.nn.Parameter(torch.randn(1))
        self.load_state_dict(state)

    def match(self, first, second):
        assert torch.get_float32_matmul_precision() == "highest"
        assert first.shape == (1, 3, 30, 40)
        assert second.shape == (1, 3, 20, 50)
        assert (self.H_lr, self.W_lr, self.H_hr, self.W_hr) == (800, 800, 1280, 1280)
        warp = torch.from_numpy(centres(8, 8)).flip(1)[None]
        warp[..., 6:, 0] = -0.9  # within half a pixel of the edge: less than 1 / 8 inside
        overlap = torch.full((1, 8, 8, 1), 0.75)
        return {"warp_AB": warp, "warp_BA": warp, "overlap_AB": overlap, "overlap_BA": overlap}


def package(monkeypatch, name, **contents):
    """A package of one or more modules: ``name.part`` for ``part={...}``."""
    root = ModuleType(name)
    monkeypatch.setitem(sys.modules, name, root)
    for part, attributes in contents.items():
        if isinstance(attributes, dict):
            module = ModuleType(f"{name}.{part}")
            module.__dict__.update(attributes)
            monkeypatch.setitem(sys.modules, module.__name__, module)
            attributes = module
        setattr(root, part, attributes)


@pytest.fixture
def romav2(monkeypatch, tmp_path):
    package(monkeypatch, "romav2", RoMaV2=RoMaV2, device={"device": torch.device("cpu")})
    package(monkeypatch, "dinov3", models={})
    package(monkeypatch, "dinov3.models", vision_transformer={"vit_large": lambda **settings: torch.nn.Linear(1, 1)})
    torch.save({"gain": torch.ones(1), "f.weight": torch.ones(1, 1), "f.bias": torch.ones(1)},
               tmp_path / "romav2.0.1.pt")  # fmt: skip
    return f"romav2:{tmp_path}"


def test_romav2_gives_both_directions_and_leaves_torch_alone(romav2):
    matcher = track_expert(romav2, device="cpu").matcher
    assert isinstance(matcher, ImageMatcher)
    kept, state = torch.hub.load, torch.random.get_rng_state()
    torch.set_float32_matmul_precision("high")
    try:
        found = matcher.match_images(FIRST, SECOND)
        assert torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision("highest")
    assert torch.hub.load is kept
    assert torch.equal(state, torch.random.get_rng_state())
    assert type(matcher._model.f) is not torch.nn.Linear
    assert len(found.first) == 2 * 8 * 6
    np.testing.assert_allclose(found.first[:, 0] / 40 + found.second[:, 0] / 50, 1)
    np.testing.assert_allclose(found.first[:, 1] / 30, found.second[:, 1] / 20)
    np.testing.assert_array_equal(found.confidence, 0.75)
    for uv, size in ((found.first, (40, 30)), (found.second, (50, 20))):
        cells = uv / size * 8 - 0.5
        np.testing.assert_allclose(cells, cells.round(), atol=1e-9)
    assert len(dataclasses.replace(matcher, overlap=0.75).match_images(FIRST, SECOND).first) == 0


class Detector:
    """Four places, of which one lies outside and one is none; of eight, two."""

    def detect(self, images, num_keypoints):
        assert images.shape == (1, 3, 768, 1024)
        assert num_keypoints == 2048
        keypoints = torch.tensor([[[0.0, 0.0], [0.5, -0.5], [1.001, 0.0], [0.25, 0.25]]])
        return {"keypoints": keypoints, "keypoint_probs": torch.tensor([[0.1, 0.1, 0.1, 0.0]])}


class Descriptor:
    def describe_keypoints(self, images, keypoints):
        assert images.shape == (1, 3, 784, 784)
        return {"descriptions": 5 * torch.cat([keypoints, 1 + keypoints[..., :1]], -1)}


class LoMa(torch.nn.Module):
    """Likes the first of one image with the second of the other, and the other way round less."""

    def __init__(self, settings):
        super().__init__()
        assert settings.weights_url is None
        assert torch.hub.load_state_dict_from_url("https://x/dad.pth", map_location="cpu") == {"w": torch.ones(1)}
        assert torch.hub.load_state_dict_from_url("https://x/dinov2.pth") == {"w": 2 * torch.ones(1)}
        self.gain = torch.nn.Parameter(torch.randn(1))
        for name in ("_detector", "_descriptor.encoder.frozen_dinov2.dinov2_vitl14"):
            module = self
            for part in name.split("."):
                module.add_module(part, torch.nn.Module())
                module = getattr(module, part)
            module.w = torch.nn.Parameter(torch.zeros(1))
        self._detector.detect = Detector().detect
        self._descriptor.describe_keypoints = Descriptor().describe_keypoints

    @staticmethod
    def _is_unexpected_extra_layer_key(name, layers):
        return name == f"transformers.{layers}.w"

    def forward(self, first, second, described_first, described_second):
        for places, described in ((first, described_first), (second, described_second)):
            torch.testing.assert_close(places, torch.tensor([[[0.0, 0.0], [0.5, -0.5]]]))
            torch.testing.assert_close(described, 5 * torch.cat([places, 1 + places[..., :1]], -1))
        return {"scores": torch.tensor([[[0.0, 0.9], [0.3, 0.0]]])}


def filter_matches(scores, least):
    best, second = scores.max(2)
    return torch.where(best > least, second, -1), None, best, None


@dataclasses.dataclass(frozen=True)
class Settings:
    weights_url: str | None = "https://..."
    n_layers: int = 9


@pytest.fixture
def loma(monkeypatch, tmp_path):
    package(monkeypatch, "loma", LoMa=LoMa, LoMaB=Settings, device={"device": torch.device("cpu")},
            loma={"filter_matches": filter_matches})  # fmt: skip
    dino = "_descriptor.encoder.frozen_dinov2.dinov2_vitl14.w"
    state = {"gain": torch.ones(1), "_detector.w": torch.ones(1), dino: 2 * torch.ones(1),
             "transformers.9.w": torch.ones(1)}  # fmt: skip
    torch.save(state, tmp_path / "loma_B.pt")
    return f"loma:{tmp_path}"


def test_loma_sees_the_keypoints_of_the_images_at_their_places(loma):
    matcher = track_expert(loma, device="cpu").matcher
    assert isinstance(matcher, FeatureMatcher)
    kept, state = torch.hub.load_state_dict_from_url, torch.random.get_rng_state()
    a, b = matcher.detect(FIRST), matcher.detect(np.zeros((300, 400, 3), np.uint8))
    assert torch.hub.load_state_dict_from_url is kept
    assert torch.equal(state, torch.random.get_rng_state())
    np.testing.assert_allclose(a.uv, [[20, 15], [30, 7.5]])
    np.testing.assert_allclose(b.uv, [[200, 150], [300, 75]])
    np.testing.assert_allclose(np.linalg.norm(a.descriptor, axis=1), 1, rtol=1e-6)
    assert matcher._model._detector.w == 1
    found = matcher.match(a, b)
    np.testing.assert_array_equal(np.stack([found.first, found.second]), [[0, 1], [1, 0]])
    np.testing.assert_allclose(found.doubt, [0.1, 0.7], atol=1e-6)
    assert found.sure.all()
    assert dataclasses.replace(matcher, confidence=0.5).match(a, b).first.tolist() == [0]


@pytest.mark.parametrize(("name", "package_name"), [("romav2", "dinov3.models.vision_transformer"), ("loma", "loma")])
def test_without_its_packages_the_remedy_is_named(request, monkeypatch, name, package_name):
    spec = request.getfixturevalue(name)
    monkeypatch.setitem(sys.modules, package_name, None)
    with pytest.raises(
        UserError, match=rf"^{name} needs its packages \(.*{package_name.split('.')[0]}.*\): pip install"
    ):
        track_expert(spec, device="cpu").matcher._model.eval()


@pytest.mark.parametrize("name", ["romav2", "loma"])
def test_a_torchvision_of_another_torch_is_told(request, monkeypatch, tmp_path, name):
    spec = request.getfixturevalue(name)
    for module in [module for module in sys.modules if module.partition(".")[0] == name]:
        monkeypatch.delitem(sys.modules, module)
    (tmp_path / f"{name}.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UserError, match=rf"^{name} needs its packages \(operator torchvision::nms does not exist\)"):
        track_expert(spec, device="cpu").matcher._model.eval()


@pytest.mark.parametrize("name", ["romav2", "loma"])
def test_another_device_than_the_packages_own_is_refused(request, monkeypatch, name):
    spec = request.getfixturevalue(name)
    sys.modules[f"{name}.device"].device = torch.device("cuda")
    with pytest.raises(UserError, match=rf"{name}: its package computes on cuda .* not on cpu; CUDA_VISIBLE_DEVICES="):
        track_expert(spec, device="cpu").matcher._model.eval()


@pytest.mark.parametrize("name", ["romav2", "loma"])
def test_foreign_weights_are_refused(request, tmp_path, name):
    spec, file = request.getfixturevalue(name), next(tmp_path.glob("*.pt"))
    state = torch.load(file, weights_only=True)
    torch.save({**state, "gain": torch.ones(2)}, file)
    with pytest.raises(UserError, match=rf"{file.name}: its weights do not fill a (RoMaV2|LoMa); use") as told:
        track_expert(spec, device="cpu").matcher._model.eval()
    assert "\n" not in str(told.value)
    torch.save(torch.nn.Linear(1, 1), file)
    with pytest.raises(UserError, match=f"{file.name}: not readable as weights"):
        track_expert(spec, device="cpu").matcher._model.eval()


def test_the_name_of_lomas_file_tells_the_model(tmp_path):
    (tmp_path / "mine.pt").touch()
    with pytest.raises(UserError, match=r"mine\.pt: its name must tell the model: loma_B\.pt, loma_B128\.pth"):
        track_expert(f"loma:{tmp_path / 'mine.pt'}", device="cpu").matcher._model.eval()


def test_licences_name_the_backbone():
    assert "DINOv3 License" in licence_of("tracks", "romav2")
    assert licence_of("tracks", "roma").startswith("MIT, DINOv2")
    assert "Apache-2.0" in licence_of("tracks", "loma")


@pytest.mark.parametrize("message", ["Error(s) in loading state_dict for it", "out of memory"])
def test_the_hub_is_given_back_when_building_fails(tmp_path, message):
    def build():
        with without_download("Network", tmp_path / "w.pt", "cpu", load=lambda: 1):
            assert torch.hub.load() == 1
            raise RuntimeError(message)

    kept = torch.hub.load
    foreign = r"w\.pt: its weights do not fill a Network; use the matching checkpoint"
    told = (UserError, foreign) if "state_dict" in message else (RuntimeError, message)
    with pytest.raises(told[0], match=told[1]):
        build()
    assert torch.hub.load is kept

import cv2
import numpy as np
import pytest
from PIL import Image

from reliev3r.core.errors import UserError
from reliev3r.data.capture import load_capture
from reliev3r.labels.catalogue import DEPTH_EXPERTS
from reliev3r.labels.expert import DepthExpert
from reliev3r.labels.registry import depth_expert


@pytest.fixture
def predict(photos, tmp_path):
    """Run an expert on frame a (40 x 30) with maps from the folder ``maps``."""
    (tmp_path / "maps").mkdir()

    def run(spec=None):
        expert = depth_expert(spec or f"folder:{tmp_path / 'maps'}")
        return expert.predict(photos.image(0), photos.frames[0], photos)

    return run


def test_png_is_millimetres_with_zero_invalid(predict, tmp_path):
    values = np.array([[0, 1500], [65535, 1]], np.uint16).repeat(15, 0).repeat(20, 1)
    cv2.imwrite(str(tmp_path / "maps" / "a.png"), values)
    result = predict()
    np.testing.assert_array_equal(result.valid, values > 0)
    np.testing.assert_allclose(result.depth[result.valid], values[values > 0] / 1000, rtol=1e-6)


@pytest.mark.parametrize("kind", ["npy", "npz", "npz with others"])
def test_arrays_keep_their_unit_and_lose_what_is_no_depth(predict, tmp_path, kind):
    values = np.array([[1.5, np.nan, np.inf, -1], [0, 2, 3, 4], [5, 6, 7, 8]], np.float64)
    if kind == "npy":
        np.save(tmp_path / "maps" / "a.npy", values)
    elif kind == "npz":
        np.savez(tmp_path / "maps" / "a.npz", anything=values)
    else:
        np.savez(tmp_path / "maps" / "a.npz", conf=np.ones(3), depth=values)
    result = predict()
    assert result.depth.dtype == np.float32
    np.testing.assert_array_equal(result.valid, np.isfinite(values) & (values > 0))
    assert np.isfinite(result.depth).all()
    assert result.depth[0, 0] == 1.5


def test_disparity_is_inverted(predict, tmp_path):
    np.save(tmp_path / "maps" / "a.npy", np.array([[0.5, 0.25, 0, np.nan]] * 3, np.float32))
    result = predict(f"folder-disparity:{tmp_path / 'maps'}")
    np.testing.assert_array_equal(result.valid[0], [True, True, False, False])
    np.testing.assert_allclose(result.depth[0, :2], [2, 4])


def test_any_resolution_of_the_same_aspect(predict, tmp_path):
    for width, height in ((40, 30), (7, 5), (400, 300)):
        np.save(tmp_path / "maps" / "a.npy", np.ones((height, width), np.float32))
        assert predict().depth.shape == (height, width)


@pytest.mark.parametrize("shape", [(40, 30), (300, 430)])
def test_another_aspect_is_refused(predict, tmp_path, shape):
    np.save(tmp_path / "maps" / "a.npy", np.ones(shape, np.float32))
    with pytest.raises(UserError, match=r"a\.npy: \d+x\d+ is of another aspect ratio than the image a\.png \(40x30\)"):
        predict()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (np.ones((30, 40, 3)), "a depth map is 2D"),
        (np.array([["a"]]), "2D and numeric"),
        (np.zeros((0, 0)), "2D and numeric"),
    ],
)
def test_arrays_that_are_no_map(predict, tmp_path, content, message):
    np.save(tmp_path / "maps" / "a.npy", content)
    with pytest.raises(UserError, match=message):
        predict()


def test_pickles_are_never_opened(predict, tmp_path):
    np.save(tmp_path / "maps" / "a.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(UserError, match=r"a\.npy: unreadable depth map"):
        predict()


@pytest.mark.parametrize("suffix", ["png", "npy", "npz"])
def test_damaged_files_are_named(predict, tmp_path, suffix):
    (tmp_path / "maps" / f"a.{suffix}").write_bytes(b"\x89PNG broken")
    with pytest.raises(UserError, match=rf"a\.{suffix}: (unreadable depth map|truncated or not an image)"):
        predict()


def test_8_bit_png_is_refused(predict, tmp_path):
    Image.new("L", (40, 30)).save(tmp_path / "maps" / "a.png")
    with pytest.raises(UserError, match="must be a 16-bit grey PNG in millimetres"):
        predict()


def test_several_arrays_without_a_depth(predict, tmp_path):
    np.savez(tmp_path / "maps" / "a.npz", x=np.ones((3, 4)), y=np.ones((3, 4)))
    with pytest.raises(UserError, match='name the map "depth"'):
        predict()


def test_missing_and_ambiguous_maps(predict, tmp_path):
    with pytest.raises(UserError, match=r"maps/a\.png: no depth map for this frame"):
        predict()
    np.save(tmp_path / "maps" / "a.npy", np.ones((3, 4)))
    np.savez(tmp_path / "maps" / "a.npz", np.ones((3, 4)))
    with pytest.raises(UserError, match="keep one depth map a frame"):
        predict()
    with pytest.raises(UserError, match="nowhere: no such folder of depth maps"):
        predict(f"folder:{tmp_path / 'nowhere'}")


def test_none_has_nothing_valid(predict):
    result = predict("none")
    assert not result.valid.any()


def test_simulated_needs_a_synthetic_capture(predict):
    with pytest.raises(UserError, match="synthetic captures only"):
        predict("simulated")


def test_simulated_degrades_the_truth_and_says_so(rendered):
    capture = load_capture(rendered)
    expert = depth_expert("simulated")
    assert "simulated" in expert.fingerprint()["name"]
    truth = cv2.imread(str(rendered / "depth" / "000000.png"), cv2.IMREAD_UNCHANGED) / 1000
    result = expert.predict(capture.image(0), capture.frames[0], capture)
    again = expert.predict(capture.image(0), capture.frames[0], capture)
    np.testing.assert_array_equal(result.depth, again.depth)
    ratio = result.depth[result.valid] / truth[result.valid]
    assert np.median(np.abs(ratio / np.median(ratio) - 1)) > 0.005  # not the truth up to scale
    assert np.median(np.abs(ratio / np.median(ratio) - 1)) < 0.2
    other = expert.predict(capture.image(1), capture.frames[1], capture)
    assert not np.array_equal(result.depth, other.depth)


def test_every_expert_keeps_the_protocol(tmp_path):
    for spec in ("none", "simulated", f"folder:{tmp_path}", f"folder-disparity:{tmp_path}"):
        expert = depth_expert(spec)
        assert isinstance(expert, DepthExpert)
        assert all(isinstance(value, str | int | float) for value in expert.fingerprint().values())


@pytest.mark.parametrize("spec", ["magic", "folder", "folder:", "none:x", "simulated:3", ""])
def test_unknown_experts_list_the_choices(spec):
    with pytest.raises(UserError, match="choose one of") as error:
        depth_expert(spec)
    assert all(name in str(error.value) for name in DEPTH_EXPERTS)

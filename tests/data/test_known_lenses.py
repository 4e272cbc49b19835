"""A lens that --intrinsics or cameras.json states is taken out of the images and of what belongs to their pixels."""

import json
import logging

import numpy as np
import pytest
from PIL import Image

import builders
from reliev3r.core.errors import UserError
from reliev3r.data.capture import load_capture
from reliev3r.data.find_captures import CaptureTask
from reliev3r.data.intrinsics import with_intrinsics
from reliev3r.data.truth import CameraFile
from reliev3r.export.images import write_images
from reliev3r.labels.depth.precomputed import FolderDepth
from reliev3r.training.captures import labelled_capture

SIZE = (200, 160)
FOCAL, CENTRE = 150.0, np.array([103.0, 78.0])  # of the centre of the first pixel, as cameras.json counts
K = [[FOCAL, 0, CENTRE[0]], [0, FOCAL, CENTRE[1]], [0, 0, 1]]
LENSES = {
    "SIMPLE_RADIAL": {"k1": -0.2},
    "RADIAL": {"k1": -0.25, "k2": 0.05},
    "OPENCV": {"k1": -0.2, "k2": 0.04, "p1": 0.01, "p2": -0.02},
    "OPENCV_FISHEYE": {"k1": 0.03, "k2": -0.01, "k3": 0.002, "k4": 0.001},
}
LINE = np.stack([np.linspace(-0.5, 0.45, 7), np.linspace(-0.3, 0.35, 7)], axis=-1)
"""Places on a straight line of the world, at depth 1."""


def seen_at(model: str, xy: np.ndarray) -> np.ndarray:
    """Pixels (integer centres) at which a lens shows the directions ``xy``: the models as OpenCV's pages write them."""
    k = LENSES[model]
    x, y = xy.T
    square = x**2 + y**2
    if model == "OPENCV_FISHEYE":
        angle = np.arctan(np.sqrt(square))
        powers = sum(k[f"k{n}"] * angle ** (2 * n) for n in range(1, 5))
        return CENTRE + FOCAL * xy * (angle * (1 + powers) / np.sqrt(square))[:, None]
    bent = xy * (1 + k["k1"] * square + k.get("k2", 0) * square**2)[:, None]
    p1, p2 = k.get("p1", 0), k.get("p2", 0)
    bent[:, 0] += 2 * p1 * x * y + p2 * (square + 2 * x**2)
    bent[:, 1] += p1 * (square + 2 * y**2) + 2 * p2 * x * y
    return CENTRE + FOCAL * bent


def dots(places: np.ndarray, scale: float = 1.0) -> np.ndarray:
    """A dark image with a soft bright dot at each place; values up to 200."""
    width, height = (round(side * scale) for side in SIZE)
    u, v = np.meshgrid(np.arange(width), np.arange(height))
    at = (places + 0.5) * scale - 0.5
    return sum(200 * np.exp(-((u - x) ** 2 + (v - y) ** 2) / (2 * (2.5 * scale) ** 2)) for x, y in at)


def places_of(image: np.ndarray, near: np.ndarray) -> np.ndarray:
    """Centroids of the dots that lie near the given places."""
    u, v = np.meshgrid(np.arange(image.shape[1]), np.arange(image.shape[0]))
    found = []
    for x, y in near:
        weight = image * ((u - x) ** 2 + (v - y) ** 2 < 9**2)
        found.append([(weight * u).sum() / weight.sum(), (weight * v).sum() / weight.sum()])
    return np.array(found)


def photographs(folder, model: str, scale: float = 1.0):
    (folder / "images").mkdir(parents=True)
    picture = np.rint(dots(seen_at(model, LINE), scale)).clip(0, 255).astype(np.uint8)
    for name in "ab":
        Image.fromarray(np.stack([picture] * 3, axis=-1)).save(folder / "images" / f"{name}.png")
    return folder


def listed(folder, stated: dict, **about) -> None:
    frames = [
        {"name": n, "image": f"images/{n}.png", "width": SIZE[0], "height": SIZE[1], "K": K, **stated} for n in "ab"
    ]
    (folder / "cameras.json").write_text(json.dumps({**about, "frames": frames}))


def shared(tmp_path, **stated):
    file = tmp_path / "calibration.json"
    file.write_text(json.dumps({"K": K, "width": SIZE[0], "height": SIZE[1], **stated}))
    return str(file)


def assert_straight(image: np.ndarray, scale: float = 1.0) -> None:
    expected = ((CENTRE + FOCAL * LINE) + 0.5) * scale - 0.5
    np.testing.assert_allclose(places_of(image[..., 0].astype(float), expected), expected, atol=0.12)


@pytest.mark.parametrize("model", LENSES)
def test_a_line_is_straight_where_K_sees_it(tmp_path, model, caplog) -> None:
    photographs(tmp_path / "photos", model)
    bare = load_capture(tmp_path / "photos")
    expected = CENTRE + FOCAL * LINE
    assert np.abs(places_of(bare.image(0)[..., 0].astype(float), seen_at(model, LINE)) - expected).max() > 1.5
    with caplog.at_level(logging.INFO, logger="reliev3r"):
        capture = with_intrinsics(bare, shared(tmp_path, camera_model=model, **LENSES[model]))
    assert_straight(capture.image(1))
    np.testing.assert_allclose(capture.frames[1].K[:2, 2], CENTRE + 0.5)
    told = [record.message for record in caplog.records if "rectified" in record.message]
    assert len(told) == 1
    assert f"2 of 2 images are rectified from a lens of model {model}" in told[0]


def test_images_of_half_the_calibrated_size(tmp_path) -> None:
    photographs(tmp_path / "photos", "OPENCV", scale=0.5)
    file = shared(tmp_path, camera_model="OPENCV", **LENSES["OPENCV"])
    assert_straight(with_intrinsics(load_capture(tmp_path / "photos"), file).image(0), scale=0.5)


@pytest.mark.parametrize("place", ["frame", "file", "intrinsics"])
def test_stated_for_a_frame_or_for_all_of_them(tmp_path, place) -> None:
    lens = {"camera_model": "SIMPLE_RADIAL", **LENSES["SIMPLE_RADIAL"]}
    folder = photographs(tmp_path / "photos", "SIMPLE_RADIAL")
    if place == "intrinsics":
        other = tmp_path / "other"
        other.mkdir()
        listed(other, lens)
        capture = with_intrinsics(load_capture(folder), str(other / "cameras.json"))
    else:
        listed(folder, lens if place == "frame" else {}, **(lens if place == "file" else {}))
        capture = with_intrinsics(load_capture(folder))
    assert capture.K_source == "cameras.json"
    assert_straight(capture.image(0))


def test_masks_truth_and_maps_of_experts_are_rectified_as_the_image_is(tmp_path) -> None:
    folder = photographs(tmp_path / "photos", "OPENCV")
    listed(
        folder,
        {"camera_model": "OPENCV", **LENSES["OPENCV"], "depth": "depth/a.png", "cam_to_world": np.eye(4).tolist()},
    )
    for name in ("masks", "depth", "expert"):
        (folder / name).mkdir()
    picture = dots(seen_at("OPENCV", LINE))
    Image.fromarray((255 * (picture < 100)).astype(np.uint8)).save(folder / "masks" / "a.png")
    Image.fromarray(np.rint(1000 * (1 + picture)).astype(np.uint16)).save(folder / "depth" / "a.png")
    np.save(folder / "expert" / "a.npy", 1 + dots(seen_at("OPENCV", LINE), scale=0.5))
    capture = load_capture(folder)
    expected = CENTRE + FOCAL * LINE
    kept = capture.kept(0)
    assert not kept[tuple(np.rint(expected[:, ::-1]).astype(int).T)].any()
    assert kept.mean() > 0.9
    assert capture.kept(1) is None  # no mask, and this lens saw all that the pinhole shows
    depth = CameraFile(folder).depth("a") - 1
    np.testing.assert_allclose(places_of(depth, expected), expected, atol=0.3)
    found = FolderDepth(folder=folder / "expert").predict(capture.image(0), capture.frames[0], capture)
    half = (expected + 0.5) * 0.5 - 0.5
    assert found.depth.shape == (80, 100)
    np.testing.assert_allclose(places_of(np.where(found.valid, found.depth - 1, 0), half), half, atol=0.3)


def test_what_the_lens_did_not_see_does_not_count(tmp_path) -> None:
    folder = photographs(tmp_path / "photos", "OPENCV")
    capture = with_intrinsics(load_capture(folder), shared(tmp_path, camera_model="SIMPLE_RADIAL", k1=0.2))
    kept = capture.kept(0)
    assert not kept[0, 0]
    assert kept[80, 100]
    assert not capture.image(0)[0, 0].any()


def test_labels_remember_the_lens(tmp_path) -> None:
    folder = photographs(tmp_path / "photos", "RADIAL")
    capture = with_intrinsics(load_capture(folder), shared(tmp_path, camera_model="RADIAL", **LENSES["RADIAL"]))
    out = tmp_path / "labels"
    builders.write_manifest(out, capture, K_source="calibration.json")
    again = labelled_capture(CaptureTask(name="photos", path=folder, out=out))
    assert_straight(again.image(0))


def test_exported_images_are_the_rectified_ones(tmp_path) -> None:
    folder = photographs(tmp_path / "photos", "OPENCV_FISHEYE")
    listed(folder, {"camera_model": "OPENCV_FISHEYE", **LENSES["OPENCV_FISHEYE"]})
    files = write_images(load_capture(folder), ["a", "b"], tmp_path / "out")
    assert_straight(np.asarray(Image.open(tmp_path / "out" / files[0])))


@pytest.mark.parametrize(
    ("stated", "message"),
    [
        ({"camera_model": "FOV", "k1": 0.9}, "camera model FOV cannot be rectified; known: SIMPLE_PINHOLE"),
        (
            {"camera_model": "SIMPLE_RADIAL", "k1": 0.1, "k2": 0.1},
            "k2 is not 0, but camera model SIMPLE_RADIAL has no",
        ),
        ({"camera_model": "PINHOLE", "k1": 0.1}, "has no k1"),
        ({"k1": "wide"}, "k1 must be a finite number, not 'wide'"),
        ({"distortion": [0.1, 0, 0, 0]}, "'distortion' is not read; write camera_model, and its coefficients as k1"),
        ({"dist_coeffs": [0.1]}, "'dist_coeffs' is not read"),
    ],
)
def test_a_lens_that_is_not_understood_is_one_line(tmp_path, stated, message) -> None:
    folder = photographs(tmp_path / "photos", "OPENCV")
    with pytest.raises(UserError, match=message) as caught:
        with_intrinsics(load_capture(folder), shared(tmp_path, **stated))
    assert str(caught.value).count("\n") == 0
    listed(folder, stated)
    with pytest.raises(UserError, match=message):
        load_capture(folder)


def test_a_lens_without_K_is_refused(tmp_path) -> None:
    folder = photographs(tmp_path / "photos", "OPENCV")
    listed(folder, {"camera_model": "OPENCV", "k1": 0.1, "K": None})
    with pytest.raises(UserError, match="states a lens \\(OPENCV\\) but no K"):
        load_capture(folder)


def test_a_file_without_a_lens_is_about_a_pinhole(tmp_path) -> None:
    folder = photographs(tmp_path / "photos", "OPENCV")
    listed(folder, {"camera_model": "OPENCV", **LENSES["OPENCV"]})
    capture = load_capture(folder)
    assert capture.frames[0].rectification is not None
    assert with_intrinsics(capture, shared(tmp_path)).frames[0].rectification is None

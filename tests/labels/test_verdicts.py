"""Each way in which a capture can be useless gets its verdict and its reason; good ones get none."""

import json
import shutil

import pytest
from verdict_captures import bare, facade, good, only_turning, shaken, write

from reliev3r.cli import main
from reliev3r.core.errors import UserError
from reliev3r.data.capture import load_capture
from reliev3r.data.intrinsics import with_intrinsics
from reliev3r.labels.pipeline import label_capture
from reliev3r.labels.quality.assess import LabelQuality, assess_labels, quality_of, read_quality, why_no_matches
from reliev3r.labels.registry import depth_expert, track_expert


def labelled(path, out, intrinsics=None, depth="none"):
    capture = with_intrinsics(load_capture(path), intrinsics)
    label_capture(capture, depth=depth_expert(depth), tracks=track_expert("sift"), out=out)
    return capture


def judged(folder, images, K) -> LabelQuality:
    capture = labelled(write(folder / "capture", images, K), folder / "labels")
    return assess_labels(folder / "labels", capture)


def codes(quality):
    return [finding.code for finding in quality.findings]


SEEDS = [1, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (2, 3, 4, 5))]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("texture", ["masonry", pytest.param("terrazzo", marks=pytest.mark.slow)])
def test_a_good_capture_is_good(tmp_path, seed, texture):
    quality = judged(tmp_path, *good(seed, texture))
    assert (quality.verdict, quality.findings) == ("good", ())
    figures = quality.figures
    assert figures["cameras"]["explained"] > 0.95
    assert figures["pairs"]["epipolar_inliers"] > 0.95
    assert figures["images"]["copies"] < 0.03
    assert figures["fov"]["tracks"] == pytest.approx(65, abs=6)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_camera_that_only_turns(tmp_path, seed):
    images, K = only_turning(seed)
    for name, known in (("known", K), ("unknown", None)):  # without intrinsics a rotation is found under some lens
        quality = judged(tmp_path / name, images, known)
        assert quality.verdict == "unusable"
        assert codes(quality)[0] == "rotation"
        assert "the camera only turns" in quality.sentences[0]
        assert "move the camera" in quality.sentences[0]


@pytest.mark.parametrize("seed", SEEDS)
def test_motion_blur(tmp_path, seed):
    images, K = shaken(seed)
    quality = judged(tmp_path, images, K)
    assert quality.verdict == "unusable"
    assert codes(quality)[0] == "blur"
    assert "smeared by motion" in quality.sentences[0]


def test_why_there_are_no_matches_at_all(tmp_path):
    reason = why_no_matches(load_capture(write(tmp_path / "shaken", *shaken(1))))
    assert "6 of 6 images looked at are smeared by motion; use shorter exposures" in reason
    assert "show different places" in why_no_matches(load_capture(write(tmp_path / "good", *good(1, views=2))))


@pytest.mark.parametrize("seed", SEEDS)
def test_no_texture(tmp_path, seed):
    with pytest.raises(UserError, match=r"hardly any texture.*include textured surroundings"):
        judged(tmp_path, *bare(seed))


@pytest.mark.parametrize("seed", SEEDS)
def test_a_facade_of_mirrored_copies(tmp_path, seed):
    """Matches are plentiful, and every pair of images agrees on a geometry: only all together they contradict."""
    quality = judged(tmp_path, *facade(seed, mirrored=True))
    assert quality.figures["tracks"]["count"] > 200
    assert quality.figures["pairs"]["epipolar_inliers"] > 0.85
    assert quality.verdict == "unusable"
    assert codes(quality)[0] == "repetition"
    assert "repeats itself" in quality.sentences[0]
    assert "mirrored" in quality.sentences[0]


@pytest.mark.parametrize("seed", SEEDS)
def test_a_facade_of_different_windows_is_none_of_that(tmp_path, seed):
    quality = judged(tmp_path, *facade(seed, mirrored=False))
    assert "repetition" not in codes(quality)
    assert quality.verdict != "unusable"
    assert quality.figures["cameras"]["explained"] > 0.9


@pytest.mark.parametrize("seed", SEEDS)
def test_two_unrelated_sets_of_images(tmp_path, seed):
    first, K = good(seed, "masonry", views=3, span=20.0)
    second, _ = good(seed, "terrazzo", views=3, span=20.0)
    quality = judged(tmp_path, first + second, K)
    assert quality.verdict == "weak"  # each half can be trained on, and no view pair ties them
    assert codes(quality)[0] == "parts"
    assert "2 parts that no track connects (000, 001, 002; 003, 004, 005)" in quality.sentences[0]
    assert "label each by itself" in quality.sentences[0]


@pytest.mark.parametrize("seed", SEEDS)
def test_many_unrelated_sets_of_images(tmp_path, seed):
    parts = [good(10 * seed + k, "masonry", views=2, span=10.0) for k in range(3)]
    quality = judged(tmp_path, [image for images, _ in parts for image in images], parts[0][1])
    assert quality.verdict == "unusable"
    assert codes(quality)[0] == "parts"


def test_images_that_have_nothing_in_common(tmp_path):
    images = [good(20 + k, views=1)[0][0] for k in range(4)]
    with pytest.raises(UserError, match=r"no matches between its images: .* they show different places"):
        judged(tmp_path, images, None)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["box_rgbd", "livingroom1", "tum_fr2_desk"])
def test_real_captures_are_usable(shared_data, tmp_path, name):
    capture = load_capture(shared_data / name, views=10)
    depth = depth_expert(f"folder:{shared_data / name / 'mono_fastdepth'}")
    label_capture(capture, depth=depth, tracks=track_expert("sift"), out=tmp_path)
    quality = assess_labels(tmp_path, capture)
    assert quality.verdict == "good", quality.sentences
    fov = quality.figures["fov"]
    assert fov["tracks"] == pytest.approx(fov["given"], abs=6)


@pytest.fixture(scope="module")
def store(rendered, tmp_path_factory):
    """One labelled capture with a simulated depth expert, judged, in a store with an unusable one."""
    root = tmp_path_factory.mktemp("judged")
    (root / "captures").mkdir()
    shutil.copytree(rendered, root / "captures" / "room")
    write(root / "captures" / "turning", *only_turning(1))
    write(root / "captures" / "bare", *bare(1))
    arguments = ["label", str(root / "captures"), "--out", str(root / "store"), "--depth", "none"]
    assert main(arguments) == 3  # one of the captures has no matches at all
    return root


def test_quality_lies_beside_the_labels_and_never_changes(store, tmp_path):
    folder = store / "store" / "room"
    capture = load_capture(store / "captures" / "room")
    first = (folder / "quality.json").read_bytes()
    assert read_quality(folder).verdict == "good"
    picture = (folder / "quality.jpg").read_bytes()
    (folder / "quality.jpg").unlink()
    quality_of(folder, capture)
    assert (folder / "quality.json").read_bytes() == first
    assert (folder / "quality.jpg").read_bytes() == picture
    assert "seconds" not in first.decode()


def test_quality_of_other_labels_is_not_believed(store, tmp_path):
    folder = tmp_path / "labels"
    shutil.copytree(store / "store" / "room", folder)
    assert read_quality(folder) is not None
    manifest = folder / "manifest.json"
    manifest.write_bytes(manifest.read_bytes() + b"\n")
    assert read_quality(folder) is None
    (folder / "quality.json").write_text('{"format": "another"}')
    assert read_quality(folder) is None


def test_depth_is_compared_with_the_tracks(rendered, tmp_path):
    capture = labelled(rendered, tmp_path / "labels", depth="simulated")  # a simulated expert, made from truth
    figures = assess_labels(tmp_path / "labels", capture).figures["depth"]
    assert figures["compared"] == 5
    assert figures["rank_correlation"] > 0.7
    assert figures["scale_error"] < 0.15 < figures["flat_error"]


def test_wrong_intrinsics_are_doubted(store, tmp_path):
    capture = labelled(store / "captures" / "room", tmp_path / "labels", "fov:95")
    quality = assess_labels(tmp_path / "labels", capture)
    assert "fov" in codes(quality)
    assert quality.figures["fov"]["tracks"] == pytest.approx(65, abs=1)  # the true one


def test_the_report_of_a_store(store, capsys, tmp_path):
    assert main(["report-labels", str(store / "store"), "--out", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert "unusable: turning: the camera only turns" in printed
    assert "failed: bare: " in printed
    assert "3 captures: 1 unusable, 1 failed, 1 good" in printed
    content = json.loads((tmp_path / "labels.json").read_text())
    assert [(c["name"], c["verdict"]) for c in content["captures"]] == [
        ("turning", "unusable"), ("bare", "failed"), ("room", "good"),
    ]  # fmt: skip
    page = (tmp_path / "labels.html").read_text()
    assert page.count("data:image/jpeg;base64,") == 2
    assert "hardly any texture" in page
    assert "http" not in page  # nothing is loaded from anywhere
    assert main(["report-labels", str(store / "store" / "room"), "--out", str(tmp_path / "one")]) == 0
    assert main(["report-labels", str(tmp_path)]) == 2
    assert main(["verify-labels", str(store / "store")]) == 0


def test_fit_refuses_unusable_labels(store, tmp_path, capsys):
    capture = str(store / "captures" / "turning")
    arguments = ["fit", capture, "--depth", "none", "--steps", "1", "--precision", "fp32", "--image-size", "48"]
    assert main([*arguments, "--out", str(tmp_path / "a")]) == 2
    message = capsys.readouterr().err
    assert "unusable: the camera only turns" in message
    assert not (tmp_path / "a" / "checkpoint").exists()


@pytest.mark.slow
def test_fit_can_be_forced(store, tmp_path, capsys):
    arguments = ["fit", str(store / "captures" / "turning"), "--depth", "none", "--steps", "1"]
    assert main([*arguments, "--image-size", "48", "--out", str(tmp_path), "--force"]) == 0
    assert "the camera only turns" in capsys.readouterr().out

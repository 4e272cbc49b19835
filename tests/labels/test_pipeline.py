import numpy as np
import pytest
from counting_experts import CountingDepth, CountingTracks
from PIL import Image

from reliev3r.core.errors import UserError
from reliev3r.data.capture import load_capture
from reliev3r.data.intrinsics import with_intrinsics
from reliev3r.labels.pipeline import label_capture
from reliev3r.labels.registry import depth_expert, track_expert
from reliev3r.labels.store import load_labels


@pytest.fixture
def run(tmp_path):
    """Label the capture in ``tmp_path`` and say what had to be computed: (frames with new depth, tracks anew?)."""

    def label(depth=None, tracks=None, spec=None):
        depth, tracks = depth or CountingDepth(), tracks or CountingTracks()
        capture = with_intrinsics(load_capture(tmp_path), spec)
        label_capture(capture, depth=depth, tracks=tracks, out=tmp_path / "labels")
        return "".join(depth.calls), bool(tracks.calls)

    return label


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_nothing_is_made_twice(photos, run, tmp_path):
    assert run() == ("abc", True)
    first = contents(tmp_path / "labels")
    assert set(first) == {"manifest.json", "tracks.npz", "depth/a.npz", "depth/b.npz", "depth/c.npz"}
    assert run() == ("", False)
    assert contents(tmp_path / "labels") == first


def test_a_changed_image_remakes_its_depth_and_the_tracks(photos, run, tmp_path):
    run()
    Image.new("RGB", (40, 30), (9, 9, 9)).save(tmp_path / "b.png")
    assert run() == ("b", True)


def test_a_new_image_adds_its_depth(photos, run, tmp_path):
    run()
    Image.new("RGB", (40, 30), (9, 9, 9)).save(tmp_path / "d.png")
    assert run() == ("d", True)
    (tmp_path / "d.png").unlink()
    assert run() == ("", True)


def test_what_no_frame_needs_is_removed_and_foreign_files_stay(photos, run, tmp_path):
    Image.new("RGB", (40, 30), (9, 9, 9)).save(tmp_path / "d.png")
    run()
    depth = tmp_path / "labels" / "depth"
    (tmp_path / "labels" / ".tracks.abc_1234.npz").write_bytes(b"of a killed run")
    (depth / ".b.abc_1234.npz").write_bytes(b"of a killed run")
    np.savez(depth / "mine.npz", depth=np.ones(3))
    (depth / ".keep").write_text("")
    (tmp_path / "d.png").unlink()
    run()
    assert sorted(path.name for path in depth.iterdir()) == [".keep", "a.npz", "b.npz", "c.npz", "mine.npz"]
    assert not list((tmp_path / "labels").glob(".*"))


def test_changed_experts_remake_only_their_part(photos, run):
    run()
    assert run(depth=CountingDepth(value=2.0)) == ("abc", False)
    assert run(depth=CountingDepth(value=2.0), tracks=CountingTracks(value=2.0)) == ("", True)


def test_changed_intrinsics_remake_the_tracks(photos, run):
    run()
    assert run(spec="fov:60") == ("", True)
    assert run(spec="fov:60") == ("", False)
    assert run(spec="fov:70") == ("", True)


def test_a_changed_input_of_the_expert_remakes_that_frame(photos, run, tmp_path):
    files = {"b": tmp_path / "b.map"}
    files["b"].write_text("1")
    assert run(depth=CountingDepth(files=files))[0] == "abc"
    assert run(depth=CountingDepth(files=files))[0] == ""
    files["b"].write_text("2")
    assert run(depth=CountingDepth(files=files))[0] == "b"


@pytest.mark.parametrize("damage", ["truncated", "flipped", "missing", "other"])
def test_damaged_parts_are_made_again(photos, run, tmp_path, damage):
    run()
    good = contents(tmp_path / "labels")
    for file in ("depth/b.npz", "tracks.npz"):
        path, content = tmp_path / "labels" / file, bytearray(good[file])
        content[len(content) // 2] ^= 0x40
        if damage == "missing":
            path.unlink()
        else:
            cases = {"truncated": good[file][:40], "flipped": bytes(content), "other": good["depth/a.npz"]}
            path.write_bytes(cases[damage])
    assert run() == ("b", True)
    assert contents(tmp_path / "labels") == good


def test_a_damaged_manifest_costs_nothing_but_itself(photos, run, tmp_path):
    run()
    good = contents(tmp_path / "labels")
    for broken in ("{", "[]", '{"files": 3}'):
        (tmp_path / "labels" / "manifest.json").write_text(broken)
        assert run() == ("", False)
        assert contents(tmp_path / "labels") == good


def test_an_interrupted_run_goes_on_where_it_stopped(photos, run, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run(depth=CountingDepth(fail_at="c"))
    with pytest.raises(UserError, match="no finished labels"):
        load_labels(tmp_path / "labels", photos)
    assert run() == ("c", False)
    interrupted = contents(tmp_path / "labels")
    for path in (tmp_path / "labels").rglob("*.*"):
        path.unlink()
    run()
    assert contents(tmp_path / "labels") == interrupted


def test_an_interrupted_change_goes_on_where_it_stopped(photos, run):
    run()
    with pytest.raises(KeyboardInterrupt):
        run(depth=CountingDepth(value=3.0, fail_at="c"))
    assert run(depth=CountingDepth(value=3.0)) == ("c", False)


def test_no_matches_is_an_error_in_plain_words(photos, tmp_path):
    for tracks in (track_expert("sift"), CountingTracks(visible=False)):
        with pytest.raises(UserError, match=r"no matches between its images: .*texture"):
            label_capture(photos, depth=CountingDepth(), tracks=tracks, out=tmp_path / "labels")


def test_missing_maps_show_before_anything_is_computed(photos, tmp_path):
    (tmp_path / "maps").mkdir()
    np.save(tmp_path / "maps" / "a.npy", np.ones((3, 4)))
    tracks = CountingTracks()
    with pytest.raises(UserError, match=r"maps/b\.png: no depth map"):
        label_capture(photos, depth=depth_expert(f"folder:{tmp_path / 'maps'}"), tracks=tracks, out=tmp_path / "out")
    assert tracks.calls == 0


def test_a_truncated_image_is_named(tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    for name in ("a", "b"):
        Image.fromarray(noise).save(tmp_path / f"{name}.jpg")
    (tmp_path / "b.jpg").write_bytes((tmp_path / "b.jpg").read_bytes()[:1000])
    with pytest.raises(UserError, match=r"b\.jpg: truncated"):
        label_capture(
            load_capture(tmp_path), depth=depth_expert("none"), tracks=track_expert("sift"), out=tmp_path / "labels"
        )


def test_places_that_cannot_be_written(photos, tmp_path):
    (tmp_path / "file").write_text("in the way")
    tracks = CountingTracks()
    for out in (tmp_path / "file", tmp_path / "file" / "labels"):
        with pytest.raises(UserError, match="cannot be written"):
            label_capture(photos, depth=CountingDepth(), tracks=tracks, out=out)
    assert tracks.calls == 0


def test_progress_names_what_is_done(photos, tmp_path):
    seen = []
    label_capture(
        photos, depth=CountingDepth(), tracks=CountingTracks(), out=tmp_path / "labels",
        progress=lambda *args: seen.append(args),
    )  # fmt: skip
    assert seen == [(1, 3, "depth"), (2, 3, "depth"), (3, 3, "depth")]


def test_from_images_to_labels(rendered, tmp_path):
    capture = load_capture(rendered, views=3)
    labels = label_capture(
        capture, depth=depth_expert("simulated"), tracks=track_expert("sift"), out=tmp_path / "labels"
    )
    assert labels.tracks.weight.shape[0] == 3
    assert labels.depth(0).depth.shape == (180, 240)
    again = load_labels(tmp_path / "labels", capture)
    np.testing.assert_array_equal(again.depth(2).depth, labels.depth(2).depth)
    assert "simulated" in again.fingerprints["depth"]["name"]

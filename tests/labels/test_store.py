import json
import zipfile

import numpy as np
import pytest
import torch
from counting_experts import CountingDepth, CountingTracks
from hypothesis import given
from hypothesis import strategies as st

from reliev3r.core.errors import UserError
from reliev3r.core.types import Tracks
from reliev3r.data.capture import load_capture
from reliev3r.labels.expert import DepthMap
from reliev3r.labels.pipeline import label_capture
from reliev3r.labels.store import (
    decode_depth,
    encode_depth,
    load_labels,
    load_tracks,
    read_depth,
    read_tracks,
    read_view_tracks,
    write_depth,
    write_tracks,
)


@given(st.integers(0, 2**32 - 1), st.floats(0, 6))
def test_log_depth_is_as_exact_as_it_says(seed, spread):
    rng = np.random.default_rng(seed)
    depth = np.exp(rng.uniform(-spread, spread, (6, 7))).astype(np.float32)
    valid = rng.random((6, 7)) < 0.7
    result = decode_depth(*encode_depth(DepthMap(depth=depth, valid=valid)))
    np.testing.assert_array_equal(result.valid, valid)
    bound = 2 * spread / 131068 + 2e-7  # and float32
    assert (np.abs(np.log(result.depth) - np.log(depth))[valid] <= bound).all()
    assert (result.depth[~valid] == 1).all()


@pytest.mark.parametrize("value", [0.25, 7.0])
def test_constant_and_empty_maps(value):
    flat = DepthMap(depth=np.full((2, 3), value, np.float32), valid=np.ones((2, 3), bool))
    np.testing.assert_allclose(decode_depth(*encode_depth(flat)).depth, value, rtol=1e-6)
    empty = DepthMap(depth=np.ones((2, 3), np.float32), valid=np.zeros((2, 3), bool))
    assert not decode_depth(*encode_depth(empty)).valid.any()


def test_same_content_gives_the_same_bytes(tmp_path):
    depth = DepthMap.from_values(np.random.default_rng(0).random((20, 30)))
    for name in ("a", "b"):
        write_depth(tmp_path / f"{name}.npz", depth, {"z": 1, "a": 2})
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    assert read_depth(tmp_path / "a.npz")[1] == {"a": 2, "z": 1}


def test_archives_have_no_time_of_their_own(tmp_path, monkeypatch):
    depth, tracks = DepthMap.from_values(np.ones((4, 5))), Tracks(uv=torch.ones(2, 3, 2), weight=torch.ones(2, 3))
    contents = []
    for now in (1e9, 1.7e9):
        monkeypatch.setattr("time.time", lambda now=now: now)
        write_depth(tmp_path / "d.npz", depth, {})
        write_tracks(tmp_path / "t.npz", tracks, {})
        contents.append([(tmp_path / name).read_bytes() for name in ("d.npz", "t.npz")])
        for name in ("d.npz", "t.npz"):
            with zipfile.ZipFile(tmp_path / name) as archive:
                assert {entry.date_time for entry in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
    assert contents[0] == contents[1]


def test_depth_is_compact(tmp_path):
    v, u = np.mgrid[:240, :320]
    smooth = 2 + np.sin(u / 50) + v / 100 + np.random.default_rng(0).normal(0, 0.01, u.shape)
    write_depth(tmp_path / "a.npz", DepthMap.from_values(smooth), {})
    assert (tmp_path / "a.npz").stat().st_size < 0.55 * 4 * smooth.size  # of float32


def test_tracks_come_back(tmp_path):
    generator = torch.Generator().manual_seed(0)
    weight = (torch.rand(4, 50, generator=generator) < 0.4).float() * torch.rand(4, 50, generator=generator)
    uv = torch.rand(4, 50, 2, generator=generator) * 1000
    write_tracks(tmp_path / "t.npz", Tracks(uv=uv, weight=weight), {"k": 1})
    tracks, key = read_tracks(tmp_path / "t.npz")
    assert torch.equal(tracks.weight, weight)
    assert torch.equal(tracks.uv[weight > 0], uv[weight > 0])
    assert key == {"k": 1}


def test_views_are_read_without_the_others(tmp_path):
    generator = torch.Generator().manual_seed(1)
    weight = (torch.rand(6, 80, generator=generator) < 0.4).float()
    tracks = Tracks(uv=torch.rand(6, 80, 2, generator=generator), weight=weight)
    path = tmp_path / "t.npz"
    write_tracks(path, tracks, {})
    with zipfile.ZipFile(path) as archive:
        entries = {entry.filename: entry for entry in archive.infolist()}
    assert {entry.compress_type for entry in entries.values()} == {zipfile.ZIP_STORED}
    content = bytearray(path.read_bytes())
    for view in (0, 1, 3, 5):  # all others are destroyed
        start = entries[f"view{view:05d}.npy"].header_offset + 200
        content[start : start + 8] = b"\xff" * 8
    path.write_bytes(bytes(content))
    some = read_view_tracks(path, [4, 2])
    shared = torch.nonzero((weight[[4, 2]] > 0).sum(0) == 2)[:, 0]
    assert len(shared) > 5
    assert torch.equal(some.uv, tracks.uv[[4, 2]][:, shared])
    assert torch.equal(some.weight, weight[[4, 2]][:, shared])
    with pytest.raises(UserError, match=r"t\.npz: missing or damaged"):
        read_view_tracks(path, [4, 3])
    with pytest.raises(UserError, match=r"t\.npz: missing or damaged"):
        read_tracks(path)


def test_a_view_of_the_tracks_can_be_mapped_into_memory(tmp_path):
    weight = torch.tensor([[1.0, 0, 1], [0, 0.5, 1]])
    write_tracks(tmp_path / "t.npz", Tracks(uv=torch.arange(12.0).reshape(2, 3, 2), weight=weight), {})
    with np.load(tmp_path / "t.npz") as content:
        seen = content["view00001"]
    assert seen.dtype.itemsize == 16
    assert seen["track"].tolist() == [1, 2]
    assert seen["uv"].tolist() == [[8, 9], [10, 11]]
    assert seen["weight"].tolist() == [0.5, 1]


@pytest.fixture
def labels(photos, tmp_path):
    label_capture(photos, depth=CountingDepth(), tracks=CountingTracks(), out=tmp_path / "labels")
    return tmp_path / "labels"


def test_stored_labels_are_those_of_the_pipeline(photos, labels):
    loaded = load_labels(labels, photos)
    assert loaded.names == ("a", "b", "c")
    assert loaded.ambiguity == "scale"
    assert loaded.fingerprints == {name: {"name": "counting", "value": 1.0} for name in ("depth", "tracks")}
    np.testing.assert_allclose(loaded.depth(2).depth, 1 + 40, rtol=1e-4)  # brightness 120 of one channel
    assert torch.equal(loaded.tracks.uv, CountingTracks().track(photos).uv)
    assert torch.equal(load_tracks(labels).uv, loaded.tracks.uv)


def test_some_of_the_frames(photos, labels, tmp_path):
    (tmp_path / "b.png").unlink()
    loaded = load_labels(labels, load_capture(tmp_path))
    assert loaded.names == ("a", "c")
    assert torch.equal(loaded.tracks.uv, load_tracks(labels).uv[[0, 2]])
    np.testing.assert_allclose(loaded.depth(1).depth, 41, rtol=1e-4)


def test_changed_and_new_images_are_refused(photos, labels, tmp_path):
    (tmp_path / "b.png").write_bytes((tmp_path / "a.png").read_bytes())
    with pytest.raises(UserError, match=r"b\.png: has changed since it was labelled"):
        load_labels(labels, load_capture(tmp_path))
    (tmp_path / "b.png").rename(tmp_path / "d.png")
    with pytest.raises(UserError, match="no labels of frame d"):
        load_labels(labels, load_capture(tmp_path))


@pytest.mark.parametrize("check", ["size", "none"])
def test_less_checking_reads_no_more_than_it_needs(photos, labels, check, monkeypatch):
    expected = load_labels(labels, photos)
    depth = expected.depth(2).depth
    monkeypatch.setattr("reliev3r.labels.store.file_hash", lambda path: pytest.fail(f"{path} was hashed"))
    loaded = load_labels(labels, photos, check=check)
    assert torch.equal(loaded.tracks.uv, expected.tracks.uv)
    np.testing.assert_array_equal(loaded.depth(2).depth, depth)


def test_less_checking_still_finds_what_it_reads(photos, labels, tmp_path):
    sized, trusting = (load_labels(labels, photos, check=check) for check in ("size", "none"))
    file = labels / "depth" / "b.npz"
    good = file.read_bytes()
    file.write_bytes(good + b"x")
    with pytest.raises(UserError, match="missing or damaged"):
        sized.depth(1)
    content = bytearray(good)
    content[len(good) // 2] ^= 4
    file.write_bytes(bytes(content))
    for loaded in (sized, trusting):  # the archive's own checksum
        with pytest.raises(UserError, match="missing or damaged"):
            loaded.depth(1)
    (tmp_path / "a.png").write_bytes(b"another size")
    load_labels(labels, photos, check="none")
    with pytest.raises(UserError, match=r"a\.png: has changed"):
        load_labels(labels, photos, check="size")


@pytest.mark.parametrize("position", [0, 10, 60, -30, -1])
def test_every_flipped_byte_is_found(photos, labels, position):
    loaded = load_labels(labels, photos)
    for file, read in (("depth/b.npz", lambda: loaded.depth(1)), ("tracks.npz", lambda: load_labels(labels, photos))):
        content = bytearray((labels / file).read_bytes())
        content[position] ^= 0x10
        (labels / file).write_bytes(bytes(content))
        with pytest.raises(UserError, match=rf"{file}: missing or damaged"):
            read()


def test_truncated_and_missing_files_are_found(photos, labels):
    loaded = load_labels(labels, photos)
    (labels / "depth" / "a.npz").write_bytes((labels / "depth" / "a.npz").read_bytes()[:50])
    with pytest.raises(UserError, match=r"a\.npz: missing or damaged"):
        loaded.depth(0)
    (labels / "depth" / "a.npz").unlink()
    with pytest.raises(UserError, match=r"a\.npz: missing or damaged"):
        loaded.depth(0)


def test_unfinished_foreign_and_newer_folders(photos, labels):
    manifest = json.loads((labels / "manifest.json").read_text())
    (labels / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(UserError, match=r"manifest\.json: damaged"):  # the same content in another form is not ours
        load_labels(labels, photos)
    (labels / "manifest.json").write_text(json.dumps({**manifest, "format": "reliev3r-labels/9"}))
    with pytest.raises(UserError, match="not of format reliev3r-labels/2"):
        load_labels(labels, photos)
    (labels / "manifest.json").write_text("[]")
    with pytest.raises(UserError, match="not of format"):
        load_labels(labels, photos)
    (labels / "manifest.json").unlink()
    with pytest.raises(UserError, match="holds no finished labels"):
        load_labels(labels, photos)

import json

import numpy as np
import pytest
import torch
from counting_experts import CountingDepth, CountingTracks
from hypothesis import given
from hypothesis import strategies as st

from reliev3r.data.capture import load_capture
from reliev3r.errors import UserError
from reliev3r.labels.expert import DepthMap
from reliev3r.labels.pipeline import label_capture
from reliev3r.labels.store import (
    decode_depth,
    encode_depth,
    load_labels,
    load_tracks,
    read_depth,
    read_tracks,
    write_depth,
    write_tracks,
)
from reliev3r.types import Tracks


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
    (labels / "manifest.json").write_text(json.dumps({**manifest, "format": "reliev3r-labels/9"}))
    with pytest.raises(UserError, match="not of format reliev3r-labels/1"):
        load_labels(labels, photos)
    (labels / "manifest.json").write_text("[]")
    with pytest.raises(UserError, match="not of format"):
        load_labels(labels, photos)
    (labels / "manifest.json").unlink()
    with pytest.raises(UserError, match="holds no finished labels"):
        load_labels(labels, photos)

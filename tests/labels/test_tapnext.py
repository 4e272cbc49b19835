"""What is between TAPNext's network and our guards, with a stand-in of its interface; the guards: test_cotracker.py."""

import dataclasses
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from reliev3r.core.errors import UserError
from reliev3r.data.capture import load_capture
from reliev3r.labels.expert import TrackExpert
from reliev3r.labels.registry import track_expert
from reliev3r.labels.tracks import tapnext
from reliev3r.labels.tracks.tapnext import TapNext

WIDTH, HEIGHT, FRAMES, RED = 160, 120, 8, 25
"""Red tells which frame it is."""


def motion(v):
    """Pixels a frame to the right: the camera slides past a wall that is nearer at the bottom."""
    return 1.5 * (1 + v / HEIGHT)


class Network:
    """Sees which frame is which; before a point is asked for it hands back nonsense, "visible"."""

    def __init__(self):
        self.calls = []

    def __call__(self, video, query_points):
        assert video.shape[2:] == (256, 256, 3)
        assert -1 <= video.min() < video.max() <= 1
        index = ((video[0, ..., 0].mean((1, 2)) + 1) * 127.5 / RED).round()
        self.calls.append((int(index[0]), int(index[-1]), query_points.shape[1]))
        time, y, x = query_points[0].T
        u, v = x * WIDTH / 256, y * HEIGHT / 256
        u = u + motion(v) * (index[:, None] - index[time.long()][None])
        visible = torch.where((u > 0) & (u < WIDTH), 3.0, -3.0)
        tracks = torch.stack([y.expand_as(u), u * 256 / WIDTH], dim=-1)
        nonsense = torch.arange(len(index))[:, None] < time[None]
        tracks[nonsense], visible[nonsense] = 128.0, 3.0
        return tracks[None], None, visible[None, ..., None], None


@pytest.fixture
def video(tmp_path):
    folder = tmp_path / "video"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for index in range(FRAMES):
        picture = rng.integers(0, 255, (HEIGHT, WIDTH, 3), dtype=np.uint8)
        picture[..., 0] = RED * index
        Image.fromarray(picture).save(folder / f"{index:02d}.png")
    return dataclasses.replace(load_capture(folder), ordered=True)


@pytest.fixture
def run(video, tmp_path, monkeypatch):
    def run(**settings):
        network = Network()
        monkeypatch.setattr(tapnext, "load_network", lambda checkpoint, device: network)
        (tmp_path / "weights.pt").touch()
        values = {"window": 5, "overlap": 2, "queries": 40, "tolerance": 0.01, **settings}
        return TapNext(checkpoint=tmp_path / "weights.pt", **values).track(video), network

    return run


def test_points_are_followed_both_ways_and_from_clip_to_clip(run):
    tracks, network = run()
    seen, uv = tracks.visible.numpy(), tracks.uv.double().numpy()
    assert seen.sum(0).max() == FRAMES
    assert (seen.sum(0) >= 3).sum() > 30
    assert any(first < last for first, last, _ in network.calls)
    assert any(first > last for first, last, _ in network.calls)  # the other way round
    first = seen.argmax(0)
    start = uv[first, np.arange(uv.shape[1])]
    true = start[None, :, 0] + motion(start[None, :, 1]) * (np.arange(FRAMES)[:, None] - first[None])
    assert np.hypot(uv[..., 0] - true, uv[..., 1] - start[None, :, 1])[seen].max() < 1e-3


def test_batches_change_nothing(run):
    (whole, _), (parts, network) = run(), run(batch=7)
    assert torch.allclose(whole.uv, parts.uv, atol=1e-4)
    assert torch.equal(whole.weight, parts.weight)
    assert max(count for _, _, count in network.calls) == 7


def test_each_point_is_seen_where_it_was_asked_for(video, tmp_path, monkeypatch):
    monkeypatch.setattr(tapnext, "load_network", lambda checkpoint, device: Network())
    frames = np.stack([video.image(index) for index in range(FRAMES)])
    asked, where = np.array([0, 3, 7]), np.array([[40.0, 30.0], [80.25, 60.5], [120.0, 90.0]])
    uv, seen = TapNext(checkpoint=tmp_path)._predict(frames, asked, where)
    np.testing.assert_array_equal(uv[np.arange(3), asked], where)
    assert seen.all()
    np.testing.assert_allclose(uv[1, :, 0], 80.25 + motion(60.5) * (np.arange(FRAMES) - 3), atol=1e-4)
    np.testing.assert_allclose(uv[1, :, 1], 60.5, atol=1e-4)


def test_it_is_asked_for_by_name_and_photographs_are_refused(run, video, tmp_path):
    run()
    expert = track_expert(f"tapnext:{tmp_path / 'weights.pt'}")
    assert isinstance(expert, TrackExpert)
    assert expert.fingerprint()["name"] == "tapnext"
    with pytest.raises(UserError, match=r"no order in time, which TAPNext follows .*--tracks sift"):
        expert.track(dataclasses.replace(video, ordered=False))
    with pytest.raises(UserError, match="choose one of"):
        track_expert("tapnext")


def test_what_is_missing_is_told_in_one_line(video, tmp_path, monkeypatch):
    with pytest.raises(UserError, match=r"w\.pt: no such file; get https://storage.googleapis.com/dm-tapnet/tapnextpp"):
        TapNext(checkpoint=tmp_path / "w.pt").track(video)
    (tmp_path / "w.pt").touch()
    monkeypatch.setitem(sys.modules, "tapnet", None)
    with pytest.raises(UserError, match=r"needs its package and torchvision .*: pip install einops torchvision && pip"):
        TapNext(checkpoint=tmp_path / "w.pt").track(video)

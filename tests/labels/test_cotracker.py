"""What is built around CoTracker, with a stand-in of its interface whose answers and faults are known."""

import dataclasses
import sys
from itertools import pairwise

import numpy as np
import pytest
import torch
from PIL import Image

from reliev3r.core.errors import UserError
from reliev3r.data.capture import load_capture
from reliev3r.geometry.sampling import clip_ranges
from reliev3r.labels.expert import TrackExpert
from reliev3r.labels.tracks import cotracker
from reliev3r.labels.tracks.clips import corners, farthest_frame, frozen
from reliev3r.labels.tracks.cotracker import CoTracker3

WIDTH, HEIGHT, FRAMES = 160, 120, 12
STEP = 1.5


def motion(v):
    """Pixels a frame to the right: the camera slides past a wall that is nearer at the bottom."""
    return STEP * (1 + v / HEIGHT)


class Follower:
    """A perfect tracker with the interface of CoTrackerPredictor (pixel centres at integers), and faults to order."""

    def __init__(self, fault=""):
        self.fault = fault
        self.clips = []

    def __call__(self, video, queries, backward_tracking):
        assert backward_tracking
        assert video.dtype == torch.float32
        assert video.max() > 1  # 0 to 255
        time, u, v = queries[0].T
        frames = video.shape[1]
        self.clips.append(frames)
        since = torch.arange(frames)[:, None] - time[None]
        uv = torch.stack([u + motion(v + 0.5) * since, v.expand(frames, -1)], dim=-1)
        seen = (uv[..., 0] > -0.5) & (uv[..., 0] < WIDTH - 0.5)
        if self.fault == "jump":  # every third point goes on with its neighbour 12 pixels to the right from frame 3 on
            wrong = (v.long() % 3 == 0)[None] & (since > 0) & (torch.arange(frames)[:, None] >= 3)
            uv[..., 0] += 12 * wrong
        if self.fault == "freeze":  # a point that leaves stays where it was last seen, and "visible"
            uv[..., 0] = uv[..., 0].clamp(4, WIDTH - 5)
            seen = torch.ones_like(seen)
        if self.fault == "zeros":
            uv, seen = torch.zeros_like(uv), torch.ones_like(seen)
        at = time.long()
        uv[at, torch.arange(len(at))] = queries[0, :, 1:]
        seen[at, torch.arange(len(at))] = True
        return uv[None], seen[None]


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    """Textured frames; the stand-in does not look at them."""
    folder = tmp_path_factory.mktemp("video")
    rng = np.random.default_rng(0)
    for index in range(FRAMES):
        Image.fromarray(rng.integers(0, 255, (HEIGHT, WIDTH, 3), dtype=np.uint8)).save(folder / f"{index:02d}.png")
    return dataclasses.replace(load_capture(folder), ordered=True)


@pytest.fixture
def run(video, tmp_path, monkeypatch):
    def run(fault="", **settings):
        follower = Follower(fault)
        monkeypatch.setattr(cotracker, "load_predictor", lambda checkpoint, device: follower)
        (tmp_path / "weights.pth").touch()
        values = {"window": 6, "overlap": 2, "queries": 60, "tolerance": 0.01, **settings}
        expert = CoTracker3(checkpoint=tmp_path / "weights.pth", **values)
        return expert.track(video), follower

    return run


def errors(tracks):
    """Pixels between each observation and where the point is that the track's first observation shows."""
    uv, seen = tracks.uv.double().numpy(), tracks.visible.numpy()
    first = seen.argmax(0)
    start = uv[first, np.arange(uv.shape[1])]
    frames = np.arange(len(uv))[:, None]
    true = start[None, :, 0] + motion(start[None, :, 1]) * (frames - first[None])
    return np.hypot(uv[..., 0] - true, uv[..., 1] - start[None, :, 1])[seen]


def test_points_go_on_from_clip_to_clip(run):
    tracks, follower = run()
    assert tracks.uv.shape[0] == FRAMES
    assert set(follower.clips) == {6}
    assert errors(tracks).max() < 1e-3
    length = tracks.visible.sum(0)
    assert length.max() == FRAMES  # through three clips
    assert (length >= 3).sum() > 50
    inside = tracks.uv[tracks.visible]
    assert (inside > 1).all()
    assert (inside < torch.tensor([WIDTH - 1.0, HEIGHT - 1.0])).all()


def test_the_same_points_are_not_followed_twice(run):
    tracks, _ = run()
    for uv, seen in zip(tracks.uv, tracks.visible):
        apart = torch.cdist(uv[seen], uv[seen]) + 100 * torch.eye(int(seen.sum()))
        assert apart.min() > 0.5


def test_batches_change_nothing(run):
    whole, _ = run()
    parts, follower = run(batch=17)
    assert torch.equal(whole.uv, parts.uv)
    assert len(follower.clips) > 6


def test_tracks_that_jump_are_dropped(run):
    tracks, _ = run("jump")
    assert (tracks.visible.sum(0) >= 3).sum() > 50
    assert errors(tracks).max() < 2 * 0.01 * WIDTH  # the tolerance, not the jump of 12
    blind, _ = run("jump", tolerance=0.2)  # the fault is there, and along the epipolar lines
    assert errors(blind).max() > 11


def test_points_that_left_the_image_are_dropped(run):
    tracks, _ = run("freeze")
    assert (tracks.visible.sum(0) >= 3).sum() > 50
    assert errors(tracks).max() < 2 * 0.01 * WIDTH
    blind, _ = run("freeze", strip=0.0)
    assert errors(blind).max() > 3


def test_zeros_are_no_tracks(run):
    tracks, _ = run("zeros")
    assert not (tracks.visible.sum(0) >= 2).any()


def test_large_frames_are_shrunk_and_tracks_are_in_original_pixels(run):
    tracks, _ = run(long_side=80)  # the stand-in's motion is in working pixels
    seen = tracks.visible
    step = (tracks.uv[1:] - tracks.uv[:-1])[seen[1:] & seen[:-1]]
    assert 2 * STEP < step[:, 0].median() < 4 * STEP
    assert tracks.uv[seen][:, 0].max() > WIDTH / 2


def test_photographs_are_refused_and_a_matcher_is_named(run, video, tmp_path):
    (tmp_path / "w.pth").touch()
    expert = CoTracker3(checkpoint=tmp_path / "w.pth")
    assert isinstance(expert, TrackExpert)
    with pytest.raises(UserError, match=r"no order in time.*--tracks sift"):
        expert.track(dataclasses.replace(video, ordered=False))
    with pytest.raises(UserError, match="4 frames are too few for CoTracker"):
        expert.track(dataclasses.replace(video, frames=video.frames[:4]))
    turned = dataclasses.replace(video.frames[3], width=HEIGHT, height=WIDTH)
    with pytest.raises(UserError, match="frames are of 2 sizes"):
        expert.track(dataclasses.replace(video, frames=(*video.frames[:7], turned)))


def test_missing_checkpoint_and_package_say_what_to_do(video, tmp_path, monkeypatch):
    with pytest.raises(UserError, match=r"no such file; get scaled_offline\.pth with `hf download"):
        CoTracker3(checkpoint=tmp_path / "w.pth").fingerprint()
    (tmp_path / "w.pth").touch()
    monkeypatch.setitem(sys.modules, "cotracker", None)
    monkeypatch.setitem(sys.modules, "cotracker.predictor", None)
    with pytest.raises(UserError, match=r"not for commercial use: pip install --no-deps git\+https://github.com/face"):
        CoTracker3(checkpoint=tmp_path / "w.pth").track(video)


def test_the_fingerprint_follows_weights_and_settings_but_not_the_device(tmp_path):
    path = tmp_path / "w.pth"
    path.write_bytes(b"a")
    first = CoTracker3(checkpoint=path).fingerprint()
    assert first == CoTracker3(checkpoint=path, device="cuda").fingerprint()
    assert first != CoTracker3(checkpoint=path, window=30).fingerprint()
    path.write_bytes(b"b")
    assert first != CoTracker3(checkpoint=path).fingerprint()


@pytest.mark.parametrize(("frames", "window", "overlap"), [(5, 48, 12), (48, 48, 12), (49, 48, 12), (500, 48, 12)])
def test_clips_cover_a_long_video_and_overlap(frames, window, overlap):
    clips = clip_ranges(frames, window=window, overlap=overlap)
    assert clips[0][0] == 0
    assert clips[-1][1] == frames
    assert all(stop - start == min(window, frames) for start, stop in clips)
    assert all(before[1] - after[0] >= overlap for before, after in pairwise(clips))
    assert len(clips) <= 1 + frames // (window - overlap)


def test_corners_are_where_the_texture_is():
    image = np.zeros((60, 80, 3), np.uint8)
    image[20:30, 30:44] = 255
    found = corners(image, count=48, border=3)
    assert 4 <= len(found) <= 10  # a cell may see the corner of its neighbour
    for corner in ([30, 20], [44, 20], [30, 30], [44, 30]):
        assert np.linalg.norm(found - np.array(corner), axis=1).min() < 2
    assert len(corners(np.zeros((60, 80, 3), np.uint8), count=48, border=3)) == 0


def test_the_farthest_frame_is_one_in_which_the_point_is_seen():
    seen = np.array([[1, 1, 1, 0, 0], [1, 0, 1, 0, 1], [0, 0, 0, 1, 0]], bool)
    assert farthest_frame(seen, np.array([1, 2, 3])).tolist() == [0, 0, 3]


def test_a_still_camera_freezes_nothing():
    uv = np.tile(np.array([[[3.0, 50.0]], [[80.0, 50.0]]]), (1, 5, 1))
    seen = np.ones((2, 5), bool)
    assert not frozen(uv, seen, 160, 120, strip=8).any()
    uv[1, :, 0] += 2 * np.arange(5)  # now something moves, but half of all is no majority; a third point decides
    uv, seen = np.concatenate([uv, uv[1:] + 10]), np.ones((3, 5), bool)
    assert frozen(uv, seen, 160, 120, strip=8).tolist() == [[True] * 5, [False] * 5, [False] * 5]

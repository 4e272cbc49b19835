import dataclasses

import numpy as np
import pytest
import torch
from counting_experts import CountingTracks
from PIL import Image

from reliev3r.core.types import Tracks
from reliev3r.data.capture import load_capture
from reliev3r.data.intrinsics import with_intrinsics
from reliev3r.data.network_views import network_views
from reliev3r.labels.expert import DepthMap
from reliev3r.labels.pipeline import label_capture
from reliev3r.labels.prepare import network_sample


class RampDepth:
    """Depth = 1 + u / width in every image, at 20 x 16."""

    ambiguity = "scale+shift"

    def fingerprint(self):
        return {"name": "ramp"}

    def inputs(self, frame, capture):
        return []

    def predict(self, image, frame, capture):
        return DepthMap.from_values(np.broadcast_to(1 + (np.arange(20) + 0.5) / 20, (16, 20)))


class FixedTracks(CountingTracks):
    def track(self, capture, progress=None):
        """Image centre, a place in the top left corner, and one that only two views see."""
        centre = torch.tensor([[frame.width / 2, frame.height / 2] for frame in capture.frames])
        uv = torch.stack([centre, torch.full_like(centre, 2.0), centre / 2], dim=1)
        weight = torch.ones(len(capture.frames), 3)
        weight[2, 2] = 0
        return Tracks(uv=uv, weight=weight)


@pytest.fixture
def labelled(tmp_path):
    """Two wide images and an upright one."""
    for name, size in (("a", (80, 60)), ("b", (160, 120)), ("c", (60, 80))):
        Image.new("RGB", size, (255, 0, 51)).save(tmp_path / f"{name}.png")

    def make(spec):
        capture = with_intrinsics(load_capture(tmp_path), spec)
        labels = label_capture(capture, depth=RampDepth(), tracks=FixedTracks(), out=tmp_path / "labels")
        return capture, labels

    return make


def test_sample_has_one_size_and_keeps_every_track(labelled):
    capture, labels = labelled("estimate")
    views, pseudo, regions = network_sample(capture, labels, long_side=56, patch=14)
    assert views.image.shape == (3, 3, 42, 56)
    torch.testing.assert_close(views.image[:, :, 20, 20], torch.tensor([[1.0, 0.0, 0.2]] * 3))
    assert views.K is None
    assert pseudo.K is None
    assert pseudo.depth.ambiguity == "scale+shift"
    assert pseudo.depth.depth.shape == (3, 42, 56)
    assert bool(pseudo.depth.valid.all())
    assert pseudo.tracks.uv.shape == (3, 3, 2)
    assert regions.shape == (3, 4)
    assert regions[0].tolist() == [0, 0, 80, 60]


def test_tracks_move_along_and_leave_the_crop(labelled):
    capture, labels = labelled("estimate")
    _, pseudo, regions = network_sample(capture, labels, long_side=56, patch=14)
    torch.testing.assert_close(pseudo.tracks.uv[:, 0], torch.tensor([[28.0, 21.0]] * 3))
    assert regions[2, 1] > 2  # the upright image is cropped: its corner is gone
    assert pseudo.tracks.weight.tolist() == [[1, 1, 1], [1, 1, 1], [1, 0, 0]]
    torch.testing.assert_close(pseudo.tracks.uv[1, 1], torch.tensor([2 * 56 / 160, 2 * 42 / 120]))


def test_depth_covers_the_same_pixels_as_the_image(labelled):
    capture, labels = labelled("estimate")
    _, pseudo, _ = network_sample(capture, labels, long_side=56, patch=14)
    expected = 1 + (torch.arange(56) + 0.5) / 56  # every region has full width
    torch.testing.assert_close(pseudo.depth.depth[:, 20, 5:-5], expected[5:-5].expand(3, -1), rtol=0, atol=2e-3)


def test_K_is_that_of_the_resized_image(labelled, tmp_path):
    (tmp_path / "c.png").unlink()
    for name, size in (("a", (80, 60)), ("b", (160, 120))):
        Image.new("RGB", size).save(tmp_path / f"{name}.png")
    views, _ = network_views(with_intrinsics(load_capture(tmp_path), "fov:90"), long_side=56, patch=14)
    expected = torch.tensor([[28.0, 0, 28], [0, 28, 21], [0, 0, 1]])
    torch.testing.assert_close(views.K, expected.expand(2, 3, 3))


def test_one_unknown_K_makes_all_unknown(labelled):
    capture, _ = labelled("estimate")
    first = capture.frames[0]
    K = np.array([[1.0 * first.width, 0, first.width / 2], [0, first.width, first.height / 2], [0, 0, 1]])
    frames = (dataclasses.replace(first, K=K), *capture.frames[1:])
    views, _ = network_views(dataclasses.replace(capture, frames=frames), long_side=56, patch=14)
    assert views.K is None

"""CoTracker3's own class with random weights, at a quarter of its resolution."""

import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image

from reliev3r.core.errors import UserError
from reliev3r.data.capture import load_capture
from reliev3r.labels.tracks.clips import corners
from reliev3r.labels.tracks.cotracker import CoTracker3, load_predictor

pytestmark = pytest.mark.usefixtures("cotracker")
RESOLUTION = (96, 128)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A state dict as upstream publishes it; random weights see nothing, so the bias of the visibility says "seen"."""
    from cotracker.predictor import CoTrackerPredictor

    torch.manual_seed(0)
    model = CoTrackerPredictor(checkpoint=None, offline=True, window_len=60).model
    with torch.no_grad():
        model.updateformer.vis_conf_head.bias.fill_(1.0)  # for each of the six iterations
        model.updateformer.flow_head.weight.mul_(0.2)
    path = tmp_path_factory.mktemp("cotracker") / "scaled_offline.pth"
    torch.save(model.state_dict(), path)
    return path


@pytest.fixture
def expert(checkpoint):
    made = CoTracker3(checkpoint=checkpoint, window=5, overlap=2, queries=12, query_frames=1, tolerance=0.05)
    made._predictor.support_grid_size = 1
    made._predictor.interp_shape = made._predictor.model.model_resolution = RESOLUTION
    return made


@pytest.fixture
def video(tmp_path):
    """Eight times the same picture: what stands still, random weights can follow."""
    picture = np.random.default_rng(0).integers(0, 255, (90, 120, 3), dtype=np.uint8)
    for index in range(8):
        Image.fromarray(picture).save(tmp_path / f"{index}.png")
    return dataclasses.replace(load_capture(tmp_path), ordered=True)


@pytest.mark.slow
def test_a_still_video_gives_tracks_through_several_clips(expert, video):
    tracks = expert.track(video)
    seen = tracks.visible
    assert tracks.uv.shape[0] == 8
    assert (seen.sum(0) >= 3).sum() >= 6
    assert seen.sum(0).max() > 5, "no track goes on in the second clip"
    uv = tracks.uv.clone()
    uv[~seen] = torch.nan
    assert (uv - uv.nanmedian(0).values).nan_to_num().abs().max() < 2 * 0.05 * 120
    places = torch.from_numpy(corners(video.image(0), count=12, border=0.01 * 120)).float()
    exact = torch.cdist(tracks.uv[0, seen[0]], places).min(1).values < 1e-3
    assert exact.sum() >= 5  # asked for here, and handed back in the same convention


def test_upstreams_pixels_have_their_centres_at_integers(expert):
    """Its own resizing maps the centres of the corner pixels onto each other."""
    video = np.random.default_rng(0).integers(0, 255, (5, 90, 120, 3), dtype=np.uint8)
    asked, where = np.array([0, 2]), np.array([[0.5, 0.5], [119.5, 89.5]])
    uv, seen = expert._predict(video, asked, where)
    assert uv.shape == (2, 5, 2)
    assert seen[[0, 1], asked].all()
    np.testing.assert_allclose(uv[[0, 1], asked], where, atol=1e-4)


def test_importing_it_does_not_reseed_torch(checkpoint):
    import sys

    for name in [name for name in sys.modules if name.split(".")[0] == "cotracker"]:
        del sys.modules[name]
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    from reliev3r.labels.tracks.cotracker import import_predictor

    import_predictor()
    assert torch.equal(torch.rand(3), expected)


def test_foreign_weights_are_refused(tmp_path):
    torch.save({"model": {"a": torch.zeros(1)}}, tmp_path / "w.pth")
    with pytest.raises(UserError, match=r"w\.pth: holds no weights of an offline CoTracker3"):
        load_predictor(tmp_path / "w.pth", "cpu")

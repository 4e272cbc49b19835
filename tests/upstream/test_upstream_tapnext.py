"""TAPNext's own class, narrower and with random weights, beside upstream's own use of it frame by frame."""

import numpy as np
import pytest
import torch

from reliev3r.core.errors import UserError
from reliev3r.labels.tracks.tapnext import TapNext, load_network

pytestmark = pytest.mark.usefixtures("tapnet")
FRAMES = 4


@pytest.fixture
def checkpoint(tmp_path, monkeypatch):
    """As upstream publishes it."""
    from tapnet.tapnext import tapnext_torch

    class Narrow(tapnext_torch.TAPNext):
        def __init__(self, image_size):
            super().__init__(image_size, width=48, num_heads=3, lru_width=48, depth=2)

    monkeypatch.setattr(tapnext_torch, "TAPNext", Narrow)
    torch.manual_seed(0)
    network = Narrow((256, 256))
    with torch.no_grad():
        for name, parameter in network.named_parameters():  # many are left empty or zero by upstream
            parameter.copy_(0.2 * torch.randn_like(parameter))
            if "norm" in name or "ln_" in name:
                parameter.add_(1.0)
    torch.save({"state_dict": {f"tapnext.{name}": value for name, value in network.state_dict().items()}},
               tmp_path / "tapnextpp_ckpt.pt")  # fmt: skip
    return tmp_path / "tapnextpp_ckpt.pt"


@pytest.fixture
def frames():
    return np.random.default_rng(0).integers(0, 255, (FRAMES, 256, 256, 3), dtype=np.uint8)


WHERE = np.array([[30.5, 200.25], [128.0, 128.0], [250.0, 10.75]])


def test_a_clip_at_once_is_what_upstream_tracks_frame_by_frame(checkpoint, frames):
    from tapnet.tapnextpp.votsp2026.model import TAPNextPP

    theirs = TAPNextPP.from_checkpoint(checkpoint, device="cpu")
    for asked, order in ((0, frames), (FRAMES - 1, frames[::-1])):
        uv, seen = TapNext(checkpoint=checkpoint)._predict(frames, np.full(3, asked), WHERE)
        state, query = None, WHERE.astype(np.float32)
        for index, frame in zip(range(FRAMES) if asked == 0 else range(FRAMES - 1, -1, -1), order):
            place, visible, state = theirs.track_frame(frame[..., ::-1], None if state else query, state)
            if index != asked:
                np.testing.assert_allclose(uv[:, index], place, atol=1e-2)
                np.testing.assert_array_equal(seen[:, index], visible)
        np.testing.assert_array_equal(uv[:, asked], WHERE)
    assert np.ptp(uv[:, 0], axis=0).max() > 1, "the weights say something about the points"


def test_a_point_asked_for_in_the_middle_is_followed_both_ways(checkpoint, frames):
    expert = TapNext(checkpoint=checkpoint)
    uv, seen = expert._predict(frames, np.full(3, 2), WHERE)
    later, _ = expert._predict(frames[2:], np.zeros(3, int), WHERE)
    assert seen[:, 2].all()
    assert np.isfinite(uv).all()
    assert ((uv >= 0) & (uv <= 256)).all()
    assert not np.allclose(uv[:, 3], later[:, 1], atol=1e-6)  # the network has seen the frames before, too


def test_foreign_weights_are_refused(checkpoint, tmp_path):
    torch.save({"a": torch.zeros(1)}, tmp_path / "w.pt")
    with pytest.raises(UserError, match=r"w\.pt: holds no weights of a TAPNext at 256 pixels"):
        load_network(tmp_path / "w.pt", "cpu")

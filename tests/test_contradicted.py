"""`reconstruct` says where matches that nobody used contradict what a network predicted in one pass."""

import pytest
import torch

import builders
from reliev3r.core.reconstruction import Reconstruction
from reliev3r.core.types import Prediction
from reliev3r.data.capture import load_capture
from reliev3r.data.truth import CameraFile
from reliev3r.geometry.camera import ray_map
from reliev3r.runs.held_matches import contradiction
from reliev3r.runs.reconstruct import reconstruct


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return builders.capture(tmp_path_factory.mktemp("room"), views=3, width=160, height=120, span=20.0)


def true_reconstruction(root) -> Reconstruction:
    capture, truth = load_capture(root), CameraFile(root)
    cameras = torch.stack([torch.as_tensor(truth.camera(name).world_from_cam) for name in capture.names])
    depth = torch.stack([torch.as_tensor(truth.depth(name)).float() for name in capture.names])
    K = torch.stack([torch.from_numpy(frame.K) for frame in capture.frames])
    prediction = Prediction(
        depth=depth.clamp_min(0.01), rays=ray_map(K, 120, 160).float(), conf=torch.ones_like(depth),
        world_from_cam=cameras.float(),
    )  # fmt: skip
    return Reconstruction(
        prediction=prediction, names=capture.names, image_files=tuple(frame.file for frame in capture.frames),
        image=torch.zeros(3, 120, 160, 3, dtype=torch.uint8), sizes=((160, 120),) * 3,
        regions=torch.tensor([[0.0, 0, 160, 120]] * 3),
    )  # fmt: skip


def test_the_truth_is_not_contradicted_and_a_turned_camera_is(root) -> None:
    found, capture = true_reconstruction(root), load_capture(root)
    assert contradiction(found, capture) is None
    cameras = found.prediction.world_from_cam.clone()
    cameras[1:, :3, :3] = cameras[1:, :3, :3] @ torch.tensor([[0.94, 0, 0.342], [0, 1, 0], [-0.342, 0, 0.94]])
    told = contradiction(found.with_cameras(cameras), capture)
    assert told is not None
    assert "contradict this reconstruction" in told


def test_the_verb_warns(root, caplog) -> None:
    torch.manual_seed(0)
    found = reconstruct(root, builders.network().eval(), image_size=56)
    assert "contradict this reconstruction" in caplog.text
    assert found[0].meta["contradicted"] in caplog.text

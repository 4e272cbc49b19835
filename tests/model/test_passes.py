"""More views than a pass takes: what the passes come to together is what one pass would have said."""

import dataclasses
import math

import pytest
import torch

import builders
from reliev3r.core.types import Prediction, Views
from reliev3r.data.capture import load_capture
from reliev3r.geometry.camera import K_from_fov, ray_map
from reliev3r.geometry.rigid import so3_exp
from reliev3r.geometry.similarities import moved_cameras, scale_of
from reliev3r.model.network import NetworkConfig, Reliev3R
from reliev3r.model.passes import AT_ONCE, predict_in_passes
from reliev3r.model.predict import predict, predict_depth, reconstruct_capture
from reliev3r.synthetic.path import look_at

COUNT, SIZE = 60, (12, 16)


def walk() -> Prediction:
    """Once around a circle, looking outwards at walls of any relief; exact."""
    angle = torch.arange(COUNT) * 2 * math.pi / COUNT
    eye = torch.stack([2 * angle.cos(), 2 * angle.sin(), 0.2 * (3 * angle).sin()], dim=-1)
    g = torch.Generator().manual_seed(0)
    depth = 2 + torch.rand(COUNT, *SIZE, generator=g)
    return Prediction(
        depth=depth, rays=ray_map(K_from_fov(1.1, *SIZE).expand(COUNT, 3, 3), *SIZE), conf=torch.ones(COUNT, *SIZE),
        world_from_cam=look_at(eye, 3 * eye),
    )  # fmt: skip


def numbered() -> Views:
    """Images that say which view they are."""
    return Views(image=torch.arange(COUNT).float()[:, None, None, None].expand(COUNT, 3, *SIZE), K=None)


class Runner:
    """A pass that says the truth of its views, in a frame of its own; with ``drift`` it shrinks along the walk."""

    def __init__(self, truth: Prediction, *, drift: float = 0.0, lies: bool = False) -> None:
        self.truth, self.drift, self.lies = truth, drift, lies
        self.asked: list[list[int]] = []

    def __call__(self, views: Views) -> Prediction:
        index = views.image[:, 0, 0, 0].long()
        self.asked.append(index.tolist())
        g = torch.Generator().manual_seed(len(self.asked))
        frame = torch.eye(4, dtype=torch.float64)
        frame[:3, :3] = math.exp(float(torch.randn((), generator=g))) * so3_exp(torch.randn(3, generator=g)).double()
        frame[:3, 3] = torch.randn(3, generator=g)
        said = self.truth.select_views(index)
        depth, cameras = said.depth, said.world_from_cam.double()
        if self.lies and (index.diff() > 1).any():  # a pass with a gap: a loop
            depth = torch.rand(depth.shape, generator=g) + 0.1
        apart = (index.float() - index.float().mean()) * (1 if (index.diff() == 1).all() else 0)
        factor = (self.drift * apart).exp()
        cameras = cameras.clone()
        cameras[:, :3, 3] *= factor[:, None]
        return Prediction(
            depth=depth * factor[:, None, None] * float(scale_of(frame)), rays=said.rays, conf=said.conf,
            world_from_cam=moved_cameras(frame, cameras).float(),
        )  # fmt: skip


def error(found: Prediction, truth: Prediction) -> float:
    """Largest distance of the points, as a share of the walk, in the first camera's frame and unit."""
    sides = []
    for each in (found, truth):
        inner = each.world_from_cam[0].inverse()
        points = each.points_world.reshape(COUNT, -1, 3) @ inner[:3, :3].T + inner[:3, 3]
        sides.append(points / each.depth[0].mean())
    return float((sides[0] - sides[1]).norm(dim=-1).max())


def test_passes_say_together_what_one_pass_says():
    truth = walk()
    run = Runner(truth)
    found = predict_in_passes(run, numbered(), at_once=20, overlap=6)
    assert error(found, truth) < 1e-3
    assert found.reached is None
    assert max(len(each) for each in run.asked) == 20
    assert len(run.asked) == 4


def test_few_views_are_one_pass_as_it_is():
    run = Runner(walk())
    found = predict_in_passes(run, numbered(), at_once=COUNT)
    torch.testing.assert_close(found.depth, Runner(walk())(numbered()).depth, rtol=0, atol=0)
    assert run.asked == [list(range(COUNT))]


def test_a_loop_takes_drift_back_and_a_false_one_is_dropped():
    truth = walk()

    def gap(loops: list[tuple[int, int]], *, lies: bool = False) -> tuple[float, Runner]:
        run = Runner(truth, drift=0.004, lies=lies)
        return error(predict_in_passes(run, numbered(), loops, at_once=20, overlap=6), truth), run

    (drifted, _), (closed, run) = gap([]), gap([(2, 57)])
    assert closed < 0.7 * drifted
    assert set(run.asked[-1]) == {*range(10), *range(50, 60)}
    assert gap([(2, 57)], lies=True)[0] == pytest.approx(drifted, rel=1e-3)


def test_views_that_nothing_ties_to_the_first_pass_are_said():
    truth = walk()

    def broken(views: Views) -> Prediction:
        found = run(views)
        reached = views.image[:, 0, 0, 0] < 30
        return Prediction(
            depth=found.depth, rays=found.rays, conf=found.conf, world_from_cam=found.world_from_cam, reached=reached
        )

    run = Runner(truth)
    found = predict_in_passes(broken, numbered(), at_once=20, overlap=6)
    assert found.reached is not None
    assert found.reached.tolist() == [view < 30 for view in range(COUNT)]


@pytest.mark.parametrize("anything", [0.0, torch.nan])
def test_a_beginning_without_features_does_not_take_the_rest_along(anything):
    truth = walk()

    def late(views: Views) -> Prediction:
        found = run(views)
        reached = views.image[:, 0, 0, 0] >= 25  # the first pass ties nothing
        cameras = torch.where(reached[:, None, None], found.world_from_cam, anything)
        return dataclasses.replace(found, world_from_cam=cameras, reached=reached)

    run = Runner(truth)
    found = predict_in_passes(late, numbered(), at_once=20, overlap=6)
    assert found.reached is not None
    assert found.reached.tolist() == [view >= 25 for view in range(COUNT)]
    centres, wanted = (each.world_from_cam[25:, :3, 3].diff(dim=0).norm(dim=-1) for each in (found, truth))
    assert float((centres / wanted).std() / (centres / wanted).mean()) < 1e-3


def test_neighbouring_passes_that_contradict_each_other_are_told(caplog):
    truth = walk()

    def lies(views: Views) -> Prediction:
        found = run(views)
        index = views.image[:, 0, 0, 0]
        if index[0] == 0:
            return found
        g = torch.Generator().manual_seed(int(index[0]))
        return dataclasses.replace(
            found, depth=found.depth.mean() * (0.05 + 5 * torch.rand(found.depth.shape, generator=g))
        )

    run = Runner(truth)
    predict_in_passes(lies, numbered(), at_once=20, overlap=6)
    assert "views 14 to 20: two passes" in caplog.text
    caplog.clear()
    predict_in_passes(Runner(truth), numbered(), at_once=20, overlap=6)
    assert not caplog.text


@pytest.mark.parametrize("count", [20, 21, 22, 39, 40, 41, 59])
def test_every_view_is_in_the_result_once_and_in_order(count):
    truth = walk()
    views = numbered().select_views(list(range(count)))
    found = predict_in_passes(Runner(truth), views, at_once=20, overlap=6)
    assert len(found.depth) == count
    sizes = found.depth.flatten(1).mean(1) / truth.depth[:count].flatten(1).mean(1)
    assert float(sizes.std() / sizes.mean()) < 1e-3


def test_a_network_never_sees_more_views_than_a_pass_takes(monkeypatch):
    config = NetworkConfig(
        dim=16, heads=2, encoder_depth=1, decoder_depth=2, patch_size=12, encoder_grid=2, head_dim=16, head_heads=2,
        head_depth=1, camera_dim=16,
    )  # fmt: skip
    network = Reliev3R(config).eval()
    seen: list[int] = []
    forward = network.without_cameras
    monkeypatch.setattr(network, "without_cameras", lambda views: seen.append(views.image.shape[1]) or forward(views))
    views = Views(image=torch.rand(AT_ONCE + 4, 3, 12, 12), K=K_from_fov(1.1, 12, 12).expand(AT_ONCE + 4, 3, 3))
    found = predict(network, views, loops=[(1, AT_ONCE + 2)])
    assert found.depth.shape == (AT_ONCE + 4, 12, 12)
    assert torch.isfinite(found.world_from_cam).all()
    assert len(predict_depth(network, views)) == AT_ONCE + 4
    assert max(seen) == AT_ONCE
    assert len(seen) == 5  # two passes, a loop, two parts


def test_views_that_nothing_ties_are_named(tmp_path, monkeypatch, caplog):
    whole = predict

    def untied(*given, **more) -> Prediction:
        found = whole(*given, **more)
        return dataclasses.replace(found, reached=torch.tensor([True, True, False]))

    monkeypatch.setattr("reliev3r.model.predict.predict", untied)
    network = builders.network()
    network.describe(image_size=64, precision="fp32", facts={})
    found = reconstruct_capture(load_capture(builders.capture(tmp_path / "room", views=3)), network)
    assert found.found is not None
    assert f"nothing ties 1 of 3 views to the others, so they have no camera: {found.names[2]}" in caplog.text

import dataclasses
import math
import operator

import pytest
import torch
from torch.nn import functional as F

from reliev3r.core.errors import UserError
from reliev3r.core.types import DepthLabels, Prediction, PseudoLabels, Tracks
from reliev3r.geometry.camera import K_from_focal, ray_map
from reliev3r.losses.matching import CorrespondenceConfig, correspondence_loss
from reliev3r.losses.weak import ObjectiveConfig, objective

H, W, PATCH = 12, 16, 4
ROWS, COLUMNS = H // PATCH, W // PATCH
CONFIG = CorrespondenceConfig()


def prediction(descriptors: torch.Tensor | None, views: int = 3, scenes: int = 1) -> Prediction:
    depth = torch.ones(scenes, views, H, W)
    pose = torch.eye(4).expand(scenes, views, 4, 4)
    return Prediction(
        depth=depth, rays=torch.ones(scenes, views, H, W, 3), conf=depth, world_from_cam=pose, descriptors=descriptors
    )


def random_descriptors(views: int = 3, scenes: int = 1, channels: int = 8) -> torch.Tensor:
    g = torch.Generator().manual_seed(0)
    return F.normalize(torch.randn(scenes, views, ROWS, COLUMNS, channels, generator=g), dim=-1)


def random_tracks(views: int = 3, scenes: int = 1, count: int = 11) -> Tracks:
    g = torch.Generator().manual_seed(1)
    weight = torch.rand(scenes, views, count, generator=g)
    return Tracks(
        uv=torch.rand(scenes, views, count, 2, generator=g) * torch.tensor([W, H]),
        weight=torch.where(weight > 0.3, weight, torch.zeros_like(weight)),
    )


def mean(values: torch.Tensor, weight: torch.Tensor) -> float:
    return float((values * weight).sum() / weight.sum())


def test_descriptors_that_tell_nothing_are_at_chance() -> None:
    same = torch.zeros(1, 3, ROWS, COLUMNS, 8)
    same[..., 2] = 1
    tracks = random_tracks()
    values, weight = correspondence_loss(prediction(same), tracks, CONFIG)
    usable = tracks.visible & (tracks.visible.sum(-2, keepdim=True) >= 2)
    for j in range(3):
        there = weight[0, :, j] > 0
        assert values[0, :, j][there] == pytest.approx(math.log(int(usable[0, j].sum())), abs=1e-5)


def test_perfect_descriptors_by_hand() -> None:
    # one channel a patch, tracks at the patches' centres, the views show the same: similarity 1 or 0
    n = ROWS * COLUMNS
    one_hot = torch.eye(n).reshape(1, 1, ROWS, COLUMNS, n).repeat(1, 2, 1, 1, 1)
    rows, columns = torch.meshgrid(torch.arange(ROWS), torch.arange(COLUMNS), indexing="ij")
    uv = (torch.stack([columns, rows], dim=-1).reshape(1, 1, n, 2).repeat(1, 2, 1, 1) + 0.5) * PATCH
    tracks = Tracks(uv=uv, weight=torch.ones(1, 2, n))
    values, weight = correspondence_loss(prediction(one_hot, 2), tracks, CorrespondenceConfig(temperature=0.5))
    assert mean(values, weight) == pytest.approx(math.log(1 + (n - 1) * math.exp(-2)), rel=1e-4)
    # and with the patches of one view in another order they are wrong
    mixed = torch.stack([one_hot[:, 0], one_hot[:, 1].roll(1, dims=1)], dim=1)
    wrong, _ = correspondence_loss(prediction(mixed, 2), tracks, CONFIG)
    assert mean(wrong, weight) > 5


def looked_up(maps: torch.Tensor, uv: torch.Tensor) -> torch.Tensor:
    """Bilinear look-up by hand: patch (r, c) has its centre at ((c + 0.5) PATCH, (r + 0.5) PATCH)."""
    x, y = float(uv[0]) / PATCH - 0.5, float(uv[1]) / PATCH - 0.5
    x, y = min(max(x, 0), COLUMNS - 1), min(max(y, 0), ROWS - 1)
    c, r = min(int(x), COLUMNS - 2), min(int(y), ROWS - 2)
    dx, dy = x - c, y - r
    top = (1 - dx) * maps[r, c] + dx * maps[r, c + 1]
    bottom = (1 - dx) * maps[r + 1, c] + dx * maps[r + 1, c + 1]
    return F.normalize((1 - dy) * top + dy * bottom, dim=0)


def test_it_is_the_sum_over_pairs_and_tracks() -> None:
    d, tracks = random_descriptors(), random_tracks()
    values, weight = correspondence_loss(prediction(d), tracks, CONFIG)
    seen, count = tracks.weight[0], tracks.weight.shape[-1]
    usable = [k for k in range(count) if int((seen[:, k] > 0).sum()) >= 2]
    assert len(usable) < count  # a track in one view alone is no negative either: it cannot be matched
    total = weights = 0.0
    for i in range(3):
        for j in range(3):
            there = [k for k in usable if seen[j, k] > 0]
            for k in usable:
                if i == j or seen[i, k] == 0 or seen[j, k] == 0:
                    continue
                here = looked_up(d[0, i], tracks.uv[0, i, k])
                logits = torch.stack([here @ looked_up(d[0, j], tracks.uv[0, j, q]) for q in there]) / 0.1
                pair = float(seen[i, k] * seen[j, k])
                total += pair * float(torch.logsumexp(logits, 0) - logits[there.index(k)])
                weights += pair
    assert float((values * weight).sum()) == pytest.approx(total, rel=1e-4)
    assert float(weight.sum()) == pytest.approx(weights, rel=1e-5)


def test_memory_is_bounded_by_the_number_of_tracks() -> None:
    d, tracks = random_descriptors(scenes=2), random_tracks(scenes=2, count=200)
    values, weight = correspondence_loss(prediction(d, scenes=2), tracks, CorrespondenceConfig(tracks=16))
    assert values.shape == weight.shape == (2, 3, 3, 16)
    assert ((weight > 0).sum((1, 2, 3)) > 16).all()  # those that two views see were chosen
    again, _ = correspondence_loss(prediction(d, scenes=2), tracks, CorrespondenceConfig(tracks=16))
    assert torch.equal(values, again)


def test_a_batch_is_its_scenes() -> None:
    d, tracks = random_descriptors(scenes=3), random_tracks(scenes=3)
    values, weight = correspondence_loss(prediction(d, scenes=3), tracks, CONFIG)
    for s in range(3):
        at = operator.itemgetter(s)
        one, one_weight = correspondence_loss(prediction(d, scenes=3).map(at), tracks.map(at), CONFIG)
        torch.testing.assert_close(values[s] * weight[s], one * one_weight)


def test_without_shared_tracks_there_is_nothing_to_learn() -> None:
    weight = torch.zeros(1, 3, 4)
    weight[0, 0, :2] = 1
    d = random_descriptors().requires_grad_()
    tracks = Tracks(uv=torch.zeros(1, 3, 4, 2), weight=weight)
    values, weight = correspondence_loss(prediction(d), tracks, CONFIG)
    assert (weight == 0).all()
    assert torch.isfinite(values).all()
    (values * weight).sum().backward()
    assert torch.equal(d.grad, torch.zeros_like(d))
    none = Tracks(uv=torch.zeros(1, 3, 0, 2), weight=torch.zeros(1, 3, 0))
    assert correspondence_loss(prediction(d), none, CONFIG)[0].shape == (1, 3, 3, 0)


def test_gradients_are_those_of_finite_differences() -> None:
    d = random_descriptors(channels=3).double().requires_grad_()
    p, tracks = prediction(d).to(torch.float64), random_tracks(count=5).to(torch.float64)

    def total(d: torch.Tensor) -> torch.Tensor:
        values, weight = correspondence_loss(dataclasses.replace(p, descriptors=d), tracks, CONFIG)
        return (values * weight).sum()

    assert torch.autograd.gradcheck(total, (d,))


def test_the_weak_objective_adds_it_and_asks_for_descriptors() -> None:
    tracks = random_tracks()
    depth = DepthLabels(depth=torch.ones(1, 3, H, W), valid=torch.ones(1, 3, H, W, dtype=torch.bool))
    labels = PseudoLabels(depth=depth, tracks=tracks)
    p = prediction(random_descriptors())
    plain = objective(p, labels, ObjectiveConfig())
    assert "correspondence" not in plain.parts
    loss = objective(p, labels, ObjectiveConfig(correspondence_weight=0.3))
    values, weight = correspondence_loss(p, tracks, CONFIG)
    assert float(loss.parts["correspondence"]) == pytest.approx(mean(values, weight), rel=1e-5)
    assert float(loss.total) == pytest.approx(float(plain.total) + 0.3 * mean(values, weight), rel=1e-5)
    with pytest.raises(UserError, match="match_dim"):
        objective(prediction(None), labels, ObjectiveConfig(correspondence_weight=0.3))


def test_the_weak_objective_hears_an_experts_focal_length() -> None:
    depth = DepthLabels(depth=torch.ones(1, 3, H, W), valid=torch.ones(1, 3, H, W, dtype=torch.bool))
    labels = PseudoLabels(depth=depth, tracks=random_tracks())
    p = prediction(None)
    p = dataclasses.replace(p, rays=ray_map(K_from_focal(torch.full((1, 3), 22.0), H, W), H, W))
    labels = dataclasses.replace(labels, K=K_from_focal(torch.full((1, 3), 20.0), H, W))
    assert "fov" not in objective(p, labels, ObjectiveConfig()).parts
    part = objective(p, labels, ObjectiveConfig(fov_weight=1.0)).parts["fov"]
    assert float(part) == pytest.approx(math.log(1.1), abs=1e-4)
    mirrored = dataclasses.replace(p, rays=p.rays * torch.tensor([-1.0, 1, 1]))  # of no camera, as an untrained ray map
    assert math.isfinite(objective(mirrored, labels, ObjectiveConfig(fov_weight=1.0)).parts["fov"])

"""Cameras solved from dense matches: on exact matches the truth comes out, and no view is special."""

import dataclasses

import pytest
import torch

from reliev3r.core.types import Tracks, Truth, Views
from reliev3r.geometry.camera import project, transform, unproject
from reliev3r.geometry.rigid import invert, relative, rigid_from, rotation_angle, so3_exp
from reliev3r.geometry.sampling import sample_bilinear
from reliev3r.sfm import dense_matches
from reliev3r.sfm.dense_matches import DenseMatchConfig, mutual_matches, query_cells
from reliev3r.sfm.match_cameras import MatchSolveConfig, bent_depth, cameras_from_matches
from reliev3r.sfm.pair_motion import epipolar_motion
from reliev3r.synthetic.capture import SynthConfig, render_capture

SIZE = (72, 96)


@pytest.fixture(scope="module")
def room() -> tuple[Views, Truth]:
    config = SynthConfig(seed=5, views=4, width=SIZE[1], height=SIZE[0], span=30.0, supersample=1, path="random")
    return render_capture(config)


def exact_matches(truth: Truth, per_view: int = 96, noise: float = 0.0) -> Tracks:
    """What perfect features would give: the queries of each view, projected into all others by the truth."""
    views = len(truth.depth)
    height, width = truth.depth.shape[-2:]
    cells = query_cells(height // 2, width // 2, per_view)
    at = torch.stack([cells % (width // 2) + 0.5, cells // (width // 2) + 0.5], dim=-1) * 2.0
    uv, weight = [], []
    for source in range(views):
        z = sample_bilinear(truth.depth[source], at)
        points = transform(truth.world_from_cam[source], unproject(at, z, truth.K[source]))
        seen, ok = [], []
        for other in range(views):
            local = transform(invert(truth.world_from_cam[other]), points)
            place = project(local, truth.K[other])
            own = sample_bilinear(truth.depth[other], place)
            inside = (place > 1).all(-1) & (place < torch.tensor([width - 1.0, height - 1.0])).all(-1)
            seen.append(place)
            ok.append(inside & (local[:, 2] > 0) & ((own / local[:, 2]).log().abs() < 0.02))
        uv.append(torch.stack(seen))
        weight.append(torch.stack(ok))
    places = torch.cat(uv, dim=1)
    places = places + noise * torch.randn(places.shape, generator=torch.Generator().manual_seed(0))
    return Tracks(uv=places, weight=torch.cat(weight, dim=1).float())


def pose_gaps(found: torch.Tensor, truth: torch.Tensor) -> tuple[float, float]:
    """Largest error in degrees of the rotations and of the directions between cameras."""
    a, b = relative(found.double()), relative(truth.double())
    turn = rotation_angle(a[..., :3, :3].mT @ b[..., :3, :3]).rad2deg()
    first, second = torch.triu_indices(len(found), len(found), 1)
    x, y = a[first, second, :3, 3], b[first, second, :3, 3]
    cosine = torch.nn.functional.cosine_similarity(x, y, dim=-1).clamp(-1, 1)
    return float(turn.max()), float(cosine.acos().rad2deg().max())


def baselines(cameras: torch.Tensor) -> float:
    return float(torch.nn.functional.pdist(cameras[:, :3, 3]).sum())


def solved(truth: Truth, depth: torch.Tensor, tracks: Tracks, **changes):
    config = dataclasses.replace(MatchSolveConfig(), **changes)
    return cameras_from_matches(depth[None], truth.K[None], tracks.map(lambda x: x[None]), config)


@pytest.mark.parametrize("epipolar", [True, False])
def test_exact_matches_and_depth_give_the_cameras(room, epipolar) -> None:
    _, truth = room
    found = solved(truth, truth.depth, exact_matches(truth), epipolar=epipolar)
    assert found.reached.all()
    turn, direction = pose_gaps(found.world_from_cam[0], truth.world_from_cam)
    assert turn < 0.1
    assert direction < 0.3


def test_wrong_depth_is_a_loose_hint(room) -> None:
    """Each view a factor of its own and 30 % of noise: cameras come from the matches, factors from the cameras."""
    _, truth = room
    generator = torch.Generator().manual_seed(1)
    factor = torch.tensor([0.7, 1.0, 1.4, 0.9])
    rough = 1 + 0.3 * torch.nn.functional.interpolate(
        torch.randn(1, 4, 4, 5, generator=generator), size=SIZE, mode="bilinear"
    )[0].clamp(-2, 2)
    depth = truth.depth * factor[:, None, None] * rough
    found = solved(truth, depth, exact_matches(truth, noise=0.1))
    turn, direction = pose_gaps(found.world_from_cam[0], truth.world_from_cam)
    assert turn < 0.5
    assert direction < 2
    told = (found.factor[0] * factor).log()
    assert float((told - told.mean()).abs().max()) < 0.15
    bent = bent_depth(depth[None], found, exact_matches(truth).map(lambda x: x[None]))[0]

    def error(x):
        ratio = (x / truth.depth)[truth.valid].log()
        return float((ratio - ratio.median()).abs().mean())

    assert error(bent) < 0.6 * error(depth)


def test_false_matches_are_outvoted(room) -> None:
    _, truth = room
    tracks = exact_matches(truth)
    generator = torch.Generator().manual_seed(2)
    false = torch.rand(tracks.weight.shape, generator=generator) < 0.2
    anywhere = torch.rand(tracks.uv.shape, generator=generator) * torch.tensor([SIZE[1], SIZE[0]])
    wrong = dataclasses.replace(tracks, uv=torch.where(false[..., None], anywhere, tracks.uv))
    found = solved(truth, truth.depth, wrong)
    turn, direction = pose_gaps(found.world_from_cam[0], truth.world_from_cam)
    assert turn < 0.3
    assert direction < 1


def test_no_view_and_no_unit_is_special(room) -> None:
    _, truth = room
    tracks, order = exact_matches(truth, noise=0.1), [2, 0, 3, 1]
    plain = solved(truth, truth.depth, tracks)
    by_source = tracks.map(lambda x: x.unflatten(1, (4, -1))[order][:, order].flatten(1, 2))
    mixed = dataclasses.replace(truth, K=truth.K[order])
    moved = solved(mixed, 7 * truth.depth[order], by_source)
    turn, direction = pose_gaps(moved.world_from_cam[0], plain.world_from_cam[0, order])
    assert turn < 0.1
    assert direction < 0.3
    baseline = baselines(moved.world_from_cam[0]) / baselines(plain.world_from_cam[0])
    assert baseline == pytest.approx(7, rel=0.02)


def test_samples_do_not_hear_each_other(room) -> None:
    _, truth = room
    tracks = exact_matches(truth, noise=0.1)
    other = dataclasses.replace(tracks, weight=torch.zeros_like(tracks.weight))
    both = cameras_from_matches(
        truth.depth.expand(2, -1, -1, -1), truth.K.expand(2, -1, -1, -1),
        Tracks(uv=torch.stack([tracks.uv, other.uv]), weight=torch.stack([tracks.weight, other.weight])),
    )  # fmt: skip
    alone = solved(truth, truth.depth, tracks)
    torch.testing.assert_close(both.world_from_cam[0], alone.world_from_cam[0], atol=1e-4, rtol=1e-4)
    assert not both.reached[1].any()
    assert torch.isfinite(both.world_from_cam).all()


def test_a_view_that_nothing_ties_is_not_reached(room) -> None:
    _, truth = room
    tracks = exact_matches(truth)
    weight = tracks.weight.clone()
    weight[2] = 0
    found = solved(truth, truth.depth, dataclasses.replace(tracks, weight=weight))
    assert found.reached[0].tolist() == [True, True, False, True]


def test_bearings_alone_give_the_motion_of_a_pair() -> None:
    """Points in a box before two cameras that turn inwards; the second view's depth is in another unit."""
    generator = torch.Generator().manual_seed(0)
    points = torch.rand(1, 300, 3, generator=generator) * torch.tensor([4.0, 3.0, 4.0]) + torch.tensor(
        [-2.0, -1.5, 3.0]
    )
    rotation = so3_exp(torch.tensor([0.05, 0.12, -0.03]))
    wanted = rigid_from(rotation, torch.tensor([-0.6, 0.1, 0.1]))
    second = transform(invert(wanted), points[0])[None]
    bearings = [torch.nn.functional.normalize(x, dim=-1) for x in (points, second)]
    scale, turned, translation, say = epipolar_motion(
        bearings[0], bearings[1], (points[..., 2], 3 * second[..., 2]), torch.ones(1, 300), torch.tensor([0.005])
    )
    assert float(rotation_angle(turned[0].mT @ rotation).rad2deg()) < 3
    assert float(scale[0]) == pytest.approx(1 / 3, rel=0.05)
    cosine = torch.nn.functional.cosine_similarity(translation[0], wanted[:3, 3], dim=0)
    assert float(cosine) > 0.97  # a start, no more: from here the adjustment finds the end
    assert float(say[0]) > 200


def test_features_that_are_places_match_where_they_should() -> None:
    """Two views of one plane, the second shifted by three and a half cells."""
    generator = torch.Generator().manual_seed(0)
    wide = torch.nn.functional.interpolate(
        torch.randn(1, 32, 18, 28, generator=generator), scale_factor=2.0, mode="bilinear"
    )

    def crop(left: float) -> torch.Tensor:
        x = (torch.arange(40) + 0.5 + left) / 56 * 2 - 1
        y = (torch.arange(36) + 0.5) / 36 * 2 - 1
        grid = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1)[None]
        return torch.nn.functional.normalize(torch.nn.functional.grid_sample(wide, grid, align_corners=False), dim=1)[0]

    features = 7 * torch.stack([crop(4.0), crop(7.5)])[None]
    tracks = mutual_matches(features, (72, 80), DenseMatchConfig(queries=90, mass=0.05, cycle=0.05))
    count = tracks.weight.shape[-1] // 2
    assert (tracks.weight[0, 0, :count] == 1).all()
    assert (tracks.weight[0, 1, count:] == 1).all()
    found = tracks.weight[0, 1, :count] > 0
    at = tracks.uv[0, 0, :count]
    expected = at[:, 0] > 12  # the others lie outside of the second view
    assert found[expected].float().mean() > 0.9
    gap = tracks.uv[0, 1, :count][found & expected] - at[found & expected]
    torch.testing.assert_close(gap.median(0).values, torch.tensor([-7.0, 0.0]), atol=1.0, rtol=0)


def test_queries_in_blocks_find_what_they_find_together(monkeypatch) -> None:
    """On a CPU they ask in blocks, elsewhere all at once."""
    features = 5 * torch.randn(2, 3, 16, 12, 16, generator=torch.Generator().manual_seed(0))
    together = mutual_matches(features, (48, 64), DenseMatchConfig(mass=0.01, cycle=0.3))
    assert dense_matches._asked_at_once(features, 192) == 192
    monkeypatch.setattr(dense_matches, "_LOGITS", 7 * 2 * 2 * 12 * 16)
    assert dense_matches._asked_at_once(features, 192) == 7
    assert dense_matches._asked_at_once(features.to("meta"), 192) == 192
    in_blocks = mutual_matches(features, (48, 64), DenseMatchConfig(mass=0.01, cycle=0.3))
    assert 0 < float(together.weight.mean()) < 1
    torch.testing.assert_close(in_blocks.uv, together.uv)
    assert torch.equal(in_blocks.weight, together.weight)

"""Depth swept under true cameras is the truth's, and what no view confirms is not sure."""

import math

import pytest
import torch

from reliev3r.core.types import Tracks
from reliev3r.geometry.camera import K_from_fov
from reliev3r.sfm.dense_depth import (
    SolvedTracks,
    as_far_as_confirmed,
    dense_depth,
    depth_ranges,
    in_camera_unit,
    sweep_features,
)
from reliev3r.sfm.fill_depth import FillConfig, fill_depth
from reliev3r.sfm.plane_sweep import (
    NEAR,
    SweepConfig,
    SweptDepth,
    confirmations,
    in_directions,
    nearest,
    neighbours,
    patch_features,
    plane_sweep,
    principal_directions,
)
from reliev3r.synthetic.capture import SynthConfig, render_capture

SIZE = (96, 128)
LENIENT = SweepConfig(similar=0.3)
"""Rendered textures, seen at 128 pixels, are less alike from view to view than photographs."""


@pytest.fixture(scope="module")
def room():
    return render_capture(
        SynthConfig(seed=8, views=5, width=SIZE[1], height=SIZE[0], span=25.0, supersample=2, path="random")
    )


def relative_error(depth: torch.Tensor, truth: torch.Tensor, where: torch.Tensor) -> torch.Tensor:
    return ((depth - truth).abs() / truth)[where]


def some_tracks(truth, every: int = 7) -> SolvedTracks:
    """Every seventh pixel of each view, as tracks of their own whose depth is known."""
    views = len(truth.depth)
    y, x = torch.meshgrid(torch.arange(3, SIZE[0], every), torch.arange(3, SIZE[1], every), indexing="ij")
    uv = torch.stack([x, y], dim=-1).reshape(-1, 2) + 0.5
    depth = truth.depth[:, y.flatten(), x.flatten()]
    valid = truth.valid[:, y.flatten(), x.flatten()]
    tracks = Tracks(uv=uv.expand(views, -1, -1), weight=valid.float())
    return SolvedTracks(tracks=tracks, depth=depth, certainty=valid.float())


def test_a_sweep_finds_the_rooms_depth(room) -> None:
    views, truth = room
    ranges = depth_ranges(some_tracks(truth))
    swept = plane_sweep(patch_features(views.image), views.K, truth.world_from_cam, SIZE, ranges, LENIENT)
    known = truth.depth[:, 1::2, 1::2]
    assert swept.depth.shape == known.shape
    sure = (swept.confidence > 0.5) & truth.valid[:, 1::2, 1::2]
    assert sure.float().mean() > 0.3
    errors = relative_error(swept.depth, known, sure)
    assert float(errors.median()) < 0.02
    assert float((errors > 0.1).float().mean()) < 0.1
    unsure = ~sure & truth.valid[:, 1::2, 1::2]
    assert float(relative_error(swept.depth, known, unsure).mean()) > 2 * float(errors.mean())


def test_under_wrong_cameras_little_is_sure(room) -> None:
    views, truth = room
    ranges = depth_ranges(some_tracks(truth))
    right = plane_sweep(patch_features(views.image), views.K, truth.world_from_cam, SIZE, ranges, LENIENT)
    wrong_cameras = truth.world_from_cam.roll(1, 0)
    wrong = plane_sweep(patch_features(views.image), views.K, wrong_cameras, SIZE, ranges, LENIENT)
    assert (wrong.confidence > 0.5).float().mean() < 0.4 * (right.confidence > 0.5).float().mean()


def test_dense_depth_is_better_than_the_prior_and_in_the_cameras_unit(room) -> None:
    views, truth = room
    solved = some_tracks(truth, every=16)
    prior = in_camera_unit(0.3 * truth.depth.sqrt(), solved)  # far too flat
    found = dense_depth(sweep_features(None, views.image), views.image, views.K, truth.world_from_cam, solved, prior)
    errors = relative_error(found.depth, truth.depth, truth.valid)
    flat = relative_error(prior, truth.depth, truth.valid)
    assert float(errors.mean()) < 0.75 * float(flat.mean())
    assert float(errors.median()) < 0.4 * float(flat.median())
    sure = truth.valid & (found.sure > 0.5)
    assert float(relative_error(found.depth, truth.depth, sure).mean()) < 0.7 * float(errors.mean())


def test_filling_continues_planes_and_stops_at_edges() -> None:
    """Left a slanted wall, right a nearer one; depth is known in a few places of each."""
    rows, columns = 24, 40
    x = torch.arange(columns).float().expand(rows, columns)
    inverse = torch.where(x < 20, 0.3 + 0.005 * x, torch.full_like(x, 1.0))
    image = torch.where(x < 20, 0.2, 0.9).expand(1, 3, rows, columns)
    known = torch.zeros(1, rows, columns)
    known[0, 2::4, 1:19:4] = 1
    known[0, 2::4, 21::5] = 1
    prior = (1 / (0.8 * inverse + 0.1))[None]
    found = fill_depth((1 / inverse)[None], known, prior, image)
    off = (found[0] * inverse).log().abs()
    assert float(off[:, :18].max()) < 0.15
    assert float(off[:, 22:].max()) < 0.15
    assert float(off.median()) < 0.02
    wrong = (1 / inverse)[None].clone()
    wrong[0, 10, 9] *= 3  # one that its neighbours contradict
    outvoted = float((fill_depth(wrong, known, prior, image)[0, 10, 9] * inverse[10, 9]).log())
    assert abs(outvoted) < 0.5 * math.log(3)


def test_a_prior_keeps_as_much_relief_as_is_confirmed() -> None:
    depth = 1 + torch.rand(3, 12, 16, generator=torch.Generator().manual_seed(0))
    prior = torch.stack([3 * depth[0], depth[1].flip(0), depth[2]])
    confidence = torch.ones_like(depth)
    confidence[2] = 0
    told = as_far_as_confirmed(prior, SweptDepth(depth=depth, confidence=confidence))
    torch.testing.assert_close(told[0], depth[0], atol=1e-3, rtol=1e-3)  # right but for its unit
    assert float(told[1].log().std()) < 0.3 * float(depth[1].log().std())  # another scene's
    torch.testing.assert_close(told[2], prior[2])  # nothing is known


def test_without_anything_known_the_prior_stays() -> None:
    prior = 2 + torch.rand(2, 12, 16)
    found = fill_depth(torch.ones_like(prior), torch.zeros_like(prior), prior, torch.rand(2, 3, 24, 32))
    smooth = prior.mean((-2, -1))
    assert float((found.mean((-2, -1)) / smooth - 1).abs().max()) < 0.05
    assert FillConfig().least > 0


def test_neighbours_look_the_same_way_from_elsewhere(room) -> None:
    _, truth = room
    chosen = neighbours(truth.world_from_cam, 2, 3, 0.0).tolist()
    assert 2 not in chosen
    assert len(set(chosen)) == 3


def test_a_long_walk_changes_nothing_for_a_view_within_it() -> None:
    """Neighbours and confirmations are of what lies around, however much lies far away."""
    long = torch.eye(4).repeat(120, 1, 1)
    long[:, 0, 3] = 0.1 * torch.arange(120) + 0.03 * torch.rand(120, generator=torch.Generator().manual_seed(0))
    short = long[40:80]
    assert (neighbours(long, 60, 5, 0.0) - 40).tolist() == neighbours(short, 20, 5, 0.0).tolist()
    assert float((neighbours(long, 60, 5, 0.0) - 60).abs().max()) <= NEAR / 2
    K = K_from_fov(1.1, 6, 8)
    count = confirmations(torch.full((120, 6, 8), 50.0), K.expand(120, 3, 3), long, 0.05, torch.zeros(120))
    assert count.max() == NEAR  # of the 119 that agree


def test_frames_of_a_video_are_swept_with_those_that_lie_apart() -> None:
    """The next ones see hardly any parallax."""
    video = torch.eye(4).repeat(100, 1, 1)
    video[:, 0, 3] = 0.01 * torch.arange(100)
    apart = (nearest(video, 50, 0.095) - 50).abs()
    assert sorted(apart.tolist()) == sorted([*range(10, 22), *range(10, 22)])
    assert set((neighbours(video, 50, 5, 0.095) - 50).abs().tolist()) <= {10, 11, 12}
    few = video[:6]
    assert sorted(nearest(few, 2, 0.1).tolist()) == [0, 1, 3, 4, 5]  # where none lies apart, the farthest first
    assert nearest(few, 2, 0.1)[0] == 5
    assert len(neighbours(few, 2, 5, 0.1)) == 5
    few[1, 0, 3] = 0.0001
    assert 1 not in neighbours(few, 0, 4, 0.1)  # hardly apart at all: last, also among those that are all too near


def test_a_room_that_is_filmed_densely_is_swept_well() -> None:
    """Forty frames less than a hundredth of the depth apart: swept with the next ones, depth is off by 22 %."""
    views, truth = render_capture(SynthConfig(seed=8, views=40, width=96, height=72, span=20.0, supersample=1))
    ranges = torch.stack([0.8 * truth.depth.flatten(1).amin(1), 1.3 * truth.depth.flatten(1).amax(1)], dim=-1)
    features = patch_features(views.image)
    features = in_directions(features, principal_directions(features, 12))
    found = plane_sweep(features, views.K, truth.world_from_cam, views.size, ranges, LENIENT)
    true = torch.nn.functional.interpolate(truth.depth[:, None], size=found.depth.shape[-2:], mode="area")[:, 0]
    middle = slice(10, 30)
    error = relative_error(found.depth[middle], true[middle], torch.ones_like(true[middle], dtype=torch.bool))
    assert float(error.median()) < 0.15
    assert float((found.confidence[middle] > 0.5).float().mean()) > 0.4


def test_principal_features_keep_the_products() -> None:
    features = torch.nn.functional.normalize(
        torch.randn(2, 20, 6, 8, generator=torch.Generator().manual_seed(0)), dim=1
    )
    kept = in_directions(3 * features, principal_directions(3 * features, 20))
    a, b = features.flatten(2), kept.flatten(2)
    torch.testing.assert_close(a[0].mT @ a[1], b[0].mT @ b[1], atol=1e-4, rtol=1e-4)

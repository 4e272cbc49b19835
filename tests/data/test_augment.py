import dataclasses
import math

import pytest
import torch
from torch import Tensor

from reliev3r.core.errors import UserError
from reliev3r.core.types import CameraLabels, FullLabels, Prediction, PseudoLabels, Tracks, Truth, Views, stack
from reliev3r.data.augment import AugmentConfig, PhotoConfig, augment, change_photo, draw_windows
from reliev3r.data.augment_geometry import Crop, moved
from reliev3r.geometry.camera import pixel_grid, project, transform, unproject
from reliev3r.geometry.rigid import invert, rotation_angle
from reliev3r.geometry.sampling import depth_edges, sample_bilinear
from reliev3r.losses.tracks import ReprojectionConfig, reprojection_loss
from reliev3r.synthetic.capture import SynthConfig, render_capture
from reliev3r.synthetic.experts import DepthNoise, TrackNoise, simulate_depth, simulate_tracks
from reliev3r.synthetic.render import render
from reliev3r.synthetic.scene import make_scene

SIZE = (96, 128)
SCENE = SynthConfig(seed=3, views=4, height=SIZE[0], width=SIZE[1], span=30.0, supersample=1)
EXACT = TrackNoise(count=200, pixel=0.0, false=0.0, drop=0.0)
GEOMETRY = AugmentConfig(zoom=(1.05, 1.6), zoom_per_view=True, mirror=0.0, photo=PhotoConfig.none())
MIRRORED = dataclasses.replace(GEOMETRY, mirror=1.0)


@pytest.fixture(scope="module")
def sample() -> tuple[Views, FullLabels]:
    views, truth = render_capture(SCENE)
    return views, FullLabels(truth=truth, tracks=simulate_tracks(truth, EXACT, 0))


def weak(truth: Truth, tracks: Tracks) -> PseudoLabels:
    solved = dataclasses.replace(tracks, depth=tracks.weight * 2)
    return PseudoLabels(
        depth=dataclasses.replace(simulate_depth(truth, DepthNoise(), 0), trust=torch.linspace(0.1, 1, 4)),
        tracks=solved, K=truth.K, cameras=CameraLabels(world_from_cam=truth.world_from_cam, weight=torch.ones(4)),
    )  # fmt: skip


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def reprojected_depth_error(truth: Truth) -> Tensor:
    """Relative error of the depth that view 1 states where view 0's points fall, for those that both see."""
    height, width = truth.depth.shape[-2:]
    uv = pixel_grid(height, width).reshape(-1, 2)
    points = transform(truth.world_from_cam[0], unproject(uv, truth.depth[0].flatten(), truth.K[0]))
    local = transform(invert(truth.world_from_cam[1]), points)
    there = project(local, truth.K[1])
    border = (there > 1).all(-1) & (there < there.new_tensor([width - 1, height - 1])).all(-1)
    # beside edges "nearest" is off by up to half a pixel of another surface: occlusion is no question of augmentation
    calm = ~depth_edges(truth.depth, rtol=0.1)
    calm_there = sample_bilinear(calm[1].float(), there) > 0.999
    error = local[:, 2] * sample_bilinear(1 / truth.depth[1], there) - 1
    seen = truth.valid[0].flatten() & calm[0].flatten() & border & calm_there & (local[:, 2] > 0)
    return error[seen].abs()


def track_error(truth: Truth, tracks: Tracks, points: Tensor) -> Tensor:
    """Pixels between the tracks' observations and the projections of their world points."""
    local = transform(invert(truth.world_from_cam), points.expand(len(truth.K), -1, -1))
    return (project(local, truth.K) - tracks.uv).norm(dim=-1)[tracks.visible]


def world_points(truth: Truth, tracks: Tracks) -> Tensor:
    """Of every track, from the true depth of the first view that sees it."""
    depth = 1 / sample_bilinear(1 / truth.depth, tracks.uv)
    points = transform(truth.world_from_cam, unproject(tracks.uv, depth, truth.K))
    first = tracks.visible.int().argmax(0)
    return points[first, torch.arange(points.shape[1])]


@pytest.mark.parametrize("config", [GEOMETRY, MIRRORED], ids=["crop", "mirror"])
@pytest.mark.parametrize("size", [None, (64, 48), (112, 112)], ids=["same", "upright", "larger"])
def test_geometry_stays_exact(sample, config, size) -> None:
    views, labels = sample
    points = world_points(labels.truth, labels.tracks)
    before = track_error(labels.truth, labels.tracks, points)
    new_views, new = augment(views, labels, config, seeded(1), size=size)
    assert new_views.size == (size or SIZE)
    assert not torch.equal(new.truth.K, labels.truth.K)
    torch.testing.assert_close(new_views.K, new.truth.K)

    old_error, error = reprojected_depth_error(labels.truth), reprojected_depth_error(new.truth)
    assert len(error) > 500
    assert error.median() < 0.001
    share = lambda x: (x > 0.005).float().mean()  # noqa: E731  (what is hidden in one view stays so)
    assert share(error) < share(old_error) + 0.02

    if config.mirror:
        points = points * points.new_tensor([-1, 1, 1])
    after = track_error(new.truth, new.tracks, points)
    assert 100 < len(after) < len(before)
    zoom = new.truth.K[:, 0, 0].max() / labels.truth.K[0, 0, 0]
    assert after.max() < before.max() * max(1.0, float(zoom)) + 1e-3
    assert after.median() < 0.1


@pytest.mark.parametrize("size", [SIZE, (64, 48)], ids=["same", "upright"])
def test_cropped_depth_is_what_a_camera_with_that_K_sees(sample, size) -> None:
    _, new = augment(*sample, GEOMETRY, seeded(1), size=size)
    truth = new.truth
    _, seen = render(make_scene(SCENE.seed, SCENE.texture), truth.K, truth.world_from_cam, size, supersample=1)
    error = (truth.depth / seen.depth - 1).abs()
    calm = ~depth_edges(seen.depth, rtol=0.1) & truth.valid & seen.valid
    assert error.median() < 1e-5  # planes of any slant are exact
    assert (error[calm] > 0.005).float().mean() < 0.015  # what is left are pixels beside edges
    assert (error > 0.005).float().mean() < 0.04


def test_mirrored_cameras_are_rigid_and_twice_is_once(sample) -> None:
    views, labels = sample
    config = dataclasses.replace(AugmentConfig.none(), mirror=1.0)
    once_views, once = augment(views, labels, config, seeded())
    rotation = once.truth.world_from_cam[:, :3, :3]
    torch.testing.assert_close(torch.linalg.det(rotation), torch.ones(4))
    angle = rotation_angle(rotation.mT @ labels.truth.world_from_cam[:, :3, :3])
    assert angle.max() > 0.1  # not simply left alone
    torch.testing.assert_close(once_views.image, views.image.flip(-1))
    twice_views, twice = augment(once_views, once, config, seeded())
    torch.testing.assert_close(twice_views.image, views.image)
    torch.testing.assert_close(twice.truth.world_from_cam, labels.truth.world_from_cam)
    torch.testing.assert_close(twice.tracks.uv, labels.tracks.uv)


@pytest.mark.parametrize("config", [GEOMETRY, MIRRORED], ids=["crop", "mirror"])
def test_true_geometry_still_satisfies_the_weak_loss(sample, config) -> None:
    views, labels = sample
    _, new = augment(views, labels, config, seeded(2))
    uv = pixel_grid(*SIZE)
    rays = torch.cat([(uv - new.truth.K[:, None, None, :2, 2]) / new.truth.K[:, 0, 0, None, None, None],
                      torch.ones(4, *SIZE, 1)], dim=-1)  # fmt: skip
    truth = Prediction(
        depth=new.truth.depth, rays=rays, conf=torch.ones(4, *SIZE), world_from_cam=new.truth.world_from_cam
    )
    batched = lambda x: x.map(lambda t: t[None])  # noqa: E731
    angle, weight = reprojection_loss(batched(truth), batched(new.tracks), ReprojectionConfig())
    assert math.degrees(angle[weight > 0].median()) < 0.1


def test_pseudo_labels_move_like_truth(sample) -> None:
    views, labels = sample
    pseudo = weak(labels.truth, labels.tracks)
    _, new = augment(views, pseudo, MIRRORED, seeded(3))
    _, full = augment(views, labels, MIRRORED, seeded(3))
    torch.testing.assert_close(new.K, full.truth.K)
    torch.testing.assert_close(new.cameras.world_from_cam, full.truth.world_from_cam)
    torch.testing.assert_close(new.tracks.uv, full.tracks.uv)
    assert torch.equal(new.tracks.weight, full.tracks.weight)
    assert torch.equal(new.depth.valid, full.truth.valid)
    assert torch.equal(new.tracks.depth, pseudo.tracks.depth)
    assert torch.equal(new.depth.trust, pseudo.depth.trust)
    assert new.depth.ambiguity == pseudo.depth.ambiguity


def test_tracks_outside_weigh_nothing(sample) -> None:
    views, labels = sample
    _, new = augment(views, labels, dataclasses.replace(GEOMETRY, zoom=(1.6, 1.6)), seeded())
    u, v = new.tracks.uv.unbind(-1)
    outside = (u < 0) | (u > SIZE[1]) | (v < 0) | (v > SIZE[0])
    assert (outside & labels.tracks.visible).sum() > 50
    assert (new.tracks.weight[outside] == 0).all()
    assert torch.equal(new.tracks.weight[~outside], labels.tracks.weight[~outside])


def test_depth_is_never_mixed_across_an_edge_or_a_hole() -> None:
    depth = torch.full((1, 32, 32), 2.0)
    depth[..., 13:] = 7.0
    valid = torch.ones_like(depth, dtype=torch.bool)
    depth[:, 20:24, 3:9], valid[:, 20:24, 3:9] = 1000.0, False
    windows = torch.tensor([[1.3, 0.7, 25.1, 25.1]], dtype=torch.float64)
    for size in ((32, 32), (11, 11), (75, 75)):
        new, found = Crop(windows=windows, source=(32, 32), size=size).depth(depth, valid)
        assert set(new[found].round(decimals=5).tolist()) == {2.0, 7.0}
        assert 0.005 < (~found).float().mean() < 0.1
        column = int((13 - 1.3) / 25.1 * size[1])
        assert (new[0, 0, : column - 1] - 2).abs().max() < 1e-5
        assert (new[0, 0, column + 2 :] - 7).abs().max() < 1e-5


def test_shrinking_does_not_alias() -> None:
    image = torch.zeros(1, 3, 60, 60)
    image[..., ::2] = 1  # the finest stripes there are
    whole = torch.tensor([[0.0, 0.0, 60.0, 60.0]], dtype=torch.float64)
    small = Crop(windows=whole, source=(60, 60), size=(20, 20)).image(image)
    torch.testing.assert_close(small[..., 1:-1], torch.full_like(small[..., 1:-1], 0.5), atol=0.06, rtol=0)
    ramp = ((torch.arange(60) + 0.5) / 60).expand(1, 3, 60, 60)
    small = Crop(windows=whole, source=(60, 60), size=(24, 24)).image(ramp)
    expected = ((torch.arange(24) + 0.5) / 24).expand_as(small)
    torch.testing.assert_close(small[..., 1:-1], expected[..., 1:-1], atol=2e-3, rtol=0)  # and nothing shifts


def test_windows_stay_inside_and_have_the_aspect() -> None:
    config = AugmentConfig(zoom=(1.0, 2.0), zoom_per_view=True)
    windows = draw_windows(torch.Size([5, 40]), (60, 80), (50, 30), config, seeded())
    left, top, width, height = windows.unbind(-1)
    assert (left >= 0).all() and (top >= 0).all()  # noqa: PT018
    assert (left + width <= 80 + 1e-9).all() and (top + height <= 60 + 1e-9).all()  # noqa: PT018
    torch.testing.assert_close(width / height, torch.full_like(width, 0.6))
    assert height.max() > 55 and height.min() < 33  # noqa: PT018
    assert left.std() > 5
    shared = draw_windows(torch.Size([5, 40]), (60, 80), (50, 30), AugmentConfig(zoom=(1.0, 2.0)), seeded())
    assert (shared[..., 2].std(-1) < 1e-9).all()
    assert shared[:, 0, 2].std() > 1


def test_unknown_intrinsics_keep_windows_centred(sample) -> None:
    views, labels = sample
    pseudo = weak(labels.truth, labels.tracks)
    new_views, new = augment(dataclasses.replace(views, K=None), pseudo, GEOMETRY, seeded())
    assert new_views.K is None
    torch.testing.assert_close(new.K[:, 0, 2], torch.full((4,), SIZE[1] / 2))
    torch.testing.assert_close(new.K[:, 1, 2], torch.full((4,), SIZE[0] / 2))
    assert (new.K[:, 0, 0] > 1.04 * pseudo.K[:, 0, 0]).all()


def of_a_cropped_camera(sample: tuple[Views, FullLabels]) -> tuple[Views, FullLabels]:
    """The sample through windows off the centre, of pixels that are no squares, another for each view; K is hidden."""
    views, labels = sample
    windows = torch.tensor([[0, 0, 120, 90], [8, 6, 120, 85], [3, 0, 110, 96], [0, 10, 128, 86]], dtype=torch.float64)
    seen, changed = moved(views, labels, Crop(windows=windows, source=SIZE, size=SIZE))
    return dataclasses.replace(seen, K=None), changed


@pytest.mark.parametrize("size", [SIZE, (64, 48)])
@pytest.mark.parametrize("config", [AugmentConfig.none(), AugmentConfig(photo=PhotoConfig.none())])
def test_hidden_intrinsics_become_one_focal_length_around_the_principal_points(sample, config, size) -> None:
    views, labels = of_a_cropped_camera(sample)
    _, changed = augment(views, labels, config, seeded(3), size=size)
    K = changed.truth.K
    focal = K[0, 0, 0].expand(4)
    for values, expected in (
        (K[:, 0, 0], focal),
        (K[:, 1, 1], focal),
        (K[:, 0, 2], size[1] / 2),
        (K[:, 1, 2], size[0] / 2),
    ):
        torch.testing.assert_close(values, torch.as_tensor(expected).expand(4).float(), rtol=1e-5, atol=1e-3)
    windows = draw_windows(torch.Size([4]), SIZE, size, config, seeded(3), centred=True, K=labels.truth.K)
    assert (windows[:, :2] > -1e-6).all()
    assert (windows[:, :2] + windows[:, 2:] <= torch.tensor([SIZE[1], SIZE[0]]).double() + 1e-6).all()


def test_a_principal_point_without_a_window_around_it_is_told(sample) -> None:
    views, labels = sample
    K = labels.truth.K.clone()
    K[1, 0, 2] = 10.0
    labels = dataclasses.replace(labels, truth=dataclasses.replace(labels.truth, K=K))
    with pytest.raises(UserError, match="principal point lies too far"):
        augment(dataclasses.replace(views, K=None), labels, GEOMETRY, seeded())


def test_none_changes_nothing_and_brings_to_size(sample) -> None:
    views, labels = sample
    same_views, same = augment(views, labels, AugmentConfig.none(), seeded())
    assert torch.equal(same_views.image, views.image)
    assert torch.equal(same.truth.depth, labels.truth.depth)
    assert torch.equal(same.tracks.uv, labels.tracks.uv)
    small_views, small = augment(views, labels, AugmentConfig.none(), seeded(), size=(48, 48))
    assert small_views.size == (48, 48)
    torch.testing.assert_close(small.truth.K[:, 0, 2], torch.full((4,), 24.0))
    torch.testing.assert_close(small.truth.K[:, 0, 0], labels.truth.K[:, 0, 0] / 2)


def test_the_generator_decides(sample) -> None:
    views, labels = sample
    config = AugmentConfig(photo=PhotoConfig(colour=1.0, blur=1.0, noise=1.0, jpeg=1.0))
    first, again, other = (augment(views, labels, config, seeded(seed)) for seed in (5, 5, 6))
    assert torch.equal(first[0].image, again[0].image)
    assert torch.equal(first[1].tracks.uv, again[1].tracks.uv)
    assert not torch.equal(first[0].image, other[0].image)
    assert not torch.equal(first[1].truth.K, other[1].truth.K)


def test_batches_keep_their_shapes_and_mirror_by_sample(sample) -> None:
    views, labels = stack([sample[0]] * 8), stack([sample[1]] * 8)
    config = dataclasses.replace(AugmentConfig.none(), mirror=0.5)
    new_views, new = augment(views, labels, config, seeded(1))
    mirrored = (new_views.image == views.image.flip(-1)).flatten(1).all(1)
    plain = (new_views.image == views.image).flatten(1).all(1)
    assert (mirrored ^ plain).all()
    assert mirrored.any()
    assert plain.any()
    moved = (new.truth.world_from_cam != labels.truth.world_from_cam).flatten(1).any(1)
    assert torch.equal(moved, mirrored)
    _, cropped = augment(views, labels, GEOMETRY, seeded(1), size=(40, 40))
    assert cropped.truth.depth.shape == (8, 4, 40, 40)


def test_every_tensor_stays_on_its_device(sample) -> None:
    # "meta" stands for a GPU: mixing it with CPU tensors fails as it would there (it has no random numbers: no noise)
    views, labels = sample[0].to("meta"), sample[1].to("meta")
    config = AugmentConfig(mirror=1.0, photo=PhotoConfig(colour=1.0, blur=1.0, noise=0.0, jpeg=1.0))
    new_views, new = augment(views, labels, config, seeded(), size=(40, 40))
    assert new_views.image.shape == (4, 3, 40, 40)
    assert {x.device.type for x in (new_views.image, new_views.K, new.truth.depth, new.tracks.uv)} == {"meta"}


@pytest.mark.parametrize("kind", ["colour", "blur", "noise", "jpeg"])
def test_photometric_changes_are_per_view_and_leave_labels_alone(sample, kind) -> None:
    views, labels = sample
    photo = dataclasses.replace(PhotoConfig.none(), **{kind: 1.0})
    new_views, new = augment(views, labels, dataclasses.replace(AugmentConfig.none(), photo=photo), seeded())
    for name in ("depth", "valid", "K", "world_from_cam"):
        assert torch.equal(getattr(new.truth, name), getattr(labels.truth, name))
    assert torch.equal(new.tracks.uv, labels.tracks.uv)
    change = (new_views.image - views.image).abs().mean((1, 2, 3))
    assert ((change > 5e-4) & (change < 0.3)).all()
    assert change.unique().numel() == 4
    assert new_views.image.min() >= 0
    assert new_views.image.max() <= 1
    # Nothing moves: of all shifts by a pixel or none, none fits the old image best.
    grey = lambda x: x.mean(1) - x.mean((1, 2, 3))[:, None, None]  # noqa: E731
    fits = {(dy, dx): (grey(new_views.image).roll((dy, dx), (1, 2)) * grey(views.image)).sum()
            for dy in (-1, 0, 1) for dx in (-1, 0, 1)}  # fmt: skip
    assert max(fits, key=lambda shift: float(fits[shift])) == (0, 0)


def test_probabilities_are_kept() -> None:
    image = torch.rand(400, 3, 8, 8, generator=seeded())
    new = change_photo(image, dataclasses.replace(PhotoConfig.none(), noise=0.3), seeded())
    changed = (new != image).flatten(1).any(1).float().mean()
    assert abs(changed - 0.3) < 0.07


def test_grey_stays_grey_under_hue_and_saturation() -> None:
    image = torch.rand(4, 1, 8, 8, generator=seeded()).expand(4, 3, 8, 8)
    photo = PhotoConfig(colour=1.0, brightness=0.0, contrast=0.0, hue=0.1, gamma=0.0, blur=0.0, noise=0.0, jpeg=0.0)
    torch.testing.assert_close(change_photo(image, photo, seeded()), image, atol=1e-5, rtol=0)


def test_settings_and_labels_that_cannot_work_are_refused(sample) -> None:
    with pytest.raises(UserError, match="zoom"):
        AugmentConfig(zoom=(0.5, 1.0))
    with pytest.raises(UserError, match="mirror"):
        AugmentConfig(mirror=1.5)
    with pytest.raises(UserError, match="probabilities"):
        PhotoConfig(jpeg=2.0)
    with pytest.raises(UserError, match="blur_radius"):
        PhotoConfig(blur_radius=(0.0, 2.0))
    views, labels = sample
    with pytest.raises(ValueError, match="do not fit"):
        augment(views.map(lambda x: x[..., :64] if x.ndim == 4 else x), labels, AugmentConfig(), seeded())

import math

import pytest
import torch

from reliev3r.geometry.camera import K_from_fov, project, ray_map, transform
from reliev3r.geometry.rigid import invert
from reliev3r.geometry.sampling import depth_edges, inside, sample_bilinear
from reliev3r.synthetic.path import look_at
from reliev3r.synthetic.render import cast, render
from reliev3r.synthetic.scene import make_scene

SIZE = (45, 61)  # odd, so that a pixel's centre lies on the optical axis
K = K_from_fov(math.radians(70), *SIZE)[None]


def camera(eye, target):
    return look_at(torch.tensor(eye), torch.tensor(target))[None]


def test_z_depth_of_a_wall_is_its_distance_at_every_pixel(make_room):
    room = make_room()
    _, truth = render(room, K, camera([2.0, 0.3, -0.2], [4.0, 0.3, -0.2]), SIZE)
    rays = ray_map(K[0], *SIZE)
    on_wall = ((0.3 - 2 * rays[..., 0]).abs() < 2.999) & ((-0.2 - 2 * rays[..., 1]).abs() < 1.499)
    assert on_wall.float().mean() > 0.9
    torch.testing.assert_close(truth.depth[0][on_wall], torch.full((int(on_wall.sum()),), 2.0))
    assert truth.valid.all()
    assert truth.metric


def test_depth_of_floor_and_ceiling(make_room):
    _, truth = render(make_room(), K, camera([-3.0, 0.0, 0.5], [4.0, 0.0, 0.5]), SIZE)
    y = ray_map(K[0], *SIZE)[..., 1]
    floor_or_ceiling = torch.where(y > 0, 2.0, 1.0) / y.abs().clamp_min(1e-6)
    expected = floor_or_ceiling.clamp_max(7)[:, SIZE[1] // 2]
    torch.testing.assert_close(truth.depth[0, :, SIZE[1] // 2], expected, rtol=1e-5, atol=0)


def test_depth_of_a_ball_is_the_near_root_of_the_quadratic(make_room):
    room = make_room(balls=[((2.0, 0.0, 0.0), 0.5)])
    _, truth = render(room, K, camera([0.0, 0.0, 0.0], [1.0, 0.0, 0.0]), SIZE)
    assert truth.depth[0, 22, 30].item() == pytest.approx(1.5, abs=1e-5)
    squared = ray_map(K[0], *SIZE).square().sum(-1)
    discriminant = 4 - squared * (4 - 0.25)
    expected = (2 - discriminant.clamp_min(0).sqrt()) / squared
    hits = discriminant > 1e-3
    assert hits.sum() > 100
    torch.testing.assert_close(truth.depth[0][hits], expected[hits], rtol=1e-4, atol=0)
    assert (truth.depth[0][discriminant < 0] > 2).all()


def test_depth_of_a_turned_box_is_that_of_its_edge(make_room):
    room = make_room(boxes=[((3.0, 0.0, 0.0), (0.5, 0.5, 1.0), math.pi / 4)])
    _, truth = render(room, K, camera([0.0, 0.0, 0.0], [1.0, 0.0, 0.0]), SIZE)
    nearest = 3 - 0.5 * math.sqrt(2)
    assert truth.depth[0, 22, 30].item() == pytest.approx(nearest, abs=1e-5)
    x = ray_map(K[0], *SIZE)[22, 35, 0]  # beside the edge the face recedes at 45 degrees: z = nearest + |x| z
    assert truth.depth[0, 22, 35].item() == pytest.approx(nearest / (1 - float(x)), rel=1e-5)


def test_views_from_outside_the_room_are_invalid_where_rays_miss_it(make_room):
    views, truth = render(make_room(), K, camera([0.0, -50.0, 0.0], [0.0, 0.0, 0.0]), SIZE)
    assert truth.valid[0, 22, 30]
    assert not truth.valid[0, 0, 0]
    assert (truth.depth[~truth.valid] == 0).all()
    assert (views.image[0, :, ~truth.valid[0]] == 0).all()


def test_surfaces_behind_the_camera_are_not_seen(make_room):
    room = make_room(boxes=[((-2.0, 0.0, 0.0), (0.5, 0.5, 0.5), 0.1)], balls=[((-1.0, 0.0, 0.0), 0.3)])
    _, truth = render(room, K, camera([0.0, 0.0, 0.0], [1.0, 0.0, 0.0]), SIZE)
    assert truth.depth[0, 22, 30].item() == pytest.approx(4.0, abs=1e-5)


def test_cast_counts_in_units_of_the_direction(make_room):
    origin, direction = torch.zeros(3, 2), torch.tensor([[0.5, 0.0], [0.0, -6.0], [0.0, 0.0]])
    hits = cast(make_room(), origin, direction)
    torch.testing.assert_close(hits.depth, torch.tensor([8.0, 0.5]))


def test_depth_and_colour_agree_between_views(small_capture):
    views, truth = small_capture
    height, width = views.size
    rays = ray_map(truth.K[0], height, width) * truth.depth[0, ..., None]
    points = transform(truth.world_from_cam[0], rays.reshape(-1, 3))
    local = transform(invert(truth.world_from_cam[1]), points)
    uv = project(local, truth.K[1])
    smooth = ~(depth_edges(truth.depth[0]).flatten() | (sample_bilinear(depth_edges(truth.depth[1]).float(), uv) > 0))
    shared = inside(uv, height, width) & (local[:, 2] > 0) & smooth
    ratio = sample_bilinear(1 / truth.depth[1], uv) * local[:, 2]
    same = shared & ((ratio - 1).abs() < 0.01)
    assert same.sum() > 0.4 * len(uv)
    assert (ratio[shared] - 1).abs().median() < 1e-4

    colour = sample_bilinear(views.image[1], uv.expand(3, -1, 2))[:, same]
    difference = (colour - views.image[0].flatten(1)[:, same]).abs().mean(0)
    shuffled = (colour.roll(997, -1) - views.image[0].flatten(1)[:, same]).abs().mean(0)
    assert difference.median() < 0.03
    assert difference.median() < 0.15 * shuffled.median()


def test_half_a_pixel_of_wrong_convention_would_show(small_capture):
    views, truth = small_capture
    wrong = truth.K.clone()
    wrong[:, :2, 2] += 0.5
    scene = make_scene(3)
    _, shifted = render(scene, wrong, truth.world_from_cam, views.size, supersample=1)
    assert ((shifted.depth / truth.depth) - 1).abs().mean() > 1e-3


def test_the_result_does_not_depend_on_the_chunk():
    scene = make_scene(1, "terrazzo")
    pose = camera([1.5, 0.2, 0.0], [0.0, 0.0, -0.3])
    whole_views, whole = render(scene, K, pose, SIZE, chunk=1 << 20)
    parts_views, parts = render(scene, K, pose, SIZE, chunk=777)
    torch.testing.assert_close(whole.depth, parts.depth, rtol=1e-5, atol=0)
    close = (whole_views.image - parts_views.image).abs() < 1e-3
    assert close.float().mean() > 0.999  # rounding may move a sample across an edge


def test_supersampling_changes_the_image_and_not_the_depth():
    scene = make_scene(2)
    pose = camera([1.5, 0.2, 0.0], [0.0, 0.0, -0.3])
    views, truth = render(scene, K, pose, SIZE, supersample=3)
    rough_views, rough = render(scene, K, pose, SIZE, supersample=1)
    assert torch.equal(truth.depth, rough.depth)
    difference = (views.image - rough_views.image).abs()
    assert 0.001 < difference.mean() < 0.08


def test_a_small_image_looks_like_the_large_one_reduced():
    """Textures are low-passed, not aliased: detail is the same at every distance and resolution."""
    scene = make_scene(2)
    pose = camera([1.5, 0.2, 0.0], [0.0, 0.0, -0.3])
    small, _ = render(scene, K_from_fov(1.2, 40, 60)[None], pose, (40, 60), supersample=2)
    large, _ = render(scene, K_from_fov(1.2, 160, 240)[None], pose, (160, 240), supersample=2)
    reduced = torch.nn.functional.avg_pool2d(large.image, 4)
    assert (small.image - reduced).abs().mean() < 0.03
    assert reduced.std() > 0.1


def test_images_are_in_range_and_progress_reaches_the_end():
    scene = make_scene(4)
    calls = []
    views, truth = render(
        scene,
        K.expand(2, 3, 3),
        camera([1.5, 0.2, 0.0], [0.0, 0.0, -0.3]).expand(2, 4, 4),
        SIZE,
        chunk=4096,
        progress=lambda done, total, what: calls.append((done, total)),
    )
    assert views.image.shape == (2, 3, *SIZE)
    assert views.image.min() >= 0
    assert views.image.max() <= 1
    assert torch.isfinite(truth.depth).all()
    total = 2 * SIZE[0] * SIZE[1]
    assert calls[-1] == (total, total)
    assert len(calls) > 3


@pytest.mark.parametrize("family", ["masonry", "terrazzo"])
def test_everything_stays_on_the_device_of_the_scene(family):
    """The meta device refuses to meet a tensor of the CPU, so this holds for an accelerator, too."""
    views, truth = render(make_scene(0, family).to("meta"), K, torch.eye(4)[None], SIZE)
    assert views.image.shape == (1, 3, *SIZE)
    assert {x.device.type for x in (views.image, truth.depth, truth.valid, truth.K)} == {"meta"}


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an accelerator")
def test_an_accelerator_renders_the_same():
    scene = make_scene(1)
    pose = camera([1.5, 0.2, 0.0], [0.0, 0.0, -0.3])
    views, truth = render(scene, K, pose, SIZE)
    other_views, other = render(scene.to("cuda"), K, pose, SIZE)
    torch.testing.assert_close(other.depth.cpu(), truth.depth, rtol=1e-4, atol=0)
    assert ((other_views.image.cpu() - views.image).abs() < 1e-2).float().mean() > 0.995

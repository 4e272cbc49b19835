import math

import pytest
import torch

from reliev3r.core.errors import UserError
from reliev3r.geometry.camera import K_from_fov, project, transform
from reliev3r.geometry.rigid import invert, relative, rotation_angle
from reliev3r.synthetic.path import PathConfig, clearance, covisibility, look_at, sample_path
from reliev3r.synthetic.scene import make_scene

SIZE = (48, 64)
K = K_from_fov(math.radians(65), *SIZE)


def degrees(world_from_cam):
    return torch.rad2deg(rotation_angle(relative(world_from_cam)[..., :3, :3]))


@pytest.mark.parametrize("family", ["masonry", "terrazzo"])
@pytest.mark.parametrize("kind", ["smooth", "random"])
@pytest.mark.parametrize("seed", range(2))
def test_views_overlap_and_touch_nothing(family, kind, seed):
    scene = make_scene(seed, family)
    config = PathConfig(kind=kind, views=5)
    poses = sample_path(scene, K, SIZE, config, seed=seed)
    shared = covisibility(scene, K, SIZE, poses, poses)
    assert torch.minimum(shared, shared.T).diagonal(1).min() >= config.overlap  # so the whole is connected, too
    assert clearance(scene, poses[:, :3, 3]).min() >= config.clearance
    rotation = poses[:, :3, :3]
    torch.testing.assert_close(rotation @ rotation.mT, torch.eye(3).expand_as(rotation), atol=1e-5, rtol=0)
    torch.testing.assert_close(torch.det(rotation), torch.ones(5))


def test_the_overlap_that_is_asked_for_is_kept():
    scene = make_scene(1)
    tight = sample_path(scene, K, SIZE, PathConfig(kind="random", views=4, overlap=0.75), seed=0)
    shared = covisibility(scene, K, SIZE, tight, tight)
    assert torch.minimum(shared, shared.T).diagonal(1).min() >= 0.75


def test_the_same_seed_gives_the_same_path():
    scene, config = make_scene(2), PathConfig(kind="random", views=4)
    first = sample_path(scene, K, SIZE, config, seed=7)
    assert torch.equal(first, sample_path(scene, K, SIZE, config, seed=7))
    assert not torch.equal(first, sample_path(scene, K, SIZE, config, seed=8))


def test_span_is_the_angle_between_the_ends_of_a_smooth_path():
    scene = make_scene(0)
    for span in (30.0, 75.0):
        angles = degrees(sample_path(scene, K, SIZE, PathConfig(views=8, span=span), seed=0))
        assert angles[0, -1].item() == pytest.approx(span, abs=12)
        steps = angles.diagonal(1)
        assert steps.max() < 3 * span / 7


def test_span_sets_the_baselines_of_random_viewpoints():
    medians = []
    for span in (20.0, 100.0):
        config = PathConfig(kind="random", views=4, span=span, overlap=0.3)
        angles = [degrees(sample_path(make_scene(s), K, SIZE, config, seed=s)) for s in range(4)]
        medians.append(torch.stack([a[torch.triu_indices(4, 4, 1).unbind()] for a in angles]).median())
    assert medians[1] > 1.5 * medians[0]


def test_an_impossible_path_is_an_error_that_says_what_to_do():
    config = PathConfig(views=3, span=360.0, overlap=0.9)
    with pytest.raises(UserError, match="lower the overlap or the span"):
        sample_path(make_scene(0), K, SIZE, config, seed=0)


@pytest.mark.parametrize("bad", [{"views": 0}, {"span": 0.0}, {"span": 400.0}, {"overlap": 1.0}, {"kind": "spiral"}])
def test_bad_settings_are_refused(bad):
    with pytest.raises((UserError, TypeError)):  # the shape checks of the tests may see the wrong literal first
        PathConfig(**bad)


def test_look_at_is_level_and_centres_the_target():
    eye, target = torch.tensor([1.0, -2.0, 0.5]), torch.tensor([-1.0, 1.0, -0.5])
    pose = look_at(eye, target)
    local = transform(invert(pose), target[None])
    torch.testing.assert_close(project(local, K), torch.tensor([[32.0, 24.0]]))
    torch.testing.assert_close(local[0, 2], (target - eye).norm())
    assert pose[2, 0].abs() < 1e-6  # x of the camera is horizontal
    assert pose[2, 1] < 0  # y points down


def test_clearance_by_hand(make_room):
    room = make_room(boxes=[((2.0, 0.0, 0.0), (0.5, 0.5, 0.5), 0.0)], balls=[((-2.0, 0.0, 0.0), 0.25)])
    points = torch.tensor([[0.5, 0.0, 0.0], [-1.5, 0.0, 0.0], [0.0, 2.9, 0.0], [2.0, 0.0, 0.0], [0.0, 3.2, 0.0]])
    distance = clearance(room, points)
    torch.testing.assert_close(distance[:3], torch.tensor([1.0, 0.25, 0.1]), atol=1e-5, rtol=0)
    assert (distance[3:] <= 0).all()


def test_covisibility_by_hand(make_room):
    room = make_room(boxes=[((2.0, 0.0, 0.0), (0.01, 1.5, 1.45), 0.0)])  # a partition before the wall x = 4
    front = look_at(torch.tensor([0.0, 0.0, 0.0]), torch.tensor([1.0, 0.0, 0.0]))
    behind = look_at(torch.tensor([2.1, 0.0, 0.0]), torch.tensor([4.0, 0.0, 0.0]))
    back = look_at(torch.tensor([0.0, 0.0, 0.0]), torch.tensor([-1.0, 0.0, 0.0]))
    views = torch.stack([front, behind, back])
    shared = covisibility(room, K, SIZE, views, views)
    torch.testing.assert_close(shared.diagonal(), torch.ones(3))
    assert shared[1, 0] < 0.1  # the wall is in front's image, but the partition hides it
    assert shared[0, 1] == 0
    assert shared[0, 2] == 0


def test_covisibility_is_the_share_of_the_wall_that_the_other_view_has_in_its_image(make_room):
    near = look_at(torch.tensor([3.0, 0.0, 0.0]), torch.tensor([4.0, 0.0, 0.0]))
    beside = look_at(torch.tensor([3.0, -0.65, 0.0]), torch.tensor([4.0, -0.65, 0.0]))
    shared = covisibility(make_room(), K, SIZE, near[None], beside[None])
    visible_width = 2 * math.tan(math.radians(65) / 2)  # at 1 m
    assert shared.item() == pytest.approx(1 - 0.65 / visible_width, abs=1 / 16)

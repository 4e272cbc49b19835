"""The vocabulary: selection and mapping keep every field in step; derived quantities follow from the stored ones."""

import dataclasses

import pytest
import torch
from jaxtyping import TypeCheckError

from reliev3r.core.types import CameraLabels, DepthLabels, Prediction, PseudoLabels, Tracks, Truth, Views
from reliev3r.geometry.camera import project, ray_map
from reliev3r.geometry.rigid import rigid_from, so3_exp


def make_prediction(batch=(), views=3, height=6, width=8):
    generator = torch.Generator().manual_seed(0)
    K = torch.tensor([[7.0, 0, 3.8], [0, 9.0, 3.1], [0, 0, 1]]).expand(*batch, views, 3, 3)
    omega, centre = (torch.randn(*batch, views, 3, generator=generator) for _ in range(2))
    return Prediction(
        depth=torch.rand(*batch, views, height, width, generator=generator) + 1,
        rays=ray_map(K, height, width),
        conf=torch.rand(*batch, views, height, width, generator=generator),
        world_from_cam=rigid_from(so3_exp(omega), centre),
    )


def make_labels(batch=(), views=3, tracks=5):
    maps = torch.rand(*batch, views, 6, 8)
    weight = torch.rand(*batch, views, tracks)
    return PseudoLabels(
        depth=DepthLabels(depth=maps, valid=maps > 0.5, trust=torch.rand(*batch, views), weight=maps),
        tracks=Tracks(uv=torch.rand(*batch, views, tracks, 2), weight=weight),
        K=torch.eye(3).expand(*batch, views, 3, 3),
        cameras=CameraLabels(world_from_cam=torch.eye(4).expand(*batch, views, 4, 4), weight=weight[..., 0]),
    )


def tensors(value):
    """All tensors of a dataclass, nested ones included."""
    for field in dataclasses.fields(value):
        inner = getattr(value, field.name)
        if isinstance(inner, torch.Tensor):
            yield field.name, inner
        elif dataclasses.is_dataclass(inner):
            yield from tensors(inner)


@pytest.mark.parametrize("batch", [(), (2,), (2, 3)])
def test_selecting_views_reorders_every_field_along_its_view_axis(batch):
    order = [2, 0]
    for whole in (make_prediction(batch), make_labels(batch)):
        for (name, before), (_, after) in zip(tensors(whole), tensors(whole.select_views(order))):
            axis = len(batch)
            assert after.shape[axis] == 2, name
            assert torch.equal(after.select(axis, 0), before.select(axis, 2)), name
            assert torch.equal(after.select(axis, 1), before.select(axis, 0)), name


def test_selecting_views_of_views_and_truth():
    views = Views(image=torch.rand(3, 3, 4, 6), K=torch.rand(3, 3, 3))
    assert views.size == (4, 6)
    assert torch.equal(views.select_views([1]).image, views.image[1:2])
    assert Views(image=views.image).select_views(torch.tensor([0])).K is None
    truth = Truth(
        depth=torch.rand(3, 4, 6),
        valid=torch.ones(3, 4, 6, dtype=torch.bool),
        K=views.K,
        world_from_cam=views.K.new_ones(3, 4, 4),
    )
    assert torch.equal(truth.select_views([2]).K, views.K[2:])


def test_selecting_tracks_touches_tracks_only():
    labels = make_labels()
    chosen = labels.tracks.select_tracks([4, 1])
    assert torch.equal(chosen.uv, labels.tracks.uv[:, [4, 1]])
    assert torch.equal(chosen.weight, labels.tracks.weight[:, [4, 1]])
    assert labels.tracks.select_tracks([]).uv.shape == (3, 0, 2)
    assert labels.tracks.select_tracks(torch.tensor([2])).weight.shape == (3, 1)


def test_dtype_changes_spare_masks_and_reach_nested_fields():
    labels = make_labels().to(torch.float64)
    assert labels.depth.depth.dtype == labels.tracks.uv.dtype == labels.cameras.weight.dtype == torch.float64
    assert labels.depth.valid.dtype == torch.bool
    assert labels.depth.ambiguity == "scale"


def test_detach_cuts_the_graph():
    prediction = make_prediction()
    prediction = dataclasses.replace(prediction, depth=prediction.depth.requires_grad_())
    assert prediction.points_world.requires_grad
    assert not prediction.detach().points_world.requires_grad


def test_a_track_is_seen_where_it_has_weight():
    tracks = Tracks(uv=torch.zeros(1, 3, 2), weight=torch.tensor([[0.0, 1e-3, 1.0]]))
    assert tracks.visible.tolist() == [[False, True, True]]


def test_points_follow_from_rays_depth_and_pose():
    pose = torch.eye(4)
    pose[:3, :3] = torch.tensor([[0.0, 0, 1], [0, 1, 0], [-1, 0, 0]])  # looks along the world's x
    pose[:3, 3] = torch.tensor([10.0, 20.0, 30.0])
    rays = torch.tensor([0.5, -0.25, 1.0]).reshape(1, 1, 1, 3)
    one = torch.ones(1, 1, 1)
    prediction = Prediction(depth=4 * one, rays=rays, conf=one, world_from_cam=pose[None])
    assert prediction.points_cam.flatten().tolist() == [2, -1, 4]
    assert prediction.points_world.flatten().tolist() == [14, 19, 28]


@pytest.mark.parametrize("batch", [(), (2,)])
def test_intrinsics_are_fitted_to_the_rays(batch):
    prediction = make_prediction(batch)
    expected = torch.tensor([[7.0, 0, 3.8], [0, 9.0, 3.1], [0, 0, 1]]).expand(*batch, 3, 3, 3)
    assert torch.allclose(prediction.K, expected, atol=1e-4)
    pixels = project(prediction.points_cam.flatten(-3, -2), prediction.K).unflatten(-2, (6, 8))
    first = pixels[..., 0, 0, :]
    assert torch.allclose(first, torch.full_like(first, 0.5), atol=1e-4)


def test_shapes_are_checked_in_tests():
    with pytest.raises(TypeCheckError, match="rays"):
        Prediction(
            depth=torch.ones(2, 4, 5),
            rays=torch.ones(2, 4, 6, 3),
            conf=torch.ones(2, 4, 5),
            world_from_cam=torch.ones(2, 4, 4),
        )


def test_types_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        make_prediction().depth = torch.ones(1)

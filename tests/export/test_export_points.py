"""Point clouds, PLY, GLB, arrays and maps."""

import dataclasses
import logging

import cv2
import numpy as np
import pytest
import torch
import trimesh

import small_scene
from reliev3r.core.files import read_json
from reliev3r.export.cameras import upright_from_world
from reliev3r.export.maps import colour_map, write_maps, write_npz
from reliev3r.export.points import coloured_points, floating_pixels, view_colours, write_glb, write_ply
from reliev3r.geometry.rigid import rigid_from, so3_exp


def changed(reconstruction, **fields):
    return dataclasses.replace(reconstruction, prediction=dataclasses.replace(reconstruction.prediction, **fields))


def test_points_lie_on_the_wall_with_their_own_colour():
    points, colours = coloured_points(small_scene.reconstruction(), keep=1.0)
    assert len(points) == 4 * 24 * 28
    assert torch.allclose(points.double() @ small_scene.WALL[:3], small_scene.WALL[3].expand(len(points)), atol=1e-5)
    assert torch.equal(colours, small_scene.colour(points))


def test_keep_is_a_share_of_pixels_by_confidence():
    reconstruction = small_scene.reconstruction()
    points, _ = coloured_points(reconstruction, keep=0.25)  # confidence falls by columns: the left quarter remains
    expected = reconstruction.prediction.points_world[:, :, :7].reshape(-1, 3)
    assert torch.equal(points, expected)


def test_constant_confidence_keeps_every_view():
    reconstruction = changed(small_scene.reconstruction(), conf=torch.ones(4, 24, 28))
    assert len(coloured_points(reconstruction, keep=0.5)[0]) == 4 * 24 * 28


def test_depth_edges_are_left_out():
    reconstruction = small_scene.reconstruction(2)
    depth = reconstruction.prediction.depth.clone()
    depth[:, :, 14:] *= 2
    points, _ = coloured_points(changed(reconstruction, depth=depth), keep=1.0)
    assert len(points) == 2 * 24 * 26  # the columns on both sides of the step


def test_ramps_across_a_step_float_but_slanted_planes_do_not():
    reconstruction = small_scene.reconstruction(1)  # the wall's own slant is 20 degrees and more, on a coarse map
    assert not floating_pixels(reconstruction.prediction, rtol=0.05).any()
    inverse = 1 / reconstruction.prediction.depth
    ramp = torch.cat([torch.ones(10), torch.tensor([0.75, 0.5, 0.25]), 0.1 * torch.ones(15)])
    floating = floating_pixels(changed(reconstruction, depth=1 / (inverse * ramp)).prediction, rtol=0.05)
    assert floating[0, :, 9:14].all()
    assert not floating[0, :, :8].any()
    assert not floating[0, :, 16:].any()


def test_never_empty_even_where_all_is_edges(caplog):
    depth = 1 + torch.rand(4, 24, 28, generator=torch.Generator().manual_seed(0)) * 5
    reconstruction = changed(small_scene.reconstruction(), depth=depth)
    with caplog.at_level(logging.WARNING):
        points, colours = coloured_points(reconstruction, keep=0.001)
    assert len(points) == len(colours) >= 100
    assert "edge" in caplog.text


def test_a_handful_of_pixels_is_exported_too():
    reconstruction = small_scene.reconstruction(1)
    prediction = reconstruction.prediction
    few = changed(
        reconstruction,
        depth=prediction.depth[:, :1, :2],
        conf=prediction.conf[:, :1, :2],
        rays=prediction.rays[:, :1, :2],
    )
    assert len(coloured_points(dataclasses.replace(few, image=few.image[:, :1, :2]))[0]) == 2


def test_max_points_is_a_fixed_even_subset():
    reconstruction = small_scene.reconstruction()
    first, colours = coloured_points(reconstruction, keep=1.0, max_points=300)
    second, _ = coloured_points(reconstruction, keep=1.0, max_points=300)
    assert torch.equal(first, second)
    assert torch.equal(colours, small_scene.colour(first))
    chosen = {tuple(point) for point in first.tolist()}
    per_view = [
        sum(tuple(point) in chosen for point in view.reshape(-1, 3).tolist())
        for view in reconstruction.prediction.points_world
    ]
    assert sum(per_view) == len(first) == 300
    assert min(per_view) > 40


def test_ply_holds_as_many_points_as_said_in_world_coordinates(tmp_path):
    reconstruction = small_scene.reconstruction()
    count = write_ply(reconstruction, tmp_path / "scene.ply", keep=0.5)
    cloud = trimesh.load(tmp_path / "scene.ply")
    points, colours = coloured_points(reconstruction, keep=0.5)
    assert count == len(cloud.vertices) == len(points)
    np.testing.assert_allclose(cloud.vertices, points.numpy(), atol=1e-6)
    np.testing.assert_array_equal(cloud.visual.vertex_colors[:, :3], colours.numpy())
    assert b"format binary" in (tmp_path / "scene.ply").read_bytes()[:100]


def test_glb_holds_points_and_cameras_and_the_way_back(tmp_path):
    reconstruction = small_scene.reconstruction()
    count = write_glb(reconstruction, tmp_path / "scene.glb")
    scene = trimesh.load(tmp_path / "scene.glb")
    assert set(scene.geometry) == {"points", *(f"camera frame{i}" for i in range(4))}
    points, colours = coloured_points(reconstruction)
    assert count == len(scene.geometry["points"].vertices) == len(points)
    np.testing.assert_array_equal(scene.geometry["points"].colors[:, :3], colours.numpy())
    world_from_gltf = np.array(scene.metadata["world_from_gltf"]).reshape(4, 4)
    back = scene.geometry["points"].vertices @ world_from_gltf[:3, :3].T + world_from_gltf[:3, 3]
    np.testing.assert_allclose(back, points.numpy(), atol=1e-5)


def test_glb_is_y_up_and_its_frusta_look_at_the_scene(tmp_path):
    reconstruction = small_scene.reconstruction()
    write_glb(reconstruction, tmp_path / "scene.glb")
    scene = trimesh.load(tmp_path / "scene.glb")
    points = scene.geometry["points"]
    sky = points.vertices[:, 1] > np.percentile(points.vertices[:, 1], 95)
    gltf_from_world = upright_from_world(reconstruction.prediction.world_from_cam).numpy()
    cameras = gltf_from_world @ reconstruction.prediction.world_from_cam.double().numpy()
    assert (cameras[:, 1, 1] < -0.9).all()  # OpenCV's y points down
    assert cameras[0, 2, 2] < -0.9  # the first camera looks along -z
    top = reconstruction.prediction.points_world[:, 0].reshape(-1, 3).double().numpy()  # first rows of the images
    assert (top @ gltf_from_world[1, :3] + gltf_from_world[1, 3]).mean() > points.vertices[~sky, 1].mean()
    colours = {tuple(scene.geometry[f"camera frame{i}"].visual.face_colors[0, :3]) for i in range(4)}
    assert len(colours) == 4
    for i in range(4):
        mesh = scene.geometry[f"camera frame{i}"]
        from_centre = mesh.vertices - cameras[i, :3, 3]
        assert np.linalg.norm(from_centre, axis=1).min() < 0.05 * np.linalg.norm(from_centre, axis=1).max()
        assert ((from_centre @ cameras[i, :3, 2]) > -0.02).all()  # nothing of the frustum is behind the camera


@pytest.mark.parametrize("tilt", [0.0, 1.57, 3.0])
def test_upright_does_not_depend_on_the_gauge(tilt):
    cameras = small_scene.arc(5)
    gauge = rigid_from(so3_exp(torch.tensor([tilt, 0.4, -0.7], dtype=torch.float64)), torch.ones(3).double())
    upright = upright_from_world(cameras) @ cameras
    torch.testing.assert_close(upright_from_world(gauge @ cameras) @ gauge @ cameras, upright)
    assert torch.det(upright_from_world(cameras)[:3, :3]).item() == pytest.approx(1)


def test_upright_of_a_camera_that_looks_straight_down_is_a_rotation():
    down = rigid_from(so3_exp(torch.tensor([-torch.pi / 2, 0.0, 0.0], dtype=torch.float64)), torch.zeros(3).double())
    mixed = torch.stack([down, small_scene.arc(1)[0], small_scene.arc(2)[0]])
    for cameras in (down[None], mixed):
        rotation = upright_from_world(cameras)[:3, :3]
        torch.testing.assert_close(rotation @ rotation.T, torch.eye(3).double())


def test_npz_round_trip(tmp_path):
    reconstruction = small_scene.reconstruction()
    write_npz(reconstruction, tmp_path / "scene.npz")
    with np.load(tmp_path / "scene.npz", allow_pickle=False) as arrays:
        np.testing.assert_array_equal(arrays["depth"], reconstruction.prediction.depth.numpy())
        np.testing.assert_allclose(arrays["K_original"][0], small_scene.K.numpy(), atol=1e-3)
        assert arrays["names"].tolist() == list(reconstruction.names)
        K, pose, depth = arrays["K"][1], arrays["world_from_cam"][1], arrays["depth"][1]
    ray = np.linalg.inv(K) @ [3.5, 5.5, 1.0]  # the arrays alone give the world point of pixel (row 5, column 3)
    world = pose[:3, :3] @ (ray * depth[5, 3]) + pose[:3, 3]
    np.testing.assert_allclose(world, reconstruction.prediction.points_world[1, 5, 3].numpy(), atol=1e-5)


def test_maps_are_arrays_pictures_and_their_place(tmp_path):
    reconstruction = dataclasses.replace(small_scene.reconstruction(), names=("a", "b.c", "left/1", "right/1"))
    write_maps(reconstruction, tmp_path / "depth")
    for i, name in enumerate(reconstruction.names):
        np.testing.assert_array_equal(
            np.load(tmp_path / f"depth/{name}.depth.npy"), reconstruction.prediction.depth[i].numpy()
        )
        assert np.load(tmp_path / f"depth/{name}.conf.npy").dtype == np.float32
        assert cv2.imread(str(tmp_path / f"depth/{name}.depth.png")).shape == (24, 28, 3)
    manifest = read_json(tmp_path / "depth/maps.json")
    assert manifest["regions"]["b.c"] == list(small_scene.REGION)
    near, far = manifest["colour_scales"]["depth"]
    assert reconstruction.prediction.depth.min() < near < far < reconstruction.prediction.depth.max()


def test_colour_map_ends_and_unknown():
    values = np.array([[0.0, 1.0, 5.0, np.nan]])
    picture = colour_map(values, 0.0, 1.0, kind="depth")
    assert picture[0, 0, 2] > picture[0, 0, 0]  # turbo starts blue
    assert picture[0, 1, 0] > picture[0, 1, 2]  # and ends red
    assert (picture[0, 1] == picture[0, 2]).all()
    assert (picture[0, 3] == 128).all()


def test_view_colours_are_distinct():
    assert len(np.unique(view_colours(50), axis=0)) == 50

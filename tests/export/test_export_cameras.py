"""The same world point must land on the same original pixel in every camera format."""

import dataclasses

import numpy as np
import pycolmap
import pytest
import torch

import small_scene
from reliev3r.core.errors import UserError
from reliev3r.core.files import read_json
from reliev3r.export.cameras import write_cameras, write_transforms
from reliev3r.export.colmap import write_colmap
from reliev3r.export.write import export_reconstruction
from reliev3r.sfm.bundle_pycolmap import shared_cameras

POINT = np.array([0.2, -0.1, 3.9])


def expected_pixel(view: int, views: int = 4) -> np.ndarray:
    """Corner-convention pixel of POINT, by hand."""
    camera = small_scene.arc(views)[view].numpy()
    x, y, z = camera[:3, :3].T @ (POINT - camera[:3, 3])
    return np.array([600.0 * x / z + 322.5, 610.0 * y / z + 238.0])


@pytest.fixture(scope="module")
def tracks():
    return small_scene.observe(small_scene.wall_points(300), small_scene.arc(4), noise_px=0.5)


@pytest.fixture
def model(tmp_path, tracks):
    summary = write_colmap(small_scene.reconstruction(), tracks, tmp_path / "sparse/0")
    return summary, pycolmap.Reconstruction(tmp_path / "sparse/0")


def test_colmap_loads_with_our_reprojection_error(model, tracks):
    summary, loaded = model
    assert loaded.num_reg_images() == 4
    assert loaded.num_points3D() == summary.points == int((tracks.visible.sum(0) >= 2).sum())
    assert loaded.compute_num_observations() == summary.observations
    assert 0.2 < summary.mean_reprojection_px < 0.7  # 0.5 px of noise per axis, some of it absorbed
    assert loaded.compute_mean_reprojection_error() == pytest.approx(summary.mean_reprojection_px, abs=1e-4)
    loaded.update_point_3d_errors()  # what COLMAP itself computes, not what we stored
    assert loaded.compute_mean_reprojection_error() == pytest.approx(summary.mean_reprojection_px, abs=1e-4)


def test_colmap_cameras_have_original_resolution_and_pixels(model):
    _, loaded = model
    assert len(loaded.cameras) == 1  # one lens, one camera
    camera = next(iter(loaded.cameras.values()))
    assert (camera.width, camera.height) == small_scene.SIZE
    assert camera.model.name == "PINHOLE"
    np.testing.assert_allclose(camera.params, [600, 610, 322.5, 238], atol=1e-3)
    for view in range(4):
        image = loaded.find_image_with_name(f"frame{view}.jpg")
        np.testing.assert_allclose(image.project_point(POINT), expected_pixel(view), atol=1e-2)


def test_colmap_keeps_every_observation(model, tracks):
    _, loaded = model
    for view in range(4):
        xy = np.array([point.xy for point in loaded.image(view + 1).points2D])
        np.testing.assert_allclose(xy, tracks.uv[view, tracks.visible[view]].numpy())


def test_colmap_points_have_the_images_colours(tmp_path):
    wall = small_scene.observe(small_scene.wall_points(200, relief=0.0), small_scene.arc(4))
    write_colmap(small_scene.reconstruction(), wall, tmp_path / "0")
    points = pycolmap.Reconstruction(tmp_path / "0").points3D.values()
    own = np.array([small_scene.colour(torch.from_numpy(point.xyz)).numpy() for point in points], dtype=int)
    painted = np.array([point.color for point in points], dtype=int)
    assert np.abs(painted - own).mean() < 12  # the maps are coarse: 20 original pixels each


def test_colmap_leaves_out_false_tracks_but_not_their_true_part(tmp_path):
    points = small_scene.wall_points(40)
    tracks = small_scene.observe(points, small_scene.arc(6))
    uv, weight = tracks.uv.clone(), tracks.weight.clone()
    full = (weight.sum(0) == 6).nonzero()[:, 0].tolist()
    uv[2, full[0]] += torch.tensor([80.0, -60.0])  # one false observation of six
    weight[2:, full[1]] = 0
    uv[0, full[1]] += torch.tensor([0.0, 90.0])  # a false pair
    weight[:, full[2]] = 0
    weight[0, full[2]] = 1  # seen once
    changed = dataclasses.replace(tracks, uv=uv, weight=weight)
    write_colmap(small_scene.reconstruction(6), changed, tmp_path / "0")
    loaded = pycolmap.Reconstruction(tmp_path / "0")
    assert loaded.points3D[full[0] + 1].track.length() == 5
    np.testing.assert_allclose(loaded.points3D[full[0] + 1].xyz, points[full[0]].numpy(), atol=1e-3)
    assert not loaded.exists_point3D(full[1] + 1)
    assert not loaded.exists_point3D(full[2] + 1)


def test_colmap_has_no_points_behind_cameras(tmp_path):
    tracks = small_scene.observe(small_scene.wall_points(100), small_scene.arc(4))
    mirrored = dataclasses.replace(tracks, uv=2 * small_scene.K[:2, 2].float() - tracks.uv)  # rays cross behind
    summary = write_colmap(small_scene.reconstruction(), mirrored, tmp_path / "0")
    loaded = pycolmap.Reconstruction(tmp_path / "0")
    assert summary.mean_reprojection_px < 20
    for point in loaded.points3D.values():
        for element in point.track.elements:
            cam_from_world = loaded.image(element.image_id).cam_from_world()
            assert (cam_from_world * point.xyz)[2] > 0


@pytest.mark.parametrize("tracks", [None, "empty"])
def test_colmap_without_tracks_starts_splats_from_confident_pixels(tmp_path, tracks):
    if tracks == "empty":
        tracks = small_scene.observe(small_scene.wall_points(0), small_scene.arc(4))
    summary = write_colmap(small_scene.reconstruction(), tracks, tmp_path / "0")
    loaded = pycolmap.Reconstruction(tmp_path / "0")
    assert loaded.num_points3D() == summary.points > 1000
    assert summary.observations == 0
    assert loaded.compute_mean_reprojection_error() == summary.mean_reprojection_px == 0


def test_cameras_are_shared_only_where_they_are_the_same():
    K = small_scene.K.repeat(4, 1, 1)
    K[2, 0, 0] += 1
    K[3, 0, 0] += 0.001
    assert shared_cameras(K, [(640, 480), (480, 640), (640, 480), (640, 480)]) == [0, 1, 2, 0]


def test_nerfstudio_projects_with_opengl_axes_from_the_right_files(tmp_path):
    files = [f"images/frame{view}.png" for view in range(4)]
    write_transforms(small_scene.reconstruction(), tmp_path / "out/transforms.json", images=files)
    content = read_json(tmp_path / "out/transforms.json")
    for view, frame in enumerate(content["frames"]):
        assert frame["file_path"] == files[view]
        world_from_gl = np.array(frame["transform_matrix"])
        x, y, z = world_from_gl[:3, :3].T @ (POINT - world_from_gl[:3, 3])
        assert z < 0
        pixel = [frame["fl_x"] * x / -z + frame["cx"], -frame["fl_y"] * y / -z + frame["cy"]]
        np.testing.assert_allclose(pixel, expected_pixel(view), atol=1e-2)


def test_cameras_json_is_the_shared_format_with_integer_centres(tmp_path):
    write_cameras(small_scene.reconstruction(), tmp_path / "cameras.json")
    for view, frame in enumerate(read_json(tmp_path / "cameras.json")["frames"]):
        assert (frame["name"], frame["image"]) == (f"frame{view}", f"images/frame{view}.jpg")
        assert (frame["width"], frame["height"]) == small_scene.SIZE
        np.testing.assert_allclose(frame["K"], [[600, 0, 322], [0, 610, 237.5], [0, 0, 1]], atol=1e-3)
        pose, K = np.array(frame["cam_to_world"]), np.array(frame["K"])
        homogeneous = K @ pose[:3, :3].T @ (POINT - pose[:3, 3])
        np.testing.assert_allclose(homogeneous[:2] / homogeneous[2] + 0.5, expected_pixel(view), atol=1e-2)


def test_folder_holds_all_formats_and_is_not_overwritten(tmp_path, tracks):
    reconstruction = small_scene.reconstruction()
    written = export_reconstruction(reconstruction, tracks, tmp_path / "out")
    assert all(path.exists() for path in written)
    assert {path.relative_to(tmp_path / "out").as_posix() for path in written} == {
        "cameras.json", "transforms.json", "sparse/0", "view.html", "scene.ply", "scene.glb", "scene.npz", "depth",
    }  # fmt: skip
    assert read_json(tmp_path / "out/transforms.json")["ply_file_path"] == "scene.ply"
    before = (tmp_path / "out/scene.ply").stat().st_mtime_ns
    with pytest.raises(UserError, match=r"cameras\.json: exists already"):
        export_reconstruction(reconstruction, tracks, tmp_path / "out")
    assert (tmp_path / "out/scene.ply").stat().st_mtime_ns == before
    export_reconstruction(reconstruction, tracks, tmp_path / "out", overwrite=True)
    assert (tmp_path / "out/scene.ply").stat().st_mtime_ns > before


@pytest.mark.parametrize("name", ["a.ply", "a.glb", "a.npz", "a.html", "a.json", "transforms.json"])
def test_suffix_chooses_the_format_and_files_are_safe(tmp_path, name):
    reconstruction = small_scene.reconstruction()
    assert export_reconstruction(reconstruction, None, tmp_path / name) == [tmp_path / name]
    assert [path.name for path in tmp_path.iterdir()] == [name]
    (tmp_path / name).write_text("mine")
    with pytest.raises(UserError, match=name):
        export_reconstruction(reconstruction, None, tmp_path / name)
    assert (tmp_path / name).read_text() == "mine"


def test_bad_targets_are_told(tmp_path):
    reconstruction = small_scene.reconstruction()
    with pytest.raises(UserError, match="unknown format"):
        export_reconstruction(reconstruction, None, tmp_path / "scene.obj")
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UserError, match="not a folder"):
        export_reconstruction(reconstruction, None, tmp_path / "file", overwrite=True)
    no_depth = dataclasses.replace(reconstruction, predicts_depth=False)
    with pytest.raises(UserError, match="no depth"):
        export_reconstruction(no_depth, None, tmp_path / "scene.ply")
    nothing = dataclasses.replace(reconstruction, found=torch.zeros(4, dtype=torch.bool))
    with pytest.raises(UserError, match="no camera"):
        export_reconstruction(nothing, None, tmp_path / "scene.ply")


def test_views_without_camera_stay_out(tmp_path, tracks):
    reconstruction = dataclasses.replace(
        small_scene.reconstruction(), found=torch.tensor([True, False, True, True]), predicts_depth=False
    )
    written = export_reconstruction(reconstruction, tracks, tmp_path / "out")
    assert [path.name for path in written] == ["cameras.json", "transforms.json", "0", "view.html"]
    assert [frame["name"] for frame in read_json(written[0])["frames"]] == ["frame0", "frame2", "frame3"]
    loaded = pycolmap.Reconstruction(written[2])
    assert sorted(image.name for image in loaded.images.values()) == ["frame0.jpg", "frame2.jpg", "frame3.jpg"]
    assert loaded.compute_mean_reprojection_error() < 1


@pytest.mark.parametrize("name", ["cameras.json", "transforms.json", "sparse/0/images.bin"])
def test_cameras_that_are_no_results_are_never_replaced(tmp_path, name) -> None:
    """The truth of a capture, or the cameras of a dataset, lie in folders that results might be sent to."""
    file = tmp_path / "capture" / name
    file.parent.mkdir(parents=True)
    file.write_text("{}")
    for target in (tmp_path / "capture", *([file] if name == "cameras.json" else [])):
        with pytest.raises(UserError, match="is not of an earlier result"):
            export_reconstruction(small_scene.reconstruction(), None, target, overwrite=True)
    assert [path for path in (tmp_path / "capture").rglob("*") if path.is_file()] == [file]
    assert file.read_text() == "{}"

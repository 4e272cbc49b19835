"""Depth from elsewhere on a scene's own pixels: WAI, CUT3R's folders, COLMAP's dense maps, tied by their cameras."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
from depth_layouts import WRITERS, write_colmap_dense, write_cut3r, write_wai
from dl3dv_layout import HASHES, write_benchmark, write_release
from layouts import Room

from foundry_scenes import exact_scene
from reliev3r.core.errors import UserError
from reliev3r.data.convert import convert_scene
from reliev3r.data.depth_truth.attach import depth_folder, with_depth
from reliev3r.data.readers import open_scene
from reliev3r.export.trainers.layouts import write_training_scene


@pytest.fixture
def bench(room, tmp_path):
    """A scene of the benchmark whose unit is a quarter of a metre."""
    write_benchmark(tmp_path / "bench", room, scenes=1, unit=0.25)
    return open_scene(tmp_path / "bench")


@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize("unit", [0.25, 3.0])
def test_depth_comes_to_the_scene_s_pixels_and_unit(room, bench, tmp_path, kind, unit) -> None:
    WRITERS[kind](tmp_path / "depth" / HASHES[0], room, unit=unit)
    scene = with_depth(bench, f"{kind}:{tmp_path / 'depth'}/{{scene}}")
    assert scene.capture is bench.capture
    assert not scene.truth.metric
    for index, name in enumerate(scene.capture.names):
        depth = scene.truth.depth(name)
        known = depth > 0
        assert 0.5 < known.mean() < 0.99
        rows, columns = depth.shape  # of about the map's resolution: compared at the frame's pixel that it stands for
        row = ((np.arange(rows) + 0.5) * 72 / rows).astype(int)
        column = ((np.arange(columns) + 0.5) * 96 / columns).astype(int)
        true = room.depth[index][row[:, None], column] / 0.25
        error = np.abs(depth - true)[known] / true[known]
        assert np.median(error) < 0.004
        assert np.quantile(error, 0.9) < 0.05  # the rest are edges
        assert error.max() < 5  # nonsense under masks and without confidence is none of it
    assert any(caveat.startswith("depth: ") for caveat in scene.caveats)
    assert not any("no true depth" in caveat for caveat in scene.caveats)


def test_the_crop_that_wai_forgets_is_undone(room, bench, tmp_path) -> None:
    """Without the file of the distorted images K is taken as stated, which is some pixels off."""
    write_wai(tmp_path / "d", room)

    def error(scene):
        depth = scene.truth.depth("frame_00002")
        row, column = (np.arange(n) * size // n for n, size in zip(depth.shape, (72, 96)))
        return np.median(np.abs(depth * 0.25 / room.depth[1][row[:, None], column] - 1)[depth > 0])

    corrected = error(with_depth(bench, f"wai:{tmp_path / 'd'}"))
    (tmp_path / "d" / "scene_meta_distorted.json").unlink()
    assert error(with_depth(bench, f"wai:{tmp_path / 'd'}")) > 1.5 * corrected


def test_a_converted_capture_takes_it_too(room, tmp_path) -> None:
    write_release(tmp_path / "data", room, scenes=1, unit=0.25)
    convert_scene(open_scene(tmp_path / "data"), tmp_path / "cap")
    write_colmap_dense(tmp_path / "dense" / f"1K_{HASHES[0]}", room, unit=0.7)
    scene = open_scene(tmp_path / "cap")
    scene = with_depth(dataclasses.replace(scene, name=f"1K/{HASHES[0]}"), f"colmap:{tmp_path / 'dense'}/{{scene}}")
    depth = scene.truth.depth("frame_00001")
    assert np.median(np.abs(depth * 0.25 / room.depth[0] - 1)[depth > 0]) < 1e-3


def test_names_of_scenes_in_paths(tmp_path) -> None:
    for name in ("1K_a", "b"):
        (tmp_path / name).mkdir()
    spec = f"cut3r:{tmp_path}/{{scene}}"
    assert depth_folder("1K/a", spec) == tmp_path / "1K_a"
    assert depth_folder("1K/b", spec) == tmp_path / "b"
    assert depth_folder("1K/c", spec) is None
    for scene, bad in (("../b", spec), ("b", "mesh:x"), ("b", "wai"), ("b", "wai:")):
        with pytest.raises(UserError, match="--depth-truth"):
            depth_folder(scene, bad)


def test_depth_of_other_cameras_is_refused(room, bench, tmp_path) -> None:
    """Other poses, or frames of one place: lengths cannot be carried over."""
    other = room.world_from_cam.copy()
    other[2, :3, 3] += [0.3, 0.0, 0.1]
    write_cut3r(tmp_path / "moved", Room(rgb=room.rgb, depth=room.depth, K=room.K, world_from_cam=other))
    with pytest.raises(UserError, match=r"its cameras are not those of .* this is another scene's depth"):
        with_depth(bench, f"cut3r:{tmp_path / 'moved'}")
    turned = room.world_from_cam.copy()
    turned[1, :3, :3] = turned[1, :3, :3] @ np.array([[1, 0, 0], [0, 0.9986, -0.0523], [0, 0.0523, 0.9986]])
    write_cut3r(tmp_path / "turned", Room(rgb=room.rgb, depth=room.depth, K=room.K, world_from_cam=turned))
    with pytest.raises(UserError, match=r"up to 2\.\d degrees"):
        with_depth(bench, f"cut3r:{tmp_path / 'turned'}")
    still = np.repeat(room.world_from_cam[:1], 4, axis=0)
    write_cut3r(tmp_path / "still", Room(rgb=room.rgb, depth=room.depth, K=room.K, world_from_cam=still))
    with pytest.raises(UserError, match=r"do not move|are not those"):
        with_depth(bench, f"cut3r:{tmp_path / 'still'}")
    whole = dataclasses.replace(bench, truth=None)
    with pytest.raises(UserError, match="no true poses"):
        with_depth(whole, f"cut3r:{tmp_path / 'moved'}")


def test_frames_without_a_map(room, bench, tmp_path, caplog) -> None:
    write_colmap_dense(tmp_path / "dense", room)
    maps = tmp_path / "dense" / "stereo" / "depth_maps"
    (maps / "frame_00002.png.geometric.bin").unlink()
    scene = with_depth(bench, f"colmap:{tmp_path / 'dense'}")
    assert scene.truth.depth("frame_00002") is None
    assert scene.truth.depth("frame_00003") is not None
    assert "no depth for 1 of 4 frames" in caplog.text
    for file in maps.iterdir():
        file.rename(file.with_name(f"x{file.name}"))
    with pytest.raises(UserError, match=r"has no \*\.geometric\.bin"):
        with_depth(bench, f"colmap:{tmp_path / 'dense'}")


@pytest.mark.parametrize("what", ["scene_meta.json: not found", "is missing", "has no depth", "its lens is OPENCV",
                                  "needs numbers fl_x", "outside the scene", "not a matrix", "has no depth of frame",
                                  "not found"])  # fmt: skip
def test_damage_of_wai_is_told_in_one_line(room, bench, tmp_path, what) -> None:
    write_wai(tmp_path / "d", room)
    file = tmp_path / "d" / "scene_meta.json"
    content = json.loads(file.read_text())
    match what:
        case "scene_meta.json: not found":
            file.unlink()
        case "is missing":
            del content["frame_modalities"]
        case "has no depth":
            del content["frame_modalities"]["pred_depth"]
        case "its lens is OPENCV":
            content["camera_model"] = "OPENCV"
        case "needs numbers fl_x":
            del content["fl_x"]
        case "outside the scene":
            content["frames"][1]["mvsanywhere_depth"] = "../../other.exr"
        case "not a matrix":
            content["frames"][1]["transform_matrix"] = "none"
        case "has no depth of frame":
            for frame in content["frames"]:
                frame["frame_name"] = f"other_{frame['frame_name']}"
        case "not found":
            (tmp_path / "d" / content["frames"][0]["mvsanywhere_depth"]).unlink()
    if what != "scene_meta.json: not found":
        file.write_text(json.dumps(content))
    with pytest.raises(UserError, match=what) as caught:
        with_depth(bench, f"wai:{tmp_path / 'd'}").truth.depth("frame_00001")
    assert "\n" not in str(caught.value)
    assert str(tmp_path / "d") in str(caught.value)


def test_depth_of_a_rendered_wai_scene(room, bench, tmp_path) -> None:
    """Datasets with depth of their own have one modality, not nested, and no confidence."""
    write_wai(tmp_path / "d", room)
    file = tmp_path / "d" / "scene_meta.json"
    content = json.loads(file.read_text())
    content["frame_modalities"] = {"depth": {"frame_key": "mvsanywhere_depth", "format": "depth"}}
    file.write_text(json.dumps(content))
    scene = with_depth(bench, f"wai:{tmp_path / 'd'}")
    assert scene.truth.depth("frame_00001").max() > 1000  # nothing was taken out
    assert "the dataset's own" in scene.caveats[-1]


@pytest.mark.parametrize("damage", ["cut", "mask", "npz"])
def test_damaged_files_are_named(room, bench, tmp_path, damage) -> None:
    write_cut3r(tmp_path / "c", room)
    write_colmap_dense(tmp_path / "dense", room)
    if damage == "cut":
        file = tmp_path / "dense" / "stereo" / "depth_maps" / "frame_00001.png.geometric.bin"
        file.write_bytes(file.read_bytes()[:-7])
        spec = f"colmap:{tmp_path / 'dense'}"
    elif damage == "mask":
        file = tmp_path / "c" / "dense" / "sky_mask" / "frame_00001.png"
        file.write_bytes(b"half")
        spec = f"cut3r:{tmp_path / 'c'}"
    else:
        file = tmp_path / "c" / "dense" / "cam" / "frame_00001.npz"
        file.write_bytes(file.read_bytes()[:90])
        spec = f"cut3r:{tmp_path / 'c'}"
    with pytest.raises(UserError, match=file.name.replace(".", r"\.")):
        with_depth(bench, spec).truth.depth("frame_00001")


@pytest.mark.parametrize("damage", ["list", "outside", "poses", "map"])
def test_scenes_of_vggt_omega(room, bench, tmp_path, damage) -> None:
    """Without our note a scene is a dataset's own; what is wrong with it is told in one line."""
    scene = dataclasses.replace(exact_scene(room), name="omega")
    write_training_scene(scene, "omega", tmp_path)
    folder = tmp_path / "omega"
    assert "PSEUDO-LABELS" in with_depth(bench, f"omega:{folder}").caveats[-1]
    (folder / "pseudo_labels.json").unlink()
    own = with_depth(bench, f"omega:{folder}")
    told = "depth: the dataset's own, from a scene of VGGT-Omega's layout"
    assert own.caveats[-1] == f"{told}; also where masks may mask it out"
    shutil.rmtree(folder / "masks")
    assert with_depth(bench, f"omega:{folder}").caveats[-1] == told
    assert (own.truth.depth("frame_00001")[-4:] > 0).all()  # only our masks are known to be masks
    if damage == "list":
        (folder / "image_names.json").write_text("{}")
    elif damage == "outside":
        (folder / "image_names.json").write_text(json.dumps(["../x.jpg", "a.jpg", "b.jpg", "c.jpg"]))
    elif damage == "poses":
        np.save(folder / "cam_from_worlds.npy", np.zeros((3, 3, 4), np.float32))
    else:
        file = folder / "depths" / "frame_00001.exr"
        file.write_bytes(file.read_bytes()[:-40])
    with pytest.raises(UserError, match=str(folder)) as caught:
        with_depth(bench, f"omega:{folder}").truth.depth("frame_00001")
    assert "\n" not in str(caught.value)

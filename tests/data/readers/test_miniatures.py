"""The rehearsal's datasets: each is found by its layout, read by our reader and compared with its rendered room."""

import cv2
import numpy as np
import pytest
from miniatures import Sizes, release_scene, scene_hash, write_miniatures
from reader_room import assert_consistent, assert_poses

from reliev3r.data.depth_truth.attach import with_depth
from reliev3r.data.readers import find_reader, list_scenes, open_scene

SIZES = Sizes(scenes=2, frames=6, benchmark=1, others=1, few=6, width=96)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("miniatures")
    write_miniatures(folder, SIZES)
    return folder


WITH_DEPTH = [
    # folder, format, seed of its room, wide images, metric
    ("ASE", "ase", 400, False, True),
    ("TartanAir", "tartanair", 500, False, True),
    ("MVS-Synth", "mvs-synth", 600, True, False),
    ("BlendedMVS", "blendedmvs", 700, False, False),
    ("ScanNetPP", "scannetpp", 800, True, True),
]


@pytest.mark.parametrize(("name", "form", "seed", "wide", "metric"), WITH_DEPTH)
def test_poses_and_depth_are_those_of_the_room(root, monkeypatch, tmp_path, name, form, seed, wide, metric) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert find_reader(root / name)[0] == form
    scene = open_scene(root / name)
    room = SIZES.room(seed, frames=SIZES.few, wide=wide)
    assert scene.truth.metric == metric
    assert_poses(scene, room.world_from_cam, similarity=not metric)
    assert_consistent(scene)
    frame = scene.capture.frames[1]
    drawn = room.view(1).by(frame.K, (frame.width, frame.height))
    depth = scene.truth.depth(frame.name)
    assert depth.shape == drawn.depth[0].shape
    ratio = (depth / drawn.depth[0])[depth > 0]
    unit = np.median(ratio)
    assert (unit == pytest.approx(1, abs=0.01)) == metric
    assert np.median(np.abs(ratio / unit - 1)) < 0.005
    assert offset(scene.capture.image(1), drawn.rgb[0]) < 0.4


@pytest.mark.parametrize(("folder", "form", "seed", "inner"), [
    ("DL3DV-10K", "dl3dv", 0, release_scene(0)),
    ("DL3DV-10K-Sample", "dl3dv", 900, scene_hash("sample", 0)),
    ("DL3DV-10K-Sample", "dl3dv", 901, scene_hash("sample", 1)),
    ("DL3DV-Benchmark", "dl3dv-benchmark", 300, scene_hash("DL3DV-Benchmark", 0)),
])  # fmt: skip
def test_dl3dv_is_rectified(root, folder, form, seed, inner) -> None:
    assert find_reader(root / folder)[0] == form
    assert inner in list_scenes(root / folder)
    scene = open_scene(root / folder, inner)
    room = SIZES.room(seed, frames=SIZES.frames)
    assert scene.capture.ordered
    assert scene.capture.frames[0].rectification is not None
    np.testing.assert_allclose(scene.capture.frames[0].K, room.K)
    assert_poses(scene, room.world_from_cam)
    assert max(offset(scene.capture.image(i), room.rgb[i]) for i in range(len(room))) < 0.4


@pytest.mark.parametrize(("folder", "form", "seed", "inner"), [
    ("DL3DV-10K", "dl3dv", 1, release_scene(1)),
    ("DL3DV-Benchmark", "dl3dv-benchmark", 300, scene_hash("DL3DV-Benchmark", 0)),
])  # fmt: skip
def test_depth_of_wai_belongs_to_dl3dv_s_scenes(root, folder, form, seed, inner) -> None:
    scene = with_depth(open_scene(f"{form}:{root / folder}", inner), f"wai:{root / folder}-WAI/{{scene}}")
    room = SIZES.room(seed, frames=SIZES.frames)
    for index, name in enumerate(scene.capture.names):
        depth = scene.truth.depth(name)
        drawn = room.view(index).by(np.diag([depth.shape[1] / 96, depth.shape[0] / 54, 1]) @ room.K, depth.shape[::-1])
        assert 0.7 < (depth > 0).mean() < 1
        assert np.median(np.abs(depth / drawn.depth[0] - 1)[depth > 0]) < 0.01


def test_the_simulated_expert_is_wrong_by_what_it_says(root) -> None:
    """A factor of its own a view, bends of some 6 %, and a few pixels far off."""
    room = SIZES.room(1, frames=SIZES.frames)
    for index, true in enumerate(room.depth):
        file = root / "simulated" / release_scene(1) / f"frame_{index + 1:05d}.npz"
        error = np.log(np.load(file)["depth"].astype(float) / true)
        assert 0.02 < np.abs(error - np.median(error)).mean() < 0.4


def test_what_is_there_is_left_alone(root) -> None:
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    write_miniatures(root, SIZES)
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == before


def offset(read: np.ndarray, drawn: np.ndarray) -> float:
    """Pixels by which the images are shifted; nonsense, and large, where they do not show the same."""
    grey = [cv2.GaussianBlur(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), (0, 0), 0.7) for image in (read, drawn)]
    window = cv2.createHanningWindow(grey[0].shape[::-1], cv2.CV_64F)
    (x, y), certainty = cv2.phaseCorrelate(*(image.astype(np.float64) for image in grey), window)
    return float(np.hypot(x, y)) if certainty > 0.3 else np.inf

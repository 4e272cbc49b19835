"""Files that anybody may have written: every value of every entry is read right or told in one line, never a traceback.

Each case takes a sound file, puts something else in one place, and reads all there is in it.
"""

import json

import numpy as np
import pytest
from PIL import Image

from json_places import EYE, bounded, case, changed, one_line
from reliev3r.core.cameras_json import read_about
from reliev3r.data.capture import load_capture
from reliev3r.data.intrinsics import with_intrinsics
from reliev3r.data.readers import open_scene
from reliev3r.data.truth import CameraFile

K = [[50.0, 0, 19.5], [0, 50.0, 14.5], [0, 0, 1]]
CAMERAS = {
    "frames": [
        {"name": f"{i}", "image": f"images/{i}.png", "width": 40, "height": 30, "K": K, "cam_to_world": EYE,
         "depth": f"depth/{i}.png"} for i in range(2)
    ],
    "metric": True, "caveats": [], "source": "", "synthetic": None,
}  # fmt: skip
TRANSFORMS = {
    "camera_model": "OPENCV", "w": 40, "h": 30, "fl_x": 50, "fl_y": 50, "cx": 20, "cy": 15, "k1": 0, "k2": 0, "p1": 0,
    "p2": 0, "applied_transform": EYE[:3], "depth_unit_scale_factor": 0.001,
    "frames": [
        {"file_path": f"images/{i}.png", "transform_matrix": EYE, "depth_file_path": f"depth/{i}.png"} for i in range(2)
    ],
}  # fmt: skip
SHARED = {"K": K, "width": 40, "height": 30}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("capture")
    for name in ("images", "depth"):
        (folder / name).mkdir()
    for i in range(2):
        Image.new("RGB", (40, 30)).save(folder / "images" / f"{i}.png")
        Image.fromarray(np.full((30, 40), 1000, np.uint16)).save(folder / "depth" / f"{i}.png")
    return folder


@bounded
@case(CAMERAS)
def test_cameras_json(root, path, new) -> None:
    file = root / "cameras.json"
    file.write_text(json.dumps(changed(CAMERAS, path, new)))

    def read() -> None:
        capture, truth = load_capture(root), CameraFile(root)
        read_about(file)
        for index, name in enumerate(capture.names):
            capture.image(index)
            truth.camera(name)
            truth.depth(name)

    try:
        one_line(read)
    finally:
        file.unlink()


@bounded
@case(TRANSFORMS)
def test_transforms_json(root, path, new) -> None:
    (root / "transforms.json").write_text(json.dumps(changed(TRANSFORMS, path, new)))

    def read() -> None:
        scene = open_scene(f"nerfstudio:{root}")
        for index, name in enumerate(scene.capture.names):
            scene.capture.image(index)
            scene.truth.camera(name)
            scene.truth.depth(name)

    one_line(read)


@bounded
@case(SHARED)
def test_shared_intrinsics(root, path, new) -> None:
    (root / "K.json").write_text(json.dumps(changed(SHARED, path, new)))
    one_line(lambda: with_intrinsics(load_capture(root), str(root / "K.json")))

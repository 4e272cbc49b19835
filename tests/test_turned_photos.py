"""Photographs that are stored turned, with the turn in their EXIF tag alone, come to the same end as the originals."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import builders
from reliev3r.cli import main
from reliev3r.core.files import read_json
from reliev3r.data.capture import load_capture
from reliev3r.data.intrinsics import cameras_of, with_intrinsics
from reliev3r.labels.pipeline import label_capture
from reliev3r.labels.registry import depth_expert, track_expert

STORED = {
    1: None, 2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_90, 7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}  # fmt: skip
"""How an upright picture is laid down under each value of the tag."""
VIEWS, FOCAL_35MM = 8, 41989


@pytest.fixture(scope="module")
def twins(tmp_path_factory) -> tuple[Path, Path]:
    """Two folders of one scene's photographs: as they are, and each under another value of the tag."""
    root = tmp_path_factory.mktemp("photos")
    rendered = builders.capture(root / "room", width=240, height=180, views=VIEWS)
    plain, turned = root / "plain", root / "turned"
    for folder in (plain, turned):
        folder.mkdir()
    for value, file in enumerate(sorted((rendered / "images").iterdir()), start=1):
        upright = Image.open(file).convert("RGB")
        exif = Image.Exif()
        exif.get_ifd(0x8769)[FOCAL_35MM] = 29
        upright.save(plain / f"{file.stem}.png", exif=exif.tobytes())
        exif[0x0112] = value
        stored = upright if STORED[value] is None else upright.transpose(STORED[value])
        stored.save(turned / f"{file.stem}.png", exif=exif.tobytes())
    return plain, turned


def test_the_folders_differ_on_disk_alone(twins) -> None:
    sizes = [[Image.open(file).size for file in sorted(folder.iterdir())] for folder in twins]
    assert sizes[0] == [(240, 180)] * VIEWS
    assert sizes[1] == [(240, 180)] * 4 + [(180, 240)] * 4
    plain, turned = (with_intrinsics(load_capture(folder), "exif") for folder in twins)
    assert cameras_of(plain) == cameras_of(turned) == (0,) * VIEWS
    for index in range(VIEWS):
        np.testing.assert_array_equal(turned.image(index), plain.image(index))
        np.testing.assert_array_equal(turned.frames[index].K, plain.frames[index].K)


def test_they_have_the_same_tracks(twins, tmp_path) -> None:
    tracks = [
        label_capture(
            load_capture(folder), depth=depth_expert("none"), tracks=track_expert("sift"), out=tmp_path / folder.name
        ).tracks
        for folder in twins
    ]
    assert tracks[0].visible.sum() > 200
    np.testing.assert_array_equal(tracks[0].uv, tracks[1].uv)
    np.testing.assert_array_equal(tracks[0].weight, tracks[1].weight)


@pytest.mark.slow
def test_fit_refines_and_exports_them_alike(twins, tmp_path) -> None:
    options = ["--depth", "none", "--steps", "10", "--image-size", "64", "--refine", "--force", "--device", "cpu"]
    for folder in twins:
        assert main(["fit", str(folder), "--out", str(tmp_path / folder.name), *options]) == 0
    plain, turned = tmp_path / "plain", tmp_path / "turned"
    assert read_json(plain / "quality.json")["refined"] == read_json(turned / "quality.json")["refined"]
    cameras = [read_json(run / "cameras.json")["frames"] for run in (plain, turned)]
    assert len(cameras[0]) >= 2
    for here, there in zip(*cameras, strict=True):
        for field in ("name", "width", "height", "K", "cam_to_world"):
            assert here[field] == there[field]
        # what lies in images/ is upright for programs that know nothing of EXIF
        stored = [np.asarray(Image.open(run / entry["image"])) for run, entry in ((plain, here), (turned, there))]
        np.testing.assert_array_equal(*stored)
    for file in ("cameras.bin", "points3D.bin"):
        assert (plain / "sparse/0" / file).read_bytes() == (turned / "sparse/0" / file).read_bytes()

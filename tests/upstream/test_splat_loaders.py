"""A folder of results through the loaders of gsplat and nerfstudio themselves: pixels where their cameras see them.

RELIEV3R_GSPLAT: the folder ``examples`` of a checkout of nerfstudio-project/gsplat (90d7b4b), which needs imageio and
piexif; RELIEV3R_NERFSTUDIO: a checkout of nerfstudio-project/nerfstudio (50e0e3c). Neither needs a GPU for this
(nerfstudio's points would need Open3D and are not asked for).
"""

import numpy as np
import pytest
from PIL import Image

import small_scene
from painted_photos import COLOURS, POINTS, painted, photographs, pixel_of, reconstructed
from reliev3r.export.write import export_reconstruction
from upstream.conftest import needs

VIEWS = 4


def results(tmp_path, suffix: str, *, grey: bool = False):
    """A folder as every verb writes it; some photographs lie on their side."""
    photographs(tmp_path / "photos", (1, 6, 3, 8), suffix)
    if grey:
        for file in (tmp_path / "photos").iterdir():
            with Image.open(file) as image:
                image.convert("L").save(file, exif=image.info["exif"])
    tracks = small_scene.observe(small_scene.wall_points(60), small_scene.arc(VIEWS))
    export_reconstruction(reconstructed(tmp_path / "photos", VIEWS), tracks, tmp_path / "out")
    return tmp_path / "out"


def assert_painted(pixels: np.ndarray, K: np.ndarray, world_from_cam: np.ndarray) -> None:
    for point, colour in zip(POINTS, COLOURS, strict=True):
        np.testing.assert_allclose(painted(pixels, colour), pixel_of(point, K, world_from_cam), atol=1)


@pytest.fixture(scope="module")
def gsplat_datasets():
    for package in ("imageio", "piexif"):
        pytest.importorskip(package)
    needs("datasets", "RELIEV3R_GSPLAT")
    return pytest.importorskip("datasets.colmap", reason="another package is called datasets")


@pytest.fixture(scope="module")
def nerfstudio():
    needs("nerfstudio", "RELIEV3R_NERFSTUDIO")
    import nerfstudio.data.dataparsers.nerfstudio_dataparser

    return nerfstudio.data.dataparsers.nerfstudio_dataparser


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
def test_gsplat_sees_what_is_painted(gsplat_datasets, tmp_path, suffix) -> None:
    out = results(tmp_path, suffix)
    parser = gsplat_datasets.Parser(str(out), test_every=1000)
    assert [name.split(".")[0] for name in parser.image_names] == [f"frame{view}" for view in range(VIEWS)]
    assert len(parser.points) > 30
    for split, views in (("train", range(1, VIEWS)), ("val", [0])):
        dataset = gsplat_datasets.Dataset(parser, split=split)
        for item, view in enumerate(views):
            found = dataset[item]
            np.testing.assert_allclose(found["camtoworld"], small_scene.arc(VIEWS)[view], atol=1e-5)
            assert_painted(found["image"].numpy().astype(np.uint8), found["K"].numpy(), found["camtoworld"].numpy())


def test_gsplat_reads_grey_photographs_too(gsplat_datasets, tmp_path) -> None:
    """It cuts every picture to its first three of the last axis: of one channel that would be three columns."""
    parser = gsplat_datasets.Parser(str(results(tmp_path, "jpg", grey=True)), test_every=1000)
    dataset = gsplat_datasets.Dataset(parser)
    for item in range(len(dataset)):
        assert tuple(dataset[item]["image"].shape) == (480, 640, 3)
        np.testing.assert_allclose(dataset[item]["K"], small_scene.K, rtol=1e-4)


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
def test_nerfstudio_sees_what_is_painted(nerfstudio, tmp_path, suffix) -> None:
    out = results(tmp_path, suffix)
    config = nerfstudio.NerfstudioDataParserConfig(
        data=out, eval_mode="all", orientation_method="none", center_method="none", auto_scale_poses=False
    )  # fmt: skip
    parsed = config.setup().get_dataparser_outputs(split="train")
    cameras = parsed.cameras
    assert len(cameras) == VIEWS
    for view, file in enumerate(parsed.image_filenames):
        pixels = np.asarray(Image.open(file).convert("RGB"))  # as its InputDataset does: EXIF is not applied
        assert (int(cameras.height[view]), int(cameras.width[view])) == pixels.shape[:2]
        pose = np.vstack([cameras.camera_to_worlds[view].numpy(), [0, 0, 0, 1]]) @ np.diag([1.0, -1, -1, 1])
        assert_painted(pixels, cameras.get_intrinsics_matrices()[view].numpy(), pose)
        assert not cameras.distortion_params[view].any()

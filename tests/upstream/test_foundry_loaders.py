"""The foundry's scenes through the loaders of the repositories that they are for: every pixel on its own surface.

RELIEV3R_UPSTREAM holds the checkouts (map-anything f7ebafb, CUT3R 8bc15dc, vggt-omega 299be1f), and
RELIEV3R_UPSTREAM_PYTHON is an interpreter with torch, einops, plyfile, h5py, hydra-core and an OpenCV with OpenEXR (4.x
has it). Where it lacks torchvision or uniception, the few names that the loaders import of them are stand-ins in the
worker: a tensor from an image, and classes that augment, which these tests never call.
"""

import json
import re
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch
from layouts import Room
from upstream_systems import System

from foundry_scenes import exact_scene, surface_points, write_labels, write_room
from reliev3r.cli import main
from reliev3r.data.depth_truth import omega
from reliev3r.export.trainers.layouts import LAYOUTS, write_training_scene
from reliev3r.geometry.align import umeyama
from reliev3r.synthetic.capture import SynthConfig

STAND_INS = """
import importlib.util, os
os.environ["OPENCV_IO_ENABLE_OPENEXR"] = "1"
def module(name, **values):
    made = types.ModuleType(name)
    made.__dict__.update(values)
    sys.modules[name] = made
    parent, _, leaf = name.rpartition(".")
    if parent:
        setattr(sys.modules[parent], leaf, made)
def augmentation(*a, **k):
    return None
if importlib.util.find_spec("torchvision") is None:
    from PIL import Image
    class Compose:
        def __init__(self, steps):
            self.steps = steps
        def __call__(self, value):
            for step in self.steps:
                value = step(value)
            return value
    class ToTensor:
        def __call__(self, image):
            return torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255
    class Normalize:
        def __init__(self, mean, std):
            self.mean, self.std = (torch.tensor(x)[:, None, None] for x in (mean, std))
        def __call__(self, value):
            return (value - self.mean) / self.std
    def decode_image(path):
        return torch.from_numpy(np.array(Image.open(path).convert("RGB"))).permute(2, 0, 1)
    names = "ColorJitter RandomApply RandomGrayscale GaussianBlur".split()
    module("torchvision")
    module("torchvision.transforms", Compose=Compose, ToTensor=ToTensor, Normalize=Normalize,
           **dict.fromkeys(names, augmentation))
    module("torchvision.transforms.functional")
    module("torchvision.transforms.v2")
    module("torchvision.io", decode_image=decode_image)
if importlib.util.find_spec("uniception") is None:
    for name in ("uniception", "uniception.models", "uniception.models.encoders"):
        module(name)
    module("uniception.models.encoders.image_normalizations", IMAGE_NORMALIZATION_DICT={})
def save(views):
    for name, (image, points, valid) in views.items():
        image, points, valid = (np.asarray(x) for x in (image, points, valid))
        np.savez(os.path.join(out, "read_" + name + ".npz"), image=image, points=points, valid=valid)
"""
READ = {
    "wai": """
sys.path.insert(0, repo)
from mapanything.datasets.wai.dl3dv import DL3DVWAI
for number in (3, 4):  # three by the covisibility, then all
    dataset = DL3DVWAI(ROOT=out, dataset_metadata_dir=out + "/metadata", split="train", num_views=number,
                       variable_num_views=False, covisibility_thres=0.25, resolution=(96, 72), transform="imgnorm",
                       data_norm_type="identity", seed=1, max_num_retries=0)
    assert len(dataset) == 1
    views = dataset[0]
    assert len({view["instance"] for view in views}) == number
save({view["instance"].split("/")[1]: (view["img"], view["pts3d"], view["valid_mask"]) for view in views})
""",
    "dust3r": """
sys.path[:0] = [repo + "/src"]
from dust3r.datasets.dl3dv import DL3DV_Multi
dataset = DL3DV_Multi(split="train", ROOT=out, num_views=4, resolution=(96, 72), seed=1)
assert len(dataset) == 1
views = dataset[0]
save({view["instance"].split("/")[-1][:-4]: ((view["img"] + 1) / 2, view["pts3d"], view["valid_mask"])
      for view in views})
""",
    "omega": """
sys.path[:0] = [repo, repo + "/training"]
from data.datasets.unified import UnifiedDataset
plain = types.SimpleNamespace(scales=None)
settings = types.SimpleNamespace(training=False, inside_random=False, img_size=72, patch_size=8, augs=plain,
                                 rescale=False, rescale_aug=False, aug_principal_point=False, fixed_base_side=True)
dataset = UnifiedDataset(settings, UNIFIED_DIR=out, sequence_list_file=out + "/scenes.txt", mask_path="masks")
assert dataset.sequence_list == ("room",)
assert len(dataset.get_data(seq_index=0, img_per_seq=3, aspect_ratio=0.75)["images"]) == 3  # by ranking.npy
views = {}
for index in range(4):
    read = dataset.get_data(seq_index=0, img_per_seq=1, ids=np.array([index]), aspect_ratio=0.75)
    assert read["depth_train_mask"]
    views[f"frame_{index + 1:05d}"] = (read["images"][0].transpose(2, 0, 1) / 255, read["world_points"][0],
                                       read["depths"][0] > 0)
save(views)
""",
}
CHECK_OMEGA = """
sys.path[:0] = [repo + "/training"]
from curation.unified_io import list_sequence_names, load_sequence
assert list_sequence_names(out, out + "/scenes.txt") == ["room"]
read = load_sequence(out, "room", "masks")
print(len(read["images"]), read["depths"][0].shape, float((read["depths"][0] > 0).mean()))
"""
TRAIN_OMEGA = """
import json, random
sys.path[:0] = [repo, repo + "/training"]
from omegaconf import OmegaConf
from data.composed_dataset import ComposedDataset
settings = OmegaConf.load(repo + "/training/config/default_dataset.yaml").data.train.common_config
settings.augs.enable_image_aug = False  # colours alone; shapes are augmented
settings.random_rotation_ratio = 0.5
random.seed(1), np.random.seed(1), torch.manual_seed(1)
dataset = ComposedDataset(OmegaConf.load(out + "/entry.yaml"), settings)
base = dataset.base_dataset.datasets[0]
for number in (2, 3, 8):
    sample = dataset[(0, number, 0.75)]
    assert sample["valid_seq_mask"] and sample["depth_train_mask"]
    assert all(sample[key].isfinite().all() for key in ("images", "depths", "extrinsics", "world_points", "tracks"))
    assert sample["track_vis_mask"][0].sum() > 100  # tracks that it makes of depth and cameras: another view sees them
base.inside_random = False
(name,), folder = base.sequence_list, out + "/" + base.sequence_list[0]
for index, file in enumerate(json.load(open(folder + "/image_names.json"))):
    read = base.get_data(seq_index=0, img_per_seq=1, ids=np.array([index]), aspect_ratio=random.choice([0.6, 1.0, 1.6]))
    keys = ("images", "depths", "extrinsics", "world_points")
    np.savez(os.path.join(out, "read_%d.npz" % index), name=file, **{key: read[key][0] for key in keys})
print(name)
"""
CONVERT_OMEGA = """
import json
import cv2
sys.path[:0] = [repo + "/training"]
from curation.unified_io import load_sequence
with np.load(out + "/room.npz") as room:
    rgb, depth, cam_from_world, K = (room[key] for key in ("rgb", "depth", "cam_from_world", "K"))
for kind in (cv2.IMWRITE_EXR_TYPE_FLOAT, cv2.IMWRITE_EXR_TYPE_HALF):
    scene = os.path.join(out, "scene_%d" % kind)
    for folder in ("images", "depths", "valid_masks"):
        os.makedirs(os.path.join(scene, folder))
    names = ["%05d.png" % index for index in range(len(rgb))]
    for name, image, z in zip(names, rgb, depth):
        cv2.imwrite(os.path.join(scene, "images", name), image[..., ::-1])
        file = os.path.join(scene, "depths", name[:-4] + ".exr")
        cv2.imwrite(file, z.astype(np.float32), [cv2.IMWRITE_EXR_TYPE, kind])
        cv2.imwrite(os.path.join(scene, "valid_masks", name), np.full(z.shape, 255, np.uint8))
    json.dump(names, open(scene + "/image_names.json", "w"))
    np.save(scene + "/cam_from_worlds.npy", cam_from_world.astype(np.float32))
    np.save(scene + "/intrinsics.npy", K.astype(np.float32))
    read = load_sequence(out, os.path.basename(scene), "valid_masks")
    keys = ("depths", "cam_from_worlds", "intrinsics")
    np.savez(scene + ".npz", **{key: np.asarray(read[key]) for key in keys})
"""
NEEDS = {
    "wai": ("map-anything", ("einops", "plyfile", "trimesh", "yaml")),
    "dust3r": ("CUT3R", ("accelerate", "scipy", "h5py")),
    "omega": ("vggt-omega", ("cv2",)),
}


@pytest.fixture(scope="module")
def room() -> Room:
    """The principal point in the middle: the loaders crop around it, and here nothing."""
    return Room.of(SynthConfig(seed=5, views=4, width=96, height=72, fov=60.0, span=25.0, supersample=1))


@pytest.fixture
def loader(tmp_path, room):
    """What makes a layout's scene and opens the system that reads it."""

    def made(layout: str) -> System:
        repository, modules = NEEDS[layout]
        system = System(layout, repository, *modules)
        write_training_scene(exact_scene(room), layout, tmp_path)
        LAYOUTS[layout].write_index(tmp_path, ["room"])
        return system

    return made


@pytest.mark.parametrize("layout", READ)
def test_the_trainer_s_own_loader_sees_the_room(layout, loader, room, tmp_path) -> None:
    system = loader(layout)
    if layout == "omega":
        _needs_training(system, "data/datasets/unified.py")
    system.script(STAND_INS + READ[layout], tmp_path)
    for index in range(4):
        with np.load(tmp_path / f"read_frame_{index + 1:05d}.npz") as read:
            image, points, valid = read["image"], read["points"], read["valid"].astype(bool)
        assert valid.shape == (72, 96)
        assert not valid[:6].any()  # no depth
        assert not valid[-5:].any()  # not confident
        assert valid[6:-5].mean() > 0.95  # CUT3R drops the furthest 2 %
        rows, columns = np.nonzero(valid)
        true = surface_points(room, rows, columns, index)
        assert np.abs(points[rows, columns] - true).max() < 1e-4 * room.depth.max()  # half a pixel would be 0.006
        assert np.abs(255 * image.transpose(1, 2, 0) - room.rgb[index]).mean() < 4  # JPEG


def test_vggt_omega_s_curation_accepts_the_scene(loader, tmp_path) -> None:
    """Its strict reader: shapes, rotations, finite numbers, masks."""
    system = loader("omega")
    _needs_training(system, "curation/unified_io.py")
    count, *shape, share = system.script(STAND_INS + CHECK_OMEGA, tmp_path).split()
    assert (count, shape) == ("4", ["(72,", "96)"])
    assert 0.8 < float(share) < 0.9


def test_vggt_omega_trains_on_what_the_command_wrote(tmp_path) -> None:
    """Store, command, documented entry, its default preprocessing: turned, scaled and cropped pixels on the surface."""
    system = System("omega", "vggt-omega", "cv2", "hydra")
    _needs_training(system, "data/composed_dataset.py")
    capture = "#1 hoher Raum/ü"
    room = write_room(tmp_path / "captures" / capture)
    cameras = tmp_path / "captures" / capture / "cameras.json"
    content = json.loads(cameras.read_text())
    for index, frame in enumerate(content["frames"]):
        frame["name"] = f"bild ü {index}.v1"
    cameras.write_text(json.dumps(content))
    write_labels(cameras.parent, room, tmp_path / "store" / capture, blind=(1,))
    words = ["--captures", str(tmp_path / "captures"), "--format", "omega", "--image-size", "160"]
    assert main(["export-labels", str(tmp_path / "store"), *words, "--out", str(tmp_path / "out")]) == 0
    documented = (Path(__file__).parents[2] / "docs" / "foundry.md").read_text(encoding="utf8")
    entry = textwrap.dedent(re.search(r"( +)footage:\n(\1 .*\n)+", documented)[0])
    (tmp_path / "out" / "entry.yaml").write_text(entry.replace("/path/to/OMEGA", str(tmp_path / "out")))
    assert system.script(STAND_INS + TRAIN_OMEGA, tmp_path / "out").splitlines()[-1] == "_1_hoher_Raum_ü"
    views = (0, 2, 3, 4)  # no track sees view 1
    assert len(list((tmp_path / "out").glob("read_*.npz"))) == len(views)
    read = [dict(np.load(tmp_path / "out" / f"read_{index}.npz")) for index in range(len(views))]
    assert [str(view["name"]) for view in read] == [f"bild ü {index}.v1.jpg" for index in views]
    assert [np.linalg.det(view["extrinsics"][:, :3]) for view in read] == pytest.approx([1] * 4, abs=1e-4)
    centres = np.stack([-view["extrinsics"][:, :3].T @ view["extrinsics"][:, 3] for view in read])
    scale, rotation, shift = umeyama(*(torch.from_numpy(x).double() for x in (centres, _centres(room, views))))
    for index, view in zip(views, read, strict=True):
        known = view["depths"] > 0
        assert known.mean() > 0.5
        points = scale * torch.from_numpy(view["world_points"][known]).double() @ rotation.T + shift
        depth, colour = _seen(room, index, points.numpy(), view["images"][known])
        assert np.median(depth) < 5e-4  # exact tracks: 1e-4; half a pixel off is 2e-3
        assert np.median(colour) < 12


def test_scenes_by_vggt_omega_s_contract_are_read_as_its_own_reader_does(room, tmp_path) -> None:
    """What OpenCV writes as download_and_convert.md asks: float and half maps, PNG, K from the corner."""
    system = System("omega", "vggt-omega", "cv2")
    _needs_training(system, "curation/unified_io.py")
    scene = exact_scene(room)
    inverse = np.linalg.inv(scene.world_from_cam)[:, :3]
    np.savez(tmp_path / "room.npz", rgb=scene.images, depth=scene.depth, cam_from_world=inverse, K=scene.K)
    system.script(STAND_INS + CONVERT_OMEGA, tmp_path)
    folders = sorted(path for path in tmp_path.glob("scene_*") if path.is_dir())
    assert len(folders) == 2
    for folder in folders:
        ours, theirs = omega.read_scene(folder), np.load(f"{folder}.npz")
        assert "valid_masks may mask it out" in ours.caveats[0]
        for index, name in enumerate(["00000", "00001", "00002", "00003"]):
            frame = ours.frames[name]
            np.testing.assert_array_equal(frame.read(), theirs["depths"][index])
            np.testing.assert_array_equal(frame.K, theirs["intrinsics"][index])
            np.testing.assert_allclose(frame.world_from_cam, room.world_from_cam[index], atol=1e-5)
            assert np.abs(frame.read()[6:] / room.depth[index][6:] - 1).max() < 1e-3  # half has 11 bits


def _needs_training(system: System, file: str) -> None:
    if not (system.repo / "training" / file).is_file():
        pytest.skip(f"{system.repo} has no training/{file}; check out commit 299be1f")


def _centres(room: Room, views: tuple[int, ...]) -> np.ndarray:
    return room.world_from_cam[list(views), :3, 3]


def _seen(room: Room, view: int, points: np.ndarray, colours: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Relative error of depth, and difference of colour, of world points [n, 3] in the pixels that show them."""
    pose = room.world_from_cam[view]
    local = (points - pose[:3, 3]) @ pose[:3, :3]
    column, row = np.floor(local[:, :2] / local[:, 2:] * room.K[[0, 1], [0, 1]] + room.K[:2, 2]).astype(int).T
    inside = (column >= 0) & (row >= 0) & (column < room.size[0]) & (row < room.size[1])
    assert inside.mean() > 0.95
    at = row[inside], column[inside]
    depth = np.abs(local[inside, 2] / room.depth[view][at] - 1)
    return depth, np.abs(colours[inside].astype(float) - room.rgb[view][at]).mean(1)

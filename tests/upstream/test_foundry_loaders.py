"""The foundry's scenes through the loaders of the repositories that they are for: every pixel on its own surface.

RELIEV3R_UPSTREAM holds the checkouts (map-anything f7ebafb, CUT3R 8bc15dc, vggt-omega 299be1f), and
RELIEV3R_UPSTREAM_PYTHON is an interpreter with torch, einops, plyfile, h5py and an OpenCV with OpenEXR (4.x has it).
Where it lacks torchvision or uniception, the few names that the loaders import of them are stand-ins in the worker: a
tensor from an image, and classes that augment, which these tests never call.
"""

import numpy as np
import pytest
from layouts import Room
from upstream_systems import System

from foundry_scenes import exact_scene, surface_points
from reliev3r.export.trainers.layouts import LAYOUTS, write_training_scene
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
    if layout == "omega" and not (system.repo / "training" / "data" / "datasets" / "unified.py").is_file():
        pytest.skip(f"{system.repo} has no training code; check out commit 299be1f")
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
    if not (system.repo / "training" / "curation" / "unified_io.py").is_file():
        pytest.skip(f"{system.repo} has no training code; check out commit 299be1f")
    count, *shape, share = system.script(STAND_INS + CHECK_OMEGA, tmp_path).split()
    assert (count, shape) == ("4", ["(72,", "96)"])
    assert 0.8 < float(share) < 0.9

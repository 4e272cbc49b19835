"""The cache that evaluation and export read: it comes back as it was, or says that it is damaged."""

import json

import pytest
import torch

from reliev3r.core.errors import UserError
from reliev3r.core.reconstruction import Reconstruction
from reliev3r.core.types import Prediction
from reliev3r.geometry.camera import ray_map


def make_reconstruction(**changes):
    K = torch.tensor([[6.0, 0, 4.0], [0, 6.0, 3.0], [0, 0, 1]]).expand(2, 3, 3)
    values = {
        "prediction": Prediction(
            depth=torch.rand(2, 6, 8) + 1,
            rays=ray_map(K, 6, 8),
            conf=torch.rand(2, 6, 8),
            world_from_cam=torch.eye(4).repeat(2, 1, 1),
        ),
        "names": ("a", "b"),
        "image_files": ("images/a.jpg", "images/b.jpg"),
        "image": torch.zeros(2, 6, 8, 3, dtype=torch.uint8),
        "sizes": ((640, 480), (600, 480)),
        "regions": torch.tensor([[0.0, 0, 640, 480], [20.0, 10, 560, 420]]),
        "meta": {"system": "test", "seconds": 1.5},
    }
    return Reconstruction(**{**values, **changes})


@pytest.mark.parametrize("changes", [{}, {"found": torch.tensor([True, False]), "predicts_depth": False}])
def test_round_trip(tmp_path, changes):
    before = make_reconstruction(**changes)
    before.save(tmp_path / "prediction")
    after = Reconstruction.load(tmp_path / "prediction")
    for name in ("depth", "rays", "conf", "world_from_cam"):
        assert torch.equal(getattr(after.prediction, name), getattr(before.prediction, name))
    assert (after.names, after.image_files, after.sizes, after.meta) == (
        before.names,
        before.image_files,
        before.sizes,
        before.meta,
    )
    assert torch.equal(after.regions, before.regions)
    assert torch.equal(after.image, before.image)
    assert after.predicts_depth == before.predicts_depth
    assert (after.found is None) == (before.found is None)
    assert before.found is None or torch.equal(after.found, before.found)


def test_original_intrinsics_undo_resize_and_crop():
    K = make_reconstruction().K_original
    # 8x6 pixels over 640x480: 80 times as large; over 560x420 at (20, 10): 70 times, then moved
    assert torch.allclose(K[0], torch.tensor([[480.0, 0, 320], [0, 480, 240], [0, 0, 1]]).double(), atol=1e-3)
    assert torch.allclose(K[1], torch.tensor([[420.0, 0, 300], [0, 420, 220], [0, 0, 1]]).double(), atol=1e-3)


def test_other_cameras_leave_the_original_alone():
    before = make_reconstruction()
    moved = torch.eye(4, dtype=torch.float64).repeat(2, 1, 1)
    moved[1, 0, 3] = 5
    after = before.with_cameras(moved, refined=True)
    assert after.prediction.world_from_cam.dtype == torch.float32
    assert after.prediction.world_from_cam[1, 0, 3] == 5
    assert after.meta == {"system": "test", "seconds": 1.5, "refined": True}
    assert "refined" not in before.meta
    assert before.prediction.world_from_cam[1, 0, 3] == 0
    assert torch.equal(after.prediction.depth, before.prediction.depth)


def test_damage_is_noticed(tmp_path):
    make_reconstruction().save(tmp_path)
    arrays = tmp_path / "prediction.npz"
    arrays.write_bytes(arrays.read_bytes()[:-7])
    with pytest.raises(UserError, match=r"prediction\.npz: missing or damaged.*predict again"):
        Reconstruction.load(tmp_path)
    arrays.unlink()
    with pytest.raises(UserError, match=r"prediction\.npz: missing"):
        Reconstruction.load(tmp_path)


def test_another_format_is_refused(tmp_path):
    make_reconstruction().save(tmp_path)
    manifest = tmp_path / "prediction.json"
    content = json.loads(manifest.read_text())
    manifest.write_text(json.dumps({**content, "format": "reliev3r-reconstruction/99"}))
    with pytest.raises(UserError, match="not of format"):
        Reconstruction.load(tmp_path)
    manifest.unlink()
    with pytest.raises(UserError, match="not found"):
        Reconstruction.load(tmp_path)


def told_otherwise(folder, **changes):
    make_reconstruction().save(folder)
    manifest = json.loads((folder / "prediction.json").read_text())
    (folder / "prediction.json").write_text(json.dumps({**manifest, **changes}))


@pytest.mark.parametrize(
    "changes",
    [
        {"names": ["../../x", "b"]},
        {"names": ["/abs/newdir/x", "b"]},
        {"names": ["a\u001b[31m", "b"]},
        {"names": ["a", "A"]},
        {"names": [1, 2]},
        {"names": ["a"]},
        {"names": None},
        {"image_files": ["../secret.jpg", "b.jpg"]},
        {"image_files": ["a.jpg"]},
        {"sizes": [[640, 480]]},
        {"sizes": [[640, 480], [0, 0]]},
        {"sizes": 5},
        {"found": [True]},
        {"found": "yes"},
        {"meta": 3},
    ],
)
def test_a_folder_from_elsewhere_cannot_name_files_outside_or_other_views(tmp_path, changes):
    told_otherwise(tmp_path, **changes)
    with pytest.raises(UserError, match=r"prediction\.json") as told:
        Reconstruction.load(tmp_path)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("entry", ["names", "sizes", "found", "meta"])
def test_an_entry_that_is_missing_is_told(tmp_path, entry):
    make_reconstruction().save(tmp_path)
    manifest = json.loads((tmp_path / "prediction.json").read_text())
    del manifest[entry]
    (tmp_path / "prediction.json").write_text(json.dumps(manifest))
    with pytest.raises(UserError, match="damaged"):
        Reconstruction.load(tmp_path)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"depth": torch.ones(12)}, "its depth has no maps of pixels|damaged"),
        ({"rays": torch.zeros(2, 6, 8, 3)}, "its rays are those of no camera"),
        ({"rays": -make_reconstruction().prediction.rays}, "its rays are those of no camera"),
        ({"world_from_cam": torch.zeros(2, 4, 4)}, "no rotation and translation"),
        ({"world_from_cam": torch.diag(torch.tensor([-1.0, 1, 1, 1])).repeat(2, 1, 1)}, "scaled or mirrored"),
        ({"regions": torch.zeros(2, 4)}, "its regions have no width"),
        ({"regions": torch.tensor([[0.0, 0, -640, 480], [20.0, 10, 560, 420]])}, "its regions have no width"),
    ],
)
def test_arrays_that_are_no_reconstruction_are_refused(tmp_path, changes, told):
    reconstruction = make_reconstruction()
    for name, value in changes.items():
        object.__setattr__(reconstruction if name == "regions" else reconstruction.prediction, name, value)
    reconstruction.save(tmp_path)
    with pytest.raises(UserError, match=told):
        Reconstruction.load(tmp_path)

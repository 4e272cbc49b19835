"""Systems by name: runs read back, COLMAP wired in, clear words for what is not there."""

import json
import shutil

import cv2
import numpy as np
import pytest
import torch

from reliev3r.baselines.colmap import reconstruct_colmap
from reliev3r.core.errors import UserError
from reliev3r.core.reconstruction import Reconstruction
from reliev3r.core.types import Prediction
from reliev3r.data.capture import load_capture
from reliev3r.data.truth import load_truth
from reliev3r.evaluation import systems
from reliev3r.evaluation.benchmarks import capture_benchmark
from reliev3r.evaluation.run import evaluate_benchmark
from reliev3r.evaluation.systems import fitted_frames, select_frames, system_from_spec, systems_from_specs
from reliev3r.geometry.camera import ray_map
from reliev3r.geometry.rigid import rigid_from, so3_exp
from reliev3r.synthetic.capture import SynthConfig, write_capture

SIZE = (24, 32)
NAMES = ("a", "b", "c", "d")


def true_cameras():
    generator = torch.Generator().manual_seed(0)
    omega = 0.2 * torch.randn(4, 3, generator=generator).double()
    return rigid_from(so3_exp(omega), torch.randn(4, 3, generator=generator).double())


@pytest.fixture
def capture(tmp_path):
    """Four noise images with poses and flat depth."""
    root = tmp_path / "capture"
    (root / "images").mkdir(parents=True)
    (root / "depth").mkdir()
    frames = []
    for index, (name, pose) in enumerate(zip(NAMES, true_cameras())):
        image = np.random.default_rng(index).integers(0, 255, (*SIZE, 3), np.uint8)
        cv2.imwrite(str(root / "images" / f"{name}.png"), image)
        cv2.imwrite(str(root / "depth" / f"{name}.png"), np.full(SIZE, 2000 + 100 * index, np.uint16))
        frame = {"name": name, "image": f"images/{name}.png", "width": 32, "height": 24, "depth": f"depth/{name}.png"}
        K = [[30, 0, 15.5], [0, 30, 11.5], [0, 0, 1]]
        frames.append({**frame, "K": K, "cam_to_world": pose.tolist()})
    (root / "cameras.json").write_text(json.dumps({"convention": "test", "frames": frames}))
    return root


def perfect_run(capture, folder, names=NAMES, meta=None):
    """A run whose prediction is the truth."""
    regions = torch.tensor([[0.0, 0.0, 32.0, 24.0]]).expand(len(names), 4)
    truth = load_truth(capture, names, regions=regions, size=SIZE)
    Reconstruction(
        prediction=Prediction(
            depth=truth.depth,
            rays=ray_map(truth.K, *SIZE),
            conf=torch.ones_like(truth.depth),
            world_from_cam=truth.world_from_cam,
        ),
        names=tuple(names),
        image_files=tuple(f"images/{name}.png" for name in names),
        image=torch.zeros(len(names), *SIZE, 3, dtype=torch.uint8),
        sizes=((32, 24),) * len(names),
        regions=regions,
        meta=meta or {},
    ).save(folder)


def table_of(specs, capture, out, *, protocol="strict", **options):
    """As the command line makes it."""
    systems = systems_from_specs(specs)
    benchmark = capture_benchmark(capture, fitted_frames(systems))
    return evaluate_benchmark(systems, benchmark, out=out, protocol=protocol, **options).table()


def test_runs_are_read_back_and_scored(capture, tmp_path):
    run = tmp_path / "run"
    perfect_run(capture, run / "prediction", meta={"which": "network", "labels": "simulated"})
    perfect_run(capture, run / "refined", meta={"which": "refined"})
    for spec, which in ((f"fit:{run}", "network"), (f"fit:{run}@refined", "refined")):
        system = system_from_spec(spec)
        assert system.frames == NAMES
        assert system.run(load_capture(capture), tmp_path).meta["which"] == which
    (run / "config.json").write_text(json.dumps({"capture": str(capture)}))
    seen = []
    table = table_of([f"fit:{run}", f"fit:{run}@refined"], capture, tmp_path, progress=lambda *step: seen.append(step))
    assert [row.scores.auc30 for row in table.rows] == [100, 100]
    assert table.rows[0].scores.depth_rel == pytest.approx(0, abs=1e-6)
    assert "SIMULATED" in table.rows[0].notes[0]
    assert table.rows[1].notes == ()
    assert seen == [(0, 2, f"capture: fit:{run}"), (1, 2, f"capture: fit:{run}@refined"), (2, 2, "")]


def test_colmap_takes_the_frames_of_the_run_and_its_losses_count(capture, tmp_path, monkeypatch):
    perfect_run(capture, tmp_path / "run" / "prediction", names=("d", "a", "b"))
    (tmp_path / "run" / "config.json").write_text(json.dumps({"capture": str(capture)}))

    def fake(given, K, *, mapper):
        assert mapper == "incremental"
        assert [frame.name for frame in given.frames] == ["d", "a", "b"]
        assert given.image(0).shape == (*SIZE, 3)
        assert K[0].tolist() == [[30, 0, 16], [0, 30, 12], [0, 0, 1]]  # corner convention, as COLMAP has it
        return 3 * true_cameras()[[3, 0, 1]], torch.tensor([True, True, False])

    monkeypatch.setattr(systems, "reconstruct_colmap", fake)
    table = table_of(["colmap", f"fit:{tmp_path / 'run'}"], capture, tmp_path)
    colmap, run = (row.scores for row in table.rows)
    assert colmap.views_without_camera == 1
    assert "it was given the intrinsics" in table.rows[0].notes
    assert colmap.depth_rel is None
    assert colmap.point_rel is None
    assert run.auc30 == 100
    assert "colmap: no camera for 1 of 3 views" in table.to_text()


def test_colmap_alone_takes_evenly_spaced_views(capture, tmp_path, monkeypatch):
    monkeypatch.setattr(
        systems, "reconstruct_colmap", lambda given, K, **_: (true_cameras()[[0, 3]], torch.ones(2, dtype=torch.bool))
    )
    system = system_from_spec("colmap").run(load_capture(capture, views=2), capture)
    assert system.names == ("a", "d")
    assert system.image.shape[1:] == (48, 64, 3)
    assert torch.allclose(
        system.K_original[0], torch.tensor([[30.0, 0, 16], [0, 30, 12], [0, 0, 1]]).double(), atol=1e-3
    )
    table = table_of(["colmap"], capture, tmp_path, protocol="mapanything", views=2)
    assert table.rows[0].scores.auc30 == 100


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("nothing", "unknown system 'nothing'; known are fit:RUN"),
        ("ours:", "unknown system 'ours:'"),
        ("ours:/nowhere@64", "/nowhere: no checkpoint"),
        ("vggt", r"vggt: name its weights .* --systems FILE with a table \[vggt\]"),
        ("fit:", "unknown system 'fit:'"),
        ("colmap:x", "unknown system 'colmap:x'"),
        ("fit:/nowhere", "/nowhere: no such run; make one with `reliev3r fit"),
    ],
)
def test_unknown_systems_are_named(spec, message):
    with pytest.raises(UserError, match=message):
        system_from_spec(spec)


def test_unfinished_and_unrefined_runs_say_what_to_do(tmp_path):
    with pytest.raises(UserError, match="holds no predicted reconstruction; finish the run with --resume"):
        system_from_spec(f"fit:{tmp_path}")
    with pytest.raises(UserError, match="holds no refined reconstruction; fit with --refine"):
        system_from_spec(f"fit:{tmp_path}@refined")


def test_frames_of_another_capture_are_refused(capture):
    with pytest.raises(UserError, match="has no frame 'z'"):
        select_frames(load_capture(capture), ["a", "z"])


def test_colmap_needs_intrinsics(capture):
    (capture / "cameras.json").unlink()
    with pytest.raises(UserError, match="known intrinsics"):
        system_from_spec("colmap").run(load_capture(capture), capture)


def test_nothing_to_evaluate_is_an_error():
    with pytest.raises(UserError, match="name at least one system"):
        systems_from_specs([])


def test_colmap_maps_globally_under_its_other_name(capture, tmp_path, monkeypatch):
    def fake(given, K, *, mapper):
        assert mapper == "global"
        return true_cameras(), torch.ones(4, dtype=torch.bool)

    monkeypatch.setattr(systems, "reconstruct_colmap", fake)
    row = table_of(["colmap-global"], capture, tmp_path).rows[0]
    assert row.scores.auc30 == 100
    assert row.meta["system"] == "colmap-global"


def test_colmaps_mappers_find_the_true_cameras_and_the_same_again(tmp_path):
    room = write_capture(tmp_path / "room", SynthConfig(views=4, width=128, height=96, span=12, supersample=1))
    table = table_of(["colmap", "colmap-global"], room, tmp_path)
    assert [row.scores.views_without_camera for row in table.rows] == [0, 0]
    assert min(row.scores.auc30 for row in table.rows) > 90
    again = table_of(["colmap-global"], room, tmp_path / "again")
    assert again.rows[0].scores.auc30 == table.rows[1].scores.auc30


@pytest.mark.slow
@pytest.mark.parametrize("system", ["colmap", "colmap-global"])
@pytest.mark.parametrize(("name", "expected"), [("box_rgbd", 95.2), ("livingroom1", 97.5)])
def test_colmap_on_real_captures_reaches_what_it_is_known_to_reach(shared_data, tmp_path, name, expected, system):
    table = table_of([system], shared_data / name, tmp_path, views=12)
    scores = table.rows[0].scores
    assert scores.views_without_camera == 0
    assert scores.auc30 == pytest.approx(expected, abs=1.0)


def test_colmap_with_nothing_to_match_registers_nothing(capture, tmp_path):
    """Noise images: the real COLMAP finds no pair, and says so by registering none."""
    scores = table_of(["colmap"], capture, tmp_path).rows[0].scores
    assert scores.views_without_camera == 4
    assert scores.auc30 == 0
    assert scores.ate is None


def test_colmap_on_a_full_disk_is_told(tmp_path, monkeypatch) -> None:
    write_capture(tmp_path / "room", SynthConfig(seed=0, views=2, width=32, height=24, supersample=1, span=10.0))
    capture = load_capture(tmp_path / "room")
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(10**6, 10**6, 0))
    with pytest.raises(UserError, match="COLMAP may need 8 MB of temporary files; make room"):
        reconstruct_colmap(capture, torch.eye(3).expand(2, 3, 3))

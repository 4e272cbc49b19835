"""The paper's way with the commands of the documentation: DL3DV's folder, captures, labels, training, the table."""

import json

import numpy as np
import pytest
import torch
from depth_layouts import write_wai
from dl3dv_layout import HASHES, write_benchmark, write_release
from layouts import Room

from reliev3r.cli import main
from reliev3r.labels.store import load_tracks
from reliev3r.labels.tracks import cotracker
from reliev3r.synthetic.capture import SynthConfig

SMALL = ("network.dim=32", "network.heads=2", "network.encoder_depth=1", "network.decoder_depth=2",
         "network.patch_size=8", "network.encoder_grid=4", "network.head_dim=32", "network.head_heads=2",
         "network.head_depth=1", "network.camera_dim=16", "network.match_dim=8", "network.cameras=regressed",
         "batch.views=2,2", "batch.images=4",
         "stream_weight=0", "heldout_scenes=1", "captures.heldout=0")  # fmt: skip


@pytest.fixture(scope="module")
def walk() -> Room:
    """Nine views along a path."""
    return Room.of(SynthConfig(seed=5, views=9, width=96, height=72, fov=60.0, span=40.0, supersample=1))


@pytest.fixture
def data(walk, tmp_path):
    """DL3DV-10K (2 scenes, lens distortion), DL3DV-Benchmark (2 others), WAI scenes of them all."""
    write_release(tmp_path / "DL3DV-10K", walk, scenes=2)
    write_benchmark(tmp_path / "DL3DV-Benchmark", walk, scenes=2, first=2)
    for name in HASHES:
        write_wai(tmp_path / "WAI" / name, walk)
    return tmp_path


class Follower:
    """CoTrackerPredictor's interface; it follows by the room's geometry, which holds in the order of time alone."""

    def __init__(self, room: Room):
        self.room = room

    def __call__(self, video, queries, backward_tracking):
        room, (time, u, v) = self.room, queries[0].double().numpy().T
        assert video.shape[1] == len(room)
        rows, columns, at = v.round().astype(int), u.round().astype(int), time.astype(int)
        z = room.depth[at, rows, columns]
        rays = np.linalg.inv(room.K) @ np.stack([u + 0.5, v + 0.5, np.ones_like(u)])
        points = np.concatenate([rays * z, np.ones((1, len(z)))])
        world = np.einsum("nij,jn->in", room.world_from_cam[at], points)
        uv, seen = np.zeros((len(room), len(z), 2)), np.zeros((len(room), len(z)), bool)
        for frame, pose in enumerate(room.world_from_cam):
            local = (np.linalg.inv(pose) @ world)[:3]
            pixel = (room.K @ local)[:2] / local[2]
            x, y = np.floor(pixel).astype(int)
            inside = (x >= 0) & (x < 96) & (y >= 0) & (y < 72) & (local[2] > 0)
            surface = room.depth[frame, y.clip(0, 71), x.clip(0, 95)]
            uv[frame] = pixel.T - 0.5
            seen[frame] = inside & (np.abs(surface / local[2] - 1) < 0.03)
        uv[at, np.arange(len(z))], seen[at, np.arange(len(z))] = np.stack([u, v], 1), True
        return torch.from_numpy(uv).float()[None], torch.from_numpy(seen)[None]


def test_the_paper_s_tracker_takes_the_paper_s_data(data, walk, here, monkeypatch, capsys) -> None:
    caps, store = data / "CAPS", data / "S"
    assert main(["convert", f"dl3dv:{data / 'DL3DV-10K'}", "--out", str(caps)]) == 0
    monkeypatch.setattr(cotracker, "load_predictor", lambda checkpoint, device: Follower(walk))
    (data / "weights.pth").touch()
    tracks = f"cotracker:{data / 'weights.pth'}"
    assert main(["label", str(caps), "--out", str(store), "--tracks", tracks, "--depth", "none", "--no-judge"]) == 0
    assert "2 of 2 captures labelled" in capsys.readouterr().out
    for name in HASHES[:2]:
        found = load_tracks(store / "1K" / name)
        assert found.uv.shape[0] == 9
        assert ((found.weight > 0).sum(0) >= 5).sum() > 20
        manifest = json.loads((store / "1K" / name / "manifest.json").read_text())
        assert all(frame["K"] is not None for frame in manifest["frames"])


def test_the_paper_s_table_has_six_columns(data, capsys) -> None:
    """Trained on DL3DV with full supervision, which needs its depth; scored beside the paper's rows."""
    depth = ["--depth-truth", f"wai:{data / 'WAI'}/{{scene}}"]
    run, bench = data / "RUN", data / "DL3DV-Benchmark"
    train = ["train", "synthetic-full", "--annotated", f"dl3dv:{data / 'DL3DV-10K'}", "--out", str(run),
             "--steps", "2", "--image-size", "48", "--device", "cpu", "--dl3dv-benchmark",
             str(bench / "benchmark-meta.csv")]  # fmt: skip
    assert main([*train, *SMALL]) == 2
    assert "no true depth" in capsys.readouterr().err
    assert main([*train, *depth, *SMALL]) == 0
    command = ["evaluate", f"model:{run / 'checkpoint'}", "--benchmark", f"dl3dv-benchmark:{bench}", "--device", "cpu"]
    assert main([*command, *depth, "--out", str(data / "EV")]) == 0
    scores = json.loads((data / "EV" / "scores.json").read_text())
    rows = {row["system"]: row["scores"] for row in scores["rows"]}
    six = ("point_rel", "point_tau", "ate", "auc30", "depth_rel", "depth_tau")
    ours = next(row for name, row in rows.items() if name.startswith("model:"))
    assert all(np.isfinite(ours[name]) for name in six)
    assert ours["views"] == 16  # eight of each scene
    assert rows["Reliev3R (paper)"]["point_rel"] == 0.122
    assert any(caveat.startswith("depth: MVSAnywhere") for caveat in scores["caveats"])
    assert main([*command, "--depth-truth", f"wai:{data / 'WAI' / HASHES[2]}"]) == 2
    assert "put {scene} where a scene's name stands" in capsys.readouterr().err

"""Long walks, rendered: what `reconstruct`, `label` and `fit` take of time and memory, and how far cameras drift.

    python benchmarks/long.py --walks FOLDER --out RESULT.json [--views 120 300] [--verbs reconstruct label fit]

A walk is one room of `reliev3r.synthetic` (seed 3, 320 x 240, without supersampling), along 200 degrees of an arc, of
more than 300 views all the way round. It is rendered into FOLDER where it is not there. Each verb is run by its command
line, one thread, in a process of its own; CPU seconds and peak memory are the process's. `fit` takes 20 steps on the
labels that `label` made. AUC is of all pairs of views, protocol strict. Drift: the distance of the camera centres from
the truth after the similarity that fits them best, and that of the last camera after the similarity that fits the first
tenth of the walk, in per cent of the path's length. Only this scoring reads truth. What RESULT.json has already is
kept.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from about import about

from reliev3r.core.cameras_json import CAMERAS_JSON, read_posed_frames
from reliev3r.core.files import read_json, write_json
from reliev3r.evaluation.metrics import ate_rmse, auc, pair_errors
from reliev3r.geometry.align import umeyama
from reliev3r.synthetic.capture import SynthConfig, write_capture

STEPS = 20
VERBS = {
    "reconstruct": ["reconstruct", "{walk}", "--out", "{out}"],
    "label": ["label", "{walk}", "--depth", "none", "--out", "{labels}"],
    "fit": ["fit", "{walk}", "--labels", "{labels}", "--out", "{out}", "--steps", str(STEPS)],
}


def walk(folder: Path, views: int) -> Path:
    """The walk of so many views."""
    place = folder / f"walk{views}"
    if not place.exists():
        span = 200.0 if views <= 300 else 360.0
        write_capture(place, SynthConfig(seed=3, views=views, width=320, height=240, span=span, supersample=1))
    return place


def drift(found: Path, truth: Path) -> dict[str, Any]:
    """Scores of the cameras in one ``cameras.json`` against those of another."""
    said = {entry.name: torch.as_tensor(entry.world_from_cam).double() for entry in read_posed_frames(found)}
    true = {entry.name: torch.as_tensor(entry.world_from_cam).double() for entry in read_posed_frames(truth)}
    reached = torch.tensor([name in said for name in true])
    cameras = torch.stack([said.get(name, torch.eye(4).double()) for name in true])
    poses = torch.stack(list(true.values()))
    return {"reached": int(reached.sum()), **drift_of(cameras, poses, reached)}


def drift_of(cameras: torch.Tensor, poses: torch.Tensor, reached: torch.Tensor | None = None) -> dict[str, Any]:
    """Scores of world_from_cam [v 4 4]; views that were not ``reached`` count in AUC alone."""
    reached = torch.ones(len(poses), dtype=torch.bool) if reached is None else reached
    rotation, direction = pair_errors(cameras, poses, reached, signed=True, seen="both")
    centres, own = cameras[reached, :3, 3], poses[reached, :3, 3]
    path = float(own.diff(dim=0).norm(dim=-1).sum())
    begin = max(3, len(own) // 10)
    scale, turn, shift = umeyama(centres[:begin], own[:begin])
    end = float((scale * turn @ centres[-1] + shift - own[-1]).norm())
    return {
        "auc30": auc(rotation, direction), "auc5": auc(rotation, direction, 5), "path_m": round(path, 2),
        "drift_percent": round(100 * (ate_rmse(centres, own) or 0.0) / path, 3),
        "end_percent": round(100 * end / path, 3),
    }  # fmt: skip


def measured(verb: str, place: Path, out: Path) -> dict[str, Any]:
    """One run of one verb."""
    labels = place.parent / f"labels_{place.name}"
    command = [part.format(walk=place, out=out, labels=labels) for part in VERBS[verb]]
    log = out.with_suffix(".log")
    with log.open("w") as told:
        child = subprocess.Popen([sys.executable, "-m", "reliev3r.cli", *command], stdout=told, stderr=told)
        _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise SystemExit(f"{' '.join(command)}: {log.read_text()[-500:]}")
    found = {"seconds": round(usage.ru_utime + usage.ru_stime, 1), "memory_mb": usage.ru_maxrss // 1024}
    written = labels if verb == "label" else out
    size = sum(file.stat().st_size for file in written.rglob("*") if file.is_file())
    scores = drift(out / CAMERAS_JSON, place / CAMERAS_JSON) if (out / CAMERAS_JSON).exists() else {}
    return {**found, "written_mb": round(size / 1e6, 1), **scores}


def main() -> None:
    """Measure what is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--walks", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--views", type=int, nargs="+", default=[120, 300])
    parser.add_argument("--verbs", nargs="+", default=list(VERBS), choices=list(VERBS))
    given = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    found: dict[str, Any] = read_json(given.out) if given.out.exists() else {"about": about(), "runs": {}}
    for views in given.views:
        for verb in given.verbs:
            key = f"walk/{views}/{verb}"
            if key in found["runs"]:
                continue
            with tempfile.TemporaryDirectory() as folder:
                found["runs"][key] = measured(verb, walk(given.walks, views), Path(folder) / "out")
            write_json(given.out, found)
            print(key, found["runs"][key], flush=True)


if __name__ == "__main__":
    main()

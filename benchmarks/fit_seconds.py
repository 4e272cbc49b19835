"""What `fit` reaches in so many CPU seconds, with swept labels and without, beside `reconstruct`, which trains nothing.

    python benchmarks/fit_seconds.py FOLDER --out RESULT.json [--seconds 60 30 120] [--variants plain swept]

FOLDER holds the captures `livingroom1` and `box_rgbd`: images, cameras.json with truth, `mono_fastdepth` (a real, weak
monocular expert). 12 views, `tiny`, 96 pixels, seed 0, one thread, each run in a process of its own, one after the
other; the schedule follows CPU seconds, not the clock of the wall. Counted: tracks and depth labels, their verdict,
loading, the solve, registration, the sweep, and training with its evaluations. Not counted: importing, writing results,
scoring. Scores are those of `evaluate`, protocol strict. ``labels`` is what training learns from, scored as if it
were a prediction: solved cameras and the label's depth wherever there is one. What RESULT.json has already is kept.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import subprocess
import sys
import tempfile
import time
import types
from pathlib import Path
from typing import Any

import torch
from about import about

from reliev3r.core.files import read_json, write_json
from reliev3r.core.progress import silent
from reliev3r.core.reconstruction import Reconstruction
from reliev3r.core.settings import with_changes
from reliev3r.core.types import Prediction
from reliev3r.data.capture import Capture, load_capture
from reliev3r.evaluation.run import evaluate_reconstruction
from reliev3r.geometry.camera import ray_map
from reliev3r.labels.pipeline import label_capture
from reliev3r.labels.prepare import Prepared, prepare_capture
from reliev3r.labels.quality.assess import quality_of
from reliev3r.labels.registry import depth_expert, track_expert
from reliev3r.labels.store import load_labels
from reliev3r.model.load import initial_network
from reliev3r.model.network import PRESETS
from reliev3r.model.predict import predict
from reliev3r.runs.fit import FitConfig, train_prepared
from reliev3r.solve.capture import reconstruct_groups
from reliev3r.training import clock

CAPTURES = ("livingroom1", "box_rgbd")
EXPERTS = {"fastdepth": "folder:{capture}/mono_fastdepth", "none": "none"}
VARIANTS = {
    "plain": {"prepare.sweep": False, "full_time": True},
    "plain, while it pays": {"prepare.sweep": False},
    "swept": {"prepare.sweep": True, "full_time": True},
    "swept, while it pays": {"prepare.sweep": True},
    "swept, Muon": {"prepare.sweep": True, "optimizer": "muon", "full_time": True},
}
VIEWS = 12


def opened(folder: Path) -> Capture:
    """The capture's 12 views."""
    return load_capture(folder, views=VIEWS)


def labelled(folder: Path, expert: str, out: Path) -> dict[str, Any]:
    """Make labels and judge them, as `fit` does first."""
    capture, start = opened(folder), time.process_time()
    depth = depth_expert(EXPERTS[expert].format(capture=folder))
    label_capture(capture, depth=depth, tracks=track_expert("sift"), out=out)
    quality_of(out, capture)
    return {"seconds": time.process_time() - start}


def trained(folder: Path, labels: Path, variant: str, seconds: float) -> dict[str, Any]:
    """Prepare, train for what is left of ``seconds``, and score; also what it was trained on."""
    start = time.process_time()
    config = with_changes(FitConfig(precision="fp32"), VARIANTS[variant], source=variant)
    capture = opened(folder)
    prepared = prepare_capture(capture, load_labels(labels, capture), config.prepare, patch=8)
    spent = time.process_time() - start
    figures = {"preparation": spent, "labels": scored(_labels_alone(prepared), prepared, capture)}
    if seconds <= spent:
        return figures
    torch.manual_seed(config.seed)
    model = initial_network("random", dataclasses.replace(PRESETS[config.preset], cameras="regressed"))
    config = dataclasses.replace(config, minutes=(seconds - spent) / 60)
    clock.time = types.SimpleNamespace(monotonic=time.process_time)  # type: ignore[attr-defined]
    with tempfile.TemporaryDirectory() as out:
        start = time.process_time()
        result = train_prepared(model, prepared, config, Path(out), resume=False, report=silent)
    figures |= {"steps": result.steps, "training": time.process_time() - start}
    return figures | {"fit": scored(predict(model, prepared.views), prepared, capture)}


def _labels_alone(prepared: Prepared) -> Prediction | None:
    labels = prepared.labels
    if labels.cameras is None or not bool(labels.depth.valid.any()) or prepared.views.K is None:
        return None
    depth = labels.depth.depth.clamp_min(1e-6)
    rays = ray_map(prepared.views.K, *prepared.views.size)
    return Prediction(depth=depth, rays=rays, conf=torch.ones_like(depth), world_from_cam=labels.cameras.world_from_cam)


def scored(prediction: Prediction | None, prepared: Prepared, capture: Capture) -> dict[str, float] | None:
    """Of a prediction of the prepared views."""
    if prediction is None:
        return None
    frames = capture.frames
    return strict(
        Reconstruction(
            prediction=prediction, names=capture.names, image_files=tuple(frame.file for frame in frames),
            image=(prepared.views.image.movedim(-3, -1) * 255).round().to(torch.uint8),
            sizes=tuple((frame.width, frame.height) for frame in frames), regions=prepared.regions,
        ),
        capture,
    )  # fmt: skip


def strict(reconstruction: Reconstruction, capture: Capture) -> dict[str, float]:
    """The figures that the table shows."""
    scores = evaluate_reconstruction(reconstruction, capture.root)
    return {name: getattr(scores, name) for name in ("auc30", "depth_rel", "point_rel")}


def reconstructed(folder: Path) -> dict[str, Any]:
    """`reconstruct`, without training."""
    capture, start = opened(folder), time.process_time()
    found = reconstruct_groups(capture)[0]
    return {"seconds": time.process_time() - start, **strict(found, capture)}


def child(task: list[str], labels: Path) -> None:
    """One task in this process; JSON on the last line."""
    kind, folder, *rest = task
    if kind == "labels":
        found = labelled(Path(folder), rest[0], labels)
    elif kind == "reconstruct":
        found = reconstructed(Path(folder))
    else:
        found = trained(Path(folder), labels, rest[0], float(rest[1]))
    print(json.dumps(found))


def run(task: list[str], labels: Path) -> dict[str, Any]:
    """One task in a process of its own."""
    command = [sys.executable, __file__, "--child", *task, "--labels", str(labels)]
    return json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.splitlines()[-1])


def main() -> None:
    """Measure what is missing, the cheap first."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--seconds", type=float, nargs="+", default=[60, 30, 120])
    parser.add_argument("--variants", nargs="+", default=["plain", "swept"])
    parser.add_argument("--experts", nargs="+", default=list(EXPERTS))
    parser.add_argument("--labels", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--child", nargs="+", help=argparse.SUPPRESS)
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.child:
        child(given.child, given.labels)
        return
    found: dict[str, Any] = read_json(given.out) if given.out.exists() else {"about": about(), "runs": {}}

    def measured(name: str, task: list[str], labels: Path) -> dict[str, Any]:
        if name not in found["runs"]:
            found["runs"][name] = run(task, labels)
            write_json(given.out, found)
            print(name, found["runs"][name], flush=True)
        return found["runs"][name]

    folder = given.folder.resolve()
    with tempfile.TemporaryDirectory() as place:
        for capture in CAPTURES:
            measured(f"{capture}/reconstruct", ["reconstruct", str(folder / capture)], Path(place))
        for seconds in given.seconds:
            for capture in CAPTURES:
                for expert in given.experts:
                    labels = Path(place) / f"{capture}-{expert}"
                    names = {variant: f"{capture}/{expert}/{variant}/{seconds:g}" for variant in given.variants}
                    if set(names.values()) <= found["runs"].keys():
                        continue
                    task = ["labels", str(folder / capture), expert]
                    made = measured(f"{capture}/{expert}/labels", task, labels)
                    if not labels.exists():
                        run(task, labels)
                    left = seconds - made["seconds"]
                    for variant, name in names.items():
                        measured(name, ["fit", str(folder / capture), variant, str(left)], labels)


if __name__ == "__main__":
    main()

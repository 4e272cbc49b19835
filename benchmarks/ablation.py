"""What each choice is worth, on one rendered capture: loss forms, parts left out, balance, teacher, registration.

    python benchmarks/ablation.py --out ablation.json --steps 250 --seeds 0 1 2

Tracks by SIFT from the pixels; depth by a *simulated expert* (the true depth made worse). All variants see the same
labels and the same number of steps. Finished runs are kept in the output file: a second call goes on where one stopped.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch

from reliev3r.core.files import read_json, write_json
from reliev3r.data.capture import load_capture
from reliev3r.data.truth import load_truth
from reliev3r.evaluate.protocols import score
from reliev3r.labels.pipeline import label_capture
from reliev3r.labels.prepare import PrepareConfig, prepare_capture
from reliev3r.labels.registry import depth_expert, track_expert
from reliev3r.model.network import PRESETS, Reliev3R
from reliev3r.model.predict import predict
from reliev3r.runs.fit import FitConfig, train_prepared, without_hidden_tracks
from reliev3r.synthetic.capture import SynthConfig, write_capture


def changed(config: FitConfig, **objective: object) -> FitConfig:
    """The settings with some of the objective's fields replaced."""
    return dataclasses.replace(config, objective=dataclasses.replace(config.objective, **objective))


def depth_changed(config: FitConfig, **depth: object) -> FitConfig:
    """The settings with some of the depth loss's fields replaced."""
    return changed(config, depth=dataclasses.replace(config.objective.depth, **depth))


def form(config: FitConfig, name: str) -> FitConfig:
    """The settings with another reprojection form and no teacher, so that the loss alone has to find the cameras."""
    loss = dataclasses.replace(config.objective.reprojection, form=name)
    return changed(config, reprojection=loss, teacher_weight=0.0)


Change = Callable[[FitConfig], FitConfig]
VARIANTS: dict[str, Change] = {
    "default": lambda c: c,
    "no registration of the depth": lambda c: dataclasses.replace(c, prepare=PrepareConfig(register=False)),
    "depth normalised by median and MAD, alpha 1": lambda c: depth_changed(c, normalisation="mad", alpha=1.0),
    "tracks only (depth weight 0)": lambda c: changed(c, depth_weight=0.0),
    "depth only (tracks weight 0: no teacher, no registration)": lambda c: changed(c, tracks_weight=0.0),
    "no teacher: angle (the paper's form)": lambda c: form(c, "angle"),
    "no teacher: pixel": lambda c: form(c, "pixel"),
    "no teacher: point": lambda c: form(c, "point"),
    "no teacher: cosine": lambda c: form(c, "cosine"),
    "no teacher, no camera contrast": lambda c: form(c, "angle"),
}


def main() -> None:
    """Run what is missing, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=250)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--capture", type=Path, help="reuse a capture that `reliev3r synth` wrote")
    arguments = parser.parse_args()
    results = read_json(arguments.out) if arguments.out.is_file() else {}
    with tempfile.TemporaryDirectory() as work:
        capture_path = arguments.capture or write_capture(Path(work) / "capture", SynthConfig(seed=0))
        for seed in arguments.seeds:
            for name, change in VARIANTS.items():
                key = f"{name} | {arguments.steps} | {seed}"
                if key not in results:
                    results[key] = run(Path(capture_path), name, change, arguments.steps, seed, Path(work))
                    write_json(arguments.out, results)
    print(table(results, arguments.steps))


def run(capture_path: Path, name: str, change: Change, steps: int, seed: int, work: Path) -> dict[str, float]:
    """Train one variant and score it under ``strict``."""
    capture = load_capture(capture_path)
    labels = label_capture(capture, depth=depth_expert("simulated"), tracks=track_expert("sift"), out=work / "labels")
    sizes = PRESETS["tiny"]
    config = change(FitConfig(depth="simulated", steps=steps, seed=seed, evaluate_every=1.0, save_every=1e9))
    config = without_hidden_tracks(config)
    prepared = prepare_capture(capture, labels, config.prepare, patch=sizes.patch_size)
    torch.manual_seed(seed)
    model = Reliev3R(dataclasses.replace(sizes, camera_contrast="no camera contrast" not in name))
    with tempfile.TemporaryDirectory() as folder:
        result = train_prepared(model, prepared, config, Path(folder), resume=False, report=lambda *_: None)
    prediction = predict(model, prepared.views)
    frame = capture.frames[0]
    truth = load_truth(capture_path, capture.names, regions=prepared.regions, size=(frame.height, frame.width))
    scores = score(prediction, truth, "strict")
    return {
        "auc30": scores.auc30, "depth_rel": scores.depth_rel, "point_rel": scores.point_rel, "seconds": result.seconds
    }  # fmt: skip


def table(results: dict[str, dict[str, float]], steps: int) -> str:
    """Markdown: mean and range over the seeds."""
    lines = ["| variant | AUC@30 strict | depth rel | point rel |", "|---|---|---|---|"]
    for name in VARIANTS:
        rows = [row for key, row in results.items() if key.startswith(f"{name} | {steps} |")]
        if rows:
            cells = []
            for quantity, digits in (("auc30", 1), ("depth_rel", 3), ("point_rel", 3)):
                values = [row[quantity] for row in rows]
                spread = f"{min(values):.{digits}f}-{max(values):.{digits}f}"
                cells.append(f"{statistics.mean(values):.{digits}f} ({spread})")
            lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()

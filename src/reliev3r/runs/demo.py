"""The demonstration: a rendered capture, labelled from its pixels, fitted from random weights and scored."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

from reliev3r.core.errors import UserError
from reliev3r.core.progress import Report, staged
from reliev3r.core.reconstruction import Reconstruction
from reliev3r.data.capture import load_capture
from reliev3r.evaluation.benchmarks import capture_benchmark
from reliev3r.evaluation.run import evaluate_benchmark, evaluate_reconstruction
from reliev3r.evaluation.systems import fitted_frames, systems_from_specs
from reliev3r.evaluation.tables import Row, Table, make_row
from reliev3r.labels.prepare import network_sample
from reliev3r.labels.store import load_labels
from reliev3r.model.network import PRESETS
from reliev3r.runs.fit import FitConfig, FitResult, fit
from reliev3r.synthetic.capture import SynthConfig, write_capture

LR = 4e-3
"""Twice that of ``fit``, for a clean scene: after 800 steps depth is 4.3 % off instead of 4.8 % (seed 0)."""


def run_demo(out: Path, *, steps: int, seed: int, device: str, report: Report) -> tuple[FitResult, Table]:
    """Render ``out/capture``, fit it in ``out/run``; score the network, its refined cameras, its own labels, and
    what the network of the package makes of the same images without training.

    A rendered capture is reused and an earlier demonstration's run replaced; any other folder is refused. The depth
    labels come from a *simulated expert* (the true depth made worse), the tracks from the pixels by SIFT.

    Raises:
        UserError: ``out`` holds something else.
        KeyboardInterrupt: Ctrl-C.
    """
    capture, run = out / "capture", out / "run"
    if out.exists() and any(out.iterdir()) and not (capture / "cameras.json").is_file():
        raise UserError(f"{out}: not an empty folder and no earlier demonstration; choose another --out")
    if not capture.exists():
        write_capture(capture, SynthConfig(seed=seed), progress=staged(report, "render"))
    if (run / "config.json").is_file():
        shutil.rmtree(run)
    config = FitConfig(depth="simulated", steps=steps, lr=LR, seed=seed, device=device, refine=True)
    result = fit(capture, run, config, report=report)
    if result is None:
        raise KeyboardInterrupt
    specs = [f"fit:{run}", *([f"fit:{run}@refined"] if (run / "refined").is_dir() else []), "reconstruct"]
    systems = systems_from_specs(specs, device=device)
    scored = capture_benchmark(capture, fitted_frames(systems))
    table = evaluate_benchmark(systems, scored, out=run, protocol="strict").table()
    return result, dataclasses.replace(table, rows=(*table.rows, _label_row(capture, run, result.reconstruction)))


def _label_row(capture_path: Path, run: Path, reconstruction: Reconstruction) -> Row:
    """The pseudo depth itself, scored as if it were a prediction: one scale per scene, no cameras."""
    capture = load_capture(capture_path)
    labels = load_labels(run / "labels", capture)
    height, width = reconstruction.prediction.depth.shape[-2:]
    patch = PRESETS["tiny"].patch_size
    _, pseudo, _ = network_sample(capture, labels, long_side=max(height, width), patch=patch)
    prediction = dataclasses.replace(reconstruction.prediction, depth=pseudo.depth.depth)
    as_predicted = dataclasses.replace(reconstruction, prediction=prediction)
    scores = evaluate_reconstruction(as_predicted, capture_path, "strict")
    depth_only = dataclasses.replace(
        scores, point_rel=None, point_tau=None, ate=None, auc30=None, rotation_median_deg=None,
        translation_median_deg=None,
    )  # fmt: skip
    return make_row("pseudo-label (simulated expert)", as_predicted, depth_only)

"""What each choice is worth, on one rendered capture: loss forms, parts left out, balance, teacher, registration.

    python studies/one_capture.py --out DIR --steps 100 --seeds 0 1 2 [--only NAME ...] [--jobs 2]

Tracks by SIFT from the pixels; depth by a *simulated expert* (the true depth made worse). All variants see the same
labels and the same number of steps from random weights. ``study.json`` and ``study.md`` are written after every run;
finished runs are kept: a second call goes on where one stopped.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from study import Results, Study, arguments, cell, said
from variants import ON_ONE_CAPTURE, CaptureConfig

from reliev3r.data.capture import load_capture
from reliev3r.data.truth import load_truth
from reliev3r.evaluation.protocols import score
from reliev3r.labels.pipeline import label_capture
from reliev3r.labels.prepare import prepare_capture
from reliev3r.labels.registry import depth_expert, track_expert
from reliev3r.labels.store import load_labels
from reliev3r.model.network import Reliev3R
from reliev3r.model.predict import predict
from reliev3r.runs.fit import train_prepared, without_hidden_tracks
from reliev3r.synthetic.capture import SynthConfig, write_capture

JUDGE = "the capture"
FIGURES = {"auc30": "AUC@30 strict", "depth_rel": "depth rel", "point_rel": "point rel"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class CaptureStudy(Study):
    """Fits of one capture, each from random weights."""

    capture: Path
    """Where there is none, it is rendered."""
    steps: int

    @property
    def waves(self) -> tuple[Sequence[str], ...]:
        """None needs another."""
        return (tuple(ON_ONE_CAPTURE),)

    def folder(self, name: str, seed: int) -> Path:
        """Of one run: another number of steps is another run."""
        return super().folder(f"{name} {self.steps}", seed)

    def train(self, name: str, seed: int, folder: Path) -> dict[str, Any]:
        """Judged on the capture itself, under ``strict``."""
        start = CaptureConfig(
            depth="simulated", steps=self.steps, seed=seed, evaluate_every=1.0, save_every=1e9
        )  # fmt: skip
        config = without_hidden_tracks(ON_ONE_CAPTURE[name](start))
        capture = load_capture(self.capture)
        labels = load_labels(self.out / "labels", capture)
        prepared = prepare_capture(capture, labels, config.prepare, patch=config.network.patch_size)
        torch.manual_seed(seed)
        model = Reliev3R(config.network)
        resume = (folder / "training").is_dir()
        result = train_prepared(model, prepared, config, folder, resume=resume, report=said(name, seed))
        if not result.finished:
            raise KeyboardInterrupt
        frame = capture.frames[0]
        size = (frame.height, frame.width)
        truth = load_truth(self.capture, capture.names, regions=prepared.regions, size=size)
        scores = score(predict(model, prepared.views), truth, "strict")
        judged = {JUDGE: {figure: getattr(scores, figure) for figure in FIGURES}}
        return {"steps": result.steps, "seconds": result.seconds, "judged": judged, "curve": []}

    def table(self, results: Results) -> str:
        """Means over seeds, range where there is more than one."""
        lines = [f"| variant | seeds | {' | '.join(FIGURES.values())} |", f"|---|{'--:|' * (1 + len(FIGURES))}"]
        for name, seeds in results.items():
            cells = [cell([row["judged"][JUDGE][figure] for row in seeds.values()]) for figure in FIGURES]
            lines.append(f"| {name} | {len(seeds)} | {' | '.join(cells)} |")
        lines += ["", f"{self.steps} steps; tracks by SIFT, depth by a *simulated expert*.", ""]
        return "\n".join(lines)


def main(argv: list[str] | None = None) -> None:
    """Run what is missing, then write the table."""
    parser = arguments(__doc__, ON_ONE_CAPTURE)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--capture", type=Path, default=None, help="one that `reliev3r synth` wrote")
    given = parser.parse_args(argv)
    capture = given.capture or given.out / "capture"
    if not capture.exists():
        write_capture(capture, SynthConfig(seed=0))
    if not (given.out / "labels" / "manifest.json").is_file():
        depth, tracks = depth_expert("simulated"), track_expert("sift")
        label_capture(load_capture(capture), depth=depth, tracks=tracks, out=given.out / "labels")
    study = CaptureStudy(out=given.out, capture=capture, steps=given.steps)
    command = [__file__, "--out", str(given.out), "--steps", str(given.steps), "--capture", str(capture)]
    study.complete(given.only or list(ON_ONE_CAPTURE), given.seeds, jobs=given.jobs, command=command)


if __name__ == "__main__":
    main()

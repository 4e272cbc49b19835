"""Is the verdict without ground truth right? Adaptations of known outcome, judged with and without the truth.

    reliev3r train tiny-cpu --out BEGUN --steps 150 stream.width=64 stream.height=48 network.patch_size=8
    python benchmarks/verdict.py --out benchmarks/results/verdict_cpu.json --begun BEGUN/checkpoint [--work DIR]
        [--rooms 4] [--real ../shared/data/box_rgbd ../shared/data/livingroom1]

Two networks that solve their cameras are adapted: the one that comes with the package, and one whose training has only
begun (``--begun``). Both have much to gain from a capture of their own. The captures are rendered rooms that neither
has seen, of both families of textures, and 24 frames of each real capture. Adapted by good labels, by tracks of which
40 % are false, by another capture's labels, by good labels at a learning rate that is far too high, and not at all:
five adaptations of each network on each capture. Labels are made from the output of *simulated* experts, for their
faults have to be known, in the way of `reliev3r adapt`: cameras are solved from the tracks, and depth is bent towards
them. Evidence comes from the images alone. The truth decides by AUC@30 (strict) and depth rel on sets of frames with a
held-out one, with a dead zone. Resumable.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import dataclasses
import itertools
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from about import about

from reliev3r.core.errors import TrainingStopped
from reliev3r.core.files import read_json, write_json
from reliev3r.core.settings import to_plain
from reliev3r.core.types import Prediction, PseudoLabels, Tracks, Truth, Views
from reliev3r.data.capture import Capture, load_capture
from reliev3r.data.network_views import network_views
from reliev3r.data.truth import load_truth
from reliev3r.evaluation.protocols import strict_figures
from reliev3r.labels.align_depth import register_depth
from reliev3r.labels.prepare import split_tracks
from reliev3r.model.load import PACKAGED, load_network
from reliev3r.model.network import Reliev3R
from reliev3r.runs.train import objective_of
from reliev3r.sfm.solve_cameras import solve_cameras
from reliev3r.synthetic.capture import SynthConfig, write_capture
from reliev3r.synthetic.experts import DepthNoise, TrackNoise, simulate_depth, simulate_tracks
from reliev3r.synthetic.path import PathKind
from reliev3r.synthetic.scene import TextureFamily
from reliev3r.training.config import TrainConfig
from reliev3r.training.loader import Batches
from reliev3r.training.loop import train
from reliev3r.training.recipes import reliev3r_tiny
from reliev3r.training.validation import HeldoutScene, figures
from reliev3r.verdict.evidence import HeldoutCapture, gather_evidence
from reliev3r.verdict.rule import JudgeConfig, Verdict, judge

VIEWS, HELD = 24, (3, 9, 15, 21)
SET = 4
"""Views of a prediction, in training, for the judge and for the truth."""
SETS = 3
"""Sets with each held-out frame, for the judge (`adapt` has up to 5) and for the truth."""
AUC_DEAD, DEPTH_DEAD = 2.0, 0.04
"""Points of AUC@30, and relative change of depth rel, within which the truth calls it no change."""
ROOMS: tuple[tuple[TextureFamily, PathKind, float], ...] = (
    ("masonry", "smooth", 62.0), ("terrazzo", "random", 46.0), ("masonry", "random", 54.0),
    ("terrazzo", "smooth", 70.0),
)  # fmt: skip
"""Texture, path and field of view, in turn."""
FIRST_ROOM = 31_000
"""Seed of the first room; neither the networks nor the rule were made with it."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """One kind of adaptation."""

    lr: float = 5e-4
    false: float = 0.02
    """Share of observations that are moved to a random place."""
    labels_of: int = 0
    """The labels are those of the capture that many further on."""


CASES = {
    "good labels": Case(),
    "40 % false tracks": Case(false=0.4),
    "another capture's labels": Case(labels_of=1),
    "learning rate too high": Case(lr=0.1),
    "nothing happens": Case(lr=0.0),
}


@dataclass(frozen=True, kw_only=True, eq=False)
class Footage:
    """A capture at the size of a network, with truth for simulated labels and for the scores."""

    name: str
    seed: int
    """Of its simulated labels."""
    capture: Capture
    views: Views
    truth: Truth


def rendered(work: Path, number: int) -> Path:
    """The folder of a room, larger than the networks see it: these images are matched."""
    texture, path, fov = ROOMS[number % len(ROOMS)]
    folder = work / "rooms" / str(FIRST_ROOM + number)
    if not folder.is_dir():
        config = SynthConfig(
            seed=FIRST_ROOM + number, views=VIEWS, width=320, height=240, fov=fov, texture=texture, path=path,
            span=25.0, overlap=0.3, supersample=1,
        )  # fmt: skip
        folder.parent.mkdir(parents=True, exist_ok=True)
        write_capture(folder, config)
    return folder


class Remembered(torch.nn.Module):
    """A network that is asked for the same views by every adaptation of it, and works once."""

    def __init__(self, network: Reliev3R) -> None:
        super().__init__()
        self.network = network
        self._known: dict[bytes, Prediction] = {}

    def forward(self, views: Views) -> Prediction:
        """As the network has it."""
        key = views.image.numpy().tobytes()
        if key not in self._known:
            self._known[key] = self.network(views)
        return self._known[key]


def opened(folders: dict[str, Path], place: int, model: Reliev3R) -> Footage:
    """Some frames, evenly spaced, of one of the captures; the first follows the last."""
    place %= len(folders)
    name, folder = list(folders.items())[place]
    capture = load_capture(folder, views=VIEWS)
    assert model.image_size is not None
    views, regions = network_views(capture, long_side=model.image_size, patch=model.patch_size)
    truth = load_truth(folder, capture.names, regions=regions, size=views.size)
    return Footage(name=name, seed=place, capture=capture, views=views, truth=truth)


def labels(source: Footage, here: Footage, case: Case) -> tuple[PseudoLabels, Tracks]:
    """Labels from the output of simulated experts on ``source``, for the views of ``here``; and held-out tracks."""
    noise = TrackNoise(count=512, pixel=0.1, false=case.false)
    tracks = simulate_tracks(source.truth, noise, source.seed)
    kept, held = (tracks.select_tracks(part) for part in split_tracks(tracks, 0.1))
    depth = simulate_depth(source.truth, DepthNoise(), source.seed)
    assert here.views.K is not None
    solve = solve_cameras(kept, here.views.K)
    if solve is None:
        return PseudoLabels(depth=depth, tracks=kept), held
    at, certainty = solve.track_depth
    return PseudoLabels(
        depth=register_depth(depth, kept.uv, at, certainty), cameras=solve.labels,
        tracks=dataclasses.replace(kept, depth=at * (certainty > 0)),
    ), held  # fmt: skip


def adapted(model: Reliev3R, here: Footage, given: PseudoLabels, case: Case, steps: int, folder: Path) -> Reliev3R:
    """A copy of ``model`` after weak training on the frames that were not held out. Where the gradient is not finite
    training stops, and the weights before that step are what there is."""
    network = copy.deepcopy(model)
    config = TrainConfig(steps=steps, lr=case.lr, log_every=1000, save_every=1e9, precision="fp32")
    with contextlib.suppress(TrainingStopped):
        train(network, objective_of(reliev3r_tiny()), _batches(here, given), config, folder=folder)
    return network


def _batches(here: Footage, given: PseudoLabels) -> Batches:
    """Frames at random, never a held-out one."""
    shown = torch.tensor([index for index in range(VIEWS) if index not in HELD])

    def batch(step: int, micro: int) -> tuple[Views, Any]:
        generator = torch.Generator().manual_seed(step)
        chosen = shown[torch.randperm(len(shown), generator=generator)[:SET]]
        return here.views.select_views(chosen).map(_batched), given.select_views(chosen).map(_batched)

    return batch


def _batched(tensor: torch.Tensor) -> torch.Tensor:
    return tensor[None]


def true_outcome(before: dict[str, float], after: dict[str, float]) -> str:
    """Better: something is and nothing is worse, beyond the dead zone; worse likewise."""
    auc = after["auc30"] - before["auc30"]
    depth = after["depth_rel"] / before["depth_rel"] - 1
    good = auc > AUC_DEAD or depth < -DEPTH_DEAD
    bad = auc < -AUC_DEAD or depth > DEPTH_DEAD
    return "better" if good and not bad else "worse" if bad and not good else "no change"


def scored(model: torch.nn.Module, here: Footage) -> dict[str, float]:
    """By the truth, on sets drawn at random, each with one held-out frame: not the sets that the judge looks at."""
    generator = torch.Generator().manual_seed(1)
    none = Tracks(uv=torch.zeros(SET, 1, 2), weight=torch.zeros(SET, 1))
    others = torch.tensor([index for index in range(VIEWS) if index not in HELD])
    scenes = []
    for number in range(SETS * len(HELD)):
        drawn = others[torch.randperm(len(others), generator=generator)[: SET - 1]].tolist()
        chosen = [HELD[number % len(HELD)], *drawn]
        scenes.append(
            HeldoutScene(views=here.views.select_views(chosen), tracks=none, truth=here.truth.select_views(chosen))
        )
    return figures(model, scenes, strict_figures)


def run(
    name: str, start: str, model: Remembered, here: Footage, source: Footage, evidence: HeldoutCapture, steps: int,
    work: Path,
) -> dict[str, Any]:  # fmt: skip
    """One adaptation, judged both ways."""
    case, begin = CASES[name], time.process_time()
    given, held = labels(source, here, case)
    folder = work / "runs" / f"{name}-{start}-{here.name}"
    network = adapted(model.network, here, given, case, steps, folder) if case.lr > 0 else model
    trained = time.process_time()
    evidence = dataclasses.replace(evidence, labels=held)
    verdict: Verdict = judge(model, network, [evidence], config=JudgeConfig(views=SET, sets=SETS))
    judged = time.process_time()
    before, after = scored(model, here), scored(network, here)
    return {
        "case": name, "start": start, "capture": here.name,
        "truth": true_outcome(before, after), "verdict": verdict.verdict,
        "true figures": {"before": before, "after": after}, "judged": to_plain(verdict),
        "cpu seconds": {"training": trained - begin, "judging": judged - trained,
                        "scoring": time.process_time() - judged},
    }  # fmt: skip


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown: agreement by case, and every pair of truth and verdict."""
    lines = ["| case | adaptations | truth | verdict | agree | false better |", "|---|--:|---|---|--:|--:|"]
    for name in [*CASES, "all"]:
        own = [row for row in rows if name in (row["case"], "all")]
        cells = [", ".join(f"{count} {key}" for key, count in Counter(row[side] for row in own).items())
                 for side in ("truth", "verdict")]  # fmt: skip
        agree = sum(row["truth"] == row["verdict"] for row in own)
        false = sum(row["verdict"] == "better" != row["truth"] for row in own)
        lines.append(f"| {name} | {len(own)} | {cells[0]} | {cells[1]} | {agree} | {false} |")
    return "\n".join(lines) + "\n"


def main(argv: list[str] | None = None) -> None:
    """Run what is missing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--work", type=Path, default=Path("/tmp/reliev3r-verdict"))
    parser.add_argument("--begun", type=Path, required=True, help="checkpoint of a network that solves its cameras")
    parser.add_argument("--rooms", type=int, default=4, help="rendered captures; ten adaptations of each")
    parser.add_argument("--real", type=Path, nargs="*", default=[], help="captures with truth, of real cameras")
    parser.add_argument("--steps", type=int, default=40)
    given = parser.parse_args(argv)
    rows: list[dict[str, Any]] = read_json(given.out)["rows"] if given.out.is_file() else []
    rooms = {f"room {FIRST_ROOM + number}": rendered(given.work, number) for number in range(given.rooms)}
    folders = {folder.name: folder for folder in given.real} | rooms
    models = {"package": load_network(PACKAGED), "begun": load_network(given.begun)}
    for (place, capture), (start, model) in itertools.product(enumerate(folders), models.items()):
        done = {row["case"] for row in rows if (row["start"], row["capture"]) == (start, capture)}
        if done == set(CASES):
            continue
        here = opened(folders, place, model)
        evidence = gather_evidence(
            here.capture, long_side=max(here.views.size), patch=model.patch_size, frames=HELD, name=capture
        )
        once = Remembered(model)
        for name in (name for name in CASES if name not in done):
            source = opened(folders, place + CASES[name].labels_of, model)
            rows.append(row := run(name, start, once, here, source, evidence, given.steps, given.work))
            print(f"{name}, {start}, {capture}: truth {row['truth']}, verdict {row['verdict']} "
                  f"({row['judged']['reasons'][0]})", flush=True)  # fmt: skip
            write_json(given.out, {**about(), "steps": given.steps, "dead zone": [AUC_DEAD, DEPTH_DEAD], "rows": rows})
    print(table(rows))


if __name__ == "__main__":
    main()

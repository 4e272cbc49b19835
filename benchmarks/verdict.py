"""Is the verdict without ground truth right? Adaptations of known outcome, judged with and without the truth.

    python benchmarks/verdict.py --out benchmarks/results/verdict.json [--base CHECKPOINT] [--work DIR] [--rooms 3]

Captures of one family of rooms (terrazzo, longer lenses) are what networks of two kinds are adapted to. Both were
trained fully supervised on the other family (masonry; once, kept in --work, unless a checkpoint is given) and then on
the capture itself: for a while, so that there is something to gain, and for long, so that there is something to lose.
(A network that saw the other family alone guesses here: which of two guesses the truth prefers is chance.) Adapted by
good labels, by tracks of which 40 % are false, by another capture's labels, by good labels at a learning rate that is
far too high, and not at all: five adaptations of each of two networks on each of three captures. Labels come from
*simulated* experts, for their faults have to be known; evidence comes from the images alone. The truth decides by
AUC@30 (strict) and depth rel on sets of frames with a held-out one, with a dead zone. Resumable.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import dataclasses
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
from reliev3r.core.types import FullLabels, Labels, PseudoLabels, Tracks, Truth, Views
from reliev3r.data.capture import Capture, load_capture
from reliev3r.data.network_views import network_views
from reliev3r.data.truth import load_truth
from reliev3r.evaluation.protocols import strict_figures
from reliev3r.labels.prepare import split_tracks
from reliev3r.losses.full import SupervisedConfig, supervised
from reliev3r.model.load import load_network
from reliev3r.model.network import Reliev3R
from reliev3r.runs.train import objective_of, train_scenes
from reliev3r.synthetic.capture import SynthConfig, write_capture
from reliev3r.synthetic.experts import DepthNoise, TrackNoise, simulate_depth, simulate_tracks
from reliev3r.training.config import TrainConfig
from reliev3r.training.loader import Batches
from reliev3r.training.loop import Objective, train
from reliev3r.training.recipes import tiny_cpu_regressed
from reliev3r.training.validation import HeldoutScene, figures
from reliev3r.verdict.evidence import HeldoutCapture, gather_evidence
from reliev3r.verdict.rule import JudgeConfig, Verdict, judge

LONG_SIDE, PATCH = 64, 8
VIEWS, HELD = 24, (3, 9, 15, 21)
SET = 4
"""Views of a prediction, in training, for the judge and for the truth."""
SETS = 16
"""Sets of the truth with each held-out frame: AUC of few pairs of frames is noise."""
AUC_DEAD, DEPTH_DEAD = 2.0, 0.04
"""Points of AUC@30, and relative change of depth rel, within which the truth calls it no change."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """One kind of adaptation."""

    lr: float = 5e-4
    false: float = 0.02
    """Share of observations that are moved to a random place."""
    labels_of: int = 0
    """The labels are those of the capture that many further on."""


STARTS = {"begun": 60, "at home": 250}
"""Steps of full supervision on the capture itself, before the adaptation."""
CASES = {
    "good labels": Case(),
    "40 % false tracks": Case(false=0.4),
    "another capture's labels": Case(labels_of=1),
    "learning rate too high": Case(lr=0.1),
    "nothing happens": Case(lr=0.0),
}


@dataclass(frozen=True, kw_only=True, eq=False)
class Room:
    """A capture of the other family, with truth for the scores alone."""

    capture: Capture
    views: Views
    truth: Truth
    evidence: HeldoutCapture


def base(work: Path, steps: int) -> Path:
    """The checkpoint that all adaptations start from."""
    out = work / "base"
    if not (out / "checkpoint").is_dir():
        start = dataclasses.replace(tiny_cpu_regressed(), supervision="full")
        config = dataclasses.replace(
            start, steps=steps, heldout_scenes=8, stream=dataclasses.replace(start.stream, rooms=400),
            batch=dataclasses.replace(start.batch, images=16),
        )  # fmt: skip
        train_scenes(out, config, resume=(out / "config.json").is_file())
    return out / "checkpoint"


def room(work: Path, seed: int) -> Room:
    """Rendered at four times the network's size, which is what is matched."""
    folder = work / "rooms" / str(seed)
    if not folder.is_dir():
        fov = 42.0 + 10.0 * (seed % 6) / 5
        config = SynthConfig(
            seed=7_000 + seed, views=VIEWS, width=4 * LONG_SIDE, height=3 * LONG_SIDE, fov=fov, texture="terrazzo",
            path="random", span=16.0, overlap=0.3, supersample=1,
        )  # fmt: skip
        folder.parent.mkdir(parents=True, exist_ok=True)
        write_capture(folder, config)
    capture = load_capture(folder)
    views, regions = network_views(capture, long_side=LONG_SIDE, patch=PATCH)
    truth = load_truth(folder, capture.names, regions=regions, size=views.size)
    tracks = simulate_tracks(truth, TrackNoise(count=512, pixel=0.1), seed)
    heldout = tracks.select_tracks(split_tracks(tracks, 0.1)[1])
    evidence = gather_evidence(capture, long_side=LONG_SIDE, patch=PATCH, frames=HELD, labels=heldout)
    return Room(capture=capture, views=views, truth=truth, evidence=evidence)


def labels(source: Room, case: Case, seed: int) -> tuple[PseudoLabels, Tracks]:
    """Labels by simulated experts, and the tracks that were held out."""
    noise = TrackNoise(count=512, pixel=0.1, false=case.false)
    tracks = simulate_tracks(source.truth, noise, seed)
    kept, held = split_tracks(tracks, 0.1)
    depth = simulate_depth(source.truth, DepthNoise(), seed)
    return PseudoLabels(depth=depth, tracks=tracks.select_tracks(kept)), tracks.select_tracks(held)


def adapted(model: Reliev3R, room: Room, labels: PseudoLabels, case: Case, steps: int, folder: Path) -> Reliev3R:
    """A copy of ``model`` after weak training on the frames that were not held out."""
    if case.lr == 0:
        return copy.deepcopy(model)
    return _trained(model, objective_of(tiny_cpu_regressed()), _batches(room, labels), case.lr, steps, folder)


def at_home(model: Reliev3R, room: Room, steps: int, folder: Path) -> Reliev3R:
    """A copy of ``model`` after fully-supervised training on the same frames."""
    tracks = simulate_tracks(room.truth, TrackNoise(count=512, pixel=0.1), seed=0)
    given = _batches(room, FullLabels(truth=room.truth, tracks=tracks))
    return _trained(model, lambda p, own, _: supervised(p, own, SupervisedConfig()), given, 1e-3, steps, folder)


def _batches(room: Room, labels: Labels) -> Batches:
    """Frames at random, never a held-out one."""
    shown = torch.tensor([index for index in range(VIEWS) if index not in HELD])

    def batch(step: int, micro: int) -> tuple[Views, Any]:
        generator = torch.Generator().manual_seed(step)
        chosen = shown[torch.randperm(len(shown), generator=generator)[:SET]]
        return room.views.select_views(chosen).map(_batched), labels.select_views(chosen).map(_batched)

    return batch


def _batched(tensor: torch.Tensor) -> torch.Tensor:
    return tensor[None]


def _trained(model: Reliev3R, descended: Objective, batches: Batches, lr: float, steps: int, folder: Path) -> Reliev3R:
    """Where the gradient is not finite training stops, and the weights before that step are what there is."""
    network = copy.deepcopy(model)
    config = TrainConfig(steps=steps, lr=lr, log_every=1000, save_every=1e9, precision="fp32")
    with contextlib.suppress(TrainingStopped):
        train(network, descended, batches, config, folder=folder)
    return network


def true_outcome(before: dict[str, float], after: dict[str, float]) -> str:
    """Better: something is and nothing is worse, beyond the dead zone; worse likewise."""
    auc = after["auc30"] - before["auc30"]
    depth = after["depth_rel"] / before["depth_rel"] - 1
    good = auc > AUC_DEAD or depth < -DEPTH_DEAD
    bad = auc < -AUC_DEAD or depth > DEPTH_DEAD
    return "better" if good and not bad else "worse" if bad and not good else "no change"


def scored(model: torch.nn.Module, room: Room) -> dict[str, float]:
    """By the truth, on sets drawn at random, each with one held-out frame: not the sets that the judge looks at."""
    generator = torch.Generator().manual_seed(1)
    none = Tracks(uv=torch.zeros(SET, 1, 2), weight=torch.zeros(SET, 1))
    others = torch.tensor([index for index in range(VIEWS) if index not in HELD])
    scenes = []
    for number in range(SETS * len(HELD)):
        drawn = others[torch.randperm(len(others), generator=generator)[: SET - 1]].tolist()
        chosen = [HELD[number % len(HELD)], *drawn]
        scenes.append(
            HeldoutScene(views=room.views.select_views(chosen), tracks=none, truth=room.truth.select_views(chosen))
        )
    return figures(model, scenes, strict_figures)


def run(
    name: str, start_from: str, seed: int, model: Reliev3R, rooms: dict[int, Room], steps: int, work: Path
) -> dict[str, Any]:
    """One adaptation, judged both ways."""
    case, here = CASES[name], rooms[seed]
    order = list(rooms)
    source = rooms[order[(order.index(seed) + case.labels_of) % len(order)]]
    pseudo, held = labels(source, case, seed)
    start = time.monotonic()
    network = adapted(model, here, pseudo, case, steps, work / "runs" / f"{name}-{start_from}-{seed}")
    trained = time.monotonic()
    evidence = dataclasses.replace(here.evidence, labels=held)
    verdict: Verdict = judge(model, network, [evidence], config=JudgeConfig(views=SET))
    judged = time.monotonic()
    before, after = scored(model, here), scored(network, here)
    return {
        "case": name, "start": start_from, "seed": seed,
        "truth": true_outcome(before, after), "verdict": verdict.verdict,
        "true figures": {"before": before, "after": after}, "judged": to_plain(verdict),
        "seconds": {"training": trained - start, "judging": judged - trained},
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
    parser.add_argument("--base", type=Path, default=None, help="checkpoint of 64-pixel images to start from")
    parser.add_argument("--base-steps", type=int, default=600)
    parser.add_argument("--rooms", type=int, default=3, help="captures; ten adaptations of each")
    parser.add_argument("--first", type=int, default=3, help="number of the first; the rule was made by 0 to 2")
    parser.add_argument("--steps", type=int, default=80)
    parser.add_argument("--share", type=float, default=1.0, help="of the steps before the adaptation (tests)")
    given = parser.parse_args(argv)
    model = load_network(given.base or base(given.work, given.base_steps))
    rows: list[dict[str, Any]] = read_json(given.out)["rows"] if given.out.is_file() else []
    rooms = {seed: room(given.work, seed) for seed in range(given.first, given.first + given.rooms)}
    for seed, here in rooms.items():
        for start_from, home_steps in STARTS.items():
            kept = given.work / f"home-{seed}-{home_steps}"
            if not kept.is_dir():
                folder = given.work / "runs" / kept.name
                at_home(model, here, max(1, round(given.share * home_steps)), folder).save_pretrained(kept)
            network = load_network(kept)
            for name in CASES:
                if any((row["case"], row["start"], row["seed"]) == (name, start_from, seed) for row in rows):
                    continue
                rows.append(run(name, start_from, seed, network, rooms, given.steps, given.work))
                row = rows[-1]
                print(f"{name}, {start_from} {seed}: truth {row['truth']}, verdict {row['verdict']} "
                      f"({row['judged']['reasons'][0]})", flush=True)  # fmt: skip
                write_json(
                    given.out, {**about(), "steps": given.steps, "dead zone": [AUC_DEAD, DEPTH_DEAD], "rows": rows}
                )
    print(table(rows))


if __name__ == "__main__":
    main()

"""The paper's comparison at the size of the machine: weak supervision beside its fully-supervised sibling.

    python studies/paradigm.py --size ci|cpu|gpu --out DIR [--only NAME ...] [--seeds 0 1 2] [--jobs 2]
                               [--real CAPTURES --real-depth folder:{capture}/mono_fastdepth]

Every variant is a run of ``reliev3r train`` on the same rendered rooms, from the same weights, for as many steps; it is
judged on rooms that were never trained on, of the same domain and of another (other textures, layouts and focal
lengths), and on sets of four frames of real captures where a folder of them is given. Weak labels of rooms come from a
*simulated expert*; those of real captures from the expert that is named. Finished runs are kept and interrupted ones
resumed: a second call goes on where one stopped. ``study.json``, ``study.md`` and ``study.png`` are written after
every run.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from variants import AFTERWARDS, REAL, VARIANTS, arc, on_captures, other_domain, settings, tuned

from reliev3r.cli import main as reliev3r
from reliev3r.core.files import atomic_path, write_json
from reliev3r.core.types import Prediction, Tracks, Truth, Views
from reliev3r.data.capture import load_capture
from reliev3r.data.network_views import network_views
from reliev3r.data.truth import CameraFile, load_truth
from reliev3r.evaluate.protocols import strict_figures
from reliev3r.geometry.camera import ray_map
from reliev3r.model.load import load_network
from reliev3r.runs.train import network_of, train_scenes
from reliev3r.synthetic.experts import DepthNoise, TrackNoise
from reliev3r.synthetic.stream import SyntheticStream
from reliev3r.train.metrics import read_metrics
from reliev3r.train.recipes import ScenesConfig
from reliev3r.train.validation import HeldoutScene, figures, rooms

SEEDS = 10
"""At most."""


def constant_guess(scenes: list[HeldoutScene]) -> dict[str, float]:
    """All cameras alike, all depth 1: what knowing nothing gives."""

    class Constant(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.unused = torch.nn.Parameter(torch.zeros(()))

        def forward(self, views: Views) -> Prediction:
            depth = torch.ones(*views.image.shape[:-3], *views.size)
            eye = torch.eye(4).expand(*views.image.shape[:-3], 4, 4).clone()
            eye[..., 0, 3] = torch.arange(eye.shape[-3])  # side by side: without a baseline there is no direction
            assert views.K is not None
            return Prediction(depth=depth, rays=ray_map(views.K, *views.size), conf=depth, world_from_cam=eye)

    return figures(Constant(), scenes, strict_figures)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Study:
    """Where a study lies and what it is made of."""

    size: str
    out: Path
    real: Path | None = None
    """Folder of real captures with known cameras."""
    real_depth: str = ""
    """The monocular expert of their labels."""

    def folder(self, name: str, seed: int) -> Path:
        """Of one run."""
        return self.out / "runs" / f"{name.replace(' ', '-').replace(',', '')}-{seed}"

    def result(self, name: str, seed: int) -> dict[str, Any] | None:
        """What a finished run was judged; None before."""
        path = self.folder(name, seed) / "result.json"
        return json.loads(path.read_text()) if path.is_file() else None

    def config(self, name: str, seed: int) -> ScenesConfig:
        """Settings of a run."""
        start = settings(self.size, seed)
        if name not in AFTERWARDS:
            return VARIANTS[name](start)
        base, share = AFTERWARDS[name]
        config = dataclasses.replace(tuned(start, share), model=str(self.folder(base, seed) / "checkpoint"))
        if REAL not in name:
            return other_domain(config)
        assert self.real is not None
        return on_captures(config, self._labels(), self.real)

    def _labels(self) -> Path:
        """The labels of the real captures, made once."""
        store = self.out / "labels"
        if reliev3r(["label", str(self.real), "--out", str(store), "--depth", self.real_depth]):
            raise SystemExit(f"{self.real}: labelling failed")
        return store

    def run(self, name: str, seed: int) -> None:
        """Train (or resume) one variant and judge it."""
        folder = self.folder(name, seed)
        resume = (folder / "config.json").is_file()
        result = train_scenes(folder, self.config(name, seed), resume=resume, report=_said(name, seed))
        if not result.finished:
            raise KeyboardInterrupt
        judged = self.judge(load_network(folder / "checkpoint"))
        curve = [(row["step"], row["auc30"]) for row in read_metrics(folder / "metrics.jsonl") if "auc30" in row]
        row = {"steps": result.steps, "seconds": result.seconds, "judged": judged, "curve": curve}
        write_json(folder / "result.json", row)

    def judge(self, model: torch.nn.Module) -> dict[str, dict[str, float]]:
        """Figures of a network on each of the judges."""
        return {judge: figures(model, scenes, strict_figures) for judge, scenes in self.judges.items()}

    @functools.cached_property
    def judges(self) -> dict[str, list[HeldoutScene]]:
        """By name: rooms of a domain that are never trained on; sets of frames of real captures."""
        start = settings(self.size, 0)
        found = {"same domain": held_out(start), "other domain": held_out(other_domain(start))}
        for low, high in ((5.0, 10.0), (10.0, 30.0), (20.0, 60.0)):
            found[f"arc {low:g} to {high:g}"] = held_out(arc(low, high)(start))
        if self.real is not None:
            found |= {f"real: {path.name}": frame_sets(path, start) for path in with_cameras(self.real)}
        return found


def render_once() -> None:
    """Variants of one process see the same rooms: each is rendered for the first of them and kept for the others.
    Streams without end are left alone: of them no room comes twice."""
    render, kept = SyntheticStream.render, {}

    def shared(stream: SyntheticStream, seed: int, *, views: int) -> tuple[Views, Truth]:
        if stream.config.rooms is None:
            return render(stream, seed, views=views)
        looks = dataclasses.replace(stream.config, depth_noise=DepthNoise(), track_noise=TrackNoise(), rooms=None)
        key = (repr(looks), seed, views)
        if key not in kept:
            kept[key] = render(stream, seed, views=views)
        return kept[key]

    SyntheticStream.render = shared


def held_out(config: ScenesConfig) -> list[HeldoutScene]:
    """Rooms of a domain that are never trained on."""
    stream = SyntheticStream(config.stream, supervision="full")
    return rooms(stream, config.heldout_scenes, views=config.batch.views[1])


def with_cameras(root: Path) -> list[Path]:
    """Captures below ``root`` whose cameras are known."""
    files = sorted(root.glob("*/cameras.json"))
    return [file.parent for file in files if CameraFile(file.parent).has_poses]


def frame_sets(capture: Path, config: ScenesConfig, step: int = 3) -> list[HeldoutScene]:
    """Sets of four frames that lie ``step`` apart, begun every ``step`` frames; truth for the scores alone."""
    whole = load_capture(capture)
    views, regions = network_views(
        whole, long_side=config.captures.prepare.image_size, patch=config.network.patch_size
    )  # fmt: skip
    truth = load_truth(capture, whole.names, regions=regions, size=views.size)
    none = Tracks(uv=torch.zeros(4, 1, 2), weight=torch.zeros(4, 1))
    sets = [list(range(first, first + 4 * step, step)) for first in range(0, len(whole.frames) - 3 * step, step)]
    return [
        HeldoutScene(views=views.select_views(chosen), tracks=none, truth=truth.select_views(chosen)) for chosen in sets
    ]


def _said(name: str, seed: int) -> Callable[[str, float, float, str], None]:
    last = [-1]

    def report(stage: str, done: float, total: float, what: str) -> None:
        share = int(10 * done / max(total, 1))
        if share != last[0]:
            last[0] = share
            print(f"{name} (seed {seed}): {stage} {done:.0f}/{total:.0f} {what}", flush=True)

    return report


def table(results: dict[str, dict[str, Any]], size: str) -> str:
    """Markdown: means over seeds, range where there is more than one."""
    judges = dict.fromkeys(judge for seeds in results.values() for row in seeds.values() for judge in row["judged"])
    others = [judge for judge in judges if judge != "same domain"]
    head = ["variant", "seeds", "steps", "AUC@30 strict", "rotation, median", "depth rel", "held-out angle"]
    head += [f"AUC@30, {judge}" for judge in others]
    lines = [f"| {' | '.join(head)} |", f"|---|{'--:|' * (len(head) - 1)}"]
    for name, seeds in results.items():
        rows = list(seeds.values())

        def cell(judge: str, figure: str, rows: list[dict[str, Any]] = rows) -> str:
            values = [row["judged"][judge][figure] for row in rows if judge in row["judged"]]
            text = f"{statistics.mean(values):.3g}" if values else ""
            return text if len(values) < 2 else f"{text} ({min(values):.3g} to {max(values):.3g})"

        cells = [cell("same domain", n) for n in ("auc30", "rotation_median_deg", "depth_rel", "heldout_deg")]
        cells += [cell(judge, "auc30") for judge in others]
        lines.append(f"| {name} | {len(rows)} | {rows[0]['steps']} | {' | '.join(cells)} |")
    lines += [
        "",
        f"`python studies/paradigm.py --size {size}`; weak labels of rooms by a *simulated expert*; judged on rooms",
        "that were never trained on and, where it says real, on sets of four frames.",
    ]
    return "\n".join(lines) + "\n"


def draw(results: dict[str, dict[str, Any]], path: Path) -> None:
    """AUC over steps, one line a variant (first seed); no picture where matplotlib is missing (bare GPU machines)."""
    try:
        import matplotlib
    except ImportError:
        return
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(9, 5), layout="constrained")
    for name, seeds in results.items():
        curve = next(iter(seeds.values()))["curve"]
        if curve:
            axes.plot(*zip(*curve, strict=True), label=name)
    axes.set(xlabel="step", ylabel="AUC@30 strict on rooms never trained on")
    axes.legend(fontsize=7)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=120)
    plt.close(figure)


def collect(study: Study) -> dict[str, dict[str, Any]]:
    """All that is finished, by name and seed; and table and picture of it."""
    known = study.out / "start.json"
    if not known.is_file():
        start = {"steps": 0, "seconds": 0.0, "curve": []}
        guess = {judge: constant_guess(scenes) for judge, scenes in study.judges.items()}
        untrained = study.judge(network_of(settings(study.size, 0)))
        rows = {"constant guess": guess, "untrained network": untrained}
        write_json(known, {name: {"0": {**start, "judged": judged}} for name, judged in rows.items()})
    results: dict[str, dict[str, Any]] = json.loads(known.read_text())
    for name in (*VARIANTS, *AFTERWARDS):
        found = {str(seed): study.result(name, seed) for seed in range(SEEDS)}
        if any(found.values()):
            results[name] = {seed: row for seed, row in found.items() if row is not None}
    write_json(study.out / "study.json", results)
    with atomic_path(study.out / "study.md") as temporary:
        temporary.write_text(table(results, study.size), encoding="utf8")
    draw(results, study.out / "study.png")
    return results


def side_by_side(waiting: Sequence[tuple[str, int]], jobs: int, argv: Sequence[str]) -> None:
    """Every run in a process of its own, ``jobs`` at a time, each with its share of the cores.

    Raises:
        SystemExit: a run failed; the others were finished first.
    """
    environment = {**os.environ, "OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // jobs))}

    def failed(run: tuple[str, int]) -> bool:
        own = ["--only", run[0], "--seeds", str(run[1]), "--jobs", "1"]
        return subprocess.run([sys.executable, __file__, *argv, *own], env=environment, check=False).returncode != 0

    pool = ThreadPoolExecutor(jobs)
    try:
        found = [name for (name, _), bad in zip(waiting, pool.map(failed, waiting), strict=True) if bad]
    finally:
        pool.shutdown(cancel_futures=True)  # after Ctrl-C nothing new begins
    if found:
        raise SystemExit(f"failed: {', '.join(found)}")


def main(argv: list[str] | None = None) -> None:
    """Run what is missing, then write table and picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=("ci", "cpu", "gpu"), default="cpu")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", choices=range(SEEDS), default=[0])
    parser.add_argument("--only", nargs="+", choices=[*VARIANTS, *AFTERWARDS], default=None)
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time, each with its share of the cores")
    parser.add_argument("--real", type=Path, default=None, help="folder of captures, to judge and fine-tune on")
    parser.add_argument("--real-depth", default="depth-anything-v2-small", help="expert of their labels")
    given = parser.parse_args(argv)
    study = Study(size=given.size, out=given.out, real=given.real, real_depth=given.real_depth)
    given.out.mkdir(parents=True, exist_ok=True)
    collect(study)
    names = given.only or [name for name in (*VARIANTS, *AFTERWARDS) if given.real or REAL not in name]
    waiting = [(name, seed) for name in names for seed in given.seeds if study.result(name, seed) is None]
    # What starts from another variant's checkpoint comes after all of them.
    for wave in ([r for r in waiting if r[0] not in AFTERWARDS], [r for r in waiting if r[0] in AFTERWARDS]):
        if given.jobs > 1:
            own = ["--size", given.size, "--out", str(given.out), "--real-depth", given.real_depth]
            side_by_side(wave, given.jobs, [*own, *(["--real", str(given.real)] if given.real else [])])
            continue
        for name, seed in wave:
            study.run(name, seed)
            collect(study)
    print(table(collect(study), given.size))


if __name__ == "__main__":
    render_once()
    main()

"""The paper's comparison at the size of the machine: weak supervision beside its fully-supervised sibling.

    python studies/paradigm.py --size ci|cpu|gpu|solved|solved-small|alpha|hour --out DIR [--only NAME ...]
                               [--seeds 0 1 2] [--jobs 2]
                               [--real CAPTURES --real-depth folder:{capture}/mono_fastdepth]

Every variant is a run of ``reliev3r train`` on the same rendered rooms, from the same weights, for as many steps; it is
judged on rooms that were never trained on, of the same domain and of another (other textures, layouts and focal
lengths), and on sets of four frames of real captures where a folder of them is given. Weak labels of rooms come from a
*simulated expert*; those of real captures from the expert that is named. ``solved`` is another study of the CPU's size:
networks that solve their cameras instead of regressing them (docs/results/matching.md); ``solved-small`` has images of
half the side and 150 steps, minutes a variant; ``alpha`` has those images and 400 steps, for the paper's ablation of
Eq. 4; ``hour`` is ``reliev3r train tiny-cpu --minutes 60``, an hour of one core a run, each ended by the clock.
Finished runs are kept and interrupted ones resumed: a second call goes on where one stopped. ``study.json``,
``study.md`` and ``study.png`` are written after every run.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from hybrid import Hybrid
from study import Results, Study, arguments, cell, said
from variants import (
    NETWORKS,
    REAL,
    SIZES,
    afterwards,
    arc,
    on_captures,
    other_domain,
    settings,
    solves,
    tuned,
    variants,
)

from reliev3r.cli import main as reliev3r
from reliev3r.core.files import atomic_path, write_json
from reliev3r.core.types import Prediction, Tracks, Truth, Views
from reliev3r.data.capture import load_capture
from reliev3r.data.network_views import network_views
from reliev3r.data.truth import CameraFile, load_truth
from reliev3r.evaluation.confidence import confidence_figures
from reliev3r.evaluation.protocols import strict_figures
from reliev3r.geometry.camera import ray_map
from reliev3r.model.load import load_network
from reliev3r.model.network import Reliev3R
from reliev3r.model.predict import predict
from reliev3r.runs.train import network_of, train_scenes
from reliev3r.solve.views import swept_prediction
from reliev3r.synthetic.experts import DepthNoise, TrackNoise
from reliev3r.synthetic.room_stream import SyntheticStream
from reliev3r.training.monitor import read_metrics
from reliev3r.training.recipes import ScenesConfig
from reliev3r.training.validation import HeldoutScene, figures, rooms

SWEPT = 16
"""Sets of each judge whose depth is swept too."""
OF_SOLVED = {
    "depth rel, swept": "swept_rel", "depth rel, confident half": "depth_rel_half",
    "W's AUROC, 10 %": "conf_auroc", "W at its bound": "conf_at_bound",
}  # fmt: skip
"""More figures of networks that solve their cameras, by the column's title."""


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
class SceneStudy(Study):
    """Training across rendered rooms."""

    size: str
    real: Path | None = None
    """Folder of real captures with known cameras."""
    real_depth: str = ""
    """The monocular expert of their labels."""

    @property
    def waves(self) -> tuple[Sequence[str], ...]:
        """What starts from another variant's checkpoint comes after all of them."""
        return tuple(variants(self.size)), tuple(afterwards(self.size))

    def config(self, name: str, seed: int) -> ScenesConfig:
        """Settings of a run."""
        start = settings(self.size, seed)
        if name in variants(self.size):
            return variants(self.size)[name](start)
        base, share = afterwards(self.size)[name]
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

    def train(self, name: str, seed: int, folder: Path) -> dict[str, Any]:
        """Judged by each of the judges."""
        resume = (folder / "config.json").is_file()
        begun = time.process_time()
        kind = NETWORKS.get(name)
        made = None if kind is None else functools.partial(random_network, kind)
        result = train_scenes(
            folder, self.config(name, seed), resume=resume, report=said(name, seed), network=made
        )  # fmt: skip
        if not result.finished:
            raise KeyboardInterrupt
        cpu = time.process_time() - begun
        checkpoint = folder / "checkpoint"
        trained = load_network(checkpoint) if kind is None else kind.from_pretrained(checkpoint, strict=True)
        judged = self.judge(trained)
        curve = [(row["step"], row["auc30"]) for row in read_metrics(folder / "metrics.jsonl") if "auc30" in row]
        return {"steps": result.steps, "seconds": result.seconds, "cpu_seconds": cpu, "judged": judged, "curve": curve}

    def untrained(self) -> Results:
        """A constant guess, and the network before it is trained."""
        known = self.out / "start.json"
        if not known.is_file():
            start = {"steps": 0, "seconds": 0.0, "curve": []}
            guess = {judge: constant_guess(scenes) for judge, scenes in self.judges.items()}
            rows = {"constant guess": guess, "untrained network": self.judge(network_of(settings(self.size, 0)))}
            write_json(known, {name: {"0": {**start, "judged": judged}} for name, judged in rows.items()})
        results: Results = json.loads(known.read_text())
        return results

    def judge(self, model: torch.nn.Module) -> dict[str, dict[str, float]]:
        """Figures of a network on each of the judges."""
        judged = {judge: figures(model, scenes, strict_figures) for judge, scenes in self.judges.items()}
        if isinstance(model, Reliev3R) and model.match_branch is not None and not isinstance(model, Hybrid):
            for judge, scenes in self.judges.items():
                judged[judge]["swept_rel"] = swept_rel(model, scenes[:SWEPT])
                judged[judge] |= confidence(model, scenes)
        return judged

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

    def table(self, results: Results) -> str:
        """Means over seeds, range where there is more than one."""
        judges = dict.fromkeys(judge for seeds in results.values() for row in seeds.values() for judge in row["judged"])
        others = [judge for judge in judges if judge != "same domain"]
        head = ["variant", "seeds", "steps", "AUC@30 strict", "rotation, median", "depth rel", "held-out angle"]
        head += [f"AUC@30, {judge}" for judge in others] + list(OF_SOLVED) * solves(self.size)
        lines = [f"| {' | '.join(head)} |", f"|---|{'--:|' * (len(head) - 1)}"]
        wanted = [("same domain", name) for name in ("auc30", "rotation_median_deg", "depth_rel", "heldout_deg")]
        wanted += [(judge, "auc30") for judge in others]
        wanted += [("same domain", figure) for figure in OF_SOLVED.values()] * solves(self.size)
        for name, seeds in results.items():
            rows = list(seeds.values())
            cells = [
                cell([r["judged"][judge][f] for r in rows if f in r["judged"].get(judge, ())]) for judge, f in wanted
            ]
            lines.append(f"| {name} | {len(rows)} | {rows[0]['steps']} | {' | '.join(cells)} |")
        lines += [
            "",
            f"`python studies/paradigm.py --size {self.size}`; weak labels of rooms by a *simulated expert*; judged on",
            "rooms that were never trained on and, where it says real, on sets of four frames.",
        ]
        return "\n".join(lines) + "\n"

    def collect(self) -> Results:
        """And a picture, ``study.png``."""
        results = super().collect()
        draw(results, self.out / "study.png")
        return results


def random_network(kind: type[Reliev3R], config: ScenesConfig) -> Reliev3R:
    """A network of another class, the same for the same seed."""
    torch.manual_seed(config.seed)
    return kind(config.network)


def swept_rel(model: Reliev3R, scenes: list[HeldoutScene]) -> float:
    """Mean relative error of depth after the plane sweep under the solved cameras."""
    found = [(swept_prediction(model, scene.views), scene.truth) for scene in scenes]
    return statistics.mean(strict_figures(each, truth)["depth_rel"] for each, truth in found if truth is not None)


def confidence(model: Reliev3R, scenes: list[HeldoutScene]) -> dict[str, float]:
    """What W says about depth before any sweep: means over the sets."""
    found = [confidence_figures(predict(model, each.views), each.truth) for each in scenes if each.truth is not None]
    ranked = [each.auroc for each in found if each.auroc is not None]
    return {
        "depth_rel_half": statistics.mean(each.depth_rel_confident_half for each in found),
        "conf_at_bound": statistics.mean(each.share_at_bound for each in found),
    } | ({"conf_auroc": statistics.mean(ranked)} if ranked else {})


def draw(results: Results, path: Path) -> None:
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
    if axes.lines:
        axes.legend(fontsize=7)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=120)
    plt.close(figure)


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


def main(argv: list[str] | None = None) -> None:
    """Run what is missing, then write table and picture."""
    parser = arguments(__doc__, dict.fromkeys(name for size in SIZES for name in (*variants(size), *afterwards(size))))
    parser.add_argument("--size", choices=SIZES, default="cpu")
    parser.add_argument("--real", type=Path, default=None, help="folder of captures, to judge and fine-tune on")
    parser.add_argument("--real-depth", default="depth-anything-v2-small", help="expert of their labels")
    given = parser.parse_args(argv)
    study = SceneStudy(size=given.size, out=given.out, real=given.real, real_depth=given.real_depth)
    known = (*variants(given.size), *afterwards(given.size))
    if unknown := sorted(set(given.only or ()).difference(known)):
        parser.error(f"--size {given.size} has no variant {', '.join(unknown)}")
    names = given.only or [name for name in known if given.real or REAL not in name]
    command = [__file__, "--size", given.size, "--out", str(given.out), "--real-depth", given.real_depth]
    command += ["--real", str(given.real)] if given.real else []
    study.complete(names, given.seeds, jobs=given.jobs, command=command)


if __name__ == "__main__":
    render_once()
    main()

"""The paper's comparison at the size of the machine: weak supervision beside its fully-supervised sibling.

    python studies/paradigm.py --size ci|cpu|gpu --out DIR [--only NAME ...]

Every variant is a run of ``reliev3r train`` on the same rendered rooms, from the same weights, for as many steps; it is
judged on rooms that were never trained on, of the same domain and of another (other textures, layouts and focal
lengths). Weak labels come from a *simulated expert*. Finished runs are kept and interrupted ones resumed: a second
call goes on where one stopped. ``study.json``, ``study.md`` and ``study.png`` are written after every run.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from reliev3r.files import atomic_path, write_json
from reliev3r.geometry.camera import ray_map
from reliev3r.model.network import NetworkConfig
from reliev3r.model.pretrained import load_network
from reliev3r.scenes import HeldoutScene, figures, network_of, rooms, train_scenes
from reliev3r.synthetic.stream import SyntheticStream
from reliev3r.train.metrics import read_metrics
from reliev3r.train.recipes import ScenesConfig, small_gpu, tiny_cpu
from reliev3r.types import Prediction, Views

Change = Callable[[ScenesConfig], ScenesConfig]


def weak(**changes: Any) -> Change:
    """Settings of the weak objective."""
    return lambda c: dataclasses.replace(c, objective=dataclasses.replace(c.objective, **changes))


def depth(**changes: Any) -> Change:
    """Settings of the depth loss."""
    return lambda c: weak(depth=dataclasses.replace(c.objective.depth, **changes))(c)


def form(name: str) -> Change:
    """Another reprojection residual."""
    return lambda c: weak(reprojection=dataclasses.replace(c.objective.reprojection, form=name))(c)


def full(**changes: Any) -> Change:
    """Full supervision with these settings."""
    return lambda c: dataclasses.replace(c, supervision="full", supervised=dataclasses.replace(c.supervised, **changes))


def noisier(factor: float) -> Change:
    """The simulated expert bends depth ``factor`` times as much."""

    def change(c: ScenesConfig) -> ScenesConfig:
        noise = dataclasses.replace(c.stream.depth_noise, distortion=factor * c.stream.depth_noise.distortion)
        return dataclasses.replace(c, stream=dataclasses.replace(c.stream, depth_noise=noise))

    return change


def other_domain(c: ScenesConfig) -> ScenesConfig:
    """Rooms of other textures, layouts and focal lengths."""
    return dataclasses.replace(c, stream=dataclasses.replace(c.stream, texture="terrazzo", fov=(42.0, 52.0)))


def tuned(c: ScenesConfig) -> ScenesConfig:
    """Weak fine-tuning on the other domain: a quarter of the steps and of the learning rate, no early teacher."""
    steps = max(1, (c.steps or 4) // 4)
    return other_domain(dataclasses.replace(c, steps=steps, lr=0.25 * c.lr, teacher_until=0.0))


VARIANTS: dict[str, Change] = {
    "weak": lambda c: c,
    "pi3-dagger": full(),
    "weak, no correspondence branch": weak(correspondence_weight=0.0),
    "weak, no early teacher": weak(teacher_weight=0.0),
    "weak, neither (the paper's losses)": lambda c: weak(teacher_weight=0.0, correspondence_weight=0.0)(c),
    "pi3-dagger, no correspondence branch": full(correspondence_weight=0.0),
    "depth only": weak(tracks_weight=0.0, teacher_weight=0.0, correspondence_weight=0.0),
    "tracks only": weak(depth_weight=0.0),
    "no confidence": depth(confidence=False),
    "alpha 0.2": depth(alpha=0.2),
    "alpha 0.5": depth(alpha=0.5),
    "alpha 2": depth(alpha=2.0),
    "pixel": form("pixel"),
    "cosine": form("cosine"),
    "point": form("point"),
    "expert twice as bent": noisier(2.0),
}
AFTERWARDS = {"pi3-dagger + weak on the other domain": "pi3-dagger"}
"""Fine-tuned from the checkpoint of another variant."""


def settings(size: str, seed: int) -> ScenesConfig:
    """What all variants start from."""
    if size == "gpu":
        return dataclasses.replace(small_gpu(), steps=6000, seed=seed)
    if size == "cpu":
        return dataclasses.replace(tiny_cpu(), steps=1500, seed=seed, heldout_scenes=48)
    network = NetworkConfig(
        dim=32, heads=2, encoder_depth=1, decoder_depth=2, patch_size=8, encoder_grid=4, head_dim=32, head_heads=2,
        head_depth=1, camera_dim=16, match_dim=8,
    )  # fmt: skip
    start = tiny_cpu()
    return dataclasses.replace(
        start, steps=8, seed=seed, network=network, heldout_scenes=2,
        stream=dataclasses.replace(start.stream, height=24, width=32, rooms=16),
        batch=dataclasses.replace(start.batch, images=8),
    )  # fmt: skip


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

    return figures(Constant(), scenes)


def run_variant(name: str, seed: int, size: str, out: Path) -> dict[str, Any]:
    """Train (or resume) one variant and judge it on both domains."""
    start = settings(size, seed)
    folder = out / "runs" / f"{name.replace(' ', '-').replace(',', '')}-{seed}"
    config = tuned(start) if name in AFTERWARDS else VARIANTS[name](start)
    if name in AFTERWARDS:
        before = f"{AFTERWARDS[name]}-{seed}"
        config = dataclasses.replace(config, init=str(out / "runs" / before / "checkpoint"))
    result = train_scenes(folder, config, resume=(folder / "config.json").is_file(), report=_said(name, seed))
    if not result.finished:
        raise KeyboardInterrupt
    model = load_network(folder / "checkpoint")
    return {
        "steps": result.steps, "seconds": result.seconds,
        "same domain": figures(model, judges(start)), "other domain": figures(model, judges(other_domain(start))),
        "curve": [(row["step"], row["auc30"]) for row in read_metrics(folder / "metrics.jsonl") if "auc30" in row],
    }  # fmt: skip


def judges(config: ScenesConfig) -> list[HeldoutScene]:
    """Rooms of a domain that are never trained on."""
    stream = SyntheticStream(config.stream, supervision="full")
    return rooms(stream, config.heldout_scenes, views=config.batch.views[1])


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
    lines = [
        "| variant | steps | AUC@30 strict | rotation, median | depth rel | held-out angle | AUC@30, other domain |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    for name, seeds in results.items():
        rows = list(seeds.values())

        def cell(domain: str, figure: str, rows: list[dict[str, Any]] = rows) -> str:
            values = [row[domain][figure] for row in rows]
            text = f"{statistics.mean(values):.3g}"
            return text if len(values) == 1 else f"{text} ({min(values):.3g} to {max(values):.3g})"

        same = [cell("same domain", n) for n in ("auc30", "rotation_median_deg", "depth_rel", "heldout_deg")]
        lines.append(f"| {name} | {rows[0]['steps']} | {' | '.join(same)} | {cell('other domain', 'auc30')} |")
    lines += [
        "",
        f"`python studies/paradigm.py --size {size}`; weak labels by a *simulated expert*; rooms never trained on.",
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


def main(argv: list[str] | None = None) -> None:
    """Run what is missing, then write table and picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=("ci", "cpu", "gpu"), default="cpu")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--only", nargs="+", choices=[*VARIANTS, *AFTERWARDS], default=[*VARIANTS, *AFTERWARDS])
    given = parser.parse_args(argv)
    path = given.out / "study.json"
    given.out.mkdir(parents=True, exist_ok=True)
    results: dict[str, dict[str, Any]] = json.loads(path.read_text()) if path.is_file() else {}
    start = settings(given.size, 0)
    for name, model in (("constant guess", None), ("untrained network", network_of(start))):
        both = (judges(start), judges(other_domain(start)))
        same, other = (constant_guess(s) if model is None else figures(model, s) for s in both)
        row = {"steps": 0, "seconds": 0.0, "same domain": same, "other domain": other, "curve": []}
        results.setdefault(name, {"0": row})
    for name in given.only:
        for seed in given.seeds:
            if str(seed) not in results.get(name, {}):
                results.setdefault(name, {})[str(seed)] = run_variant(name, seed, given.size, given.out)
            write_json(path, results)
            with atomic_path(given.out / "study.md") as temporary:
                temporary.write_text(table(results, given.size), encoding="utf8")
            draw(results, given.out / "study.png")
    print(table(results, given.size))


if __name__ == "__main__":
    main()

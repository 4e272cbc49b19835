"""Adaptation from frames alone against its fully-supervised bound, on rendered and on real captures.

    python studies/adaptation.py --size ci|cpu --out DIR [--seeds 0 1 2] [--base CHECKPOINT ...]
                                 [--real CAPTURES --real-depth folder:{capture}/mono_fastdepth]

A network is trained fully supervised on rooms of one family (or taken from ``--base``, one for each seed). Captures of
the other family (other textures, layouts and longer lenses) are rendered as folders, and the network is adapted to them
by ``reliev3r.runs.adapt`` from their images (tracks by SIFT; depth by a *simulated expert*), and, as the bound, by full
supervision on the same captures for as many steps. Truth scores: sets of frames of those captures, and rooms of that
family that were never seen. With ``--real``, each real capture is adapted to as well, its truth for the scores alone.
Finished parts are kept: a second call goes on. ``adaptation.json`` and ``adaptation.md`` are written after each.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from paradigm import frame_sets, held_out, with_cameras
from study import cell
from variants import other_domain, settings

from reliev3r.core.files import atomic_path, read_json, write_json
from reliev3r.evaluation.protocols import strict_figures
from reliev3r.labels.prepare import PrepareConfig
from reliev3r.model.load import load_network
from reliev3r.runs.adapt.run import adapt
from reliev3r.runs.adapt.settings import AdaptConfig
from reliev3r.runs.train import train_scenes
from reliev3r.synthetic.capture import SynthConfig, write_capture
from reliev3r.training.batches import SceneBatchConfig
from reliev3r.training.recipes import ScenesConfig
from reliev3r.training.validation import HeldoutScene, figures

VIEWS = 12
STATES = ("before", "weak", "full")


@dataclass(frozen=True, kw_only=True)
class Study:
    """Where it lies and what it is made of."""

    size: str
    out: Path
    bases: tuple[Path, ...] = ()
    real: Path | None = None
    real_depth: str = ""

    @property
    def captures(self) -> int:
        """Of the other family."""
        return 2 if self.size == "ci" else 16

    def start(self, seed: int) -> ScenesConfig:
        """Settings of the pretraining."""
        return dataclasses.replace(settings(self.size, seed), supervision="full")

    def base(self, seed: int) -> Path:
        """The checkpoint that the seed's adaptations start from."""
        if self.bases:
            return self.bases[seed % len(self.bases)]
        return self._trained(f"base-{seed}", self.start(seed))

    @functools.cached_property
    def rendered(self) -> Path:
        """Captures of the other family, rendered once at four times the network's size."""
        config = other_domain(self.start(0)).stream
        root = self.out / "captures"
        for number in range(self.captures):
            low, high = config.fov
            room = SynthConfig(
                seed=500_000 + number, views=VIEWS, width=4 * config.width, height=4 * config.height,
                fov=low + (high - low) * number / max(1, self.captures - 1), texture="terrazzo",
                span=config.span[1], overlap=config.overlap, supersample=1,
            )  # fmt: skip
            if not (root / f"{number:03d}").is_dir():
                root.mkdir(parents=True, exist_ok=True)
                write_capture(root / f"{number:03d}", room)
        return root

    def adapted(self, name: str, seed: int, footage: Path, depth: str) -> tuple[Path, str]:
        """The adapted checkpoint, whatever the verdict on it was, and the verdict."""
        out = self.out / "runs" / f"{name}-{seed}"
        if not (out / "verdict.json").is_file():
            start = self.start(seed)
            config = AdaptConfig(
                train="all", steps=self.steps(seed), lr=0.25 * start.lr, depth=depth, seed=seed,
                labels=str(self.out / "labels" / name), prepare=PrepareConfig(image_size=start.stream.width),
                batch=dataclasses.replace(SceneBatchConfig(), views=(4, 4), images=start.batch.images),
            )  # fmt: skip
            done = adapt(str(self.base(seed)), footage, out, config, resume=(out / "training").is_dir())
            if done is None:
                raise KeyboardInterrupt
        verdict = read_json(out / "verdict.json")["verdict"]
        place = out if verdict == "better" else out / "rejected"
        return place / "checkpoint", verdict

    def bound(self, seed: int) -> Path:
        """Fully supervised on the same captures, for as many steps at the same learning rate."""
        start = self.start(seed)
        config = dataclasses.replace(
            start, model=str(self.base(seed)), steps=self.steps(seed), lr=0.25 * start.lr, stream_weight=0.0,
            annotated=(f"capture:{self.rendered}",),
        )  # fmt: skip
        return self._trained(f"full-{seed}", config)

    def steps(self, seed: int) -> int:
        """Of an adaptation."""
        return max(2, (self.start(seed).steps or 8) // 4)

    def judges(self, footage: list[Path]) -> dict[str, list[HeldoutScene]]:
        """Sets of frames of the captures adapted to, with truth."""
        return {path.name: frame_sets(path, self.start(0), step=2) for path in footage}

    @functools.cached_property
    def unseen(self) -> list[HeldoutScene]:
        """Rooms of the other family that nothing was adapted to."""
        return held_out(other_domain(self.start(0)))

    def judged(self, checkpoint: Path, footage: list[Path], *, unseen: bool) -> dict[str, dict[str, float]]:
        """Figures by the truth."""
        model = load_network(checkpoint)
        scenes = [scene for sets in self.judges(footage).values() for scene in sets]
        found = {"footage": figures(model, scenes, strict_figures)}
        return {**found, "unseen rooms": figures(model, self.unseen, strict_figures)} if unseen else found

    def rooms(self, seed: int) -> dict[str, Any]:
        """Before, weak, full on the rendered captures."""
        weak, verdict = self.adapted("rooms", seed, self.rendered, "simulated")
        footage = with_cameras(self.rendered)
        checkpoints = dict(zip(STATES, (self.base(seed), weak, self.bound(seed)), strict=True))
        return {
            "verdict": verdict,
            **{state: self.judged(path, footage, unseen=True) for state, path in checkpoints.items()},
        }

    def on(self, capture: Path, seed: int) -> dict[str, Any]:
        """Before and weak on a real capture."""
        weak, verdict = self.adapted(capture.name, seed, capture, self.real_depth)
        states = {"before": self.base(seed), "weak": weak}
        return {"verdict": verdict, **{s: self.judged(p, [capture], unseen=False) for s, p in states.items()}}

    def _trained(self, name: str, config: ScenesConfig) -> Path:
        out = self.out / "runs" / name
        if not (out / "checkpoint").is_dir():
            result = train_scenes(out, config, resume=(out / "config.json").is_file())
            if not result.finished:
                raise KeyboardInterrupt
        return out / "checkpoint"


def table(results: dict[str, dict[str, Any]]) -> str:
    """Markdown: means over seeds, range where there is more than one."""
    lines = [
        "| footage | judged on | state | seeds | AUC@30 strict | depth rel | verdict |",
        "|---|---|---|--:|--:|--:|---|",
    ]
    for name, seeds in results.items():
        rows = list(seeds.values())
        for state in STATES:
            if state not in rows[0]:
                continue
            for judge in rows[0][state]:
                cells = [cell([row[state][judge][figure] for row in rows]) for figure in ("auc30", "depth_rel")]
                said = ", ".join(row["verdict"] for row in rows) if state == "weak" else ""
                lines.append(f"| {name} | {judge} | {state} | {len(rows)} | {' | '.join(cells)} | {said} |")
    return "\n".join([*lines, "", "Depth labels of rooms by a *simulated expert*; their tracks by SIFT.", ""])


def main(argv: list[str] | None = None) -> None:
    """Run what is missing and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=("ci", "cpu"), default="cpu")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--base", type=Path, nargs="+", default=(), help="checkpoints to start from, one for each seed")
    parser.add_argument("--real", type=Path, default=None, help="folder of captures with known cameras")
    parser.add_argument("--real-depth", default="depth-anything-v2-small", help="expert of their labels")
    given = parser.parse_args(argv)
    study = Study(size=given.size, out=given.out, bases=tuple(given.base), real=given.real, real_depth=given.real_depth)
    path = given.out / "adaptation.json"
    results: dict[str, dict[str, Any]] = read_json(path) if path.is_file() else {}
    for seed in given.seeds:
        parts = {"rooms": functools.partial(study.rooms, seed)}
        parts |= {
            c.name: functools.partial(study.on, c, seed) for c in (with_cameras(given.real) if given.real else ())
        }
        for name, part in parts.items():
            if str(seed) in results.get(name, {}):
                continue
            results.setdefault(name, {})[str(seed)] = part()
            write_json(path, results)
            with atomic_path(given.out / "adaptation.md") as temporary:
                temporary.write_text(table(results), encoding="utf8")
    print(table(results))


if __name__ == "__main__":
    main()

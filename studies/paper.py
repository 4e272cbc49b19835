"""The paper's study, from DL3DV to its tables and figures: every step a command of the documentation, printed.

    python studies/paper.py --data DL3DV-10K --benchmark DL3DV-Benchmark --out DIR [--size full|cpu|rehearsal]
        [--depth-truth 'wai:DIR/{scene}'] [--benchmark-depth 'wai:DIR/{scene}'] [--scannetpp DIR]
        [--synthetic ase:DIR tartanair:DIR ...] [--systems systems.toml] [--gpus 8] [--workers 16] [--seeds 0 1 2]
        [--plan]

Labels DL3DV; trains ``paper``, ``paper-plus``, ``pi3-dagger``, the paper with alpha 0.2, 0.5 and 2, ``paper-synthetic``
and ``paper-semi``; scores them and the baselines of ``--systems``; draws Figures 1 to 4; writes ``study.md`` and
``study.json``: the paper's main table, its supplement's two and the zero-shot table, our rows beside its own. What an
input is missing for is a row that says so. Before each stage stands what it will cost; a stage that is done is not done
again, one that was interrupted goes on. ``--plan`` prints the commands and runs none.

docs/reproduce.md walks through it.
"""

from __future__ import annotations

import argparse
import functools
import resource
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from paper_tables import write_tables

from reliev3r.core.files import read_json, write_json
from reliev3r.data.readers import list_scenes
from reliev3r.evaluation.systems import read_settings
from reliev3r.training.captures import is_heldout

SOME_FAILED = 3
"""Exit code of a verb that did its work but for some captures or cells, which it lists."""
FIGURES = 4
PREPARED = ".prepared"
"""Where a store keeps its captures at a network's size."""
HELDOUT = 0.02
"""Share of the captures that recipes never train on."""


@dataclass(frozen=True, kw_only=True)
class Size:
    """How far a recipe of the paper is shrunk."""

    about: str
    train: tuple[str, ...] = ()
    """Words of every training."""
    steps: int | None = None
    """Of ``paper``; others have their share of them. None: the recipes' own."""
    seeds: tuple[int, ...] = (0,)
    label: tuple[str, ...] = ()
    """Words of every labelling."""
    show: tuple[str, ...] = ()
    """Words of every figure."""

    def steps_of(self, share: float) -> tuple[str, ...]:
        """Words for a training of a share of the steps."""
        return () if self.steps is None else ("--steps", str(max(2, round(share * self.steps))))


_SMALL = (
    "--preset",
    "tiny",
    "network.patch_size=8",
    "batch.views=4,4",
    "batch.images=16",
    "scenes=4",
    "precision=fp32",
    "data_workers=0",
)
SIZES = {
    "full": Size(about="the paper's own size, for eight GPUs"),
    "cpu": Size(
        about="networks of 2 M parameters, 64 pixels, 4 views: hours on two cores; its shape means something",
        train=(*_SMALL, "--image-size", "64", "--lr", "1e-3"), steps=4000, seeds=(0, 1, 2), show=("--views", "4"),
    ),
    "rehearsal": Size(
        about="every command once, at a size where no number means anything",
        train=(*_SMALL, "--image-size", "48", "network.dim=32", "network.heads=2", "network.encoder_depth=1",
               "network.decoder_depth=2", "network.head_dim=32", "network.head_heads=2", "network.camera_dim=16",
               "heldout_scenes=2", "alarm_checks=0"),
        steps=6, label=("--views", "10"), show=("--views", "4"),
    ),
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Run:
    """One training of the study."""

    name: str
    recipe: str
    share: float
    """Of the steps of ``paper``."""
    data: str = "labels"
    """labels: weakly on DL3DV's; semi: on its labels by the other expert; truth: on DL3DV's truth; synthetic."""
    words: tuple[str, ...] = ()
    start: str = ""
    """The run whose checkpoint it starts from."""


RUNS = (
    Run(name="paper", recipe="paper", share=1.0),
    Run(name="paper-plus", recipe="paper-plus", share=1.0),
    Run(name="pi3-dagger", recipe="pi3-dagger", share=0.5, data="truth"),
    *(Run(name=f"alpha-{a}", recipe="paper", share=1.0, words=(f"objective.depth.alpha={a}",)) for a in (0.2, 0.5, 2)),
    Run(name="paper-synthetic", recipe="paper-synthetic", share=1 / 3, data="synthetic"),
    Run(name="paper-semi", recipe="paper-semi", share=1 / 3, data="semi", start="paper-synthetic"),
)


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A command, and what it is for."""

    name: str
    about: str
    words: tuple[str, ...]
    """After ``reliev3r``."""
    processes: int = 1
    """More than one: under torchrun."""
    forecast: tuple[str, ...] = ()
    """Words of the command that says what it will cost."""
    costs: tuple[str, float] | None = None
    """(probe, how many times its cost)."""
    into: Path | None = None
    """What it fills, where that is not ``--out``."""

    @property
    def place(self) -> Path:
        """What it fills."""
        return self.into or Path(self.words[self.words.index("--out") + 1])

    @property
    def command(self) -> list[str]:
        """As it is run now."""
        if self.processes > 1:
            return ["torchrun", "--nproc-per-node", str(self.processes), "-m", "reliev3r.cli", *self.words]
        return [sys.executable, "-m", "reliev3r.cli", *self.words]


@dataclass(frozen=True, kw_only=True)
class Study:
    """What was given on the command line, and what follows from it."""

    data: str
    benchmark: str
    out: Path
    size: str = "full"
    depth_truth: str | None = None
    benchmark_depth: str | None = None
    synthetic: tuple[str, ...] = ()
    scannetpp: str | None = None
    systems: str | None = None
    gpus: int = 1
    workers: int | None = None
    ray: str | None = None
    seeds: tuple[int, ...] = ()
    depth: str = "depth-pro"
    tracks: str = "sift"
    semi_depth: str = "moge-2"
    semi_intrinsics: str = "expert"

    @property
    def shrunk(self) -> Size:
        """The size by its name."""
        return SIZES[self.size]

    @property
    def all_seeds(self) -> tuple[int, ...]:
        """Given, or the size's."""
        return self.seeds or self.shrunk.seeds

    @property
    def captures(self) -> Path:
        """DL3DV as capture folders."""
        return self.out / "captures"

    def labels(self, kind: str) -> Path:
        """A store: of ``labels`` or ``semi``."""
        return self.out / kind

    def folder(self, name: str, seed: int) -> Path:
        """Of a training."""
        return self.out / "runs" / f"{name}-{seed}"

    def checkpoint(self, name: str, seed: int) -> Path:
        """Of a training that has ended."""
        return self.folder(name, seed) / "checkpoint"

    @functools.cached_property
    def scenes(self) -> list[str]:
        """Of DL3DV."""
        return list_scenes(f"dl3dv:{self.data}")

    def missing(self, name: str) -> str:
        """Which input a training lacks; "" where none."""
        run = next(run for run in RUNS if run.name == name)
        if run.data == "truth" and self.depth_truth is None:
            return "not trained: DL3DV has no depth of its own; give --depth-truth"
        if run.data in ("synthetic", "semi") and not self.synthetic:
            return "not trained: no synthetic datasets; give --synthetic"
        return ""

    @property
    def trained(self) -> list[Run]:
        """Those that the inputs allow."""
        return [run for run in RUNS if not self.missing(run.name)]

    # stages ------------------------------------------------------------------------------------------------------

    def stages(self) -> list[Stage]:
        """All of them, in an order in which each finds what it needs."""
        trainings = []
        for seed in self.all_seeds:
            for run in self.trained:
                if run.data in ("labels", "semi") and run.name == run.recipe and seed == self.all_seeds[0]:
                    trainings += self._preparing(run, seed)
                trainings.append(self._training(run, seed))
        return [*self._data(), *trainings, *self._evaluations(), *self._figures()]

    @property
    def spread(self) -> tuple[str, ...]:
        """Words of verbs that work on many scenes at a time."""
        given = (("--workers", self.workers), ("--ray", self.ray))
        return tuple(word for flag, value in given if value is not None for word in (flag, str(value)))

    def _data(self) -> list[Stage]:
        many, probe = float(len(self.scenes)), self.out / "probe"
        first = next((name for name in self.scenes if not is_heldout(name, HELDOUT)), self.scenes[0])
        convert = ("convert", f"dl3dv:{self.data}")
        found = [
            Stage(name="probe-convert", about="one scene, to know what all of them will cost",
                  words=(*convert, "--name", first, "--out", str(probe / "captures" / first))),
            Stage(name="convert", about=f"DL3DV's {len(self.scenes)} scenes as captures: lenses rectified, no truth",
                  words=(*convert, "--out", str(self.captures), "--no-truth", *self.spread),
                  costs=("probe-convert", many)),
        ]  # fmt: skip
        for kind, about in (("labels", "depth and tracks"), ("semi", "depth, tracks and fields of view")):
            if kind == "semi" and not self.synthetic:
                continue
            made = ("--depth", self.depth, "--tracks", self.tracks, *self.shrunk.label)
            if kind == "semi":
                made = ("--depth", self.semi_depth, *made[2:], "--intrinsics", self.semi_intrinsics)
            found += [
                Stage(name=f"probe-{kind}", about="one capture, to know what all of them will cost",
                      words=("label", str(probe / "captures"), "--out", str(probe / kind), *made)),
                Stage(name=kind, about=f"pseudo-labels of all captures: {about}",
                      words=("label", str(self.captures), "--out", str(self.labels(kind)), *made, *self.spread),
                      costs=(f"probe-{kind}", many)),
            ]  # fmt: skip
        return found

    def _preparing(self, run: Run, seed: int) -> list[Stage]:
        """What a training would do to its captures at its start, by many workers."""
        shape = [word for word in self.shrunk.train if word.startswith("network.patch_size")] if not run.start else []
        if "--image-size" in self.shrunk.train:
            shape += ["--image-size", self.shrunk.train[self.shrunk.train.index("--image-size") + 1]]

        def prepare(captures: Path, store: Path) -> tuple[str, ...]:
            guard = ("--dl3dv-benchmark", self.benchmark, *self._start(run, seed))
            return ("prepare", run.recipe, "--data", f"{captures}={store}", *guard, *shape)

        probe, name = self.out / "probe", f"prepare-{run.name}"
        return [
            Stage(name=f"probe-{name}", about="one capture, to know what all of them will cost",
                  words=prepare(probe / "captures", probe / run.data), into=probe / run.data / PREPARED),
            Stage(name=name, about=f"captures at the network's size, as {run.recipe} sees them",
                  words=(*prepare(self.captures, self.labels(run.data)), *self.spread),
                  into=self.labels(run.data) / PREPARED, costs=(f"probe-{name}", float(len(self.scenes)))),
        ]  # fmt: skip

    def _start(self, run: Run, seed: int) -> tuple[str, ...]:
        return ("--model", str(self.checkpoint(run.start, seed))) if run.start else ()

    def _training(self, run: Run, seed: int) -> Stage:
        out = self.folder(run.name, seed)
        guard = ("--dl3dv-benchmark", self.benchmark)
        inputs = {
            "labels": ("--data", f"{self.captures}={self.labels('labels')}", *guard),
            "semi": ("--data", f"{self.captures}={self.labels('semi')}", *guard),
            "truth": ("--annotated", f"dl3dv:{self.data}", "--depth-truth", str(self.depth_truth), *guard),
            "synthetic": ("--annotated", *self.synthetic),
        }[run.data]
        shrunk = list(self.shrunk.train)
        if run.start:  # a checkpoint brings its own network
            shrunk = [w for w in shrunk if not w.startswith("network.")]
            at = shrunk.index("--preset") if "--preset" in shrunk else len(shrunk)
            del shrunk[at : at + 2]
        words = ("train", run.recipe, "--out", str(out), *inputs, *self._start(run, seed), *run.words,
                 *shrunk, *self.shrunk.steps_of(run.share), "--seed", str(seed))  # fmt: skip
        return Stage(
            name=f"{run.name}-{seed}", about=f"train {run.name}, seed {seed}", words=(*words, "--resume", "auto"),
            processes=self.gpus, forecast=(*words, "--forecast"),
        )  # fmt: skip

    @functools.cached_property
    def baselines(self) -> dict[str, str]:
        """Adapter -> the name of its table in ``--systems``; COLMAP comes with the package."""
        tables = {} if self.systems is None else read_settings(Path(self.systems))
        return {"colmap": "colmap", **{table["baseline"]: name for name, table in tables.items()}}

    def system(self, run: str, seed: int) -> str:
        """A training's name in the tables of ``evaluate``."""
        return f"model:{self.checkpoint(run, seed)}"

    def evaluation(self, benchmark: str) -> Path:
        """Folder of the scores on a benchmark."""
        return self.out / "evaluation" / benchmark

    def _evaluations(self) -> list[Stage]:
        ours = [self.system(run.name, seed) for seed in self.all_seeds for run in self.trained]
        systems, probe = (*ours, *self.baselines.values()), self.out / "probe"
        found = [
            Stage(name="probe-evaluate", about="one scene by one network, to know what all of them will cost",
                  words=("evaluate", ours[0], "--benchmark", str(probe / "scene.json"), "--views", "8",
                         "--out", str(probe / "evaluation")))
        ]  # fmt: skip
        for kind, place, depth in (
            ("dl3dv-benchmark", self.benchmark, self.benchmark_depth), ("scannetpp", self.scannetpp, None),
        ):  # fmt: skip
            if place is None:
                continue
            words = ("evaluate", *systems, "--benchmark", f"{kind}:{place}")
            words += ("--depth-truth", depth) if depth else ()
            words += ("--systems", self.systems) if self.systems else ()
            scenes = list_scenes(f"{kind}:{place}")
            found.append(
                Stage(name=f"evaluate-{kind}", about=f"{len(systems)} systems on {len(scenes)} scenes, 8 views each",
                      words=(*words, "--out", str(self.evaluation(kind))),
                      costs=("probe-evaluate", float(len(systems) * len(scenes))))
            )  # fmt: skip
        return found

    def probe_scene(self) -> dict[str, Any]:
        """A benchmark of one scene."""
        root = f"dl3dv-benchmark:{Path(self.benchmark).resolve()}"
        return {"name": "probe", "scenes": [{"root": root, "scene": list_scenes(root)[0]}]}

    @property
    def shown(self) -> list[str]:
        """The scenes of Figures 1 to 4: never trained on, as far as there are so many."""
        return sorted(self.scenes, key=lambda name: not is_heldout(name, HELDOUT))[:FIGURES]

    def figure(self, number: int) -> Path:
        """Folder of one of the figures."""
        return self.out / "figures" / str(number)

    def _figures(self) -> list[Stage]:
        return [
            Stage(
                name=f"figure-{number}", about=f"Figure {number}: {scene}",
                words=("show", str(self.checkpoint("paper", self.all_seeds[0])), str(self.captures / scene),
                       "--labels", str(self.labels("labels")), "--out", str(self.figure(number)), *self.shrunk.show),
            )
            for number, scene in enumerate(self.shown, start=1)
        ]  # fmt: skip


# running them --------------------------------------------------------------------------------------------------------


@dataclass
class Runner:
    """Runs the stages that are not done yet, and keeps what each took in ``OUT/stages``."""

    out: Path
    gpus: int

    def record(self, stage: str) -> Path:
        """What a finished stage took."""
        return self.out / "stages" / f"{stage}.json"

    def done(self, stage: Stage) -> bool:
        """Whether this very command was run to its end."""
        path = self.record(stage.name)
        return path.is_file() and read_json(path)["words"] == list(stage.words)

    def run(self, stage: Stage) -> None:
        """Say what it will cost, run it, keep what it took.

        Raises:
            SystemExit: it failed or was interrupted.
        """
        if self.done(stage):
            print(f"{stage.name}: done", flush=True)
            return
        print(f"\n## {stage.name}: {stage.about}\n{self.forecast(stage)}\n$ {shown(stage.command)}", flush=True)
        before, started = _cpu_seconds(), time.monotonic()
        code = run_command(stage.command)[0]
        if code not in (0, SOME_FAILED):
            raise SystemExit(f"{stage.name}: exit code {code}; the same call of this study goes on from here")
        row = {
            "words": list(stage.words), "code": code, "seconds": round(time.monotonic() - started, 1),
            "cpu_seconds": round(_cpu_seconds() - before, 1), "bytes": _size(stage.place),
        }  # fmt: skip
        write_json(self.record(stage.name), row)
        print(
            f"{stage.name}: {row['seconds']:.0f} s, {row['cpu_seconds']:.0f} CPU s, {_amount(row['bytes'])}", flush=True
        )

    def forecast(self, stage: Stage) -> str:
        """What it will cost, from what was measured: a step of the training, or one of many scenes."""
        if stage.costs is not None and (probe := self.record(stage.costs[0])).is_file():
            one, times = read_json(probe), stage.costs[1]
            return (
                f"one took {one['seconds']:.3g} s ({one['cpu_seconds']:.3g} CPU s) and {_amount(one['bytes'])}; "
                f"{times:.0f} of them: {times * one['seconds'] / 3600:.3g} hours of one process, "
                f"{_amount(times * one['bytes'])} of disk"
            )
        if stage.forecast:
            code, told = run_command([sys.executable, "-m", "reliev3r.cli", *stage.forecast], listen=True)
            if code != 0:
                raise SystemExit(f"{stage.name}: {shown(stage.command)} cannot work")
            return told.strip() + (f"; on {self.gpus} GPUs a {self.gpus}th of the time" if self.gpus > 1 else "")
        return "seconds"


def run_command(command: Sequence[str], *, listen: bool = False) -> tuple[int, str]:
    """(exit code, what it printed where somebody listens)."""
    ended = subprocess.run(command, check=False, text=True, stdout=subprocess.PIPE if listen else None)
    return ended.returncode, ended.stdout or ""


def shown(command: Sequence[str]) -> str:
    """To be pasted."""
    return shlex.join(["python" if word == sys.executable else word for word in command])


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _size(place: Path) -> int:
    return sum(path.lstat().st_size for path in place.rglob("*") if path.is_file()) if place.is_dir() else 0


def _amount(size: float) -> str:
    return f"{size / 1e9:.3g} GB" if size >= 1e8 else f"{size / 1e6:.3g} MB"


def arguments() -> argparse.ArgumentParser:
    """What the study is asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    say = parser.add_argument
    say("--data", required=True, help="folder of DL3DV-10K")
    say("--benchmark", required=True, help="folder of DL3DV-Benchmark")
    say("--out", type=Path, required=True)
    say("--size", choices=list(SIZES), default="full", help="; ".join(f"{k}: {s.about}" for k, s in SIZES.items()))
    say("--depth-truth", help="KIND:PATH/{scene} of depth for DL3DV's scenes (docs/datasets.md); pi3-dagger needs it")
    say("--benchmark-depth", help="the same for the benchmark's; four of the six columns need it")
    say("--synthetic", nargs="+", default=(), help="FORMAT:PATH of ASE, TartanAir, MVS-Synth, BlendedMVS ...")
    say("--scannetpp", help="folder of ScanNet++")
    say("--systems", help="TOML file with a table for each installed baseline (docs/evaluation.md)")
    say("--gpus", type=int, default=1, help="processes of a training")
    say("--workers", type=int, help="processes that convert and label")
    say("--ray", help="address of a Ray cluster that converts and labels instead")
    say("--seeds", type=int, nargs="+", default=(), help="of every training")
    say("--depth", default=Study.depth, help="depth expert of the paper's labels")
    say("--tracks", default=Study.tracks, help="track expert; the paper's: cotracker:FILE")
    say("--semi-depth", default=Study.semi_depth, help="depth expert of the semi-supervised stage's labels")
    say("--semi-intrinsics", default=Study.semi_intrinsics, help="where their fields of view come from")
    say("--plan", action="store_true", help="print the commands, run none")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Run what is not done yet, write the tables."""
    given = vars(arguments().parse_args(argv))
    plan = given.pop("plan")
    study = Study(**{name: tuple(value) if isinstance(value, list) else value for name, value in given.items()})
    stages = study.stages()
    if plan:
        for stage in stages:
            print(f"# {stage.name}: {stage.about}\n{shown(stage.command)}\n")
        return
    runner = Runner(out=study.out, gpus=study.gpus)
    write_json(study.out / "probe" / "scene.json", study.probe_scene())
    for stage in stages:
        runner.run(stage)
        write_tables(study, {stage.name: runner.record(stage.name) for stage in stages})
    print((study.out / "study.md").read_text())


if __name__ == "__main__":
    main()

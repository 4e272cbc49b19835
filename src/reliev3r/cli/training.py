"""Verbs that train across scenes: from scratch, on somebody's footage, and weights in another system's layout."""

# No postponed annotations here: tyro reads the fields' types where the verbs define them.
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tyro.conf import Positional

from reliev3r.cli.terminal import Resume, in_new_words, parse, parse_with_settings, progress_bars, resume_of
from reliev3r.core.errors import UserError

if TYPE_CHECKING:
    from reliev3r.training.recipes import ScenesConfig

Preset = Literal["tiny", "small", "base", "large"]


def train(argv: list[str]) -> int:
    """``reliev3r train RECIPE --out RUN``."""
    from reliev3r.training.recipes import RECIPES

    known = {name: recipe.__doc__ or "" for name, recipe in RECIPES.items()}
    if argv and argv[0] in ("--list", "-l"):
        print("\n".join(f"{name:<20} {text.splitlines()[0]}" for name, text in known.items()))
        return 0
    if not argv or argv[0] not in RECIPES:
        raise UserError(f"say which recipe to train: {', '.join(RECIPES)} (`reliev3r train --list` explains them)")
    recipe = argv[0]

    @dataclass(frozen=True)
    class Train:
        """Train a network across scenes, under a recipe; a flag that is not given leaves the recipe's own setting.

        Every other setting is written NAME=VALUE, for instance batch.views=2,8; --help-all lists them with the
        recipe's values.
        """

        out: Path
        """Where everything goes: a new or empty folder."""
        resume: Resume = "no"
        """Go on with the interrupted run in --out, under its own settings (--resume alone: yes); auto: start it, or go
        on where there is one, so that one command line serves every restart."""
        forecast: bool = False
        """Train nothing: say how much memory, time and disk it will take, measured on one of its batches."""
        data: tuple[str, ...] | None = None
        """IMAGES=STORE pairs: captures, and the labels that `reliev3r label IMAGES --out STORE` made of them."""
        annotated: tuple[str, ...] | None = None
        """Scenes with true poses and depth, as FORMAT:PATH; full supervision only."""
        depth_truth: str | None = None
        """Depth of annotated scenes without any: wai:, cut3r:, omega: or colmap:PATH, {scene} for a scene's name."""
        dl3dv_benchmark: str | None = None
        """benchmark-meta.csv (or the folder) of DL3DV-Benchmark, whose scenes are refused."""
        supervision: Literal["weak", "full"] | None = None
        """weak: pseudo-labels alone; full: ground truth."""
        preset: Preset | None = None
        """Another size of the network than the recipe's, which works the same way otherwise."""
        model: str | None = None
        """The network to start from: random, the folder of a checkpoint, or pi3:PATH_OR_ID; it brings its own size."""
        init_from: str | None = None
        """Weights for a part of a random network: dinov2:PATH (encoder) or vggt:PATH (encoder and decoder)."""
        image_size: int | None = None
        """Long side of the images of captures and annotated scenes in pixels."""
        minutes: float | None = None
        """Of training."""
        steps: int | None = None
        """Steps of the optimiser, instead of minutes."""
        lr: float | None = None
        """Highest learning rate."""
        seed: int | None = None
        accumulate: int | None = None
        """Batches that each process goes through before a step."""
        precision: Literal["auto", "fp32", "bf16"] | None = None
        """auto: bf16 where it is faster."""
        device: str | None = None
        """auto (the accelerator where there is one), cpu, cuda, ..."""
        parallel: Literal["auto", "ddp", "fsdp2"] | None = None
        """With several processes: ddp keeps all weights on each, fsdp2 shards them."""
        compile: bool | None = None
        """torch.compile the transformer blocks: true or false."""
        recompute: Literal["none", "cheap", "most"] | None = None
        """What of the transformer blocks is computed again for the gradient, for less memory."""
        wandb: str | None = None
        """Weights & Biases project that gets the metrics too."""

    flags = {
        name: name
        for name in ("annotated", "depth_truth", "supervision", "model", "init_from", "minutes", "steps", "lr", "seed",
                     "accumulate", "precision", "device", "parallel", "compile", "recompute", "wandb")
    }  # fmt: skip
    flags |= {"data": "captures.data", "dl3dv_benchmark": "captures.dl3dv_benchmark",
              "image_size": "captures.prepare.image_size"}  # fmt: skip
    usual = RECIPES[recipe]()
    given, config = parse_with_settings(Train, f"train {recipe}", argv[1:], usual, flags, _of_preset)
    _one_size(given.preset, config)
    from reliev3r.runs.run_folder import first_process
    from reliev3r.runs.train import forecast_scenes, train_scenes

    if given.forecast:
        with progress_bars() as report:
            estimate = forecast_scenes(config, report=report)
        print(estimate.to_text())
        return 0
    with progress_bars() as report:
        result = train_scenes(given.out, config, resume=resume_of(given.resume), recipe=usual, report=report)
    if not first_process():
        return 0 if result.finished else 130
    if not result.finished:
        print(f"interrupted; go on with: reliev3r train {recipe} --out {given.out} --resume", file=sys.stderr)
        return 130
    print(f"{result.steps} steps in {result.seconds / 60:.1f} minutes")
    for name in ("checkpoint", "training/best", "metrics.jsonl"):
        print(f"  {given.out / name}")
    return 0


def prepare(argv: list[str]) -> int:
    """``reliev3r prepare RECIPE --data IMAGES=STORE``; exit code 3 if some captures could not be prepared."""
    from reliev3r.training.recipes import RECIPES

    if not argv or (argv[0] not in RECIPES and not argv[0].startswith("-")):
        raise UserError(f"say for which recipe: {', '.join(RECIPES)} (`reliev3r train --list` explains them)")
    recipe = argv[0] if argv[0] in RECIPES else "tiny-cpu"

    @dataclass(frozen=True)
    class Prepare:
        """Bring labelled captures to the network's size, as `reliev3r train RECIPE` with the same flags would at its
        start, but with many workers; what is there stays, so that it may be interrupted.

        Every other setting is written NAME=VALUE; --help-all lists them with the recipe's values.
        """

        data: tuple[str, ...]
        """IMAGES=STORE pairs: captures, and the labels that `reliev3r label IMAGES --out STORE` made of them."""
        dl3dv_benchmark: str | None = None
        """benchmark-meta.csv (or the folder) of DL3DV-Benchmark, whose scenes are refused."""
        preset: Preset | None = None
        """Another size of the network than the recipe's, as in training."""
        model: str | None = None
        """The network that will be trained, where it is not random."""
        image_size: int | None = None
        """Long side of the images in pixels."""
        workers: int | None = None
        """Processes on this machine (default 1), or Ray's actors (default: all that fit)."""
        ray: str | None = None
        """Address of a Ray cluster (auto, HOST:PORT, ray://HOST:PORT), or local."""

    flags = {"data": "captures.data", "dl3dv_benchmark": "captures.dl3dv_benchmark", "model": "model",
             "image_size": "captures.prepare.image_size"}  # fmt: skip
    rest = argv[1:] if argv[0] in RECIPES else argv
    given, config = parse_with_settings(Prepare, f"prepare {recipe}", rest, RECIPES[recipe](), flags, _of_preset)
    _one_size(given.preset, config)
    from reliev3r.core.many.run import open_pool
    from reliev3r.runs.train import prepare_scenes

    with progress_bars() as report:
        count, failed = prepare_scenes(
            config, lambda job, missing: open_pool(job, missing, workers=given.workers, ray=given.ray), report=report
        )
    for name, reason in failed.items():
        print(f"failed: {name}: {reason}")
    print(f"{count - len(failed)} of {count} captures prepared")
    return 3 if failed else 0


def _of_preset(given: Any, settings: "ScenesConfig") -> "ScenesConfig":
    """A recipe's settings at the size that ``--preset`` names."""
    from reliev3r.training.recipes import with_preset

    return settings if given.preset is None else with_preset(settings, given.preset)


def _one_size(preset: str | None, config: "ScenesConfig") -> None:
    """Raises UserError where ``--preset`` and ``--model`` both say how large the network is."""
    if preset is not None and config.model != "random":
        raise UserError(f"--preset {preset}: --model {config.model} brings its own size; drop one of the two")


def adapt(argv: list[str]) -> int:
    """``reliev3r adapt FOOTAGE --model MODEL --out RUN``; exit code 4 where the verdict is worse."""
    from reliev3r.runs.adapt.settings import AdaptConfig

    usual = AdaptConfig()

    @dataclass(frozen=True)
    class Adapt:
        """Fine-tune a pretrained network on footage from frames alone; without proof that it helped, it is kept aside.

        Every other setting is written NAME=VALUE, for instance lora.rank=16; --help-all lists them.
        """

        footage: Positional[Path]
        """A capture (folder of images or video), a folder of captures, or a .txt file that lists captures."""
        model: str
        """Folder of a checkpoint; pi3:PATH; with their packages vggt:, vggt-omega:, mapanything:, da3:. Only read."""
        out: Path
        """Where everything goes: a new or empty folder."""
        resume: Resume = "no"
        """Go on with the interrupted run in --out, under its own settings (--resume alone: yes); auto: start it, or go
        on where there is one, so that one command line serves every restart."""
        train: Literal["lora", "last", "all"] = usual.train
        """Low-rank adapters on the attention, the last blocks and the heads, or everything."""
        labels: str | None = None
        """Folder of labels that `reliev3r label` wrote, or is to be written; RUN/labels unless given."""
        depth: str = usual.depth
        """Depth expert of captures that have no labels; `reliev3r experts` lists them."""
        tracks: str = usual.tracks
        """Track expert, likewise."""
        intrinsics: str | None = None
        """FILE, fov:DEG (horizontal), exif, expert, expert:EXPERT, or estimate."""
        views: int | None = None
        """Of each capture; by default all images of a folder, and 60 frames of a video."""
        image_size: int = usual.prepare.image_size
        """Long side of the network's images in pixels."""
        heldout_every: int = usual.heldout_every
        """Hold out every N-th frame of each capture to judge by; 0 holds out none."""
        replay: tuple[str, ...] = ()
        """IMAGES=STORE pairs of other scenes: the verdict says how far predictions moved there."""
        minutes: float = usual.minutes
        """Of training."""
        steps: int | None = None
        """Steps of the optimiser, instead of minutes."""
        lr: float = usual.lr
        """For LoRA; give a tenth of it or less with --train last or all."""
        seed: int = usual.seed
        precision: Literal["auto", "fp32", "bf16"] = usual.precision
        """auto: bf16 where it is faster."""
        device: str = usual.device
        """auto (the accelerator where there is one), cpu, cuda, ..."""
        workers: int = usual.workers
        """Processes that label many captures."""

    same = ("train", "labels", "depth", "tracks", "intrinsics", "views", "heldout_every", "replay", "minutes", "steps",
            "lr", "seed", "precision", "device", "workers")  # fmt: skip
    flags = {name: name for name in same} | {"image_size": "prepare.image_size"}
    given, config = parse_with_settings(Adapt, "adapt", argv, usual, flags)
    from reliev3r.runs.adapt.run import adapt as run
    from reliev3r.runs.run_folder import first_process

    with progress_bars() as report:
        result = run(given.model, given.footage, given.out, config, resume=resume_of(given.resume), report=report)
    if result is None and not first_process():
        return 0
    if result is None:
        again = shlex.join([*argv, *([] if given.resume != "no" else ["--resume"])])
        print(f"interrupted; go on with: reliev3r adapt {again}", file=sys.stderr)
        return 130
    verdict = result.verdict
    print(f"{verdict.verdict}: {verdict.reasons[0]}")
    for reason in verdict.reasons[1:]:
        print(f"note: {reason}")
    if verdict.verdict != "better":
        print("the network that was given stays the one to use; the adapted one is kept aside:")
    print(f"  {result.checkpoint}")
    return 4 if verdict.verdict == "worse" else 0


def export_weights(argv: list[str]) -> int:
    """``reliev3r export-weights --model CHECKPOINT --out FILE.safetensors``."""

    @dataclass(frozen=True)
    class ExportWeights:
        """Write a network's weights so that another system's code loads them (docs/weights.md)."""

        model: str
        """Folder of a checkpoint, for instance RUN/checkpoint, of a network that began as pi3:"""
        out: Path
        """FILE.safetensors."""
        format: Literal["pi3"] = "pi3"
        confidence_of: Path | None = None
        """A pi^3 checkpoint (the one the network began from) whose confidence branch is written instead of ours."""
        overwrite: bool = False

    given = parse(ExportWeights, "export-weights", in_new_words(argv))
    from reliev3r.model.load import load_network
    from reliev3r.model.weights.pi3 import export_pi3

    if given.out.exists() and not given.overwrite:
        raise UserError(f"{given.out}: exists already; choose another name, or --overwrite")
    left_out = export_pi3(load_network(given.model), given.out, confidence_of=given.confidence_of)
    print(given.out)
    if left_out:
        print(f"note: {given.format} has no place for {', '.join(left_out)}; left out")
    return 0

"""Does confidence W say where depth is wrong? For networks fitted to one capture, and for networks across scenes.

    python benchmarks/confidence.py --data ../shared/data --work DIR [--steps 200] [--network-steps 100]

``fit``: two real captures (12 views, depth by FastDepth) and a rendered one (depth by a *simulated expert*), all tracks
by SIFT. Across scenes: the network of the package, and the same after ``--network-steps`` more of its own recipe
(rendered rooms, a *simulated expert*), judged on the real captures, of which it knows nothing, and on rooms that no
training sees. ``--doubt 0``: ``fit`` with the paper's W (give another ``--out``). Truth is read by the scoring alone,
after everything is predicted. DIR keeps the runs, and the result its rows: what is there is not made again. Writes the
result, a page of pictures and the curves; prints the table.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from about import about
from PIL import Image

from reliev3r.core.files import atomic_path, write_json
from reliev3r.core.reconstruction import Reconstruction
from reliev3r.core.types import Prediction, Truth
from reliev3r.data.capture import load_capture
from reliev3r.data.truth import load_truth
from reliev3r.evaluation.confidence import STEPS, WRONG, confidence_figures, depth_errors
from reliev3r.evaluation.protocols import score
from reliev3r.export.maps import colour_map, depth_picture, depth_scale
from reliev3r.geometry.sampling import evenly_spaced
from reliev3r.model.load import PACKAGED, load_model
from reliev3r.model.predict import predict, reconstruct_capture
from reliev3r.runs.fit import FitConfig, fit
from reliev3r.runs.train import train_scenes
from reliev3r.synthetic.capture import SynthConfig, write_capture
from reliev3r.synthetic.room_stream import HELDOUT_SEEDS, SyntheticStream
from reliev3r.training.recipes import RECIPES

REAL = ("livingroom1", "box_rgbd")
RENDERED = "rendered room"
VIEWS = 12
ROOMS = 24
RECIPE = "reliev3r-tiny"
DOUBT = FitConfig().objective.doubt
"""As ``fit`` has it."""
HERE = Path(__file__).parent
PICTURED = 3
"""Views of each capture on the page of pictures."""
TILE = (176, 132)
COLOURS = 192
"""Of the page of pictures: keeps it small."""


def figures(predictions: list[tuple[Prediction, Truth]]) -> dict[str, Any]:
    """What W is worth, and depth and cameras beside it: means over scenes."""
    rows = []
    for prediction, truth in predictions:
        found, scores = confidence_figures(prediction, truth), score(prediction, truth, "strict")
        plain = {name: value for name, value in dataclasses.asdict(found).items() if name != "curve"}
        curve = found.curve
        areas = {"area": curve.area, "area_random": curve.area_random, "area_oracle": curve.area_oracle}
        curves = {"curve": np.array(curve.by_confidence), "curve_oracle": np.array(curve.oracle)}
        rows.append({"auc30": scores.auc30, **plain, "gain": curve.gain, **areas, **curves})
    return {name: _mean([row[name] for row in rows if row[name] is not None]) for name in rows[0]}


def _mean(values: list[Any]) -> Any:
    if not values:
        return None
    mean = np.mean(values, axis=0)
    return [round(float(x), 4) for x in mean] if np.ndim(mean) else round(float(mean), 4)


def truth_of(capture: Path, reconstruction: Reconstruction) -> Truth:
    """On the pixels of the prediction."""
    size = reconstruction.prediction.depth.shape[-2:]
    return load_truth(capture, reconstruction.names, regions=reconstruction.regions, size=(size[0], size[1]))


@dataclass(frozen=True, kw_only=True)
class Subject:
    """One row: a system on a scene, and how its predictions are come by."""

    system: str
    scene: str
    predict: Callable[[], list[tuple[Prediction, Truth]]]


def subjects(given: argparse.Namespace) -> list[Subject]:
    """All rows; runs are made when their predictions are asked for."""
    said = "" if given.doubt == DOUBT else f", doubt {given.doubt:g}"
    name = f"fit, {given.steps} steps{said}"
    rows = [Subject(system=name, scene=scene, predict=partial(of_fit, given, scene)) for scene in (*REAL, RENDERED)]
    networks: dict[str, Callable[[], str]] = {
        PACKAGED: lambda: PACKAGED,
        f"{PACKAGED}, {given.network_steps} steps more": partial(trained_on, given),
    }
    for name, weights in networks.items():
        for scene in REAL:
            rows.append(Subject(system=name, scene=scene, predict=partial(of_network, given.data / scene, weights)))
        rows.append(Subject(system=name, scene=f"{ROOMS} held-out rooms", predict=partial(on_rooms, weights)))
    return rows


def of_fit(given: argparse.Namespace, scene: str) -> list[tuple[Prediction, Truth]]:
    """What ``reliev3r fit`` makes of a capture."""
    capture = given.data / scene
    depth = f"folder:{capture / 'mono_fastdepth'}"
    if scene == RENDERED:
        capture, depth = given.work / "capture", "simulated"
        if not capture.exists():
            write_capture(capture, SynthConfig())
    run = fit_folder(given, scene)
    if not (run / "prediction" / "prediction.json").is_file():
        usual = FitConfig()
        config = dataclasses.replace(
            usual, depth=depth, views=VIEWS, steps=given.steps, precision="fp32", evaluate_every=0.5,
            objective=dataclasses.replace(usual.objective, doubt=given.doubt),
        )  # fmt: skip
        if fit(capture, run, config, resume=(run / "config.json").is_file()) is None:
            raise KeyboardInterrupt
    made = Reconstruction.load(run / "prediction")
    return [(made.prediction, truth_of(capture, made))]


def fit_folder(given: argparse.Namespace, scene: str) -> Path:
    """Where a fit is kept."""
    return given.work / f"fit-{scene.replace(' ', '-')}-{given.steps}-{given.doubt:g}"


def trained_on(given: argparse.Namespace) -> str:
    """The network of the package after some more steps of its own recipe."""
    folder = given.work / f"network-{given.network_steps}"
    if not (folder / "checkpoint").is_dir():
        start = RECIPES[RECIPE]()
        config = dataclasses.replace(
            start, model=PACKAGED, steps=given.network_steps, evaluate_every=1.0, heldout_scenes=2, alarm_checks=0,
        )  # fmt: skip
        if not train_scenes(folder, config, resume=(folder / "config.json").is_file()).finished:
            raise KeyboardInterrupt
    return str(folder / "checkpoint")


def of_network(path: Path, weights: Callable[[], str]) -> list[tuple[Prediction, Truth]]:
    """One forward pass over all views of a capture that the network was not trained on."""
    made = reconstruct_capture(load_capture(path, views=VIEWS), weights(), precision="fp32", device="cpu")
    return [(made.prediction, truth_of(path, made))]


def on_rooms(weights: Callable[[], str]) -> list[tuple[Prediction, Truth]]:
    """Rooms of the recipe that no training sees, four views each."""
    network, stream = load_model(weights()), SyntheticStream(RECIPES[RECIPE]().stream, supervision="full")
    rooms = [stream.render(HELDOUT_SEEDS + k, views=4) for k in range(ROOMS)]
    return [(predict(network, views), truth) for views, truth in rooms]


def pictures(scenes: list[tuple[Path, Reconstruction]], file: Path) -> None:
    """Some views of captures, one a row: image, depth, its true error, W."""
    rows = []
    for capture, made in scenes:
        truth, prediction = truth_of(capture, made), made.prediction
        errors, (near, far) = depth_errors(prediction, truth), depth_scale(prediction.depth)
        for k in evenly_spaced(range(len(made.names)), PICTURED + 2)[1:-1]:
            known = truth.valid[k].numpy()
            tiles = [
                made.image[k].numpy(), depth_picture(prediction.depth[k].numpy(), near, far),
                colour_map(errors[k].numpy(), 0.0, 0.3, kind="depth", valid=known),
                colour_map(prediction.conf[k].numpy(), 0.0, 2.0, kind="conf"),
            ]  # fmt: skip
            rows.append(np.hstack([cv2.resize(tile, TILE, interpolation=cv2.INTER_NEAREST) for tile in tiles]))
    with atomic_path(file) as temporary:
        Image.fromarray(np.vstack(rows)).quantize(COLOURS).save(temporary, format="png", optimize=True)


def curves(rows: list[dict[str, Any]], file: Path) -> None:
    """Mean error of what remains, by W and by the oracle, over that of all pixels."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    systems = list(dict.fromkeys(row["system"] for row in rows))
    figure, every = pyplot.subplots(1, len(systems), figsize=(3.4 * len(systems), 2.9), sharey=True)
    left_out = [100 * step / STEPS for step in range(STEPS)]
    for axes, system in zip(np.atleast_1d(every), systems, strict=True):
        for number, row in enumerate(row for row in rows if row["system"] == system):
            for name, style in (("curve", "-"), ("curve_oracle", ":")):
                label = row["scene"] if name == "curve" else None
                share = np.array(row[name]) / row["area_random"]
                axes.plot(left_out, share, style, color=f"C{number}", linewidth=1.4, label=label)
        axes.axhline(1, color="grey", linewidth=0.8)
        axes.set(title=system, xlabel="% left out, least W first", ylim=(0, 1.3))
        axes.legend(fontsize=7, loc="lower left")
    every[0].set_ylabel("depth rel of the rest / of all")
    figure.tight_layout()
    with atomic_path(file) as temporary:
        figure.savefig(temporary, dpi=90, format="png")


COLUMNS: dict[str, tuple[str, str]] = {
    "auroc": ("AUROC", ".3f"), "gain": ("gain", ".2f"), "area": ("area", ".4f"), "area_random": ("random", ".4f"),
    "area_oracle": ("oracle", ".4f"), "depth_rel": ("depth rel", ".4f"),
    "depth_rel_confident_half": ("of the sure half", ".4f"), "share_at_bound": ("W at its bound", ".0%"),
    "share_doubted": ("W < 1", ".0%"), "w_far": ("W far", ".2f"), "w_edge": ("W at edges", ".2f"),
    "w_rest": ("W elsewhere", ".2f"), "auc30": ("AUC@30", ".1f"),
}  # fmt: skip


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as Markdown."""
    heads = " | ".join(head for head, _ in COLUMNS.values())
    lines = [f"| system | scene | {heads} |", f"|---|---|{'--:|' * len(COLUMNS)}"]
    for row in rows:
        cells = ["-" if row[name] is None else f"{row[name]:{how}}" for name, (_, how) in COLUMNS.items()]
        lines.append(f"| {row['system']} | {row['scene']} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Measure what is missing, print and keep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=HERE.parents[1] / "shared" / "data")
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--network-steps", type=int, default=100)
    parser.add_argument("--doubt", type=float, default=DOUBT, help="objective.doubt of fit; 0: the paper's W")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "confidence_cpu.json")
    given = parser.parse_args()
    torch.set_num_threads(1)
    kept = json.loads(given.out.read_text(encoding="utf8"))["rows"] if given.out.exists() else []
    rows = []
    for subject in subjects(given):
        what = {"system": subject.system, "scene": subject.scene}
        row = next((row for row in kept if what.items() <= row.items()), None)
        rows.append(row or {**what, **figures(subject.predict())})
        steps = {"fit_steps": given.steps, "network_steps": given.network_steps}
        write_json(given.out, {"wrong": WRONG, "views": VIEWS, **steps, **about(), "rows": rows})
        print(table(rows[-1:]).splitlines()[-1], flush=True)
    runs = [(given.data / name, fit_folder(given, name) / "prediction") for name in REAL]
    made = [(capture, Reconstruction.load(run)) for capture, run in runs if run.is_dir()]
    pictures(made, given.out.with_suffix(".png"))
    curves(rows, given.out.with_name(f"{given.out.stem}_curves.png"))
    print(table(rows))


if __name__ == "__main__":
    main()

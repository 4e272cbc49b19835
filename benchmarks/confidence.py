"""Does confidence W say where depth is wrong? For networks fitted to one capture, and for networks across scenes.

    python benchmarks/confidence.py --data ../shared/data --work DIR [--steps 400] [--network-steps 150]

``fit``: two real captures (12 views, depth by FastDepth) and a rendered one (depth by a *simulated expert*), all tracks
by SIFT. Across scenes: the network of the package, and the same trained on for ``--network-steps`` by its own recipe
(rendered rooms, a *simulated expert*); both judged without training on the real captures and on rooms that no training
sees. Truth is read by the scoring alone, after everything is predicted. DIR keeps the runs: what is finished is not
made again. Writes the result, a page of pictures and the curves; prints the tables.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from about import about

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
HERE = Path(__file__).parent
PICTURED = 3
"""Views of each capture on the page of pictures."""
TILE = (176, 132)


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


def fitted(capture: Path, depth: str, run: Path, steps: int) -> Reconstruction:
    """What ``reliev3r fit`` makes of a capture, or made of it."""
    if not (run / "prediction" / "prediction.json").is_file():
        config = FitConfig(
            depth=depth, views=VIEWS, steps=steps, precision="fp32", evaluate_every=0.5, save_every=1e9,
        )  # fmt: skip
        if fit(capture, run, config, resume=(run / "config.json").is_file()) is None:
            raise KeyboardInterrupt
    return Reconstruction.load(run / "prediction")


def trained_on(folder: Path, steps: int) -> Path:
    """The network of the package after some more steps of its own recipe."""
    if not (folder / "checkpoint").is_dir():
        start = RECIPES[RECIPE]()
        config = dataclasses.replace(
            start, model=PACKAGED, steps=steps, evaluate_every=1.0, heldout_scenes=2, alarm_checks=0,
        )  # fmt: skip
        if not train_scenes(folder, config, resume=(folder / "config.json").is_file()).finished:
            raise KeyboardInterrupt
    return folder / "checkpoint"


def on_rooms(model: str) -> list[tuple[Prediction, Truth]]:
    """Rooms of the recipe that no training sees, four views each."""
    network, stream = load_model(model), SyntheticStream(RECIPES[RECIPE]().stream, supervision="full")
    rooms = [stream.render(HELDOUT_SEEDS + k, views=4) for k in range(ROOMS)]
    return [(predict(network, views), truth) for views, truth in rooms]


def measure(given: argparse.Namespace) -> Iterator[tuple[dict[str, str], Callable[[], list[tuple[Prediction, Truth]]]]]:
    """(what is measured, how) of each row; runs are made when they are asked for."""
    room = given.work / "capture"
    captures = {name: (given.data / name, f"folder:{given.data / name / 'mono_fastdepth'}") for name in REAL}
    captures[RENDERED] = (room, "simulated")
    for name, (capture, depth) in captures.items():

        def of_fit(name: str = name, capture: Path = capture, depth: str = depth) -> list[tuple[Prediction, Truth]]:
            if capture == room and not room.exists():
                write_capture(room, SynthConfig())
            made = fitted(capture, depth, given.work / f"fit-{name.replace(' ', '-')}-{given.steps}", given.steps)
            return [(made.prediction, truth_of(capture, made))]

        yield {"system": f"fit, {given.steps} steps", "scene": name}, of_fit
    longer = f"{PACKAGED} + {given.network_steps} steps"
    for system in (PACKAGED, longer):

        def weights(system: str = system) -> str:
            if system == PACKAGED:
                return PACKAGED
            return str(trained_on(given.work / f"network-{given.network_steps}", given.network_steps))

        for name in REAL:

            def of_network(name: str = name, weights: Callable[[], str] = weights) -> list[tuple[Prediction, Truth]]:
                capture = load_capture(given.data / name, views=VIEWS)
                made = reconstruct_capture(capture, weights(), precision="fp32", device="cpu")
                return [(made.prediction, truth_of(given.data / name, made))]

            yield {"system": system, "scene": name}, of_network
        yield {"system": system, "scene": f"{ROOMS} held-out rooms"}, lambda w=weights: on_rooms(w())


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
        done, encoded = cv2.imencode(".png", np.vstack(rows)[..., ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 9])
        assert done
        temporary.write_bytes(encoded.tobytes())


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
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--network-steps", type=int, default=150)
    parser.add_argument("--out", type=Path, default=HERE / "results" / "confidence_cpu.json")
    given = parser.parse_args()
    torch.set_num_threads(1)
    kept = json.loads(given.out.read_text(encoding="utf8"))["rows"] if given.out.exists() else []
    rows = []
    for what, how in measure(given):
        row = next((row for row in kept if what.items() <= row.items()), None)
        rows.append(row or {**what, **figures(how())})
        write_json(given.out, {"wrong": WRONG, "views": VIEWS, **about(), "rows": rows})
        print(table(rows[-1:]).splitlines()[-1], flush=True)
    runs = [(given.data / name, given.work / f"fit-{name}-{given.steps}") for name in REAL]
    made = [(capture, Reconstruction.load(run / "prediction")) for capture, run in runs]
    pictures(made, given.out.with_suffix(".png"))
    curves(rows, given.out.with_name(f"{given.out.stem}_curves.png"))
    print(table(rows))


if __name__ == "__main__":
    main()

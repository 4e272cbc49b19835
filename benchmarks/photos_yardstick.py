"""What the yardstick of benchmarks/photos.py is worth: COLMAP's mapping of the same photographs against itself.

    python benchmarks/photos_yardstick.py WORK SET --out benchmarks/results/photos_yardstick_beach_cpu.json

WORK is that of benchmarks/photos.py and has the photographs and COLMAP's first model. The others have another random
seed, half or twice the features, or features from an octave earlier; with the lens free and with that of EXIF kept.
Cameras are laid onto the first model's as there.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import pycolmap
import torch
from about import about
from photos import distances, map_by_colmap, map_matched, poses_of

from reliev3r.core.files import write_json

SEEDS = (1, 2, 3)
EXTRACTIONS = {"half the features": {"features": 4096}, "an octave earlier": {"octave": -1}}


def variants(photographs: Path, work: Path, name: str, *, lens_kept: bool) -> dict[str, Path]:
    """Folders with models of the set, by what is different; what is there already is used again."""
    kept, first = "_lens_kept" if lens_kept else "", work / f"colmap_{name}"
    matched = {"first": (first, 0), **{f"seed {seed}": (first, seed) for seed in SEEDS}}
    for what, options in EXTRACTIONS.items():
        folder = work / f"colmap_{name}_{what.replace(' ', '_')}"
        if not (folder / "told.json").is_file():
            map_by_colmap(photographs, folder, **options)
        matched[what] = (folder, 0)
    found = {}
    for what, (folder, seed) in matched.items():
        found[what] = folder if not seed and not lens_kept else folder.with_name(f"{folder.name}{kept}_seed{seed}")
        if not (found[what] / "sparse" / "images.bin").is_file():
            map_matched(folder, found[what], lens_kept=lens_kept, seed=seed)
    return found


def against_first(models: dict[str, Path]) -> dict[str, Any]:
    """How far each model's cameras are from the first one's, and what it says about the lens."""
    rows = {}
    read = {what: pycolmap.Reconstruction(folder / "sparse") for what, folder in models.items()}
    first = poses_of(read["first"])
    for what, model in read.items():
        poses = poses_of(model)
        names = sorted(first.keys() & poses.keys())
        pair = [torch.from_numpy(np.stack([each[name] for name in names])) for each in (poses, first)]
        degrees, percent = distances(*pair)
        farthest = int(degrees.argmax())
        rows[what] = {
            "cameras": len(poses), "rotation_deg": {"max": float(degrees.max()), "median": float(degrees.median())},
            "position_percent": {"max": float(percent.max()), "median": float(percent.median())},
            "farthest": names[farthest], "reprojection_px": model.compute_mean_reprojection_error(),
            "lenses": [camera.params.tolist() for camera in model.cameras.values()],
        }  # fmt: skip
    return rows


def main() -> None:
    """Map, compare, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("set")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    photographs, cache = given.work / "sets" / given.set, given.work / "cache"
    found = {}
    for words, kept in (("lens free", False), ("lens kept", True)):
        found[words] = against_first(variants(photographs, cache, given.set, lens_kept=kept))
        for what, row in found[words].items():
            print(
                words, what, row["cameras"], row["rotation_deg"], row["position_percent"], row["farthest"], flush=True
            )
    write_json(given.out, {**about(), "set": given.set, "models": found})


if __name__ == "__main__":
    main()

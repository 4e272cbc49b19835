"""Cameras of people's own photographs after `fit --depth none --refine`, against COLMAP's own mapping of the same ones.

    python benchmarks/photos.py WORK --clones CLONES --out benchmarks/results/photos_cpu.json [--sets castle tree]

CLONES holds clones of the public repositories that :data:`SETS` names, as OWNER+NAME (`git clone --depth 1
https://github.com/OWNER/NAME CLONES/OWNER+NAME`). WORK gets, for each set, the photographs (at most 1600 pixels,
EXIF kept), COLMAP's model and our run; what is there already is used again, but the refinement is always made anew.
A folder WORK/sets/NAME of your own photographs makes a set NAME.

COLMAP (pycolmap): SIFT from the first octave, exhaustive matching, incremental mapping, SIMPLE_RADIAL, one camera for
each group that EXIF tells apart, starting at the focal length of EXIF; it sees upright pixels. Ours: the commands that
the documentation gives. The cameras are laid onto COLMAP's by the one similarity that fits centres and axes best (axes
as points one camera radius away); a camera's distance is a share of the camera radius, which is how far the farthest
of COLMAP's cameras is from their mean. Reprojection errors are means over the points of both models, as pycolmap
computes them. One thread, CPU seconds.
"""

from __future__ import annotations

import argparse
import io
import os
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pycolmap
import torch
from about import about
from PIL import Image

from reliev3r.core.files import read_json, write_json
from reliev3r.data.capture import load_capture
from reliev3r.data.intrinsics import cameras_of, with_intrinsics
from reliev3r.geometry.align import umeyama
from reliev3r.geometry.rigid import rotation_angle

SETS: dict[str, list[tuple[str, str, list[str]]]] = {
    "castle": [
        ("openMVG/ImageDataset_SceauxCastle", "images", [f"100_{number}.JPG" for number in range(7100, 7111)]),
        ("mapillary/OpenSfM", "data/lund/images", ["05.jpg as street.jpg"]),  # it matches no other
    ],
    "tree": [
        ("alicevision/dataset_monstree", "full", [
            f"IMG_{number}.JPG"
            for number in (1025, 1027, 1028, 1029, 1036, 1037, 1038, 1040, 1041, 1042, 1044, *range(1046, 1052), 1053)
        ])
    ],
    "banana": [("pierotofy/dataset_banana", "images", [f"DSC_{number:04d}.JPG" for number in range(423, 439)])],
    "beach": [
        ("pierotofy/drone_dataset_brighton_beach", "images", [f"DJI_{number:04d}.JPG" for number in range(18, 36)])
    ],
}  # fmt: skip
"""Repository, folder and photographs of each set, ``as`` what they are called in it."""
FLAT = ("beach",)
"""Sets that tell no focal length: COLMAP maps them once more with that of EXIF kept, and no distortion."""
_LONG_SIDE = 1600


def gather(name: str, clones: Path, folder: Path) -> None:
    """The photographs of a set, shrunk; from the clones' last commit, so that a bare clone serves too."""
    folder.mkdir(parents=True)
    for repository, place, files in SETS[name]:
        clone = clones / repository.replace("/", "+")
        for file in files:
            original, _, name_here = file.partition(" as ")
            show = ["git", "-C", str(clone), "show", f"HEAD:{place}/{original}"]
            image = Image.open(io.BytesIO(subprocess.run(show, capture_output=True, check=True).stdout))
            exif, shrink = image.getexif(), _LONG_SIDE / max(image.size)
            if shrink < 1:
                image = image.resize((round(image.width * shrink), round(image.height * shrink)), Image.LANCZOS)
            image.save(folder / (name_here or original), quality=95, subsampling=0, exif=exif.tobytes())


def map_by_colmap(photographs: Path, work: Path, *, features: int = 8192, octave: int = 0) -> dict[str, Any]:
    """COLMAP's largest model, written to ``work/sparse``; returns what is told about it. ``features`` of an image at
    most, from the first ``octave``."""
    shutil.rmtree(work, ignore_errors=True)
    (work / "images").mkdir(parents=True)
    capture, start = with_intrinsics(load_capture(photographs)), time.process_time()
    pycolmap.logging.minloglevel = 3
    pycolmap.set_random_seed(0)
    extraction, matching = pycolmap.FeatureExtractionOptions(), pycolmap.FeatureMatchingOptions()
    extraction.use_gpu = matching.use_gpu = False
    extraction.num_threads = matching.num_threads = 1
    extraction.max_image_size, extraction.sift.first_octave = _LONG_SIDE, octave
    extraction.sift.max_num_features = features
    cameras = cameras_of(capture)
    for camera in sorted(set(cameras)):
        names, first = [], capture.frames[camera]
        for index, frame in enumerate(capture.frames):
            if cameras[index] == camera:
                names.append(f"{frame.name}.png")
                Image.fromarray(capture.image(index)).save(work / "images" / names[-1], compress_level=1)
        reader = pycolmap.ImageReaderOptions()
        reader.camera_model = "SIMPLE_RADIAL"
        reader.camera_params = f"{first.K[0, 0]},{first.width / 2},{first.height / 2},0" if first.K is not None else ""
        pycolmap.extract_features(
            work / "database.db", work / "images", names, pycolmap.CameraMode.SINGLE, reader, extraction,
            pycolmap.Device.cpu,
        )  # fmt: skip
    pycolmap.match_exhaustive(work / "database.db", matching, device=pycolmap.Device.cpu)
    map_matched(work, work)
    told = {"cpu_seconds": round(time.process_time() - start, 1)}
    write_json(work / "told.json", told)
    return told


def map_matched(matched: Path, out: Path, *, lens_kept: bool = False, seed: int = 0) -> None:
    """The largest model of what was matched, to ``out/sparse``; ``lens_kept``: under the lenses that it starts from."""
    mapping = pycolmap.IncrementalPipelineOptions()
    mapping.num_threads, mapping.random_seed, mapping.min_model_size, mapping.extract_colors = 1, seed, 2, False
    if lens_kept:
        mapping.ba_refine_focal_length = mapping.ba_refine_extra_params = False
        mapping.mapper.abs_pose_refine_focal_length = mapping.mapper.abs_pose_refine_extra_params = False
    for folder in ("models", "sparse"):
        (out / folder).mkdir(parents=True, exist_ok=True)
    models = pycolmap.incremental_mapping(matched / "database.db", matched / "images", out / "models", mapping)
    model = max(models.values(), key=lambda found: found.num_reg_images())
    model.write(out / "sparse")


def refined_run(photographs: Path, run: Path, steps: int) -> dict[str, Any]:
    """Our run, refined by the present code; CPU seconds of both commands."""
    told = {}
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    commands = {"refine": ["refine", str(run)]}
    if not (run / "quality.json").is_file():
        shutil.rmtree(run, ignore_errors=True)
        fit = ["fit", str(photographs), "--out", str(run), "--depth", "none", "--steps", str(steps), "--force"]
        commands = {"fit": fit, **commands}
    for name, command in commands.items():
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-m", "reliev3r.cli", *command], check=True, env=environment)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        told[f"{name}_cpu_seconds"] = round(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, 1)
    return told


def compared(run: Path, colmap: Path) -> dict[str, Any]:
    """Exported cameras against COLMAP's, and both models' reprojection errors."""
    reference, exported = pycolmap.Reconstruction(colmap / "sparse"), pycolmap.Reconstruction(run / "sparse" / "0")
    theirs = poses_of(reference)
    frames = read_json(run / "cameras.json")["frames"]
    names = [frame["name"] for frame in frames if frame["name"] in theirs]
    ours = torch.tensor([frame["cam_to_world"] for frame in frames if frame["name"] in theirs]).double()
    target = torch.from_numpy(np.stack([theirs[name] for name in names]))
    degrees, percent = distances(ours, target)
    error = {}
    for whose, model in (("colmap", reference), ("ours", exported)):
        model.update_point_3d_errors()
        error[whose] = model.compute_mean_reprojection_error()
    refined = read_json(run / "quality.json").get("refined", {})
    return {
        "exported": len(frames),
        "left_out": read_json(run / "quality.json")["without_evidence"],
        "colmap_registered": len(theirs),
        "not_in_colmap": [frame["name"] for frame in frames if frame["name"] not in theirs],
        "rotation_deg": {"max": float(degrees.max()), "median": float(degrees.median())},
        "position_percent": {"max": float(percent.max()), "median": float(percent.median())},
        "views": {
            name: [round(float(d), 4), round(float(p), 4)] for name, d, p in zip(names, degrees, percent, strict=True)
        },
        "reprojection_px": error,
        "observations": {"colmap": reference.compute_num_observations(), "ours": exported.compute_num_observations()},
        "colmap_lenses": [camera.params.tolist() for camera in reference.cameras.values()],
        "reason": refined.get("reason"),
    }


def poses_of(model: pycolmap.Reconstruction) -> dict[str, np.ndarray]:
    """world_from_cam [4, 4] of its cameras, by the names of their photographs."""
    return {
        Path(image.name).stem: np.vstack([image.cam_from_world().inverse().matrix(), [0, 0, 0, 1]])
        for image in model.images.values()
        if image.has_pose
    }


def distances(ours: torch.Tensor, target: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Degrees and percent of the camera radius between cameras [n, 4, 4], once the first are laid onto the others."""
    scale, turn, move = umeyama(_corners(ours), _corners(target))
    degrees = rotation_angle((turn @ ours[:, :3, :3]).mT @ target[:, :3, :3]).rad2deg()
    percent = 100 * (scale * ours[:, :3, 3] @ turn.T + move - target[:, :3, 3]).norm(dim=-1) / _radius(target)
    return degrees, percent


def _radius(cameras: torch.Tensor) -> torch.Tensor:
    return (cameras[:, :3, 3] - cameras[:, :3, 3].mean(0)).norm(dim=-1).max()


def _corners(cameras: torch.Tensor) -> torch.Tensor:
    """Centres, and the ends of the axes at the camera radius: a degree there is as long as 1.7 % of the radius."""
    centre = cameras[:, :3, 3]
    return torch.cat([centre, *(centre + _radius(cameras) * cameras[:, :3, axis] for axis in range(3))])


def table(sets: dict[str, Any]) -> str:
    """As docs/results/photos.md has it."""
    lines = [
        "| set | cameras (COLMAP) | left out | rotation, largest | position, largest | reprojection (COLMAP) | "
        "`refine`, CPU s (COLMAP) |",
        "|---|--:|---|--:|--:|--:|--:|",
    ]
    for name, row in sets.items():
        error, seconds = row["reprojection_px"], row["refine_cpu_seconds"] or float("nan")
        lines.append(
            f"| {name} | {row['exported']} ({row['colmap_registered']}) | {', '.join(row['left_out']) or '-'} | "
            f"{row['rotation_deg']['max']:.3f}° | {row['position_percent']['max']:.2f} % | {error['ours']:.2f} "
            f"({error['colmap']:.2f}) | {seconds:.0f} ({row['colmap_cpu_seconds']:.0f}) |"
        )
    return "\n".join(lines)


def main() -> None:
    """Map, fit, refine, compare, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("--clones", type=Path, help="needed where WORK has no photographs yet")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--sets", nargs="+", default=list(SETS))
    parser.add_argument("--steps", type=int, default=30, help="of fit's training")
    given = parser.parse_args()
    done = read_json(given.out)["sets"] if given.out.is_file() else {}
    for name in given.sets:
        photographs, colmap = given.work / "sets" / name, given.work / "cache" / f"colmap_{name}"
        if not photographs.is_dir():
            if given.clones is None or name not in SETS:
                parser.error(f"{photographs} is not there: give --clones, or put photographs there")
            gather(name, given.clones, photographs)
        known = colmap / "told.json"
        told = read_json(known) if known.is_file() else map_by_colmap(photographs, colmap)
        run = given.work / "cache" / f"run_{name}"
        cost = refined_run(photographs, run, given.steps)
        cost = {"fit_cpu_seconds": done.get(name, {}).get("fit_cpu_seconds"), **cost}
        row = {"colmap_cpu_seconds": told["cpu_seconds"], **cost, **compared(run, colmap)}
        if name in FLAT:
            kept = given.work / "cache" / f"colmap_{name}_lens_kept"
            if not (kept / "sparse").is_dir():
                map_matched(colmap, kept, lens_kept=True)
            row["against_lens_kept"] = compared(run, kept)
        row["source"] = [f"github.com/{repository}: {place}" for repository, place, _ in SETS.get(name, [])]
        done[name] = row
        write_json(given.out, {**about(), "steps": given.steps, "sets": done})
        print(name, row["rotation_deg"], row["position_percent"], row["reprojection_px"], flush=True)
    print(table(done))


if __name__ == "__main__":
    main()

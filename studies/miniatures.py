"""Miniatures of the paper's datasets, in their true layouts, rendered from rooms: for tests and for the rehearsal.

    python studies/miniatures.py --out DIR [--scenes 24] [--frames 40] [--width 160]

DIR gets ``DL3DV-10K`` (the release) and two scenes as the sample on Hugging Face has them, ``DL3DV-10K-WAI`` (depth as
map-anything makes it), ``DL3DV-Benchmark`` and its ``-WAI``, ``ASE``, ``TartanAir``, ``MVS-Synth``, ``BlendedMVS``,
``ScanNetPP``, and ``simulated``: depth maps of a *simulated expert* (the truth made worse) for DL3DV's frames, one
folder a scene; ``depth-pro``: a Depth Pro of random weights, for its real class. What is there already is left alone.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import layouts
import numpy as np
import torch
from layouts import Room, frame_name, write_text

from reliev3r.core.files import atomic_directory
from reliev3r.synthetic.capture import SynthConfig
from reliev3r.synthetic.experts import DepthNoise, simulate_depth_map

PARTS = 2
"""Folders (1K, 2K ...) of the release."""
TEXTURES = ("masonry", "terrazzo")


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """How much is rendered."""

    scenes: int = 24
    """Of DL3DV-10K."""
    frames: int = 40
    """Of each of them."""
    benchmark: int = 6
    """Scenes of DL3DV-Benchmark."""
    others: int = 3
    """Scenes of every other dataset."""
    few: int = 10
    """Frames of a scene that is none of DL3DV-10K."""
    width: int = 160
    """Of DL3DV's images, which are 16:9; others are 3/4 as wide."""

    def room(self, seed: int, *, frames: int, wide: bool = True) -> Room:
        """A room of its own, its lens and its texture, for each seed."""
        width = self.width if wide else 12 * (self.width // 16)
        shape = 9 / 16 if wide else 3 / 4
        config = SynthConfig(
            seed=70_000 + seed, views=frames, width=width, height=round(width * shape), supersample=1,
            fov=58.0 + 4.0 * (seed % 5), span=min(75.0, 3.0 * frames), texture=TEXTURES[seed % len(TEXTURES)],
        )  # fmt: skip
        return Room.of(config)


def write_miniatures(out: Path, sizes: Sizes = Sizes()) -> list[Path]:
    """Write every dataset that is not there yet; returns their folders."""
    writers: dict[str, Callable[[Path, Sizes], None]] = {
        "DL3DV-10K": _dl3dv, "DL3DV-10K-Sample": _dl3dv_sample, "DL3DV-10K-WAI": _dl3dv_wai,
        "DL3DV-Benchmark": _benchmark, "DL3DV-Benchmark-WAI": _benchmark_wai, "ASE": _ase, "TartanAir": _tartanair,
        "MVS-Synth": _mvs_synth, "BlendedMVS": _blendedmvs, "ScanNetPP": _scannetpp, "simulated": _simulated,
        "depth-pro": lambda folder, sizes: write_depth_pro(folder),
    }  # fmt: skip
    out.mkdir(parents=True, exist_ok=True)
    for name, write in writers.items():
        if not (out / name).is_dir():
            with atomic_directory(out / name) as folder:
                write(folder, sizes)
            print(f"{out / name}", flush=True)
    return [out / name for name in writers]


def scene_hash(kind: str, number: int) -> str:
    """What DL3DV could call a scene."""
    return hashlib.sha256(f"{kind} {number}".encode()).hexdigest()


def release_scene(number: int) -> str:
    """PART/HASH, as the release has it."""
    return f"{1 + number % PARTS}K/{scene_hash('DL3DV-10K', number)}"


def _dl3dv(root: Path, sizes: Sizes) -> None:
    for number in range(sizes.scenes):
        layouts.write_dl3dv(root / release_scene(number), sizes.room(number, frames=sizes.frames), divisor=8)


def _dl3dv_sample(root: Path, sizes: Sizes) -> None:
    for number in range(2):
        folder = root / scene_hash("sample", number) / "colmap"
        layouts.write_dl3dv(
            folder, sizes.room(900 + number, frames=sizes.few), images=folder.parent if number else None
        )


def _dl3dv_wai(root: Path, sizes: Sizes) -> None:
    for number in range(sizes.scenes):
        name = release_scene(number).replace("/", "_")
        layouts.write_wai(root / name, sizes.room(number, frames=sizes.frames))


def _benchmark(root: Path, sizes: Sizes) -> None:
    names = [scene_hash("DL3DV-Benchmark", number) for number in range(sizes.benchmark)]
    for number, name in enumerate(names):
        layouts.write_dl3dv(root / name / "nerfstudio", _benchmark_room(number, sizes))
    write_text(root / "benchmark-meta.csv", "".join(f"{line}\n" for line in ("hash,scene", *(f"{n},1" for n in names))))


def _benchmark_wai(root: Path, sizes: Sizes) -> None:
    for number in range(sizes.benchmark):
        layouts.write_wai(root / scene_hash("DL3DV-Benchmark", number), _benchmark_room(number, sizes))


def _benchmark_room(number: int, sizes: Sizes) -> Room:
    return sizes.room(300 + number, frames=sizes.few)


def _ase(root: Path, sizes: Sizes) -> None:
    for number in range(sizes.others):
        room = sizes.room(400 + number, frames=sizes.few, wide=False)
        layouts.write_ase(root / "train" / str(number), room, side=16 * (sizes.width // 16))


def _tartanair(root: Path, sizes: Sizes) -> None:
    for number in range(sizes.others):
        room = sizes.room(500 + number, frames=sizes.few, wide=False)
        layouts.write_tartanair(root / "office" / "Easy" / f"P{number:03d}", room, width=room.size[0])


def _mvs_synth(root: Path, sizes: Sizes) -> None:
    for number in range(sizes.others):
        room = sizes.room(600 + number, frames=sizes.few)
        layouts.write_mvs_synth(root / "GTAV_540" / f"{number:04d}", room, sky=(slice(0, 4), slice(None)))


def _blendedmvs(root: Path, sizes: Sizes) -> None:
    for number in range(sizes.others):
        room = sizes.room(700 + number, frames=sizes.few, wide=False)
        layouts.write_blendedmvs(root / scene_hash("BlendedMVS", number)[:24], room)


def _scannetpp(root: Path, sizes: Sizes) -> None:
    for number in range(sizes.others):
        room = sizes.room(800 + number, frames=sizes.few)
        layouts.write_scannetpp(root / "data" / scene_hash("ScanNet++", number)[:10], room)


def _simulated(root: Path, sizes: Sizes) -> None:
    noise = DepthNoise()
    for number in range(sizes.scenes):
        room, folder = sizes.room(number, frames=sizes.frames), root / release_scene(number)
        folder.mkdir(parents=True)
        for index, depth in enumerate(torch.from_numpy(room.depth).float()):
            name = frame_name(index)
            degraded = simulate_depth_map(
                depth, torch.ones_like(depth, dtype=torch.bool), noise, name=name, seed=number
            )
            np.savez_compressed(folder / f"{name}.npz", depth=degraded.numpy().astype(np.float16))


def write_depth_pro(folder: Path) -> None:
    """Depth Pro as transformers has it, at its smallest and with random weights: its depth means nothing."""
    import transformers

    dinov2 = {"model_type": "dinov2", "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
              "patch_size": 8, "image_size": 32}  # fmt: skip
    config = transformers.DepthProConfig(
        patch_size=32, fusion_hidden_size=8, intermediate_hook_ids=[1, 0], intermediate_feature_dims=[8, 8],
        scaled_images_feature_dims=[8, 8, 8], use_fov_model=True, num_fov_head_layers=0, image_model_config=dinov2,
        patch_model_config=dinov2, fov_model_config=dinov2,
    )  # fmt: skip
    torch.manual_seed(0)
    transformers.DepthProForDepthEstimation(config).save_pretrained(folder)


def main(argv: list[str] | None = None) -> None:
    """Write them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    for field in dataclasses.fields(Sizes):
        parser.add_argument(f"--{field.name}", type=int, default=field.default)
    given = vars(parser.parse_args(argv))
    write_miniatures(given.pop("out"), Sizes(**given))


if __name__ == "__main__":
    main()

"""Datasets in their own layouts: one reader a format. Each is imported when it is used."""

from __future__ import annotations

import importlib
import re
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from reliev3r.core.errors import UserError
from reliev3r.data.truth import Scene


@dataclass(frozen=True, kw_only=True)
class Reader:
    """A format. Its module has functions ``recognises``, ``scenes`` and ``open_scene``."""

    title: str
    layout: str
    """What lies where, in one line."""
    module: str
    """Of this package."""
    generic: bool = False
    """Datasets use it within layouts of their own: where one of those is recognised, this one does not count."""

    @property
    def _functions(self) -> ModuleType:
        return importlib.import_module(f"reliev3r.data.readers.{self.module}")

    def recognises(self, root: Path) -> bool:
        """Whether a folder looks like this format, a whole dataset or one scene of it; looks at few names only."""
        return root.is_dir() and self._functions.recognises(root)

    def scenes(self, root: Path) -> list[str]:
        """Names of the scenes below a folder, in natural order; one where the folder is a scene itself."""
        return self._functions.scenes(root)

    def open(self, root: Path, name: str, views: int | None = None) -> Scene:
        """One of the scenes; ``views`` picks that many frames, evenly spaced.

        Raises:
            UserError: no such scene, missing or damaged files.
        """
        return self._functions.open_scene(root, name, views)


READERS: dict[str, Reader] = {
    "dl3dv": Reader(
        title="DL3DV-10K",
        layout="[1K/]HASH/transforms.json + images_8/ or images_4/ (nerfstudio, OPENCV lens), or both in HASH/colmap/",
        module="dl3dv",
    ),
    "dl3dv-benchmark": Reader(
        title="DL3DV-Benchmark (140 scenes, never trained on)",
        layout="benchmark-meta.csv, HASH/nerfstudio/{transforms.json, images_4/}",
        module="dl3dv_benchmark",
    ),
    "ase": Reader(
        title="Aria Synthetic Environments",
        layout="SCENE/{rgb/vignette*.jpg, depth/depth*.png, trajectory.csv} (fisheye, range in mm)",
        module="ase",
    ),
    "tartanair": Reader(
        title="TartanAir V1",
        layout="ENV/{Easy,Hard}/P###/{image_left/, depth_left/*.npy, pose_left.txt} (NED axes)",
        module="tartanair",
    ),
    "tartanair-v2": Reader(
        title="TartanAir V2",
        layout="ENV/Data_{easy,hard}/P###/{image_lcam_front/, depth_lcam_front/, pose_lcam_front.txt} (NED axes)",
        module="tartanair_v2",
    ),
    "mvs-synth": Reader(
        title="MVS-Synth (GTAV_540, _720, _1080)",
        layout="####/{images/*.png, depths/*.exr, poses/*.json} (left-handed world, infinite sky)",
        module="mvs_synth",
    ),
    "blendedmvs": Reader(
        title="BlendedMVS, low resolution",
        layout="HASH/{blended_images/*.jpg, rendered_depth_maps/*.pfm, cams/*_cam.txt} (arbitrary scale)",
        module="blendedmvs",
    ),
    "scannetpp": Reader(
        title="ScanNet++ (undistorted DSLR images)",
        layout="SCENE/dslr/{resized_undistorted_images/, colmap/, nerfstudio/transforms_undistorted.json}, scans/*.ply",
        module="scannetpp",
    ),
    "eth3d": Reader(
        title="ETH3D, high-resolution multi-view (DSLR)",
        layout="SCENE/{images/dslr_images[_undistorted]/, dslr_calibration_{jpg,undistorted}/, ground_truth_depth/}",
        module="eth3d",
    ),
    "re10k": Reader(
        title="RealEstate10K",
        layout="[SPLIT/]CLIP.txt with CLIP/TIME.png beside it, or frames/SPLIT/CLIP/TIME.png",
        module="re10k",
    ),
    "colmap": Reader(
        title="COLMAP model and its images",
        layout="images/ + sparse/0/{cameras,images,points3D}.{bin,txt}",
        module="colmap",
        generic=True,
    ),
    "nerfstudio": Reader(
        title="nerfstudio (also Polycam, Record3D and others that export it)",
        layout="transforms.json + the images (and depth maps) that it names",
        module="nerfstudio",
        generic=True,
    ),
    "tum": Reader(
        title="TUM RGB-D",
        layout="rgb.txt, depth.txt, groundtruth.txt, rgb/, depth/ (factor 5000)",
        module="tum",
    ),
    "7scenes": Reader(
        title="7-Scenes",
        layout="SCENE/seq-##/frame-######.{color.png, depth.png, pose.txt}",
        module="seven_scenes",
    ),
    "scannet": Reader(
        title="ScanNet-style folder",
        layout="SCENE/{color/, depth/, pose/, intrinsic/intrinsic_color.txt}",
        module="scannet",
    ),
    "capture": Reader(
        title="our own capture folder",
        layout="images/, cameras.json, depth/ (docs/conventions.md); or a folder of such",
        module="capture",
    ),
}
"""By the name that users type."""


def find_reader(spec: str | Path) -> tuple[str, Path]:
    """(format, folder) of "FORMAT:PATH", or of a PATH whose format is found by what lies in it.

    Raises:
        UserError: the folder is missing, an unknown format, none recognised or several.
    """
    prefix = re.match(r"([\w-]+):(.+)", str(spec))
    if prefix and prefix[1] in READERS:
        root = Path(prefix[2])
        if not root.is_dir():
            raise UserError(f"{root}: no such folder; give the dataset's or one scene's after '{prefix[1]}:'")
        return prefix[1], root
    root = Path(spec)
    if not root.is_dir():
        hint = f" '{prefix[1]}' is no format; known: {', '.join(READERS)}" if prefix else ""
        raise UserError(f"{spec}: no such folder.{hint}")
    found = recognised(root)
    if len(found) == 1:
        return found[0], root
    if found:
        raise UserError(f"{root}: could be {' or '.join(found)}; write {found[0]}:{root} or the other")
    raise UserError(
        f"{root}: not recognised as one of {', '.join(READERS)}; give FORMAT:PATH to be told what is missing"
    )


def recognised(root: Path) -> list[str]:
    """The formats that a folder looks like; the generic ones only where no other does."""
    found = [name for name, reader in READERS.items() if reader.recognises(root)]
    return [name for name in found if not READERS[name].generic] or found


def list_scenes(spec: str | Path) -> list[str]:
    """Names of the scenes of "FORMAT:PATH" or PATH, in natural order.

    Raises:
        UserError: as :func:`find_reader`, or there is none.
    """
    kind, root = find_reader(spec)
    names = READERS[kind].scenes(root)
    if not names:
        raise UserError(f"{root}: no scene of format {kind} in it; its layout is {READERS[kind].layout}")
    return names


def open_scene(spec: str | Path, name: str | None = None, *, views: int | None = None) -> Scene:
    """A scene of "FORMAT:PATH" or PATH; ``name`` may be left out where there is one scene only.

    Raises:
        UserError: as :func:`find_reader`, an unknown or missing name, missing or damaged files.
    """
    kind, root = find_reader(spec)
    names = list_scenes(f"{kind}:{root}")
    if name is None and len(names) > 1:
        raise UserError(f"{root}: has {len(names)} scenes ({', '.join(names[:3])} ...); say which one")
    if name is not None and name not in names:
        raise UserError(f"{root}: has no scene '{name}'; `reliev3r datasets {kind}:{root}` lists its {len(names)}")
    return READERS[kind].open(root, name or names[0], views)

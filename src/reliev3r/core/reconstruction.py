"""What any system hands back for one capture, and its cache on disk: evaluation and export read nothing else."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from reliev3r.core.arrays import ARRAY_ERRORS, read_npz
from reliev3r.core.cameras_json import checked_pose, refuse_same_names, refuse_unwritable_name
from reliev3r.core.errors import UserError
from reliev3r.core.files import atomic_path, file_hash, inside, read_json, write_json
from reliev3r.core.types import Prediction, Tracks

FORMAT = "reliev3r-reconstruction/1"
_MOST_PIXELS = 10**6
"""Along a side of an image."""
_HUGE = 1e30
"""Squares of what is larger are not finite in float32."""
_ARRAYS = ("depth", "rays", "conf", "world_from_cam", "image", "regions")


@dataclass(frozen=True, kw_only=True)
class Reconstruction:
    """A prediction together with where its pixels lie in the original images."""

    prediction: Prediction
    """Fields [v ...] without batch dimension, float32 on the CPU."""
    names: tuple[str, ...]
    """Frame names (unique in the capture), in the order of the view axis."""
    image_files: tuple[str, ...]
    """Image of each frame, relative to the capture's folder."""
    image: UInt8[Tensor, "v h w 3"]
    """The images as the network saw them."""
    sizes: tuple[tuple[int, int], ...]
    """(width, height) of the original images."""
    regions: Float[Tensor, "v 4"]
    """(left, top, width, height) in original pixels (corner convention) of the part that the maps cover."""
    found: Bool[Tensor, " v"] | None = None
    """Views whose camera was found; ``None`` means all (a feed-forward model). The others' cameras mean nothing."""
    predicts_depth: bool = True
    """``False`` for a system that gives cameras only: the depth and confidence maps then mean nothing."""
    radial: tuple[float, ...] | None = None
    """k1 of each view's lens that refinement found (``geometry.radial``) and that was taken out: sizes, K and maps are
    about images rectified by it. ``None``: about the capture's images as they are."""
    meta: dict[str, Any] = field(default_factory=dict)
    """System, checkpoint hash, source of the intrinsics, seconds: shown beside numbers."""
    capture: Any = field(default=None, compare=False, repr=False)
    """The open ``data.capture.Capture`` it was made of, whose pixels exports take; not kept on disk."""

    @property
    def K_original(self) -> Float[Tensor, "v 3 3"]:
        """Intrinsics in pixels of the original images (corner convention), float64."""
        height, width = self.prediction.depth.shape[-2:]
        K = self.prediction.K.double()
        left, top, region_width, region_height = self.regions.double().unbind(-1)
        to_original = torch.zeros_like(K)
        to_original[:, 0, 0], to_original[:, 0, 2] = region_width / width, left
        to_original[:, 1, 1], to_original[:, 1, 2] = region_height / height, top
        to_original[:, 2, 2] = 1
        return to_original @ K

    def with_cameras(self, world_from_cam: Tensor, **meta: Any) -> Reconstruction:
        """The same maps under other cameras (for instance refined ones)."""
        prediction = dataclasses.replace(self.prediction, world_from_cam=world_from_cam.float())
        return dataclasses.replace(self, prediction=prediction, meta={**self.meta, **meta})

    def save(self, folder: Path | str) -> None:
        """Write ``prediction.npz`` (arrays) and ``prediction.json`` (the rest, with the arrays' hash), atomically."""
        folder = Path(folder)
        arrays = {
            "depth": self.prediction.depth,
            "rays": self.prediction.rays,
            "conf": self.prediction.conf,
            "world_from_cam": self.prediction.world_from_cam,
            "image": self.image,
            "regions": self.regions,
        }
        with atomic_path(folder / "prediction.npz") as path:
            np.savez_compressed(path, **{name: value.numpy() for name, value in arrays.items()})  # type: ignore[arg-type]
        manifest = {
            "format": FORMAT,
            "names": self.names,
            "image_files": self.image_files,
            "sizes": self.sizes,
            "found": None if self.found is None else self.found.tolist(),
            "predicts_depth": self.predicts_depth,
            **({} if self.radial is None else {"radial": self.radial}),
            "meta": self.meta,
            "sha256": file_hash(folder / "prediction.npz"),
        }
        write_json(folder / "prediction.json", manifest)

    @staticmethod
    def load(folder: Path | str) -> Reconstruction:
        """Read what :meth:`save` wrote.

        Raises:
            UserError: missing, damaged or of another format version.
        """
        folder = Path(folder)
        file, arrays_path = folder / "prediction.json", folder / "prediction.npz"
        manifest = read_json(file)
        if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
            raise UserError(f"{file}: not of format {FORMAT}; predict again")
        if not arrays_path.is_file() or file_hash(arrays_path) != manifest.get("sha256"):
            raise UserError(f"{arrays_path}: missing or damaged (its hash differs from the manifest's); predict again")
        try:
            tensors = {name: torch.from_numpy(value) for name, value in read_npz(arrays_path, _ARRAYS).items()}
            found = Reconstruction(
                prediction=Prediction(
                    depth=tensors["depth"],
                    rays=tensors["rays"],
                    conf=tensors["conf"],
                    world_from_cam=tensors["world_from_cam"],
                ),
                names=tuple(manifest["names"]),
                image_files=tuple(manifest["image_files"]),
                image=tensors["image"],
                sizes=tuple((int(width), int(height)) for width, height in manifest["sizes"]),
                regions=tensors["regions"],
                found=None if manifest["found"] is None else torch.tensor(manifest["found"], dtype=torch.bool),
                predicts_depth=bool(manifest["predicts_depth"]),
                radial=tuple(map(float, manifest["radial"])) if "radial" in manifest else None,
                meta=dict(manifest["meta"]),
            )
        except ARRAY_ERRORS as error:
            told = (str(error).splitlines() or [type(error).__name__])[0]
            raise UserError(f"{file}: damaged ({told}); predict again") from error
        found._refuse_nonsense(file)
        return found

    def _refuse_nonsense(self, file: Path) -> None:
        """A folder from elsewhere may say anything: exports write files by these names, of these many views."""
        refuse_same_names(map(str, self.names), file)
        for name in (*self.names, *self.image_files):
            inside(file.parent, name, str(file))
            refuse_unwritable_name(name, file)
        views = len(self.names)
        if self.prediction.depth.ndim != 3:
            raise UserError(f"{file}: its depth has no maps of pixels; predict again")
        height, width = self.prediction.depth.shape[-2:]
        shapes = {
            "depth": (views, height, width), "conf": (views, height, width), "rays": (views, height, width, 3),
            "world_from_cam": (views, 4, 4), "image": (views, height, width, 3), "regions": (views, 4),
        }  # fmt: skip
        parts = {**vars(self.prediction), "image": self.image, "regions": self.regions}
        listed = {len(self.image_files), len(self.sizes), views if self.found is None else len(self.found)}
        listed |= set() if self.radial is None else {len(self.radial)}
        if listed != {views} or any(tuple(parts[name].shape) != shape for name, shape in shapes.items()):
            raise UserError(f"{file}: its names, sizes and arrays are not of the same views; predict again")
        if min(min(size) for size in self.sizes) < 1 or max(map(max, self.sizes)) > _MOST_PIXELS:
            raise UserError(f"{file}: an image of no possible size; predict again")
        found = torch.ones(views, dtype=torch.bool) if self.found is None else self.found
        numbers = {**parts, "world_from_cam": self.prediction.world_from_cam[found]}
        for name in (each for each in shapes if each != "image"):
            values = numbers[name]
            if not values.is_floating_point() or not values.isfinite().all() or (values.abs() > _HUGE).any():
                raise UserError(f"{file}: its {name} is not all finite numbers of a possible size; predict again")
        if not (self.regions[:, 2:] > 0).all():
            raise UserError(f"{file}: its regions have no width or height; predict again")
        if not (self.K_original[found][:, (0, 1), (0, 1)] > 0).all():
            raise UserError(f"{file}: its rays are those of no camera; predict again")
        for pose in self.prediction.world_from_cam[found]:
            checked_pose(pose.double().numpy(), str(file))
        if self.image.dtype != torch.uint8:
            raise UserError(f"{file}: its image is not of 8 bits; predict again")

    def export(
        self,
        path: Path | str,
        *,
        overwrite: bool = False,
        keep: float = 0.8,
        tracks: Tracks | None = None,
        capture: Any = None,
        depth_size: int | None = None,
    ) -> list[Path]:
        """Write cameras, depth and points for other programs; returns the files that were written.

        Args:
            path: its suffix decides: ``.glb`` or ``.ply`` (points), ``.html`` (a page to look around in), ``.npz``
                (all arrays), ``transforms.json`` (nerfstudio's cameras), another ``.json`` (ours), or none: a folder
                with all of them, depth maps and a COLMAP model.
            overwrite: replace files that are there.
            keep: share of the pixels, the most confident ones, in point clouds.
            tracks: [v, m] in original pixels; they give the COLMAP model its points.
            capture: the capture that was reconstructed, or its path; by default the one that is open, if it is. Its
                photographs go into ``images/`` beside COLMAP's and nerfstudio's files, upright, and guide finer maps.
            depth_size: long side in pixels of depth maps and of those that become points; by default 512 or what the
                photographs have, 0: as they were predicted (``.npz`` always is).

        Raises:
            UserError: an unknown suffix, a file that exists already, or nothing to write.
        """
        from reliev3r.export.write import export_reconstruction  # the one import that points up: `scene.export(...)`

        return export_reconstruction(
            self, tracks, path, overwrite=overwrite, capture=capture, keep=keep, depth_size=depth_size
        )

"""Depth from elsewhere as the truth of a scene: it must be the scene's own cameras that it was computed for."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path, PurePosixPath

import numpy as np
from jaxtyping import Float

from reliev3r.core.errors import UserError
from reliev3r.data.depth_truth import colmap_dense, cut3r, omega, wai
from reliev3r.data.depth_truth.stored import StoredDepth, StoredScene
from reliev3r.data.truth import NO_DEPTH, Scene, TrueCamera, TruthSource

logger = logging.getLogger(__name__)

KINDS = {
    "wai": wai.read_scene, "cut3r": cut3r.read_scene, "colmap": colmap_dense.read_scene, "omega": omega.read_scene,
}  # fmt: skip
"""By the word that users type."""
PLACE = "{scene}"
"""Stands for a scene's name in a path."""
MOST_DEGREES, MOST_DRIFT = 1.0, 0.02
"""By how much the cameras of depth and scene may differ: rotation; centres, as a share of their spread."""


def with_depth(scene: Scene, spec: str) -> Scene:
    """The scene with the depth of ``spec`` = KIND:PATH (KIND of :data:`KINDS`) as its truth, whatever it had before.

    ``{scene}`` in PATH stands for the scene's name; of a name with slashes (1K/HASH), also 1K_HASH or HASH. The maps
    are looked up on the scene's own pixels, through both pinholes, and scaled to the scene's unit by their cameras.

    Raises:
        UserError: no such folder, malformed files, no poses to compare, no common frame, or other cameras than the
            scene's.
    """
    if scene.truth is None:
        raise UserError(f"{scene.capture.root}: has no true poses, which depth needs to be tied to")
    folder = depth_folder(scene.name, spec)
    if folder is None:
        raise UserError(f"--depth-truth {spec}: no folder for scene {scene.name}; put {PLACE} where its name stands")
    stored = KINDS[spec.partition(":")[0]](folder)
    maps = {}
    for frame in scene.capture.frames:
        found = stored.frames.get(frame.name) or stored.frames.get(frame.path.stem)
        if found is not None:
            maps[frame.name] = found
    missing = [name for name in scene.capture.names if name not in maps]
    if not maps:
        listed = ", ".join(list(stored.frames)[:3])
        raise UserError(
            f"{folder}: has no depth of {missing[0]} or another frame of {scene.name}; it has {listed}, ..."
        )
    if missing:
        logger.warning("%s: no depth for %d of %d frames", folder, len(missing), len(scene.capture.frames))
    scale = _scene_units(scene.truth, maps, stored)
    caveats = (*(caveat for caveat in scene.caveats if caveat != NO_DEPTH), *stored.caveats)
    truth = AttachedDepth(scene.truth, stored.folder, maps, scale)
    return dataclasses.replace(scene, truth=truth, caveats=caveats)


def depth_folder(scene: str, spec: str) -> Path | None:
    """Where the depth of a scene lies; None where there is no such folder.

    Raises:
        UserError: not KIND:PATH, or an unknown KIND.
    """
    kind, _, path = spec.partition(":")
    if kind not in KINDS or not path:
        raise UserError(f"--depth-truth {spec}: give KIND:PATH, KIND one of {', '.join(KINDS)}")
    if ".." in PurePosixPath(scene).parts:
        raise UserError(f"--depth-truth {spec}: {scene} is no name of a scene")
    names = dict.fromkeys((scene, scene.replace("/", "_"), scene.rpartition("/")[2]))
    return next((place for name in names if (place := Path(path.replace(PLACE, name))).is_dir()), None)


class AttachedDepth:
    """A :class:`reliev3r.data.truth.TruthSource`: the scene's cameras, and depth that others computed for them."""

    def __init__(self, cameras: TruthSource, folder: Path, maps: dict[str, StoredDepth], scale: float) -> None:
        self._cameras, self._folder, self._maps, self._scale = cameras, folder, maps, scale

    def __str__(self) -> str:
        return f"{self._cameras} with the depth of {self._folder}"

    @property
    def metric(self) -> bool:
        """As the scene's: depth is brought to its unit."""
        return self._cameras.metric

    def camera(self, name: str) -> TrueCamera:
        """As :class:`reliev3r.data.truth.TruthSource` says."""
        return self._cameras.camera(name)

    def depth(self, name: str) -> np.ndarray | None:
        """As :class:`reliev3r.data.truth.TruthSource` says."""
        if name not in self._maps:
            return None
        return self._scale * _on_frame(self._maps[name], self.camera(name))


def _on_frame(stored: StoredDepth, camera: TrueCamera) -> Float[np.ndarray, "h w"]:
    """The map looked up (nearest) on a grid over the frame, about as fine as the map; 0 beyond it.

    The same camera centre and axes, so a ray has one z in both: pixels differ by the two pinholes alone.
    """
    depth, K = stored.read(), camera.K.numpy()
    width, height = camera.size
    shrink = min(1.0, max(depth.shape) / max(width, height))
    columns, rows = max(1, round(width * shrink)), max(1, round(height * shrink))
    x = ((np.arange(columns) + 0.5) * width / columns - K[0, 2]) / K[0, 0]
    y = ((np.arange(rows) + 0.5) * height / rows - K[1, 2]) / K[1, 1]
    u = (stored.K[0, 0] * x + stored.K[0, 2]) * depth.shape[1] / stored.size[0]
    v = (stored.K[1, 1] * y + stored.K[1, 2]) * depth.shape[0] / stored.size[1]
    inside = ((v >= 0) & (v < depth.shape[0]))[:, None] & ((u >= 0) & (u < depth.shape[1]))
    column = np.floor(u).astype(int).clip(0, depth.shape[1] - 1)
    row = np.floor(v).astype(int).clip(0, depth.shape[0] - 1)
    return np.where(inside, depth[row[:, None], column], 0).astype(np.float32)


def _scene_units(truth: TruthSource, maps: dict[str, StoredDepth], stored: StoredScene) -> float:
    """How many of the scene's units are one of the maps', from the cameras that both have.

    Raises:
        UserError: they are not the same cameras up to a similarity, or none of them moves.
    """
    scene = np.stack([truth.camera(name).world_from_cam.double().numpy() for name in maps])
    other = np.stack([each.world_from_cam for each in maps.values()])
    turns = scene[:, :3, :3] @ np.swapaxes(other[:, :3, :3], 1, 2)  # one and the same turn of the world, if all is well
    u, _, v = np.linalg.svd(turns.sum(0))
    turn = u @ np.diag([1, 1, np.linalg.det(u @ v)]) @ v
    degrees = np.degrees(2 * np.arcsin(np.clip(np.linalg.norm(turns - turn, axis=(1, 2)) / np.sqrt(8), 0, 1))).max()
    here, there = (poses[:, :3, 3] - poses[:, :3, 3].mean(0) for poses in (scene, other))
    there = there @ turn.T
    extent, own = np.square(here).sum(), np.square(there).sum()
    if min(extent, own) < 1e-12:
        raise UserError(f"{stored.folder}: its unit cannot be told from {len(maps)} camera(s) that do not move")
    scale = float((here * there).sum() / own)
    drift = float(np.sqrt(np.square(here - scale * there).sum() / extent))
    if degrees > MOST_DEGREES or drift > MOST_DRIFT or scale <= 0:
        raise UserError(
            f"{stored.folder}: its cameras are not those of {truth} (up to {degrees:.2g} degrees and {100 * drift:.2g} "
            "% of the path apart); this is another scene's depth, or that of another reconstruction"
        )
    return scale

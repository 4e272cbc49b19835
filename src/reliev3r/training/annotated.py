"""Samples of scenes with ground truth, for full supervision alone: weak training cannot import this."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import torch

from reliev3r.core.errors import UserError
from reliev3r.core.progress import Progress
from reliev3r.core.types import FullLabels, Views
from reliev3r.data.benchmark_guard import refuse_benchmark
from reliev3r.data.capture import Frame
from reliev3r.data.depth_truth.attach import depth_folder, with_depth
from reliev3r.data.network_views import network_views
from reliev3r.data.readers import READERS, find_reader, list_scenes
from reliev3r.data.truth import Scene, load_truth
from reliev3r.geometry.sampling import evenly_spaced
from reliev3r.synthetic.experts import TrackNoise, simulate_tracks
from reliev3r.training.batches import assign_bucket, bucket_pixels, bucket_sizes, refuse_not_finite
from reliev3r.training.captures import is_heldout

logger = logging.getLogger(__name__)


class AnnotatedScenes:
    """The scenes of some datasets that have true poses and depth. A sample is a few views of one.

    Tracks come from a *simulated* matcher (:func:`reliev3r.synthetic.experts.simulate_tracks`) under the truth.
    """

    def __init__(
        self,
        specs: Sequence[str],
        *,
        long_side: int,
        patch: int,
        tracks: TrackNoise,
        benchmark: str = "",
        depth_truth: str | None = None,
        share: float = 0.0,
        heldout: bool = False,
        progress: Progress | None = None,
    ) -> None:
        """Find the scenes of ``specs`` (FORMAT:PATH or PATH); of each only headers and poses are read.

        ``benchmark`` is DL3DV's list of scenes that are never trained on. Of the others a ``share``, by the hash of
        their names, is not trained on either: those that ``heldout`` gives. ``depth_truth`` (KIND:PATH,
        ``data.depth_truth``) is the depth of scenes that have none of their own; those that it has none for are left
        out.

        Raises:
            UserError: an unknown format, no scenes, a scene of the benchmark, or one without true poses and depth.
        """
        self._scenes = [(*find_reader(spec), name) for spec in specs for name in list_scenes(spec)]
        folders = [root.resolve() for _, root, _ in self._scenes]  # a root may be the scene itself
        names = [str(root / name) for root, (_, _, name) in zip(folders, self._scenes)]
        refuse_benchmark([*names, *dict.fromkeys(map(str, folders))], benchmark)
        self._scenes = [scene for scene in self._scenes if is_heldout(scene[2], share) == heldout]
        if not self._scenes and not heldout:
            raise UserError(f"{', '.join(specs)}: every scene is held out; give more, or lower captures.heldout")
        self._patch, self._long_side, self._noise = patch, long_side, tracks
        self._depth_truth = depth_truth
        buckets = bucket_sizes(bucket_pixels(long_side), patch)
        self._bucket: list[tuple[int, int]] = []
        found, self._scenes = self._scenes, []
        for index, entry in enumerate(found):
            if progress:
                progress(index, len(found), entry[2])
            scene = _open(*entry, depth_truth)
            if scene is not None:
                self._scenes.append(entry)
                self._bucket.append(assign_bucket(_checked(scene), buckets))
        if progress:
            progress(len(found), len(found), "")
        if found and not self._scenes:
            raise UserError(f"--depth-truth {depth_truth}: has depth of none of the {len(found)} scenes")
        if len(self._scenes) < len(found):
            left = len(found) - len(self._scenes)
            logger.warning("left out %d of %d scenes, which %s has no depth of", left, len(found), depth_truth)

    def __len__(self) -> int:
        return len(self._scenes)

    def scene(self, index: int) -> Scene:
        """One scene, all of its frames; nothing of them but headers is in memory."""
        scene = _open(*self._scenes[index], self._depth_truth)
        assert scene is not None  # those were left out
        return scene

    def size(self, group: int) -> tuple[int, int]:
        """That of the bucket in which scene number ``group`` (modulo their count) is."""
        return self._bucket[group % len(self)]

    def sample(self, seed: int, *, group: int, views: int) -> tuple[Views, FullLabels]:
        """Views [v ...] of a scene of the group's bucket near the size of the bucket, any of its frames, with their
        truth.

        Raises:
            UserError: the scene has fewer views, or a file cannot be read.
        """
        generator = torch.Generator().manual_seed(seed)
        alike = [index for index, size in enumerate(self._bucket) if size == self.size(group)]
        scene = self.scene(alike[int(torch.randint(len(alike), (1,), generator=generator))])
        frames = scene.capture.frames
        if len(frames) < views:
            raise UserError(f"{scene.name}: has {len(frames)} views, a sample needs {views}")
        return self._sample(scene, torch.randperm(len(frames), generator=generator)[:views].tolist(), seed)

    def whole(self, index: int, *, views: int) -> tuple[Views, FullLabels]:
        """``views`` evenly spaced views of a scene (all where it has fewer), with their truth."""
        scene = self.scene(index)
        return self._sample(scene, evenly_spaced(range(len(scene.capture.frames)), views), index)

    def _sample(self, scene: Scene, chosen: Sequence[int], seed: int) -> tuple[Views, FullLabels]:
        capture = dataclasses.replace(scene.capture, frames=tuple(scene.capture.frames[index] for index in chosen))
        seen, regions = network_views(capture, long_side=self._long_side, patch=self._patch)
        assert scene.truth is not None  # checked when it was found
        truth = load_truth(scene.truth, capture.names, regions=regions, size=seen.size)
        truth = dataclasses.replace(truth, metric=False)  # no loss asks for metres: scenes of all units share a batch
        labels = FullLabels(truth=truth, tracks=simulate_tracks(truth, self._noise, seed))
        refuse_not_finite(scene.name, chosen, seen, labels)
        return seen, labels


@lru_cache(maxsize=64)
def _open(kind: str, root: Path, name: str, depth_truth: str | None) -> Scene | None:
    """The scene, with depth from elsewhere where it has none of its own; None where there is none of it either."""
    scene = READERS[kind].open(root, name)
    if depth_truth is None or scene.truth is None or scene.truth.depth(scene.capture.names[0]) is not None:
        return scene
    return None if depth_folder(name, depth_truth) is None else with_depth(scene, depth_truth)


def _checked(scene: Scene) -> tuple[int, int]:
    """(height, width) of the first frame of a scene that has all that full supervision reads."""
    first: Frame = scene.capture.frames[0]
    if scene.truth is None:
        raise UserError(f"{scene.capture.root}: has no ground truth, which full supervision needs; leave it out")
    scene.truth.camera(first.name)
    if scene.truth.depth(first.name) is None:
        raise UserError(
            f"{scene.capture.root}: has true poses but no true depth, which full supervision needs; attach depth "
            "maps with --depth-truth wai:PATH, cut3r:PATH or colmap:PATH (docs/datasets.md), or leave it out"
        )
    return first.height, first.width

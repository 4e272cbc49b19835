"""The matching branch of a network that solves its cameras, as a matcher of pairs: it needs no keypoints."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn import functional as F

from reliev3r.core.errors import UserError
from reliev3r.labels.tracks.matcher import PointMatches
from reliev3r.labels.tracks.pairwise import PairwiseTracks
from reliev3r.model.load import PACKAGED, load_network, weights_hash
from reliev3r.model.network import Reliev3R
from reliev3r.sfm.dense_matches import DenseMatchConfig, mutual_matches

_KEPT = 64
"""Images whose features are kept: a 256-pixel image has 2.4 MB of them."""


@dataclass(frozen=True, kw_only=True)
class NetworkMatcher:
    """Mutual matches of a regular grid of places in either image, with sub-pixel targets."""

    name: ClassVar[str] = "network"
    cell: ClassVar[float] = 1.0

    weights: Reliev3R | str = PACKAGED
    """A network, or a checkpoint's folder; by default the one that comes with the package."""
    device: str = "cpu"
    matches: DenseMatchConfig = field(default_factory=lambda: DenseMatchConfig(queries=384))
    _features: dict[int, tuple[Any, Tensor]] = field(default_factory=dict, repr=False, compare=False)

    @cached_property
    def _network(self) -> Reliev3R:
        if isinstance(self.weights, Reliev3R):
            return self.weights
        network = load_network(self.weights)
        if network.match_branch is None:
            raise UserError(f"{self.weights}: this network has no matching branch; its cameras are regressed")
        return network.to(self.device).eval()

    def fingerprint(self) -> dict[str, Any]:
        """Hash of the weights, and the settings."""
        told = {} if isinstance(self.weights, Reliev3R) else {"weights_sha256": weights_hash(self.weights)}
        return {**told, **vars(self.matches)}

    def match_images(self, first: UInt8[np.ndarray, "h w 3"], second: UInt8[np.ndarray, "h2 w2 3"]) -> PointMatches:
        """Matches asked for in either direction; those of a place that is asked from both sides appear twice."""
        maps = [self._described(image) for image in (first, second)]
        rows, columns = (max(each.shape[axis] for each in maps) for axis in (-2, -1))
        features, size = _side_by_side(maps, rows, columns), (2 * rows, 2 * columns)
        with torch.no_grad():
            tracks = mutual_matches(features[None], size, self.matches)
        seen = (tracks.weight[0] > 0).all(0)
        ends = torch.tensor([[2.0 * each.shape[-1], 2.0 * each.shape[-2]] for each in maps], device=tracks.uv.device)
        inside = (tracks.uv[0] < ends[:, None]).all(-1).all(0)
        uv = tracks.uv[0, :, seen & inside].double().cpu().numpy()
        return PointMatches(first=uv[0], second=uv[1], confidence=np.ones(uv.shape[1]))

    def _described(self, image: UInt8[np.ndarray, "h w 3"]) -> Float[Tensor, "c fh fw"]:
        """Features of an image; those of the last few are kept."""
        if id(image) not in self._features:
            if len(self._features) >= _KEPT:
                self._features.pop(next(iter(self._features)))
            pixels = torch.from_numpy(np.ascontiguousarray(image)).movedim(-1, 0)[None] / 255
            self._features[id(image)] = (image, self._network.image_features(pixels)[0])  # held: its id stays its own
        return self._features[id(image)][1]


def _side_by_side(maps: list[Tensor], rows: int, columns: int) -> Float[Tensor, "2 c rows columns"]:
    """Maps of one size, filled up with zeros; matches that fall there are dropped by the caller."""
    return torch.stack([
        F.pad(each, (0, columns - each.shape[-1], 0, rows - each.shape[-2])) for each in maps
    ])  # fmt: skip


def network_tracks(weights: Reliev3R | str, *, device: str) -> PairwiseTracks:
    """Tracks by a network's matching branch, on images of 256 pixels: twice what it was trained on, and most exact."""
    matcher = NetworkMatcher(weights=weights, device=device)
    return PairwiseTracks(matcher=matcher, long_side=256, threshold=1.5, min_share=0.25)

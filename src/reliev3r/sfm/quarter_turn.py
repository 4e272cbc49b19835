"""Portrait and landscape pictures of one lens: turned by 90 degrees, so that all of a camera's views lie alike."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from reliev3r.core.types import Tracks
from reliev3r.sfm.bundle_pycolmap import Bundle

_TURNED_FROM_CAM = torch.tensor([[0.0, 1, 0, 0], [-1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]], dtype=torch.float64)
"""A camera's axes after the turn: its x was y, its y was -x."""


@dataclass(frozen=True, eq=False)
class QuarterTurn:
    """Which views lie across their camera's first one. They are turned anticlockwise, and back; all others stay.

    Pixels go from (u, v) to (v, width - u), K and the camera's axes with them.
    """

    sizes: tuple[tuple[int, int], ...]
    """(width, height) of each view as it is."""
    across: Bool[Tensor, " v"]

    @staticmethod
    def of(sizes: Sequence[tuple[int, int]], camera_of: Sequence[int]) -> QuarterTurn:
        """``camera_of``: for each view the first one of its camera, whose way of lying counts."""
        lies = [width > height for width, height in sizes]
        square = [width == height for width, height in sizes]
        across = [not square[v] and lies[v] != lies[first] for v, first in enumerate(camera_of)]
        return QuarterTurn(tuple(sizes), torch.tensor(across))

    @property
    def turned_sizes(self) -> tuple[tuple[int, int], ...]:
        """(width, height) of each view after the turn."""
        return tuple(size[::-1] if across else size for size, across in zip(self.sizes, self.across.tolist()))

    def tracks(self, tracks: Tracks) -> Tracks:
        """[v, m] in pixels after the turn."""
        width = torch.tensor([size[0] for size in self.sizes], dtype=tracks.uv.dtype)[:, None]
        u, v = tracks.uv.unbind(-1)
        turned = torch.stack([v, width - u], dim=-1)
        return dataclasses.replace(tracks, uv=torch.where(self.across[:, None, None], turned, tracks.uv))

    def K(self, K: Float[Tensor, "v 3 3"]) -> Float[Tensor, "v 3 3"]:
        """Intrinsics after the turn."""
        R = _TURNED_FROM_CAM[:3, :3].to(K)
        return torch.where(self.across[:, None, None], self._pixels().to(K) @ K @ R.mT, K)

    def cameras(self, world_from_cam: Float[Tensor, "v 4 4"]) -> Float[Tensor, "v 4 4"]:
        """Cameras after the turn."""
        turned = world_from_cam @ _TURNED_FROM_CAM.mT.to(world_from_cam)
        return torch.where(self.across[:, None, None], turned, world_from_cam)

    def back(self, bundle: Bundle) -> Bundle:
        """What was found after the turn, for the views as they are."""
        R, across = _TURNED_FROM_CAM.to(bundle.K), self.across[:, None, None]
        K = torch.linalg.inv(self._pixels().to(bundle.K)) @ bundle.K @ R[:3, :3]
        cameras = bundle.world_from_cam @ R.to(bundle.world_from_cam)
        return dataclasses.replace(
            bundle,
            K=torch.where(across, K, bundle.K),
            world_from_cam=torch.where(across, cameras, bundle.world_from_cam),
        )

    def _pixels(self) -> Float[Tensor, "v 3 3"]:
        """turned_from_original, on homogeneous pixels."""
        turn = _TURNED_FROM_CAM[:3, :3].repeat(len(self.sizes), 1, 1)
        turn[:, 1, 2] = torch.tensor([float(width) for width, _ in self.sizes])
        return turn

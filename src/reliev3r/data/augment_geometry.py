"""Moves of the image plane that take K, depth, tracks and cameras of a sample with them."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TypeVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional

from reliev3r.core.types import FullLabels, Labels, Tracks, Truth, Views
from reliev3r.geometry.camera import K_of_crop_resize
from reliev3r.geometry.sampling import inside

L = TypeVar("L", bound=Labels)

BEND = 0.05
"""Where 1 / z departs from a plane by more than this share of itself within 3x3 pixels, surfaces meet."""


@dataclass(frozen=True, kw_only=True)
class Crop:
    """A window of each view, resampled to one size."""

    windows: Float[Tensor, "*b v 4"]
    """(left, top, width, height) in source pixels, float64 on the CPU."""
    source: tuple[int, int]
    """(height, width) before."""
    size: tuple[int, int]
    """(height, width) after."""

    @property
    def is_identity(self) -> bool:
        """Whether every window is the whole image at its own size."""
        whole = self.windows.new_tensor([0, 0, self.source[1], self.source[0]])
        return self.size == self.source and bool((self.windows - whole).abs().max() < 1e-9)

    def image(self, image: Float[Tensor, "*b v c H W"]) -> Float[Tensor, "*b v c h w"]:
        """Bilinear where it enlarges, with a tent as wide as the new pixels where it shrinks (no aliasing)."""
        rows = tent_weights(self._positions(0), self.source[0], self._step(0)).to(image)
        columns = tent_weights(self._positions(1), self.source[1], self._step(1)).to(image)
        return resample(image, rows, columns)

    def depth(
        self, depth: Float[Tensor, "*b v H W"], valid: Bool[Tensor, "*b v H W"]
    ) -> tuple[Float[Tensor, "*b v h w"], Bool[Tensor, "*b v h w"]]:
        """z-depth at the new pixels' centres: interpolated on a surface, the nearest pixel's at edges and holes.

        1 / z is what is interpolated: it is linear in the image of a plane.
        """
        rows, columns = (self._positions(axis).to(depth) for axis in (0, 1))
        linear = [
            tent_weights(at, count, torch.ones_like(at[..., 0])) for at, count in zip((rows, columns), self.source)
        ]
        row, column = rows.long().clamp(0, self.source[0] - 1), columns.long().clamp(0, self.source[1] - 1)
        nearest = (row[..., :, None] * self.source[1] + column[..., None, :]).flatten(-2)

        def lookup(values: Tensor) -> Tensor:
            return values.flatten(-2).gather(-1, nearest).unflatten(-1, self.size)

        inverse = torch.where(valid, 1 / torch.where(valid, depth, 1.0), 0.0)
        smooth = valid & (_bend(inverse) < BEND * inverse)
        surface = 1 / resample(inverse[..., None, :, :], *linear)[..., 0, :, :].clamp_min(1e-12)
        return torch.where(lookup(smooth), surface, lookup(depth)), lookup(valid)

    def K(self, K: Float[Tensor, "*b v 3 3"]) -> Float[Tensor, "*b v 3 3"]:
        """Exact (``geometry.camera.K_of_crop_resize``)."""
        left, top, sx, sy = self._affine(K)
        return K_of_crop_resize(K, offset=(left, top), scale=(sx, sy))

    def uv(self, uv: Float[Tensor, "*b v m 2"]) -> Float[Tensor, "*b v m 2"]:
        """Exact, as K."""
        left, top, sx, sy = self._affine(uv)
        offset, scale = torch.stack([left, top], dim=-1), torch.stack([sx, sy], dim=-1)
        return (uv - offset[..., None, :]) * scale[..., None, :]

    def pose(self, world_from_cam: Float[Tensor, "*b v 4 4"]) -> Float[Tensor, "*b v 4 4"]:
        """Cameras stay where they are."""
        return world_from_cam

    def _affine(self, like: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        left, top, width, height = self.windows.unbind(-1)
        return left.to(like), top.to(like), (self.size[1] / width).to(like), (self.size[0] / height).to(like)

    def _step(self, axis: int) -> Float[Tensor, "*b v"]:
        """Source pixels a new pixel, along rows (0) or columns (1)."""
        return self.windows[..., 3 - axis] / self.size[axis]

    def _positions(self, axis: int) -> Float[Tensor, "*b v n"]:
        """The new pixels' centres in source pixels."""
        centre = torch.arange(self.size[axis], dtype=self.windows.dtype) + 0.5
        return self.windows[..., 1 - axis, None] + centre * self._step(axis)[..., None]


@dataclass(frozen=True, kw_only=True)
class Mirror:
    """The sample in a mirror: x to -x in every camera and in the world, S T S with S = diag(-1, 1, 1, 1)."""

    mirrored: Bool[Tensor, "*b"]
    """Which samples, on the CPU; the others stay."""
    size: tuple[int, int]
    """(height, width), which does not change."""

    def image(self, image: Float[Tensor, "*b v c h w"]) -> Float[Tensor, "*b v c h w"]:
        """Columns in reverse."""
        return self._where(image.flip(-1), image)

    def depth(
        self, depth: Float[Tensor, "*b v h w"], valid: Bool[Tensor, "*b v h w"]
    ) -> tuple[Float[Tensor, "*b v h w"], Bool[Tensor, "*b v h w"]]:
        """Columns in reverse; z stays."""
        return self._where(depth.flip(-1), depth), self._where(valid.flip(-1), valid)

    def K(self, K: Float[Tensor, "*b v 3 3"]) -> Float[Tensor, "*b v 3 3"]:
        """cx to width - cx."""
        mirrored = K.clone()
        mirrored[..., 0, 2] = self.size[1] - K[..., 0, 2]
        return self._where(mirrored, K)

    def uv(self, uv: Float[Tensor, "*b v m 2"]) -> Float[Tensor, "*b v m 2"]:
        """u to width - u."""
        u, v = uv.unbind(-1)
        return self._where(torch.stack([self.size[1] - u, v], dim=-1), uv)

    def pose(self, world_from_cam: Float[Tensor, "*b v 4 4"]) -> Float[Tensor, "*b v 4 4"]:
        """S T S, which is rigid again."""
        sign = world_from_cam.new_tensor([-1, 1, 1, 1])
        return self._where(sign[:, None] * world_from_cam * sign, world_from_cam)

    def _where(self, mirrored: Tensor, plain: Tensor) -> Tensor:
        chosen = self.mirrored.to(plain.device)
        return torch.where(chosen.reshape(chosen.shape + (1,) * (plain.ndim - chosen.ndim)), mirrored, plain)


def moved(views: Views, labels: L, move: Crop | Mirror) -> tuple[Views, L]:
    """The sample after a move: nothing is left behind, whatever kind the labels are."""
    K = None if views.K is None else move.K(views.K)
    views = dataclasses.replace(views, image=move.image(views.image), K=K)
    tracks = moved_tracks(labels.tracks, move)
    if isinstance(labels, FullLabels):
        truth = moved_truth(labels.truth, move)
        return views, dataclasses.replace(labels, truth=truth, tracks=tracks)
    depth, valid = move.depth(labels.depth.depth, labels.depth.valid)
    weight = labels.depth.weight
    if weight is not None:
        weight = move.image(weight[..., None, :, :])[..., 0, :, :]
    cameras = labels.cameras
    if cameras is not None:
        cameras = dataclasses.replace(cameras, world_from_cam=move.pose(cameras.world_from_cam))
    return views, dataclasses.replace(
        labels,
        depth=dataclasses.replace(labels.depth, depth=depth, valid=valid, weight=weight),
        tracks=tracks,
        K=None if labels.K is None else move.K(labels.K),
        cameras=cameras,
    )


def moved_truth(truth: Truth, move: Crop | Mirror) -> Truth:
    """Ground truth after a move."""
    depth, valid = move.depth(truth.depth, truth.valid)
    pose = move.pose(truth.world_from_cam)
    return dataclasses.replace(truth, depth=depth, valid=valid, K=move.K(truth.K), world_from_cam=pose)


def moved_tracks(tracks: Tracks, move: Crop | Mirror) -> Tracks:
    """Tracks after a move; observations that it leaves outside weigh 0."""
    uv = move.uv(tracks.uv)
    return dataclasses.replace(tracks, uv=uv, weight=tracks.weight * inside(uv, *move.size))


def _bend(maps: Float[Tensor, "*b h w"]) -> Float[Tensor, "*b h w"]:
    """Largest second difference at each pixel, along rows, columns and diagonals: 0 for a plane, however steep."""
    height, width = maps.shape[-2:]
    padded = functional.pad(maps.reshape(-1, 1, height, width), (1, 1, 1, 1), mode="replicate").reshape(
        *maps.shape[:-2], height + 2, width + 2
    )

    def neighbour(dy: int, dx: int) -> Tensor:
        return padded[..., 1 + dy : 1 + dy + height, 1 + dx : 1 + dx + width]

    axes = ((0, 1), (1, 0), (1, 1), (1, -1))
    bends = [(neighbour(dy, dx) + neighbour(-dy, -dx) - 2 * maps).abs() for dy, dx in axes]
    return torch.stack(bends).amax(0)


def tent_weights(
    positions: Float[Tensor, "*b n"], count: int, radius: Float[Tensor, "*b"]
) -> Float[Tensor, "*b n {count}"]:
    """Weights of ``count`` pixels in samples at corner-based ``positions``, by tents of ``radius`` pixels (at least 1).

    Radius 1 is linear interpolation; pixels beyond the image do not count.
    """
    centre = torch.arange(count, dtype=positions.dtype, device=positions.device) + 0.5
    distance = (positions.clamp(0.5, count - 0.5)[..., None] - centre).abs()
    weights = (1 - distance / radius.clamp_min(1)[..., None, None]).clamp_min(0)
    return weights / weights.sum(-1, keepdim=True)


def resample(
    image: Float[Tensor, "*b c H W"], rows: Float[Tensor, "*b h H"], columns: Float[Tensor, "*b w W"]
) -> Float[Tensor, "*b c h w"]:
    """Images under separable linear maps of their rows and columns, one pair an image."""
    wide = image.flatten(-3, -2) @ columns.mT  # all channels in one product
    return rows[..., None, :, :] @ wide.unflatten(-2, image.shape[-3:-1])

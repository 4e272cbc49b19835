"""A capture at the network's size on disk, from which training reads the views of a sample and nothing else.

One safetensors file a capture, mapped into memory: whatever is stored by view is read by view. Images are 8-bit, depth
is 16-bit log-depth as in the labels, and tracks are lists of what each view sees (docs/how-training-works.md).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from jaxtyping import Float, Int
from safetensors import safe_open
from safetensors.numpy import save_file
from torch import Tensor

from reliev3r.core.errors import UserError
from reliev3r.core.files import atomic_path
from reliev3r.core.types import Ambiguity, CameraLabels, DepthLabels, PseudoLabels, Tracks, Views
from reliev3r.labels.expert import DepthMap
from reliev3r.labels.prepare import Prepared
from reliev3r.labels.store import decode_depths, encode_depth

FORMAT = "reliev3r-prepared/2"


@dataclass(frozen=True)
class PreparedCapture:
    """A capture at network resolution; nothing of it is in memory but what is known of its file."""

    name: str
    path: Path

    @cached_property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        height, width = self._shape[-2:]
        return height, width

    @property
    def count(self) -> int:
        """Number of views."""
        return self._shape[0]

    @cached_property
    def has_K(self) -> bool:
        """Whether its intrinsics are known, or could be estimated."""
        return self._read(lambda file: bool({"K", "pseudo_K"} & set(file.keys())))

    @cached_property
    def _shape(self) -> tuple[int, ...]:
        return self._read(lambda file: tuple(file.get_slice("image").get_shape()))

    def trained_views(self, every: int) -> Tensor:
        """Positions of the views that training sees where each ``every``-th frame is held out (0: none is)."""
        index = torch.arange(self.count)
        return index[index % every != every // 2] if every else index

    def heldout_views(self, every: int) -> tuple[int, ...]:
        """Positions of the others."""
        return tuple(sorted(set(range(self.count)) - set(self.trained_views(every).tolist())))

    def shared(self) -> Float[Tensor, "v v"]:
        """How many of the training tracks each pair of views sees."""
        return torch.from_numpy(self._read(lambda file: file.get_tensor("shared"))).float()

    def views(self, index: Sequence[int] | None = None) -> Views:
        """Some of the views, or all; intrinsics that had to be estimated are like any others.

        Raises:
            UserError: the file is missing or damaged.
        """
        chosen = self._all(index)
        return self._read(lambda file: _views(file, chosen))

    def sample(self, index: Sequence[int] | None = None) -> tuple[Views, PseudoLabels]:
        """Some of the views, or all, and their labels; of the tracks those that two of the views see.

        All fields are there for all captures, so that samples can be stacked.

        Raises:
            UserError: the file is missing or damaged.
        """
        chosen = self._all(index)

        def read(file: Any) -> tuple[Views, PseudoLabels]:
            views = _views(file, chosen)
            return views, _labels(file, chosen, views.K)

        return self._read(read)

    def heldout(self, index: Sequence[int] | None = None) -> Tracks:
        """Of the tracks that training never sees, those that two of the views see.

        Raises:
            UserError: the file is missing or damaged.
        """
        chosen = self._all(index)
        return dataclasses.replace(self._read(lambda file: _tracks(file, "heldout_", chosen)), depth=None)

    def _all(self, index: Sequence[int] | None) -> Sequence[int]:
        return range(self.count) if index is None else index

    def _read(self, function: Any) -> Any:
        try:
            with safe_open(self.path, framework="np") as file:
                return function(file)
        except Exception as error:  # safetensors has an error class of its own in each version
            raise UserError(f"{self.path}: damaged; delete it, and it is made again") from error


def write_prepared(path: Path, prepared: Prepared) -> None:
    """Store what :func:`reliev3r.labels.prepare.prepare_capture` made of a capture."""
    labels = prepared.labels
    codes, limits = zip(*map(encode_depth, _maps(labels.depth)), strict=True)
    seen = (labels.tracks.weight > 0).float()
    tensors: dict[str, Tensor | None] = {
        "image": (prepared.views.image * 255).round().to(torch.uint8),
        "K": prepared.views.K, "pseudo_K": labels.K, "trust": labels.depth.trust,
        "shared": (seen @ seen.T).round().to(torch.int32),
        "world_from_cam": None if labels.cameras is None else labels.cameras.world_from_cam,
        "camera_weight": None if labels.cameras is None else labels.cameras.weight,
    }  # fmt: skip
    arrays = {name: tensor.contiguous().numpy() for name, tensor in tensors.items() if tensor is not None}
    arrays |= {"depth": np.stack(codes), "depth_limits": np.stack(limits)}
    if labels.depth.weight is not None:
        arrays["depth_weight"] = (labels.depth.weight * 255).round().to(torch.uint8).numpy()
    arrays |= _observations("", labels.tracks) | _observations("heldout_", prepared.heldout)
    with atomic_path(path) as temporary:
        save_file(arrays, temporary, metadata={"format": FORMAT, "ambiguity": labels.depth.ambiguity})


def _maps(depth: DepthLabels) -> list[DepthMap]:
    pairs = zip(depth.depth.numpy(), depth.valid.numpy(), strict=True)
    return [DepthMap(depth=values, valid=valid) for values, valid in pairs]


def _observations(prefix: str, tracks: Tracks) -> dict[str, np.ndarray]:
    """What each view sees, one view after another: ``first`` says where each begins."""
    view, track = (tracks.weight > 0).nonzero(as_tuple=True)
    depth = torch.zeros_like(tracks.weight) if tracks.depth is None else tracks.depth
    count = torch.bincount(view, minlength=len(tracks.weight))
    return {
        f"{prefix}first": np.concatenate([[0], count.cumsum(0).numpy()]),
        f"{prefix}track": track.to(torch.int32).numpy(),
        f"{prefix}seen": torch.stack(
            [*tracks.uv[view, track].unbind(-1), tracks.weight[view, track], depth[view, track]], dim=-1
        ).numpy(),
    }


def _rows(file: Any, name: str, chosen: Sequence[int]) -> np.ndarray:
    rows = file.get_slice(name)
    return np.concatenate([rows[index : index + 1] for index in chosen])


def _views(file: Any, chosen: Sequence[int]) -> Views:
    name = "K" if "K" in file.keys() else "pseudo_K"  # noqa: SIM118 - not a dictionary
    image = torch.from_numpy(_rows(file, "image", chosen))
    return Views(image=image.float().div_(255), K=torch.from_numpy(_rows(file, name, chosen)))


def _labels(file: Any, chosen: Sequence[int], K: Tensor | None) -> PseudoLabels:
    there, views = set(file.keys()), len(chosen)
    known: dict[str, Ambiguity] = {kind: kind for kind in get_args(Ambiguity)}
    code, limits = (torch.from_numpy(_rows(file, name, chosen)) for name in ("depth", "depth_limits"))
    values, valid = decode_depths(code.to(torch.int32), limits)
    depth = DepthLabels(
        depth=values,
        valid=valid,
        ambiguity=known[file.metadata()["ambiguity"]],
        trust=torch.from_numpy(_rows(file, "trust", chosen)) if "trust" in there else torch.ones(views),
        weight=torch.from_numpy(_rows(file, "depth_weight", chosen)).float() / 255 if "depth_weight" in there else None,
    )
    if "world_from_cam" in there:
        pose, weight = (torch.from_numpy(_rows(file, name, chosen)) for name in ("world_from_cam", "camera_weight"))
    else:  # the cameras of a capture that could not be solved have no say
        pose, weight = torch.eye(4).repeat(views, 1, 1), torch.zeros(views)
    cameras = CameraLabels(world_from_cam=pose, weight=weight)
    return PseudoLabels(depth=depth, tracks=_tracks(file, "", chosen), K=K, cameras=cameras)


def _tracks(file: Any, prefix: str, chosen: Sequence[int]) -> Tracks:
    """Dense tracks [len(chosen), m] of what the views see, in the stored order."""
    first: Int[np.ndarray, " v1"] = file.get_tensor(f"{prefix}first")
    names, values = file.get_slice(f"{prefix}track"), file.get_slice(f"{prefix}seen")
    ends = [(int(first[view]), int(first[view + 1])) for view in chosen]
    tracks = [names[low:high] for low, high in ends]
    found, count = np.unique(np.concatenate(tracks), return_counts=True)
    kept = found[count >= 2]
    dense = np.zeros((len(ends), len(kept), 4), np.float32)
    for row, track, (low, high) in zip(dense, tracks, ends, strict=True):
        column = np.searchsorted(kept, track).clip(max=max(len(kept) - 1, 0))
        several = kept[column] == track if len(kept) else np.zeros(len(track), bool)
        row[column[several]] = values[low:high][several]
    whole = torch.from_numpy(dense)
    return Tracks(uv=whole[..., :2].contiguous(), weight=whole[..., 2].contiguous(), depth=whole[..., 3].contiguous())

"""The smallest network, views, predictions and labels of random numbers: what most tests need, said once.

Everything is a function of ``seed``; lengths are around 1, images ``size`` = (height, width) pixels. Builders give one
batch dimension, ``scenes`` long.
"""

import dataclasses
from pathlib import Path

import torch

from reliev3r.core.files import file_hash, write_sealed
from reliev3r.core.types import CameraLabels, DepthLabels, FullLabels, Prediction, PseudoLabels, Tracks, Truth, Views
from reliev3r.data.capture import Capture
from reliev3r.geometry.camera import K_from_fov, ray_map
from reliev3r.geometry.rigid import rigid_from, so3_exp
from reliev3r.labels.pipeline import _frame_entry
from reliev3r.labels.store import FORMAT
from reliev3r.model.network import NetworkConfig, Reliev3R
from reliev3r.synthetic.capture import SynthConfig, write_capture

SIZE = (12, 16)
SMALLEST = NetworkConfig(
    dim=32, heads=2, encoder_depth=1, decoder_depth=2, patch_size=4, encoder_grid=4, head_dim=32, head_heads=2,
    head_depth=1, camera_dim=16,
)  # fmt: skip
"""Every part of the network at the least size that runs: 0.1 million weights."""


def network(seed: int = 0, **changes) -> Reliev3R:
    """The smallest network with random weights, in training mode."""
    torch.manual_seed(seed)
    return Reliev3R(dataclasses.replace(SMALLEST, **changes))


def capture(folder: Path, **changes) -> Path:
    """A rendered room written to ``folder``: five views of 240 x 180 along 35 degrees, with truth."""
    settings = {"seed": 3, "views": 5, "width": 240, "height": 180, "span": 35.0, "supersample": 1, **changes}
    return write_capture(folder, SynthConfig(**settings))


def write_manifest(labels: Path, captured: Capture, *, K_source: str | None) -> None:
    """What a finished labelling says of its frames, and nothing else of it."""
    frames = [
        _frame_entry(frame, file_hash(frame.path)) | {"image_bytes": frame.path.stat().st_size}
        for frame in captured.frames
    ]
    experts = {kind: {"name": "none"} for kind in ("depth", "tracks")}
    about = {"format": FORMAT, "experts": experts, "ambiguity": "scale", "files": {}, "K_source": K_source}
    write_sealed(labels / "manifest.json", {**about, "frames": frames})


def intrinsics(*batch: int, size: tuple[int, int] = SIZE, fov: float = 1.2) -> torch.Tensor:
    """K [*batch, 3, 3] of a horizontal field of view in radians."""
    return K_from_fov(fov, *size).expand(*batch, 3, 3)


def views(count: int = 4, size: tuple[int, int] = SIZE, *, known: bool = True) -> Views:
    """Images of noise, with K (57 degrees) or without."""
    image = torch.rand(1, count, 3, *size, generator=torch.Generator().manual_seed(1))
    return Views(image=image, K=intrinsics(1, count, size=size, fov=1.0) if known else None)


def cameras(*batch: int, generator: torch.Generator) -> torch.Tensor:
    """world_from_cam [*batch, 4, 4], turned by some 40 degrees and 1 apart."""
    rotation = so3_exp(0.4 * torch.randn(*batch, 3, generator=generator))
    return rigid_from(rotation, torch.randn(*batch, 3, generator=generator))


def surface(*batch: int, size: tuple[int, int], generator: torch.Generator) -> torch.Tensor:
    """Depth maps around 2 without edges."""
    slope = 0.02 * torch.randn(*batch, 2, 1, 1, generator=generator)
    rows, columns = torch.meshgrid(torch.arange(size[0]), torch.arange(size[1]), indexing="ij")
    return 2 + slope[..., 0, :, :] * rows + slope[..., 1, :, :] * columns + 0.01 * torch.sin(rows + 2 * columns)


def prediction(
    views: int = 3,
    *,
    scenes: int = 1,
    seed: int = 0,
    size: tuple[int, int] = SIZE,
    smooth: bool = False,
    channels: int = 0,
    grad: bool = False,
) -> Prediction:
    """Random in all its parts; ``smooth`` has depth without edges, ``channels`` descriptors, one for 4 x 4 pixels.

    ``grad``: all but the rays are leaves that collect a gradient.
    """
    g = torch.Generator().manual_seed(seed)
    shape = (scenes, views, *size)
    leaves = {
        "depth": surface(scenes, views, size=size, generator=g) if smooth else 1 + torch.rand(shape, generator=g),
        "conf": 0.2 + 1.6 * torch.rand(shape, generator=g),
        "world_from_cam": cameras(scenes, views, generator=g),
    }
    if channels:
        patches = torch.randn(scenes, views, size[0] // 4, size[1] // 4, channels, generator=g)
        leaves["descriptors"] = torch.nn.functional.normalize(patches, dim=-1)
    leaves = {name: value.requires_grad_(grad) for name, value in leaves.items()}
    return Prediction(rays=ray_map(intrinsics(scenes, views, size=size), *size), **leaves)


def tracks(views: int = 3, count: int = 20, *, scenes: int = 1, seed: int = 1, size: tuple[int, int] = SIZE) -> Tracks:
    """Tracks anywhere in the images; each is seen in 7 of 10 views."""
    g = torch.Generator().manual_seed(seed)
    uv = torch.rand(scenes, views, count, 2, generator=g) * torch.tensor([size[1], size[0]])
    return Tracks(uv=uv, weight=(torch.rand(scenes, views, count, generator=g) > 0.3).float())


def labels(
    views: int = 3, *, scenes: int = 1, seed: int = 1, count: int = 20, size: tuple[int, int] = SIZE
) -> PseudoLabels:
    """Pseudo depth, valid at 8 of 10 pixels, and :func:`tracks`."""
    g = torch.Generator().manual_seed(seed)
    shape = (scenes, views, *size)
    depth = DepthLabels(depth=1 + torch.rand(shape, generator=g), valid=torch.rand(shape, generator=g) > 0.2)
    return PseudoLabels(depth=depth, tracks=tracks(views, count, scenes=scenes, seed=seed + 1, size=size))


def taught(label: PseudoLabels, *, seed: int = 2) -> PseudoLabels:
    """The same with everything optional: trust, track depths, K, and pseudo cameras that lack the last view."""
    g = torch.Generator().manual_seed(seed)
    seen = label.tracks.weight
    weight = 0.5 + 0.5 * torch.rand(seen.shape[:2], generator=g)
    weight[:, -1] = 0
    solved = (torch.rand(seen.shape, generator=g) > 0.3) * (1 + torch.rand(seen.shape, generator=g))
    return dataclasses.replace(
        label,
        depth=dataclasses.replace(label.depth, trust=torch.rand(seen.shape[:2], generator=g)),
        tracks=dataclasses.replace(label.tracks, depth=solved),
        K=intrinsics(*seen.shape[:2], size=tuple(label.depth.depth.shape[-2:]), fov=1.0),
        cameras=CameraLabels(world_from_cam=cameras(*seen.shape[:2], generator=g), weight=weight),
    )


def full_labels(
    views: int = 3, *, scenes: int = 1, seed: int = 0, count: int = 9, size: tuple[int, int] = SIZE
) -> FullLabels:
    """The truth of a surface without edges, valid at 9 of 10 pixels, and :func:`tracks`."""
    g = torch.Generator().manual_seed(seed)
    truth = Truth(
        depth=surface(scenes, views, size=size, generator=g),
        valid=torch.rand(scenes, views, *size, generator=g) > 0.1,
        K=intrinsics(scenes, views, size=size, fov=1.1),
        world_from_cam=cameras(scenes, views, generator=g),
    )
    return FullLabels(truth=truth, tracks=tracks(views, count, scenes=scenes, seed=seed + 1, size=size))


def moved_cameras(world_from_cam: torch.Tensor, scale: float, seed: int = 4) -> torch.Tensor:
    """The same cameras in another world: turned, scaled and shifted."""
    g = torch.Generator().manual_seed(seed)
    turn, shift = (torch.randn(3, generator=g).to(world_from_cam) for _ in range(2))
    rotation, centre = world_from_cam[..., :3, :3], world_from_cam[..., :3, 3]
    turn = so3_exp(turn)
    return rigid_from(turn @ rotation, scale * centre @ turn.T + shift)


def moved(p: Prediction, scale: float, seed: int = 4) -> Prediction:
    """The same prediction in another world."""
    return dataclasses.replace(p, depth=scale * p.depth, world_from_cam=moved_cameras(p.world_from_cam, scale, seed))

"""What the studies compare: variants, as changes of the settings that all start from.

Training across rooms and fitting one capture have the same objective, so the same changes serve both.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hybrid import Hybrid

from reliev3r.data.augment_colour import WorldConfig
from reliev3r.labels.prepare import PrepareConfig
from reliev3r.model.network import PRESETS, NetworkConfig, Reliev3R
from reliev3r.runs.fit import FitConfig
from reliev3r.sfm.bundle_batched import PolishConfig
from reliev3r.training.recipes import ScenesConfig, small_gpu, tiny_cpu, tiny_cpu_regressed


@dataclass(frozen=True, kw_only=True)
class CaptureConfig(FitConfig):
    """Settings of a fit, with the sizes of its network instead of their name."""

    network: NetworkConfig = PRESETS["tiny"]


Change = Callable[[Any], Any]
"""Of a ScenesConfig or a CaptureConfig."""


def both(first: Change, second: Change) -> Change:
    """One change after another."""
    return lambda c: second(first(c))


def weak(**changes: Any) -> Change:
    """Settings of the weak objective."""
    return lambda c: dataclasses.replace(c, objective=dataclasses.replace(c.objective, **changes))


def network(**changes: Any) -> Change:
    """Sizes of the network."""
    return lambda c: dataclasses.replace(c, network=dataclasses.replace(c.network, **changes))


def depth(**changes: Any) -> Change:
    """Settings of the depth loss."""
    return lambda c: weak(depth=dataclasses.replace(c.objective.depth, **changes))(c)


def form(name: str) -> Change:
    """Another reprojection residual."""
    return lambda c: weak(reprojection=dataclasses.replace(c.objective.reprojection, form=name))(c)


def full(**changes: Any) -> Change:
    """Full supervision with these settings."""
    return lambda c: dataclasses.replace(c, supervision="full", supervised=dataclasses.replace(c.supervised, **changes))


def noisier(factor: float) -> Change:
    """The simulated expert bends depth ``factor`` times as much."""

    def change(c: ScenesConfig) -> ScenesConfig:
        noise = dataclasses.replace(c.stream.depth_noise, distortion=factor * c.stream.depth_noise.distortion)
        return dataclasses.replace(c, stream=dataclasses.replace(c.stream, depth_noise=noise))

    return change


def tracks_noisier(factor: float) -> Change:
    """The simulated tracker is ``factor`` times as inexact, and as often wrong."""

    def change(c: ScenesConfig) -> ScenesConfig:
        noise = c.stream.track_noise
        noise = dataclasses.replace(noise, pixel=factor * noise.pixel, false=factor * noise.false)
        return dataclasses.replace(c, stream=dataclasses.replace(c.stream, track_noise=noise))

    return change


def one_world(c: ScenesConfig) -> ScenesConfig:
    """Rooms in their own colours."""
    augment = dataclasses.replace(c.batch.augment, world=WorldConfig.none())
    return dataclasses.replace(c, batch=dataclasses.replace(c.batch, augment=augment))


def half_as_large(c: ScenesConfig) -> ScenesConfig:
    """Images, and patches, of half the side."""
    stream = dataclasses.replace(c.stream, width=c.stream.width // 2, height=c.stream.height // 2)
    prepare = dataclasses.replace(c.captures.prepare, image_size=c.captures.prepare.image_size // 2)
    captures = dataclasses.replace(c.captures, prepare=prepare)
    return network(patch_size=c.network.patch_size // 2)(dataclasses.replace(c, stream=stream, captures=captures))


def regressed(c: ScenesConfig) -> ScenesConfig:
    """Cameras by the paper's head, with the correspondence branch that helps it; all else stays."""
    return both(network(cameras="regressed", match_dim=64), weak(correspondence_weight=0.3))(c)


def other_domain(c: ScenesConfig) -> ScenesConfig:
    """Rooms of other textures, layouts and focal lengths."""
    return dataclasses.replace(c, stream=dataclasses.replace(c.stream, texture="terrazzo", fov=(42.0, 52.0)))


def arc(low: float, high: float) -> Change:
    """Views on arcs of ``low`` to ``high`` degrees: the difficulty."""
    return lambda c: dataclasses.replace(c, stream=dataclasses.replace(c.stream, span=(low, high)))


def tuned(c: ScenesConfig, share: float) -> ScenesConfig:
    """Weak fine-tuning: this share of the steps and of the learning rate."""
    return dataclasses.replace(c, steps=max(1, int(share * (c.steps or 4))), lr=share * c.lr)


def on_captures(c: ScenesConfig, store: Path, captures: Path) -> ScenesConfig:
    """Real captures instead of rooms. Few as they are, none is held out: their training tracks are not judged by."""
    data = dataclasses.replace(c.captures, data=(f"{captures}={store}",), heldout=0.0)
    return dataclasses.replace(c, stream_weight=0.0, captures=data)


VARIANTS: dict[str, Change] = {
    "weak": lambda c: c,
    "pi3-dagger-rooms": full(),
    "weak, no correspondence branch": weak(correspondence_weight=0.0),
    "weak, no early teacher": weak(teacher_weight=0.0),
    "weak, neither (the paper's losses)": weak(teacher_weight=0.0, correspondence_weight=0.0),
    "weak, pseudo cameras not polished": lambda c: dataclasses.replace(c, polish=PolishConfig(steps=0)),
    "weak, teacher for half of the run": lambda c: dataclasses.replace(c, teacher_until=0.5),
    "weak, half of the teacher at the end": lambda c: dataclasses.replace(c, teacher_until=2.0),
    "pi3-dagger-rooms, no correspondence branch": full(correspondence_weight=0.0),
    "depth only": weak(tracks_weight=0.0, teacher_weight=0.0, correspondence_weight=0.0),
    "tracks only": weak(depth_weight=0.0),
    "no confidence": depth(confidence=False),
    "alpha 0.2": depth(alpha=0.2),
    "alpha 0.5": depth(alpha=0.5),
    "alpha 2": depth(alpha=2.0),
    "pixel": form("pixel"),
    "cosine": form("cosine"),
    "point": form("point"),
    "expert twice as bent": noisier(2.0),
    "arc 5 to 10 degrees": arc(5.0, 10.0),
    "arc 10 to 30 degrees": arc(10.0, 30.0),
    "arc 20 to 60 degrees": arc(20.0, 60.0),
}
SOLVED: dict[str, Change] = {
    "weak": lambda c: c,
    "pi3-dagger": full(),
    "AdamW": lambda c: dataclasses.replace(c, optimizer="adamw"),
    "no colour worlds": one_world,
    "images half as large": half_as_large,
    "regressed cameras": regressed,
    "hybrid": lambda c: c,
    "depth only": weak(tracks_weight=0.0, teacher_weight=0.0, match_weight=0.0),
    "tracks only": weak(depth_weight=0.0),
    "matches only": weak(depth_weight=0.0, tracks_weight=0.0, teacher_weight=0.0),
    "depth loss four times as heavy": weak(depth_weight=2.0),
    "no confidence": depth(confidence=False),
    "alpha 0.5": depth(alpha=0.5),
    "alpha 2": depth(alpha=2.0),
    "expert twice as bent": noisier(2.0),
    "expert four times as bent": noisier(4.0),
    "tracks twice as bad": tracks_noisier(2.0),
    "tracks four times as bad": tracks_noisier(4.0),
}
"""Of networks that solve their cameras."""
ALPHAS: dict[str, Change] = {f"alpha {alpha:g}": depth(alpha=alpha) for alpha in (0.2, 0.5, 1.0, 2.0)} | {
    "alpha 1, median deviation": depth(deviation="median")
}
"""The paper's ablation of Eq. 4 and its open point, with networks that solve their cameras, of images half as large."""
NETWORKS: dict[str, type[Reliev3R]] = {"hybrid": Hybrid}
"""Variants that are other networks of the same sizes."""
ON_ONE_CAPTURE: dict[str, Change] = {
    "default": lambda c: c,
    "no registration of the depth": lambda c: dataclasses.replace(c, prepare=PrepareConfig(register=False)),
    "depth compared up to scale and shift": depth(align="scale+shift"),
    "median instead of mean deviation": depth(deviation="median"),
    "W of Eq. 4 alone": weak(doubt=0.0),
    "tracks only (depth weight 0)": weak(depth_weight=0.0),
    "depth only (tracks weight 0: no teacher, no registration)": weak(tracks_weight=0.0),
    "no teacher: angle (the paper's form)": weak(teacher_weight=0.0),
    "no teacher: pixel": both(weak(teacher_weight=0.0), form("pixel")),
    "no teacher: point": both(weak(teacher_weight=0.0), form("point")),
    "no teacher: cosine": both(weak(teacher_weight=0.0), form("cosine")),
    "no teacher, no camera contrast": both(weak(teacher_weight=0.0), network(camera_contrast=False)),
}
"""Without a teacher the loss alone has to find the cameras."""
REAL = "on the real captures"


def tuned_from(full: str) -> dict[str, tuple[str, float]]:
    """The paper's section B after the variant ``full``: by name, the variant whose checkpoint is fine-tuned, and for
    which share of the steps (the paper: as many again)."""
    return {
        f"{full} + weak on the other domain": (full, 1.0),
        f"{full} + weak on the other domain, a quarter as long": (full, 0.25),
        f"{full} + weak {REAL}": (full, 0.25),
        f"weak + weak {REAL}": ("weak", 0.25),
    }


SIZES = ("ci", "cpu", "gpu", "solved", "solved-small", "alpha", "hour")


def solves(size: str) -> bool:
    """Whether networks of this size solve their cameras."""
    return size in ("solved", "solved-small", "alpha", "hour")


def variants(size: str) -> dict[str, Change]:
    """What is compared at a size."""
    if size == "alpha":
        return ALPHAS
    if size == "hour":
        return {name: SOLVED[name] for name in ("weak", "pi3-dagger")}
    return SOLVED if solves(size) else VARIANTS


def afterwards(size: str) -> dict[str, tuple[str, float]]:
    """What is fine-tuned after them: :func:`tuned_from`."""
    if size in ("alpha", "hour"):
        return {}
    return tuned_from("pi3-dagger" if solves(size) else "pi3-dagger-rooms")


def settings(size: str, seed: int) -> ScenesConfig:
    """What all variants start from."""
    if size == "gpu":
        start = small_gpu()
        head = dataclasses.replace(start.network, cameras="regressed", match_dim=64)
        loss = dataclasses.replace(start.objective, correspondence_weight=0.3)
        return dataclasses.replace(start, network=head, objective=loss, steps=6000, seed=seed)
    if size == "solved-small":
        return dataclasses.replace(half_as_large(settings("solved", seed)), steps=150, heldout_scenes=16)
    if size == "solved":
        return dataclasses.replace(tiny_cpu(), steps=400, seed=seed, heldout_scenes=24, evaluate_every=0.5)
    if size == "alpha":
        return half_as_large(settings("solved", seed))
    if size == "hour":
        return dataclasses.replace(tiny_cpu(), seed=seed, heldout_scenes=48)
    if size == "cpu":
        return dataclasses.replace(tiny_cpu_regressed(), steps=500, seed=seed, heldout_scenes=48, evaluate_every=0.25)
    network = NetworkConfig(
        dim=32, heads=2, encoder_depth=1, decoder_depth=2, patch_size=8, encoder_grid=4, head_dim=32, head_heads=2,
        head_depth=1, camera_dim=16, match_dim=8,
    )  # fmt: skip
    start = tiny_cpu_regressed()
    return dataclasses.replace(
        start, steps=8, seed=seed, network=network, heldout_scenes=2,
        stream=dataclasses.replace(start.stream, height=24, width=32, rooms=16),
        batch=dataclasses.replace(start.batch, images=8),
    )  # fmt: skip

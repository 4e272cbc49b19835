"""What a network costs at size: parameters, FLOPs and bytes, on fake tensors that have shapes but no memory.

    python benchmarks/cost.py --out benchmarks/results/cost.json

For ``base`` with regressed and with solved cameras: one forward pass without gradient, and a training step (forward
and backward), at 8 and 24 views of 224 and 518 pixels, one sample; and the parts that solved cameras add. The losses of
a step are the matching loss, where there is one, and sums in place of the others, which cost next to nothing.
Nothing is computed, so nothing here is a time. FLOPs are those of matrix products, convolutions and attention. Bytes
are the most that tensors hold at a time, weights included, gradients and optimiser not; bf16 as autocast gives it.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from about import about
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

from reliev3r.core.files import write_json
from reliev3r.core.types import Tracks, Views
from reliev3r.geometry import statistics
from reliev3r.losses.matching import match_loss
from reliev3r.model.network import PRESETS, NetworkConfig, Reliev3R
from reliev3r.sfm.dense_matches import mutual_matches
from reliev3r.sfm.match_cameras import cameras_from_matches
from reliev3r.training.parallel import blocks_of

TRACKS = 1024
"""Of a sample, as training draws them."""
MATCHED = 128
"""Of these, those that the matching loss compares with all cells."""
GRID = [(8, 224), (24, 224), (8, 518), (24, 518)]
"""Views, and the side of the square images."""


def _flash(q: Any, k: Any, v: Any, *_: Any, out_shape: Any = None, **__: Any) -> int:
    return int(sdpa_flop_count(q, k, v))


def _flash_backward(gradient: Any, q: Any, k: Any, v: Any, *_: Any, out_shape: Any = None, **__: Any) -> int:
    return int(sdpa_backward_flop_count(gradient, q, k, v))


ATTENTION = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _flash,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: _flash_backward,
}
"""The counter knows the kernels of GPUs alone."""


class LiveBytes(TorchDispatchMode):
    """Adds up the storages that are alive, and keeps the largest sum."""

    def __init__(self) -> None:
        super().__init__()
        self.live = self.peak = 0
        self.known: dict[int, Any] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Every new storage of a result counts until it is freed."""
        result = func(*args, **(kwargs or {}))
        for tensor in tree_flatten(result)[0]:
            if isinstance(tensor, Tensor):
                self._count(tensor)
        return result

    def _count(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key in self.known and self.known[key]() is not None:
            return

        def freed(_: Any) -> None:
            self.live -= size
            self.known.pop(key, None)

        self.known[key] = weakref.ref(storage, freed)
        self.live += size
        self.peak = max(self.peak, self.live)


@contextlib.contextmanager
def fake() -> Iterator[None]:
    """Tensors without memory; the CPU's faster sort goes through numpy, which needs some."""
    plain = mock.patch.object(statistics, "_argsort", lambda values: values.argsort(dim=-1))
    with FakeTensorMode(allow_non_fake_inputs=True), plain:
        yield


def counted(work: Callable[[], Any]) -> int:
    """FLOPs of a piece of work."""
    with FlopCounterMode(display=False, custom_mapping=ATTENTION) as counter:
        work()
    return int(counter.get_total_flops())


def sample(views: int, side: int) -> tuple[Views, Tracks]:
    """Shapes of one sample."""
    tracks = Tracks(uv=torch.empty(1, views, TRACKS, 2), weight=torch.empty(1, views, TRACKS))
    return Views(image=torch.empty(1, views, 3, side, side), K=torch.empty(1, views, 3, 3)), tracks


def network_on(config: NetworkConfig) -> Reliev3R:
    """Without memory: made on the meta device, then given fake storage."""
    with torch.device("meta"):
        network = Reliev3R(config)
    with fake():
        return network.to_empty(device="cpu")


def forward(config: NetworkConfig, views: int, side: int) -> dict[str, float]:
    """One pass without gradient."""
    network = network_on(config).eval()
    with fake(), LiveBytes() as memory, torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        for tensor in (*network.parameters(), *network.buffers()):
            memory._count(tensor)
        seen, _ = sample(views, side)
        return {"tflops": counted(lambda: network(seen)) / 1e12, "peak_gb": memory.peak / 1e9}


def training_step(config: NetworkConfig, views: int, side: int, *, recompute: bool) -> dict[str, float]:
    """Forward and backward of one sample."""
    network = network_on(config).train()
    for block in blocks_of(network):
        block.recompute = recompute
    with fake(), LiveBytes() as memory:
        for tensor in (*network.parameters(), *network.buffers()):
            memory._count(tensor)
        seen, tracks = sample(views, side)

        def step() -> None:
            with torch.autocast("cpu", torch.bfloat16):
                found = network(seen)
            total = found.depth.mean() + found.conf.mean() + found.world_from_cam.mean()
            if found.features is not None:
                total = total + match_loss(found, tracks, MATCHED)[0].mean()
            total.backward()

        return {"tflops": counted(step) / 1e12, "peak_gb": memory.peak / 1e9}


def parts(config: NetworkConfig, views: int, side: int) -> dict[str, dict[str, float]]:
    """What solved cameras add to a forward pass."""
    network = network_on(dataclasses.replace(config, cameras="solved")).eval()
    branch = network.match_branch
    assert branch is not None
    found: dict[str, dict[str, float]] = {}
    with fake(), torch.no_grad():
        seen, _ = sample(views, side)
        depth, K = torch.empty(1, views, side, side), torch.empty(1, views, 3, 3)
        features = torch.empty(1, views, config.feature_dim, -(-side // 2), -(-side // 2))
        tracks = mutual_matches(features, (side, side))

        def branched() -> None:
            for part in seen.image[0].split(network.views_at_once):
                branch(part)

        work = {
            "matching branch": branched,
            "mutual matches": lambda: mutual_matches(features, (side, side)),
            "solve": lambda: cameras_from_matches(depth, K, tracks),
        }
        for name, each in work.items():
            with LiveBytes() as memory:
                found[name] = {"tflops": counted(each) / 1e12, "peak_gb": memory.peak / 1e9}
    return found


def measure(preset: str) -> dict[str, Any]:
    """All rows of a preset."""
    regressed = dataclasses.replace(PRESETS[preset], cameras="regressed")
    solved = dataclasses.replace(regressed, cameras="solved")
    networks = {"regressed": regressed, "solved": solved}
    rows: list[dict[str, Any]] = []
    for views, side in GRID:
        side -= side % regressed.patch_size
        row: dict[str, Any] = {"views": views, "side": side}
        for name, config in networks.items():
            row[name] = {
                "forward": forward(config, views, side),
                "training step": training_step(config, views, side, recompute=False),
                "training step, activations recomputed": training_step(config, views, side, recompute=True),
            }
        row["added by solved cameras"] = parts(regressed, views, side)
        rows.append(row)
        print(json.dumps(row), flush=True)
    count = {name: sum(p.numel() for p in network_on(config).parameters()) for name, config in networks.items()}
    branch = network_on(solved).match_branch
    assert branch is not None
    return {"parameters": {**count, "matching branch": sum(p.numel() for p in branch.parameters())}, "rows": rows}


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", choices=sorted(PRESETS), default="base")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    write_json(given.out, {"about": about(), "preset": given.preset, "tracks": TRACKS, **measure(given.preset)})


if __name__ == "__main__":
    main()

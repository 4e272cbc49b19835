"""What a network costs at size: parameters, FLOPs and bytes, on fake tensors that have shapes but no memory.

    python benchmarks/cost.py --out benchmarks/results/cost.json
    python benchmarks/cost.py --upstream DIR --out benchmarks/results/cost_beside_pi3.json

For ``base`` with regressed and with solved cameras: one forward pass without gradient, and a training step (forward
and backward), at 8 and 24 views of 224 and 518 pixels, one sample; and the parts that solved cameras add. The losses of
a step are the matching loss, where there is one, and sums in place of the others, which cost next to nothing.
Nothing is computed, so nothing here is a time. FLOPs are those of matrix products, convolutions and attention. Bytes
are the most that tensors hold at a time, weights included, gradients and optimiser not; bf16 as autocast gives it.

With ``--upstream`` (a checkout of yyfz/Pi3, branch ``training``): a training step of `large` beside pi^3's own code, at
the same sizes, encoder frozen as in pi^3's first stage; see ``beside_pi3.py``.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args
from unittest import mock

import torch
from about import about
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten
from torch.utils.flop_counter import flop_registry, sdpa_backward_flop_count, sdpa_flop_count

from reliev3r.core.files import write_json
from reliev3r.core.types import Tracks, Views
from reliev3r.geometry import statistics
from reliev3r.losses.matching import match_loss
from reliev3r.model.network import PRESETS, NetworkConfig, Reliev3R
from reliev3r.model.transformer import Recompute
from reliev3r.sfm.dense_matches import mutual_matches
from reliev3r.sfm.match_cameras import cameras_from_matches
from reliev3r.training.parallel import blocks_of

TRACKS = 1024
"""Of a sample, as training draws them."""
MATCHED = 128
"""Of these, those that the matching loss compares with all cells."""
GRID = [(8, 224), (24, 224), (8, 518), (24, 518)]
"""Views, and the side of the square images."""


def _flash(q: Tensor, k: Tensor, v: Tensor, *_: Any, **__: Any) -> int:
    return int(sdpa_flop_count(q.shape, k.shape, v.shape))


def _flash_backward(gradient: Tensor, q: Tensor, k: Tensor, v: Tensor, *_: Any, **__: Any) -> int:
    return int(sdpa_backward_flop_count(gradient.shape, q.shape, k.shape, v.shape))


FORMULAS = {
    **flop_registry,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _flash,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: _flash_backward,
}
"""torch's, which know of attention the kernels of GPUs alone."""


SYNCS = ("aten::_local_scalar_dense", "aten::nonzero", "aten::masked_select", "aten::is_nonzero", "aten::equal")
"""Operations that wait for the device."""


class Ledger(TorchDispatchMode):
    """Keeps count of what runs: the storages that are alive, their largest sum, FLOPs, kernels, bytes that conversions
    read and write, and waits for the device.

    (torch's FlopCounterMode, which does the second, follows modules by hooks that keep tensors alive.)
    """

    def __init__(self, *there: Tensor) -> None:
        """``there``: tensors from before."""
        super().__init__()
        self.live = self.peak = self.flops = self.kernels = self.converted = self.syncs = 0
        self.known: dict[int, Any] = {}
        for tensor in there:
            self._count(tensor)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Every new storage of a result counts until it is freed."""
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        for tensor in tree_flatten(result)[0]:
            if isinstance(tensor, Tensor):
                self._count(tensor)
        name, formula = func._schema.name, FORMULAS.get(func._overloadpacket)
        self.flops += formula(*args, **kwargs, out_val=result) if formula else 0
        self.kernels += not func.is_view and not name.startswith("prim::")
        self.syncs += name in SYNCS
        if name == "aten::_to_copy":
            self.converted += sum(x.numel() * x.element_size() for x in (args[0], result))
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


def all_of(network: nn.Module) -> Ledger:
    """A ledger that begins with a network's weights."""
    return Ledger(*network.parameters(), *network.buffers())


def forward(config: NetworkConfig, views: int, side: int) -> dict[str, float]:
    """One pass without gradient."""
    network = network_on(config).eval()
    with fake(), all_of(network) as ledger, torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        network(sample(views, side)[0])
        return {"tflops": ledger.flops / 1e12, "peak_gb": ledger.peak / 1e9}


def training_step(config: NetworkConfig, views: int, side: int, *, recompute: Recompute) -> dict[str, float]:
    """Forward and backward of one sample."""
    network = network_on(config).train()
    for block in blocks_of(network):
        block.recompute = recompute
    with fake(), all_of(network) as ledger:
        seen, tracks = sample(views, side)
        with torch.autocast("cpu", torch.bfloat16):
            found = network(seen)
        total = found.depth.mean() + found.conf.mean() + found.world_from_cam.mean()
        if found.features is not None:
            total = total + match_loss(found, tracks, MATCHED)[0].mean()
        total.backward()
        return {"tflops": ledger.flops / 1e12, "peak_gb": ledger.peak / 1e9}


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
            with Ledger() as ledger:
                each()
            found[name] = {"tflops": ledger.flops / 1e12, "peak_gb": ledger.peak / 1e9}
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
                **{
                    f"training step, recompute={how}": training_step(config, views, side, recompute=how)
                    for how in get_args(Recompute)
                },
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
    parser.add_argument("--upstream", type=Path, help="checkout of yyfz/Pi3, branch training: compare with it")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    if given.upstream is not None:
        from beside_pi3 import beside

        write_json(given.out, {"about": about(), "rows": beside(given.upstream)})
        return
    write_json(given.out, {"about": about(), "preset": given.preset, "tracks": TRACKS, **measure(given.preset)})


if __name__ == "__main__":
    main()

"""For test_compile.py, in a process without shape checks, which torch.compile cannot follow: JSON on the last line.

Backends trace and generate no code: what is compiled is told, not how fast it runs.
"""

import json
import sys
from pathlib import Path

import torch
from torch._dynamo.testing import CompileCounterWithBackend

sys.path.insert(0, str(Path(__file__).parents[1]))
import builders
from reliev3r.losses.weak import ObjectiveConfig, objective
from reliev3r.training.parallel import WithLoss, compile_blocks

TAUGHT = ObjectiveConfig(teacher_weight=0.5)
VIEWS = (3, 2, 5)


def weak(prediction, labels, progress):
    return objective(prediction, labels, TAUGHT, teacher=0.5)


def whole_step(cameras: str) -> dict[str, list[float]]:
    """Losses of steps compiled as one graph (a break raises), of plain ones, and how many graphs there were."""
    torch._dynamo.reset()
    step = WithLoss(builders.network(cameras=cameras, feature_dim=8), weak, bf16=False)
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(step, backend=counter, fullgraph=True)
    found: dict[str, list[float]] = {"compiled": [], "plain": [], "graphs": []}
    for views in VIEWS:
        given = builders.views(views), builders.taught(builders.labels(views, count=9)), 0.5
        total = compiled(*given)[0]
        total.backward()
        found["compiled"].append(float(total.detach()))
        found["plain"].append(float(step(*given)[0].detach()))
        found["graphs"].append(counter.frame_count)
    return found


def blocks(recompute: str) -> list[int]:
    """How many graphs there are after each number of views, in training and in evaluation."""
    torch._dynamo.reset()
    network = builders.network(layer_scale=0.01)
    for block in network.decoder:
        block.recompute = recompute
    counter = CompileCounterWithBackend("eager")
    compile_blocks(network, backend=counter, fullgraph=True)
    counts = []
    for views in (*VIEWS, 4, 7):
        network.train()(builders.views(views)).depth.sum().backward()
        with torch.no_grad():
            network.eval()(builders.views(views))
        counts.append(counter.frame_count)
    return counts


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(json.dumps({
        "regressed": whole_step("regressed"), "solved": whole_step("solved"),
        "blocks": {how: blocks(how) for how in ("none", "most")},
    }))  # fmt: skip

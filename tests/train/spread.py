"""Runs of two processes for test_parallel.py: ``spread.py OUT MODE...``, one after another in one process group."""

import os
import signal
import sys
import time
from pathlib import Path

import torch
from torch.distributed import fsdp  # noqa: F401  (imported once, before the processes part)
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel  # noqa: F401

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parent))
from test_loop import batches, network, weak

from reliev3r.training.config import TrainConfig
from reliev3r.training.loop import _Run, train

STEPS, SHORT = 20, 5


def config(**changes) -> TrainConfig:
    return TrainConfig(**{"steps": STEPS, "precision": "fp32", "log_every": 5, "evaluate_every": 0.34, **changes})


def gradients(settings: TrainConfig, folder: Path) -> dict[str, torch.Tensor]:
    """Of the first step, whole."""
    run = _Run(network(), weak, settings, folder, resume=False)
    run._gradient(run.feed(batches()), 0.0)
    found = {name: p.grad for name, p in run.network.named_parameters() if p.grad is not None}
    return {name: g.full_tensor() if isinstance(g, DTensor) else g for name, g in found.items()}


def heldout(model: torch.nn.Module) -> dict[str, float]:
    """A number of the weights, so that it is the same wherever they are the same."""
    return {"heldout_deg": float(model.camera_head.fc_t.weight.detach().abs().sum())}


def run_and_save(out: Path, mode: str, settings: TrainConfig, **more) -> None:
    """Train in ``out/MODE``; the first process saves weights and gradients."""
    model = network()
    result = train(model, weak, batches(), settings, folder=out / mode, evaluate=heldout, **more)
    found = gradients(settings, out / f"{mode}-gradients")
    if not torch.distributed.is_initialized() or torch.distributed.get_rank() == 0:
        weights = {name: value.detach() for name, value in model.state_dict().items()}
        torch.save({"weights": weights, "gradients": found, "best": result.best}, out / f"{mode}.pt")


def as_rank(environment: dict[str, str], out: Path, modes: list[str]) -> None:
    """One of the processes: ``environment`` says which, as torchrun does."""
    os.environ.update(environment)
    main(out, modes)


def main(out: Path, modes: list[str]) -> None:
    torch.set_num_threads(1)
    for mode in modes:
        if mode == "resumed-fsdp2":  # of a run that one process began
            run_and_save(out, mode, config(parallel="fsdp2"), resume=True)
        elif mode == "killed":  # the same call starts the run and goes on with it
            comes_back(out)
        elif mode == "interrupted":  # Ctrl-C at one process only, in the middle of a step
            interrupted(out / mode)
        else:
            parallel, *rest = mode.split("-")
            ema, recompute = (0.9 if "ema" in rest else None), ("most" if "recompute" in rest else "none")
            steps = SHORT if rest else STEPS
            run_and_save(out, mode, config(parallel=parallel, steps=steps, ema=ema, recompute=recompute))


def comes_back(out: Path) -> None:
    """Start the run in ``OUT/killed``, or go on with it, slowly enough to be killed within."""

    def slow(step, micro):
        time.sleep(0.03)
        return batches()(step, micro)

    model = network()
    train(model, weak, slow, config(save_every=0.1), folder=out / "killed", resume=True)
    if torch.distributed.get_rank() == 0:
        torch.save({"weights": {name: value.detach() for name, value in model.state_dict().items()}}, out / "killed.pt")


def interrupted(folder: Path) -> None:
    def stop(step, micro):
        if (step, micro) == (3, 1):
            os.kill(os.getpid(), signal.SIGINT)
        return batches()(step, micro)

    result = train(network(), weak, stop, config(), folder=folder)
    assert (result.finished, result.steps) == (False, 4)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])

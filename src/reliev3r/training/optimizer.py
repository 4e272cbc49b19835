"""What moves the weights: AdamW, or Muon for the matrices with AdamW for the rest."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from reliev3r.training.config import TrainConfig

_SMALLEST = 600
"""Matrices of fewer numbers go with the vectors."""
_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of the quintic whose iteration drives all singular values near 1 (Jordan et al. 2024, Muon)."""


class Muon(torch.optim.AdamW):
    """AdamW, but groups with ``muon`` True take steps of equal size in all directions: momentum, then the nearest
    semi-orthogonal matrix (Newton-Schulz), times ``lr`` sqrt(rows / columns) where there are more rows.

    torch.optim.Muon takes no convolutions, and works in bfloat16, which costs a CPU without it twenty times as much.
    """

    def __init__(self, groups: list[dict[str, Any]], *, lr: float, momentum: float = 0.95) -> None:
        super().__init__(groups, lr=lr)
        self.momentum = momentum

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """One step of all groups."""
        groups = self.param_groups
        for group in groups:
            for parameter in group["params"] if group["muon"] else ():
                if parameter.grad is not None:
                    self._move(parameter, group)
        self.param_groups = [group for group in groups if not group["muon"]]
        try:
            return super().step(closure)
        finally:
            self.param_groups = groups

    def _move(self, parameter: Tensor, group: dict[str, Any]) -> None:
        grad, state = parameter.grad, self.state[parameter]
        assert grad is not None
        if "momentum" not in state:
            state["momentum"], state["step"] = torch.zeros_like(parameter), torch.zeros(())  # AdamW asks for a step
        state["momentum"].lerp_(grad, 1 - self.momentum)
        step = orthogonal(grad.lerp(state["momentum"], self.momentum).flatten(1))  # Nesterov's look ahead
        longer = max(1.0, step.shape[0] / step.shape[1]) ** 0.5
        parameter.mul_(1 - group["lr"] * group["weight_decay"])
        parameter.add_(step.view_as(parameter), alpha=-group["lr"] * longer)


def orthogonal(matrix: Tensor, steps: int = 5) -> Tensor:
    """A matrix of the same row and column space whose singular values are near 1 (0.7 to 1.2); float32."""
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.mT if tall else matrix
    x = x / (x.norm() + 1e-7)
    a, b, c = _COEFFICIENTS
    for _ in range(steps):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.mT if tall else x


def make_optimizer(model: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """The optimiser of a run."""
    if config.optimizer == "adamw":
        return torch.optim.AdamW(parameter_groups(model, config), lr=config.lr, fused=True)
    return Muon(parameter_groups(model, config), lr=config.lr)


def parameter_groups(model: nn.Module, config: TrainConfig) -> list[dict[str, Any]]:
    """Weight decay on matrices, none on biases, norms, tokens and scales; the encoder has a learning rate of its own.

    ``share`` is the group's share of the learning rate. Weights that ask for no gradient are in no group.
    """
    muon = matrices(model) if config.optimizer == "muon" else set()
    groups: dict[tuple[bool, bool, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            kind = (name.startswith("encoder."), parameter.ndim == 2, name in muon)
            groups.setdefault(kind, []).append(parameter)
    return [
        {
            "params": parameters, "weight_decay": config.weight_decay if matrix or by_muon else 0.0, "muon": by_muon,
            "share": (config.encoder_lr if encoder else 1.0) * (config.muon_lr / config.lr if by_muon else 1.0),
        }
        for (encoder, matrix, by_muon), parameters in groups.items()
    ]  # fmt: skip


def matrices(model: nn.Module) -> set[str]:
    """Names of the weights that multiply features: of linear layers and convolutions, tiny ones excepted."""
    return {
        f"{name}.weight" if name else "weight"
        for name, module in model.named_modules()
        if isinstance(module, (nn.Linear, nn.Conv2d)) and module.weight.numel() > _SMALLEST
    }

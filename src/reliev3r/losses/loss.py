"""What every objective of the project hands back."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Loss:
    """The number to descend and its named parts (unweighted)."""

    total: Float[Tensor, ""]
    parts: dict[str, Tensor]

"""Adapting a pretrained network to footage, from frames alone; it is handed over only if held-out frames say so."""

from reliev3r.adapt.objective import in_unit, weak_objective
from reliev3r.adapt.run import AdaptResult, adapt
from reliev3r.adapt.settings import AdaptConfig

__all__ = ("AdaptConfig", "AdaptResult", "adapt", "in_unit", "weak_objective")

"""How much of solved cameras is matching, and how much the solve: AUC with parts of the solve removed.

    python studies/solve_parts.py --model CHECKPOINT [--hybrid] --real CAPTURES --out FILE

The network is untouched. With ``--hybrid`` the checkpoint is that of the study's hybrid (studies/hybrid.py), and its
head, which regresses from the same matches and depth, is a row beside the solve. Judged on the sets that
``studies/paradigm.py --size solved`` judges by.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
from pathlib import Path

import torch
from hybrid import Hybrid
from paradigm import SceneStudy
from torch import nn

from reliev3r.core.files import write_json
from reliev3r.core.types import Prediction, Views
from reliev3r.evaluation.protocols import strict_figures
from reliev3r.model.load import PACKAGED, load_network
from reliev3r.model.network import Reliev3R
from reliev3r.model.solved import with_solved_cameras
from reliev3r.sfm.match_cameras import MatchSolveConfig
from reliev3r.training.validation import figures

WHOLE = MatchSolveConfig()
PARTS: dict[str, tuple[MatchSolveConfig, bool]] = {
    "the whole solve": (WHOLE, True),
    "predicted depth replaced by 1": (WHOLE, False),
    "no last adjustment at the matches' own scale": (dataclasses.replace(WHOLE, sharpen=0), True),
    "one start, from lifted points": (dataclasses.replace(WHOLE, epipolar=False), True),
    "no adjustment at all": (dataclasses.replace(WHOLE, steps=0, sharpen=0), True),
    "no adjustment, one start": (dataclasses.replace(WHOLE, steps=0, sharpen=0, epipolar=False), True),
}
"""Settings of the solve, and whether it sees the predicted depth."""


class Solving(nn.Module):
    """A network whose cameras are solved with other settings."""

    def __init__(self, network: Reliev3R, solve: MatchSolveConfig, *, depth: bool) -> None:
        super().__init__()
        self.network, self.solve, self.depth = network, solve, depth

    def forward(self, views: Views) -> Prediction:
        """As the network's own."""
        prediction = self.network.without_cameras(views)
        if not self.depth:
            prediction = dataclasses.replace(prediction, depth=torch.ones_like(prediction.depth))
        batch = views.image.shape[:-3]
        features = self.network.image_features(views.image.flatten(0, -4)).unflatten(0, batch)
        return with_solved_cameras(prediction, features, solve=self.solve)


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=PACKAGED)
    parser.add_argument("--hybrid", action="store_true", help="the checkpoint is a hybrid's")
    parser.add_argument("--real", type=Path, default=None, help="folder of captures with known cameras")
    parser.add_argument("--sets", type=int, default=16, help="of each judge, at most")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    load = functools.partial(Hybrid.from_pretrained, strict=True) if given.hybrid else load_network
    network = load(given.model).eval()
    models: dict[str, nn.Module] = {"regressed from the matches, no solve": network} if given.hybrid else {}
    models |= {name: Solving(network, solve, depth=depth) for name, (solve, depth) in PARTS.items()}
    study = SceneStudy(size="solved", out=given.out.parent, real=given.real)
    judges = {name: scenes[: given.sets] for name, scenes in study.judges.items()}
    rows = {}
    for name, model in models.items():
        rows[name] = {judge: figures(model, scenes, strict_figures)["auc30"] for judge, scenes in judges.items()}
        print(name, {judge: round(auc, 1) for judge, auc in rows[name].items()}, flush=True)
    write_json(given.out, {"model": given.model, "sets": given.sets, "auc30": rows})


if __name__ == "__main__":
    main()

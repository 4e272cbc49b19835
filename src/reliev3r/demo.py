"""The demonstration: a rendered capture, labelled from its pixels, fitted from random weights and scored."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

from reliev3r.data.capture import load_capture
from reliev3r.errors import UserError
from reliev3r.evaluate.report import Table, make_row
from reliev3r.evaluate.protocol import evaluate_reconstruction
from reliev3r.files import read_json
from reliev3r.fit import FitConfig, FitResult, Report, fit
from reliev3r.synthetic.capture import SynthConfig, write_capture


def run_demo(out: Path, *, minutes: float, seed: int, report: Report) -> tuple[FitResult, Table]:
    """Render ``out/capture``, fit it in ``out/run`` and score the network, its labels and the refined cameras.

    The rendered capture is kept and reused; an earlier demonstration's run is replaced, any other folder is refused. The
    depth labels come from a *simulated expert* (the true depth made worse), the tracks from the pixels by SIFT.
    """

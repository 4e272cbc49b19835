"""The paper's own numbers, to stand beside ours where benchmark, protocol and number of views are the same.

Four tables, each complete. Those of the supplement were read in print; the main and the zero-shot table were not, but
taken from a third-party reading note of the paper: *second-hand*. The note agrees with the supplement in every digit of
the one row that both have (Reliev3R, alpha 1).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from reliev3r.evaluation.scores import Protocol, Scores

PAPER_VIEWS = 8
"""Views a scene in the paper's tables."""
BENCHMARK_CAVEAT = (
    "the published numbers' \"ground truth\" is an MVS network's depth under COLMAP poses, made by MapAnything's "
    "pipeline: not measured, and not independent of structure from motion"
)
SOURCE = (
    "rows marked (paper) are quoted, not measured here: the main table from a reading note of it, Reliev3R, RayZer and "
    "semi-supervision from the supplement; its frame lists are not public, so the scenes are the same and the frames "
    "need not be"
)

Figures = tuple[float | None, float | None, float | None, float | None, float | None, float | None]
"""point rel, point tau, ATE, AUC@30, depth rel, depth tau; None is a cross in print."""
COLUMNS = ("point_rel", "point_tau", "ate", "auc30", "depth_rel", "depth_tau")
"""The fields of ``Scores`` that ``Figures`` are, in the order of the paper."""


@dataclass(frozen=True, kw_only=True)
class PublishedTable:
    """One of the paper's tables."""

    title: str
    benchmark: str
    """Name of the benchmark that it is on."""
    rows: dict[str, Figures]
    """By method, as the paper calls it (pi^3-dagger is told what it is)."""
    in_print: tuple[str, ...] = ()
    """Rows that were read in print; the others are second-hand."""


MAIN = PublishedTable(
    title="Table 1 of the paper",
    benchmark="dl3dv-benchmark",
    rows={
        "MapAnything": (0.051, 0.911, 0.004, 87.088, 0.045, 0.896),
        "pi^3": (0.056, 0.927, 0.003, 92.746, 0.054, 0.916),
        "VGGT": (0.061, 0.905, 0.003, 94.795, 0.059, 0.899),
        "CUT3R": (0.073, 0.815, 0.005, 89.432, 0.072, 0.801),
        "pi^3, fully supervised on DL3DV": (0.057, 0.897, 0.013, 63.314, 0.047, 0.890),
        "MV-DUSt3R": (0.593, 0.233, 0.458, 2.529, 0.690, 0.134),
        "FLARE": (0.134, 0.771, 0.338, 80.905, 0.376, 0.302),
        "AnyCam": (0.262, 0.490, 0.023, 29.527, 0.181, 0.400),
        "Reliev3R": (0.122, 0.663, 0.018, 49.426, 0.115, 0.657),
    },
    in_print=("Reliev3R",),
)
SEMI_SUPERVISED = PublishedTable(
    title="Table 1 of the supplement: semi-supervision",
    benchmark="dl3dv-benchmark",
    rows={
        "RayZer": (None, None, 0.786, 0.362, None, None),
        "pi^3, fully supervised on synthetic data": (0.277, 0.475, 0.042, 17.075, 0.208, 0.357),
        "the same, then Reliev3R on DL3DV": (0.137, 0.667, 0.033, 34.240, 0.106, 0.679),
    },
    in_print=("RayZer", "pi^3, fully supervised on synthetic data", "the same, then Reliev3R on DL3DV"),
)
ALPHA = PublishedTable(
    title="Table 2 of the supplement: alpha",
    benchmark="dl3dv-benchmark",
    rows={
        "alpha 0.2": (0.143, 0.607, 0.022, 42.116, 0.137, 0.606),
        "alpha 0.5": (0.137, 0.626, 0.023, 46.703, 0.129, 0.628),
        "alpha 1 (Reliev3R)": (0.122, 0.663, 0.018, 49.426, 0.115, 0.657),
        "alpha 2": (0.127, 0.651, 0.020, 48.566, 0.121, 0.647),
    },
    in_print=("alpha 0.2", "alpha 0.5", "alpha 1 (Reliev3R)", "alpha 2"),
)
ZERO_SHOT = PublishedTable(
    title="Zero-shot, ScanNet++",
    benchmark="scannetpp",
    rows={
        "pi^3": (0.027, 0.972, 0.002, 86.941, 0.027, 0.970),
        "pi^3, fully supervised on DL3DV": (0.232, 0.678, 0.028, 17.789, 0.220, 0.171),
        "AnyCam": (0.438, 0.448, 0.084, 15.376, 0.286, 0.095),
        "Reliev3R": (0.172, 0.594, 0.030, 15.711, 0.124, 0.583),
    },
)
TABLES = (MAIN, SEMI_SUPERVISED, ALPHA, ZERO_SHOT)


def published(benchmark: str, protocol: Protocol, views: int | None) -> dict[str, Scores]:
    """The paper's scores by system; empty where benchmark, protocol or number of views differ from the paper's. The
    ablation of alpha, which compares settings of one system, is left out."""
    if protocol != "mapanything" or views != PAPER_VIEWS:
        return {}
    tables = [table for table in TABLES if table.benchmark == benchmark and table is not ALPHA]
    rows = {name: row for table in tables for name, row in table.rows.items()}
    return {f"{name} (paper)": _scores(row, views) for name, row in rows.items()}


def _scores(row: Figures, views: int) -> Scores:
    figures: dict[str, Any] = dict(zip(COLUMNS, row, strict=True))
    return Scores(protocol="mapanything", views=views, **figures)

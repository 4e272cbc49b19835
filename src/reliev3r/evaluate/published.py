"""The paper's own numbers, to stand beside ours where benchmark, protocol and number of views are the same."""

from __future__ import annotations

from reliev3r.evaluate.scores import Protocol, Scores

PAPER_VIEWS = 8
"""Views a scene in the paper's tables."""

_Row = tuple[float | None, float | None, float | None, float | None, float | None, float | None]
# point rel, point tau, ATE, AUC@30, depth rel, depth tau

# Table 1 of the paper, as a reading note of it gives it (not read in print); the row of Reliev3R is also in the
# supplement, Table 2 (alpha = 1.0).
_DL3DV: dict[str, _Row] = {
    "MapAnything": (0.051, 0.911, 0.004, 87.088, 0.045, 0.896),
    "pi^3": (0.056, 0.927, 0.003, 92.746, 0.054, 0.916),
    "VGGT": (0.061, 0.905, 0.003, 94.795, 0.059, 0.899),
    "CUT3R": (0.073, 0.815, 0.005, 89.432, 0.072, 0.801),
    "pi^3, fully supervised on DL3DV": (0.057, 0.897, 0.013, 63.314, 0.047, 0.890),
    "MV-DUSt3R": (0.593, 0.233, 0.458, 2.529, 0.690, 0.134),
    "FLARE": (0.134, 0.771, 0.338, 80.905, 0.376, 0.302),
    "AnyCam": (0.262, 0.490, 0.023, 29.527, 0.181, 0.400),
    "Reliev3R": (0.122, 0.663, 0.018, 49.426, 0.115, 0.657),
    # supplement, Table 1 (semi-supervision), read in print
    "RayZer": (None, None, 0.786, 0.362, None, None),
    "pi^3, fully supervised on synthetic data": (0.277, 0.475, 0.042, 17.075, 0.208, 0.357),
    "the same, then Reliev3R on DL3DV": (0.137, 0.667, 0.033, 34.240, 0.106, 0.679),
}
# The paper's zero-shot table, from the same reading note.
_SCANNETPP: dict[str, _Row] = {
    "pi^3": (0.027, 0.972, 0.002, 86.941, 0.027, 0.970),
    "pi^3, fully supervised on DL3DV": (0.232, 0.678, 0.028, 17.789, 0.220, 0.171),
    "AnyCam": (0.438, 0.448, 0.084, 15.376, 0.286, 0.095),
    "Reliev3R": (0.172, 0.594, 0.030, 15.711, 0.124, 0.583),
}
_TABLES = {"dl3dv-benchmark": _DL3DV, "scannetpp": _SCANNETPP}

SOURCE = (
    "rows marked (paper) are quoted, not measured here: the main table from a reading note of it, Reliev3R, RayZer and "
    "semi-supervision from the supplement; its frame lists are not public, so the scenes are the same and the frames "
    "need not be"
)


def published(benchmark: str, protocol: Protocol, views: int | None) -> dict[str, Scores]:
    """The paper's scores by system; empty where benchmark, protocol or number of views differ from the paper's."""
    if protocol != "mapanything" or views != PAPER_VIEWS:
        return {}
    return {f"{name} (paper)": _scores(row, views) for name, row in _TABLES.get(benchmark, {}).items()}


def _scores(row: _Row, views: int) -> Scores:
    point_rel, point_tau, ate, auc30, depth_rel, depth_tau = row
    return Scores(
        protocol="mapanything",
        point_rel=point_rel,
        point_tau=point_tau,
        ate=ate,
        auc30=auc30,
        depth_rel=depth_rel,
        depth_tau=depth_tau,
        views=views,
    )

"""Perfect, perturbed and random predictions of one scene, with the scores that they must get; the paper's numbers."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from plane_scene import make_truth, perfect

from reliev3r.evaluation.metrics import ate_mean_rigid, ate_rmse
from reliev3r.evaluation.protocols import score
from reliev3r.evaluation.published import PAPER_VIEWS, published
from reliev3r.evaluation.scores import Scores, mean_scores
from reliev3r.evaluation.systems import measured
from reliev3r.evaluation.tables import Result, Row, Table
from reliev3r.geometry.rigid import so3_exp

VIEWS = 12


def turned(prediction, degrees):
    """Every second camera turned about its own axis of view."""
    cameras = prediction.world_from_cam.clone()
    cameras[1::2, :3, :3] @= so3_exp(torch.tensor([0.0, 0.0, math.radians(degrees)]).double())
    return dataclasses.replace(prediction, world_from_cam=cameras)


def deeper(prediction, factor):
    """Half the views' depth by another factor."""
    depth = prediction.depth.clone()
    depth[::2] *= factor
    return dataclasses.replace(prediction, depth=depth)


def random(prediction):
    """Nothing of the truth: random cameras, random positive depth."""
    generator = torch.Generator().manual_seed(5)
    cameras = prediction.world_from_cam.clone()
    cameras[:, :3, :3] = so3_exp(3 * torch.randn(VIEWS, 3, generator=generator).double())
    cameras[:, :3, 3] = torch.randn(VIEWS, 3, generator=generator).double()
    depth = 0.2 + 10 * torch.rand(prediction.depth.shape, generator=generator).double()
    return dataclasses.replace(prediction, depth=depth, world_from_cam=cameras)


# A turn about a camera's own axis by 15.5 degrees is the error of the 36 of 66 pairs of a turned and a straight camera,
# which count half. 15 pairs of straight cameras count whole; those of two turned ones turn the direction by up to 15.5
# degrees as both see it, so they count between half and whole (at 90 degrees: between nothing and whole).
# Depth of half the views by 1.3: 10 % of tau is passed by half of the pixels, and rel is 0.3 / 2 at the best scale 1.
TABLE = [
    # prediction, protocol, {figure: (low, high)}
    ("perfect", perfect, "strict",
     {"auc30": (100, 100), "point_rel": (0, 1e-9), "depth_tau": (1, 1)}),
    ("perfect", perfect, "mapanything", {"auc30": (100, 100), "point_rel": (0, 1e-9), "ate": (0, 1e-9)}),
    ("perfect", perfect, "pi3", {"auc30": (100, 100), "depth_rel": (0, 1e-9), "ate": (0, 1e-9)}),
    ("turned", lambda t: turned(perfect(t), 15.5), "strict",
     {"auc30": (50 + 50 * 15 / 66, 100 - 50 * 36 / 66), "ate": (0, 1e-9), "rotation_median_deg": (15.5, 15.5)}),
    ("turned far", lambda t: turned(perfect(t), 90), "strict", {"auc30": (100 * 15 / 66, 100 * 30 / 66)}),
    ("deeper", lambda t: deeper(perfect(t), 1.3), "strict",
     {"auc30": (100, 100), "depth_tau": (0.5, 0.5), "depth_rel": (0.11, 0.15)}),
    ("deeper", lambda t: deeper(perfect(t), 1.2), "pi3", {"auc30": (100, 100), "depth_tau": (1, 1)}),  # 25 % there
    ("deeper", lambda t: deeper(perfect(t), 1.2), "mapanything", {"depth_tau": (0, 1), "ate": (1e-6, 1)}),
    ("random", lambda t: random(perfect(t)), "strict",
     {"auc30": (0, 4), "point_rel": (0.5, 2), "point_tau": (0, 0.1), "depth_rel": (0.3, 1), "depth_tau": (0, 0.25),
      "ate": (0.5, 1.0), "rotation_median_deg": (90, 180), "translation_median_deg": (50, 130)}),
    ("random", lambda t: random(perfect(t)), "mapanything", {"auc30": (0, 5), "point_tau": (0, 0.2)}),
    ("random", lambda t: random(perfect(t)), "pi3", {"auc30": (0, 5), "depth_rel": (0.2, 1)}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "make", "protocol", "expected"), TABLE, ids=lambda value: str(value)[:12])
def test_expected_scores(name, make, protocol, expected):
    truth = make_truth(views=VIEWS)
    scores = score(make(truth), truth, protocol)
    for figure, (low, high) in expected.items():
        assert low - 1e-4 <= getattr(scores, figure) <= high + 1e-4, (name, figure, getattr(scores, figure))


def by_quaternion(source, target, scaled):
    """Horn's closed form by unit quaternions: an alignment that shares nothing with Umeyama's by SVD."""
    a, b = source - source.mean(0), target - target.mean(0)
    S = a.T @ b
    z = np.array([S[1, 2] - S[2, 1], S[2, 0] - S[0, 2], S[0, 1] - S[1, 0]])
    N = np.block([[np.trace(S), z[None]], [z[:, None], S + S.T - np.trace(S) * np.eye(3)]])
    w, x, y, z = np.linalg.eigh(N)[1][:, -1]
    R = np.array(
        [
            [w * w + x * x - y * y - z * z, 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), w * w - x * x + y * y - z * z, 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), w * w - x * x - y * y + z * z],
        ]
    )
    scale = (b * (a @ R.T)).sum() / (a * a).sum() if scaled else 1.0
    return scale * a @ R.T + target.mean(0)


@pytest.mark.parametrize("seed", range(5))
def test_ate_equals_an_independent_alignment(seed):
    rng = np.random.default_rng(seed)
    source, target = rng.normal(size=(9, 3)), rng.normal(size=(9, 3)) * [3, 1, 0.2] + 5
    error = np.linalg.norm(by_quaternion(source, target, True) - target, axis=1)
    own = ate_rmse(torch.from_numpy(source), torch.from_numpy(target))
    assert own == pytest.approx(math.sqrt((error**2).mean()), abs=1e-6)
    error = np.linalg.norm(by_quaternion(source, target, False) - target, axis=1)
    assert ate_mean_rigid(torch.from_numpy(source), torch.from_numpy(target)) == pytest.approx(error.mean(), abs=1e-6)


def test_means_over_scenes():
    one = Scores(protocol="strict", auc30=80.0, ate=None, views=4, extras={"x": 1.0}, pair_errors_deg=(0.0,))
    two = Scores(protocol="strict", auc30=60.0, ate=0.5, views=6, views_without_camera=1, pair_errors_deg=(40.0,) * 3)
    mean = mean_scores([one, two])
    assert (mean.auc30, mean.ate, mean.point_rel) == (70, 0.5, None)
    assert (mean.views, mean.views_without_camera, mean.extras) == (10, 1, {"x": 1.0})
    pooled = mean_scores([dataclasses.replace(each, protocol="pi3") for each in (one, two)])
    assert pooled.auc30 == 25  # one of four pairs
    with pytest.raises(ValueError, match="one protocol"):
        mean_scores([one, dataclasses.replace(two, protocol="pi3")])


def test_the_papers_rows_stand_only_beside_what_is_the_same():
    rows = published("dl3dv-benchmark", "mapanything", PAPER_VIEWS)
    own = rows["Reliev3R (paper)"]
    assert (own.point_rel, own.point_tau, own.ate, own.auc30) == (0.122, 0.663, 0.018, 49.426)
    assert rows["RayZer (paper)"].depth_rel is None
    assert published("scannetpp", "mapanything", 8)["pi^3 (paper)"].auc30 == 86.941
    for other in (("dl3dv-benchmark", "strict", 8), ("dl3dv-benchmark", "mapanything", 4), ("tum", "mapanything", 8)):
        assert published(*other) == {}


def test_the_papers_rows_are_shown_as_quoted(tmp_path):
    row = Row(system="ours:x", scores=Scores(protocol="mapanything", auc30=1.0, views=8), frames=("a",))
    table = Table(protocol="mapanything", capture="dl3dv-benchmark a", rows=(row,))
    result = Result(
        benchmark="dl3dv-benchmark",
        protocol="mapanything",
        views=8,
        scenes={"a": table},
        caveats=("MVS",),
        out=tmp_path,
    )
    text = result.table().to_text()
    assert "VGGT (paper)" in text
    assert "94.79" in text or "94.80" in text
    assert "quoted, not measured here" in text
    assert "MVS" in text
    assert "CAUTION" not in text
    assert "(paper)" not in dataclasses.replace(result, benchmark="tum").table().to_text()


def test_costs_are_those_of_the_block():
    with measured() as cost:
        block = np.ones(60_000_000)  # 480 MB
        del block
    with measured() as idle:
        pass
    assert cost["seconds"] >= 0
    if "peak_rss_bytes" in cost:
        assert cost["peak_rss_bytes"] > idle["peak_rss_bytes"] + 3e8

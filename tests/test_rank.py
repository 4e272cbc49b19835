"""Ranks without ground truth, of systems of which it is known how good they are."""

import dataclasses
import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import torch

import builders
from reliev3r.cli import main
from reliev3r.core.errors import UserError
from reliev3r.core.reconstruction import Reconstruction
from reliev3r.core.types import Prediction, Tracks
from reliev3r.data.capture import Capture, load_capture
from reliev3r.data.truth import load_truth
from reliev3r.evaluation.predictions import predict_cell
from reliev3r.evaluation.rank_agreement import rank_agreement
from reliev3r.evaluation.systems import System
from reliev3r.geometry.camera import K_from_fov, ray_map
from reliev3r.geometry.radial import distort
from reliev3r.geometry.rigid import so3_exp
from reliev3r.report.ranking import headline, write_ranking
from reliev3r.runs.rank import _leave_out, _notes, _with_K, on_frames, rank
from reliev3r.sfm.camera_solve import CameraSolve
from reliev3r.verdict.agreement import Agreement, agreement, nothing, tied_pairs
from reliev3r.verdict.evidence import Evidence
from reliev3r.verdict.pairs import rays_of_pair, short_of_meeting
from reliev3r.verdict.ranking import RankConfig, Score, Standing, ranked
from small_scene import K, arc, observe, reconstruction, wall_points

VIEWS = 6


def evidence(k1: float = 0.0) -> Evidence:
    """Exact matches on the wall, through a lens with ``k1``."""
    points = wall_points(300, relief=0.0)
    seen = observe(points, arc(VIEWS))
    intrinsics = K.expand(VIEWS, 3, 3)
    reference = CameraSolve(
        world_from_cam=arc(VIEWS), reached=torch.ones(VIEWS, dtype=torch.bool), points=points, inlier=seen.visible,
        solid=seen.visible.sum(0) > 1, residual=0.0,
    )  # fmt: skip
    uv = distort(seen.uv.double(), intrinsics, torch.full((VIEWS,), k1).double()).float()
    return Evidence(name="wall", matches=Tracks(uv=uv, weight=seen.weight), K=intrinsics.float(), reference=reference)


def wall() -> Reconstruction:
    """The truth, whose maps cover the whole images: those of the scene's builder leave out a margin."""
    cameras = arc(VIEWS)
    size = (48, 64)
    scaled = K.clone()
    scaled[:2] /= 10
    rays = ray_map(scaled, *size).expand(VIEWS, *size, 3)
    small = reconstruction(VIEWS)
    normal = torch.tensor([0.3, -0.2, 1.0], dtype=torch.float64)
    depth = (4.0 - cameras[:, :3, 3] @ normal)[:, None, None] / (
        rays * (cameras[:, :3, :3].mT @ normal)[:, None, None]
    ).sum(-1)
    return dataclasses.replace(
        small, image=torch.zeros(VIEWS, *size, 3, dtype=torch.uint8),
        regions=torch.tensor([[0.0, 0.0, 640.0, 480.0]] * VIEWS),
        prediction=Prediction(
            depth=depth.float(), rays=rays.float(), conf=torch.ones_like(depth).float(), world_from_cam=cameras.float()
        ),
    )  # fmt: skip


def turned(truth: Reconstruction, degrees: float, seed: int = 0) -> Reconstruction:
    """Every camera by this angle, about an axis of its own."""
    axis = torch.randn(len(truth.names), 3, generator=torch.Generator().manual_seed(seed)).double()
    cameras = truth.prediction.world_from_cam.double()
    cameras[:, :3, :3] = cameras[:, :3, :3] @ so3_exp(
        torch.nn.functional.normalize(axis, dim=-1) * math.radians(degrees)
    )
    return truth.with_cameras(cameras)


def mean(found: Agreement, kind: str = "scene") -> float:
    values = [getattr(pair, kind) for pair in found.pairs if getattr(pair, kind) is not None]
    return sum(values) / len(values)


# one reconstruction ---------------------------------------------------------------------------------------------------


def test_the_truth_agrees_and_less_so_the_further_it_is_turned() -> None:
    found = [agreement(turned(wall(), degrees), evidence()) for degrees in (0.0, 1.0, 4.0)]
    assert all(mean(found[0], kind) > 0.97 for kind in ("cameras", "depth", "scene"))
    assert found[0].remarks == ()
    for kind in ("scene", "cameras"):
        assert mean(found[0], kind) > mean(found[1], kind) + 0.1 > mean(found[2], kind) + 0.2


def test_a_view_without_a_camera_loses_every_pair_and_is_named() -> None:
    found = torch.tensor([True] * (VIEWS - 1) + [False])
    lacking = agreement(dataclasses.replace(wall(), found=found), evidence())
    assert [pair.frames for pair in lacking.pairs] == [pair.frames for pair in agreement(wall(), evidence()).pairs]
    for pair in lacking.pairs:
        lost = VIEWS - 1 in pair.frames
        assert (pair.scene, pair.cameras, pair.depth) == ((0, 0, 0) if lost else (1, 1, 1))
    assert lacking.remarks == ("no camera for 1 of 6 views (frame5): their matches count as missed",)
    broken = wall().prediction.world_from_cam.clone()
    broken[5] = torch.nan
    assert agreement(wall().with_cameras(broken), evidence()).pairs == lacking.pairs


def test_cameras_alone_lose_where_depth_is_needed_and_are_told_so() -> None:
    found = agreement(dataclasses.replace(wall(), predicts_depth=False), evidence())
    assert (mean(found, "cameras"), mean(found, "scene"), mean(found, "depth")) == (1.0, 0.0, 0.0)
    assert "no depth" in found.remarks[0]


def test_nothing_is_never_better_than_something() -> None:
    wrong = agreement(turned(wall(), 120.0), evidence())
    none = nothing(evidence(), "failed")
    assert [pair.frames for pair in none.pairs] == [pair.frames for pair in wrong.pairs] == tied_pairs(evidence())
    assert all(mean(none, kind) == 0.0 <= mean(wrong, kind) for kind in ("scene", "cameras", "depth"))


def test_matches_outside_of_its_maps_are_missed() -> None:
    half = dataclasses.replace(wall(), regions=torch.tensor([[320.0, 0.0, 320.0, 480.0]] * VIEWS))
    prediction = dataclasses.replace(
        half.prediction, depth=half.prediction.depth[..., 32:], rays=half.prediction.rays[..., 32:, :],
        conf=half.prediction.conf[..., 32:],
    )  # fmt: skip
    found = agreement(dataclasses.replace(half, prediction=prediction), evidence())
    assert mean(found, "cameras") == 1.0
    assert 0.2 < mean(found, "scene") < 0.8
    assert any("its maps leave out" in remark for remark in found.remarks)


def test_depth_that_is_not_finite_is_missed() -> None:
    depth = wall().prediction.depth.clone()
    depth[0] = torch.nan
    spoilt = dataclasses.replace(wall(), prediction=dataclasses.replace(wall().prediction, depth=depth))
    pairs = agreement(spoilt, evidence()).pairs
    assert all(pair.scene == 0 if 0 in pair.frames else pair.scene > 0.95 for pair in pairs)


def test_a_refined_lens_is_taken_out_of_the_matches() -> None:
    refined = dataclasses.replace(wall(), radial=(0.5,) * VIEWS)
    assert mean(agreement(refined, evidence(k1=0.5))) == pytest.approx(mean(agreement(wall(), evidence())), abs=1e-3)
    assert mean(agreement(wall(), evidence(k1=0.5))) < mean(agreement(refined, evidence(k1=0.5))) - 0.03
    other = torch.tensor([[1.2, 1, 1], [1, 1.2, 1], [1, 1, 1]])  # k1 belongs to the focal length it was found with
    guessed = dataclasses.replace(evidence(k1=0.5), K=evidence().K * other)
    assert mean(agreement(refined, guessed)) == pytest.approx(mean(agreement(refined, evidence(k1=0.5))), abs=1e-3)


def test_a_wrong_focal_length_is_told() -> None:
    longer = dataclasses.replace(wall().prediction, rays=wall().prediction.rays * torch.tensor([0.8, 0.8, 1.0]))
    (remark,) = agreement(dataclasses.replace(wall(), prediction=longer), evidence()).remarks
    assert "focal length is 1.25 times" in remark


def test_groups_are_told() -> None:
    grouped = dataclasses.replace(wall(), meta={"groups": [["frame0"], ["frame1"]]})
    assert "2 groups" in agreement(grouped, evidence()).remarks[0]


def test_rays_must_meet_in_front_of_both_cameras() -> None:
    cameras, seen = arc(VIEWS)[[0, 5]], evidence().matches
    both = seen.visible[[0, 5]].all(0)

    def off(moved: torch.Tensor) -> torch.Tensor:
        return short_of_meeting(moved, rays_of_pair(moved, seen.uv[[0, 5]][:, both], K.expand(2, 3, 3)))

    assert float(off(cameras).max()) < 1e-3
    swapped = cameras.clone()
    swapped[:, :3, 3] = cameras[[1, 0], :3, 3]  # the same epipolar planes, the baseline turned round
    assert float(off(swapped).min()) > 20
    together = cameras.clone()
    together[1, :3, 3] = together[0, :3, 3]
    assert float(off(together).min()) > 20


# ranks ----------------------------------------------------------------------------------------------------------------


def test_ranks_follow_quality_and_equals_share_one() -> None:
    made = {"worst": turned(wall(), 8.0), "first": wall(), "second": turned(wall(), 1.0), "same": wall()}
    found = ranked({name: [agreement(one, evidence())] for name, one in made.items()}, ["wall"])
    assert [(each.system, each.rank) for each in found.standings] == [
        ("first", 1), ("same", 1), ("second", 3), ("worst", 4),
    ]  # fmt: skip
    assert found.standings[3].scene.behind == ("first", "second", "same")
    assert all(each.scene.low <= each.scene.mean <= each.scene.high for each in found.standings)


def test_uncertainty_wins_no_rank() -> None:
    halved = dataclasses.replace(wall(), found=torch.arange(VIEWS) % 2 == 0)
    made = {"truth": wall(), "halved": halved, "a": turned(wall(), 3.0), "b": turned(wall(), 3.0)}
    found = ranked({name: [agreement(one, evidence())] for name, one in made.items()}, ["wall"])
    assert found.standings[-1].system == "halved"
    assert found.standings[-1].rank >= 2


def test_chance_is_no_rank() -> None:
    made = {str(seed): [agreement(turned(wall(), 3.0, seed), evidence())] for seed in range(3)}
    assert {each.rank for each in ranked(made, ["wall"]).standings} == {1}


def test_a_system_that_fails_on_one_capture_pays_for_it() -> None:
    whole, none = agreement(turned(wall(), 0.3), evidence()), nothing(evidence(), "failed")
    found = ranked({"careless": [agreement(wall(), evidence()), none], "steady": [whole, whole]}, ["a", "b"])
    assert [each.system for each in found.standings] == ["steady", "careless"]
    assert found.standings[1].remarks == ("b: failed",)


def test_too_little_evidence_is_no_ranking() -> None:
    few = dataclasses.replace(agreement(wall(), evidence()), pairs=agreement(wall(), evidence()).pairs[:5])
    with pytest.raises(UserError, match="too little evidence: 5 pairs"):
        ranked({"a": [few]}, ["wall"], RankConfig(resamples=10))


# against the truth ----------------------------------------------------------------------------------------------------


def test_tau_and_orders_that_are_the_wrong_way_round() -> None:
    means = {"a": 90.0, "b": 80.0, "c": 10.0}
    behind = {"a": (), "b": ("a",), "c": ("a", "b")}
    same = rank_agreement("cameras", means, behind, {"a": 99.0, "b": 98.0, "c": 5.0})
    assert (same.tau, same.pairs, same.told_apart, same.reversed) == (1.0, 3, 3, 0)
    other = rank_agreement("cameras", means, behind, {"a": 50.0, "b": 98.0, "c": 5.0})
    assert other.tau == pytest.approx(1 / 3)
    assert other.reversed == 1
    lacking = rank_agreement("scene", means, behind, {"a": 1.0, "b": -math.inf, "c": -math.inf})
    assert lacking.reversed == 0
    assert lacking.tau is not None
    assert lacking.tau > 0.8


# the verb -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return builders.capture(tmp_path_factory.mktemp("rank") / "room")


def truth_of(capture: Capture) -> Reconstruction:
    """The truth of a rendered capture as a prediction."""
    sizes = [(frame.width, frame.height) for frame in capture.frames]
    regions = torch.tensor([[0.0, 0.0, *size] for size in sizes])
    truth = load_truth(capture.root, capture.names, regions=regions, size=(90, 120))
    images = torch.stack([torch.from_numpy(capture.image(k)[::2, ::2].copy()) for k in range(len(sizes))])
    return Reconstruction(
        prediction=Prediction(
            depth=truth.depth, rays=ray_map(truth.K, 90, 120), conf=torch.ones_like(truth.depth),
            world_from_cam=truth.world_from_cam,
        ),
        names=capture.names, image_files=tuple(frame.file for frame in capture.frames), image=images,
        sizes=tuple(sizes), regions=regions,
    )  # fmt: skip


HOSTILE = "<script>alert(1)</script> $x_{"


def test_better_cameras_rank_above_worse_ones_on_rendered_images(room: Path, tmp_path: Path) -> None:
    def fails(capture: Capture, folder: Path) -> Reconstruction:
        raise RuntimeError("out of <b>memory</b>")

    systems = [
        System(name="turned", run=lambda c, _: turned(truth_of(c), 4.0), fingerprint=dict),
        System(name="broken", run=fails, fingerprint=dict),
        System(name=HOSTILE, run=lambda c, _: truth_of(c), fingerprint=dict),
    ]
    result = rank(systems, room, tmp_path)
    assert [(each.system, each.rank) for each in result.ranking.standings] == [
        (HOSTILE, 1), ("turned", 2), ("broken", 3),
    ]  # fmt: skip
    assert result.failures == 1
    assert result.ranking.standings[0].scene.mean > 80
    page = (tmp_path / "ranking.html").read_text()
    assert "<script" not in page
    assert "<b>memory" not in page
    assert "&lt;script&gt;" in page
    assert page.count("data:image/jpeg") == 4  # input and depth of the two that gave something
    assert "http" not in page.replace("http://www.w3.org", "")
    written = json.loads((tmp_path / "ranking.json").read_text())
    assert written["standings"][2]["remarks"] == ["failed, and counts as missed everywhere: RuntimeError: out of "
                                                  "<b>memory</b>"]  # fmt: skip
    assert not (tmp_path / "script").exists()


def test_a_camera_that_is_no_number_costs_its_pairs_and_not_the_page(room: Path, tmp_path: Path) -> None:
    def spoilt(capture: Capture, folder: Path) -> Reconstruction:
        cameras = truth_of(capture).prediction.world_from_cam.clone()
        cameras[1] = torch.nan
        return truth_of(capture).with_cameras(cameras)

    result = rank([System(name="a, b", run=spoilt, fingerprint=dict)], room, tmp_path)
    assert result.failures == 0
    assert "no camera for 1 of 5 views" in result.ranking.standings[0].remarks[0]
    assert "a, b alone was asked" in (tmp_path / "ranking.html").read_text()


def test_too_little_evidence_is_told_before_any_system_runs(room: Path, tmp_path: Path) -> None:
    def never(capture: Capture, folder: Path) -> Reconstruction:
        raise AssertionError("hours for nothing")

    with pytest.raises(UserError, match="too little evidence"):
        rank([System(name="slow", run=never, fingerprint=dict)], room, tmp_path, views=2)
    assert not (tmp_path / "predictions").exists()


def test_other_images_of_the_same_names_and_lengths_are_predicted_anew(tmp_path: Path) -> None:
    folder, seen = tmp_path / "photos", []
    folder.mkdir()

    def predicted(capture: Capture, logs: Path) -> Reconstruction:
        seen.append(int(capture.image(0).mean()))
        return dataclasses.replace(wall(), names=capture.names, sizes=((64, 48),) * VIEWS)

    system = System(name="mine", run=predicted, fingerprint=dict)
    for grey in (10, 10, 200):
        for k in range(VIEWS):
            cv2.imwrite(str(folder / f"{k}.bmp"), np.full((48, 64, 3), grey, np.uint8))
        predict_cell(system, {}, "photos", load_capture(folder), tmp_path / "out")
    assert seen == [10, 200]


def test_long_names_leave_room_for_the_figures(browser, tmp_path: Path) -> None:
    score = Score(mean=50.0, low=40.0, high=60.0, rank=1, behind=())
    standing = Standing(system="model:" + "x" * 200, scene=score, cameras=score, depth=None, remarks=())
    write_ranking(tmp_path / "ranking.html", standings=[standing], facts="", notes=[], pictures=[])
    browser.open((tmp_path / "ranking.html").as_uri(), (400, 800))
    cell = "document.querySelectorAll('.wide td')[2].getBoundingClientRect().right"
    assert browser.evaluate(cell) < 400


def test_the_command_ranks_finished_runs_and_asks_the_truth_afterwards(
    room: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    truth = truth_of(load_capture(room))
    truth.save(tmp_path / "good" / "prediction")
    kept = turned(truth, 4.0)
    dataclasses.replace(
        kept, prediction=kept.prediction.select_views([0, 1, 2]), names=kept.names[:3], sizes=kept.sizes[:3],
        image_files=kept.image_files[:3], image=kept.image[:3], regions=kept.regions[:3],
    ).save(tmp_path / "poor")  # fmt: skip
    specs = [f"fit:{tmp_path / 'poor'}", f"fit:{tmp_path / 'good'}"]
    assert main(["rank", *specs, "--footage", str(room), "--with-truth"]) == 0
    printed = capsys.readouterr().out
    assert f"{specs[1]} is first" in printed
    assert f"{specs[0]}: no camera for 2 of 5 views" in printed
    assert "cameras and AUC@30: Kendall's tau 1.00" in printed
    assert main(["rank", *specs, "--footage", str(room), "--views", "3"]) == 2
    assert "has frames of its own" in capsys.readouterr().err


def test_intrinsics_that_the_matches_tell_are_given_to_every_system(room: Path) -> None:
    known = load_capture(room)
    frames = tuple(dataclasses.replace(frame, K=None) for frame in known.frames)
    bare = dataclasses.replace(known, frames=frames, K_source=None)
    estimated = K_from_fov(math.radians(65), 180, 240).expand(5, 3, 3)
    found = Evidence(name="room", matches=evidence().matches.select_views(list(range(5))), K=estimated, reference=None)
    given = _with_K(bare, found)
    assert given.K_source == "estimated from the matches"
    assert all(torch.equal(torch.from_numpy(frame.K), K.double()) for frame, K in zip(given.frames, estimated))
    assert "65 degrees" in _notes(given, found)[-1]
    assert _with_K(known, found) is known
    with pytest.raises(UserError, match="give --intrinsics"):
        _leave_out("room", alone=True)


def test_a_run_of_other_images_is_refused(room: Path) -> None:
    capture = load_capture(room)
    other = dataclasses.replace(truth_of(capture), sizes=((100, 80),) * 5)
    with pytest.raises(UserError, match="give --footage what it was made from"):
        on_frames(other, capture, "fit:RUN")
    same = truth_of(capture)
    assert on_frames(same, capture, "fit:RUN") is same


def test_a_headline_does_not_hold_missing_depth_against_cameras() -> None:
    def standing(system: str, scene: int, cameras: int) -> Any:
        figures = [SimpleNamespace(rank=rank, mean=90.0, low=85.0, high=95.0) for rank in (scene, cameras)]
        return SimpleNamespace(system=system, scene=figures[0], cameras=figures[1], depth=None, remarks=())

    both = standing("reconstruct", 1, 1)
    assert headline([both, standing("colmap", 2, 2)]) == "reconstruct is first: every other is clearly worse."
    assert headline([both, standing("colmap", 2, 1)]).endswith(
        "By cameras alone reconstruct, colmap share the first rank."
    )

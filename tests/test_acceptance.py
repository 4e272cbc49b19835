"""The verdict without ground truth, on networks of which it is known how good they are."""

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from reliev3r.core.errors import UserError
from reliev3r.core.types import Prediction, Tracks, Views
from reliev3r.data.capture import load_capture
from reliev3r.geometry.camera import K_from_fov, project, ray_map, transform, unproject
from reliev3r.geometry.rigid import invert, relative, rotation_angle, so3_exp
from reliev3r.geometry.sampling import inside
from reliev3r.sfm.camera_solve import CameraSolve
from reliev3r.synthetic.capture import SynthConfig, write_capture
from reliev3r.verdict.evidence import MOST_FRAMES, HeldoutCapture, _chosen, gather_evidence
from reliev3r.verdict.measure import label_agreement, measure, view_sets
from reliev3r.verdict.page import write_verdict_page
from reliev3r.verdict.rule import JudgeConfig, _rule, judge
from small_scene import WALL, arc

VIEWS, HEIGHT, WIDTH = 16, 24, 32
HELD = (2, 6, 9, 13)
K = K_from_fov(math.radians(60), HEIGHT, WIDTH).double().expand(VIEWS, 3, 3)
CONFIG = JudgeConfig(views=4, sets=1, resamples=200)


def wall(cameras: torch.Tensor | None = None) -> Prediction:
    """The wall as exact cameras see it (by default the true ones), float64."""
    cameras = arc(VIEWS) if cameras is None else cameras
    rays = ray_map(K, HEIGHT, WIDTH)
    normal = cameras[:, :3, :3].mT @ WALL[:3]
    offset = WALL[3] - cameras[:, :3, 3] @ WALL[:3]
    depth = offset[:, None, None] / (rays * normal[:, None, None]).sum(-1)
    return Prediction(depth=depth, rays=rays, conf=torch.ones_like(depth), world_from_cam=cameras)


def wall_tracks(cameras: torch.Tensor, count: int = 200, seed: int = 0) -> tuple[Tracks, torch.Tensor]:
    """Points of the wall as cameras see them, and the points."""
    generator = torch.Generator().manual_seed(seed)
    uv = torch.rand(VIEWS, count // VIEWS, 2, generator=generator).double() * torch.tensor([WIDTH, HEIGHT])
    ahead = unproject(uv, torch.ones(uv.shape[:-1]).double(), K)
    truth = wall()
    normal = truth.world_from_cam[:, :3, :3].mT @ WALL[:3]
    offset = WALL[3] - truth.world_from_cam[:, :3, 3] @ WALL[:3]
    ahead = ahead * (offset[:, None] / (ahead * normal[:, None]).sum(-1))[..., None]
    points = transform(truth.world_from_cam, ahead).flatten(0, 1)
    seen = project(transform(invert(cameras), points.expand(VIEWS, -1, 3)), K)
    return Tracks(uv=seen.float(), weight=inside(seen, HEIGHT, WIDTH).float()), points


def capture(labels: Tracks | None = None, frames: tuple[int, ...] = HELD) -> HeldoutCapture:
    """The wall with exact evidence; the corner of each image tells an oracle which view it is."""
    tracks, points = wall_tracks(arc(VIEWS))
    image = torch.zeros(VIEWS, 3, HEIGHT, WIDTH)
    image[:, 0, 0, 0] = torch.arange(VIEWS) / VIEWS
    seen = tracks.visible
    reference = CameraSolve(
        world_from_cam=arc(VIEWS), reached=torch.ones(VIEWS, dtype=torch.bool), points=points, inlier=seen,
        solid=seen.sum(0) > 1, residual=0.0,
    )  # fmt: skip
    return HeldoutCapture(
        name="wall", views=Views(image=image, K=K.float()), frames=frames, matches=tracks, K=K.float(),
        reference=reference, labels=labels,
    )  # fmt: skip


class Oracle(nn.Module):
    """Knows the truth and says something else."""

    def __init__(self, change: Callable[[Prediction], Prediction]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))
        self.says = change(wall()).to(torch.float32)

    def forward(self, views: Views) -> Prediction:
        index = (views.image[0, :, 0, 0, 0] * VIEWS).round().long()
        return self.says.select_views(index).map(lambda x: x[None])


def turned(degrees: float, *, only: tuple[int, ...] = tuple(range(VIEWS)), seed: int = 0) -> Oracle:
    """Each camera turned at random."""
    omega = torch.randn(VIEWS, 3, generator=torch.Generator().manual_seed(seed)).double() * math.radians(degrees)
    omega[[view for view in range(VIEWS) if view not in only]] = 0

    def change(prediction: Prediction) -> Prediction:
        cameras = prediction.world_from_cam.clone()
        cameras[:, :3, :3] = cameras[:, :3, :3] @ so3_exp(omega)
        return dataclasses.replace(prediction, world_from_cam=cameras)

    return Oracle(change)


def bent(amount: float) -> Oracle:
    """True cameras, depth that grows to one side of each image."""
    slope = torch.linspace(-amount, amount, WIDTH).exp().double()
    return Oracle(lambda prediction: dataclasses.replace(prediction, depth=prediction.depth * slope))


def collapsed(degrees: float) -> Oracle:
    """All cameras in one place, looking in one direction."""

    def change(prediction: Prediction) -> Prediction:
        cameras = prediction.world_from_cam[:1].repeat(VIEWS, 1, 1)
        cameras[:, :3, :3] = cameras[:, :3, :3] @ so3_exp(torch.randn(VIEWS, 3).double() * math.radians(degrees))
        return dataclasses.replace(prediction, world_from_cam=cameras)

    return Oracle(change)


def test_a_network_that_gets_better_is_called_better_and_the_way_back_worse() -> None:
    poor, good = turned(5.0), turned(1.0)
    assert judge(poor, good, [capture()], config=CONFIG).verdict == "better"
    back = judge(good, poor, [capture()], config=CONFIG)
    assert back.verdict == "worse"
    assert " degrees (" in back.reasons[0]
    angle = next(figure for figure in back.figures if figure.name == "angle")
    assert angle.change[1] > CONFIG.margin
    assert angle.after > 2 * angle.before


def test_nothing_happened() -> None:
    verdict = judge(turned(3.0), turned(3.0), [capture()], config=CONFIG)
    assert verdict.verdict == "no change"
    assert all(figure.change == (0.0, 0.0, 0.0) and figure.sign == 0 for figure in verdict.figures)


def test_noise_is_no_improvement() -> None:
    verdicts = {judge(turned(3.0, seed=a), turned(3.0, seed=a + 9), [capture()], config=CONFIG).verdict for a in (0, 1)}
    assert "better" not in verdicts or "worse" not in verdicts
    few = judge(
        turned(3.0), turned(3.0, only=tuple(v for v in range(VIEWS) if v != HELD[0])), [capture()], config=CONFIG
    )
    assert few.verdict == "no change", "one held-out frame of four is not a proof"


def test_a_collapse_loses() -> None:
    verdict = judge(turned(8.0), collapsed(0.1), [capture()], config=CONFIG)
    assert verdict.verdict == "worse"
    assert "collapsed" in verdict.reasons[0]


def test_depth_that_gets_worse_is_never_better() -> None:
    assert judge(bent(0.0), bent(0.3), [capture()], config=CONFIG).verdict == "worse"
    assert judge(bent(0.3), bent(0.0), [capture()], config=CONFIG).verdict == "better"


def test_predictions_that_are_not_finite_are_worse() -> None:
    broken = Oracle(lambda p: dataclasses.replace(p, depth=p.depth * torch.nan))
    assert judge(turned(3.0), broken, [capture()], config=CONFIG).verdict == "worse"
    with pytest.raises(UserError, match="before any adaptation"):
        judge(broken, turned(3.0), [capture()], config=CONFIG)


def test_labels_cannot_certify_themselves() -> None:
    """A network that learned the labels of another capture agrees with them perfectly."""
    roll = torch.tensor([[0, -1, 0, 0], [1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]).double()
    other = roll @ arc(VIEWS) @ roll.mT  # it went up and down, not left and right
    labels, _ = wall_tracks(other, seed=1)
    learned = Oracle(lambda _: wall(other))
    verdict = judge(turned(1.0), learned, [capture(labels)], config=CONFIG)
    own = next(figure for figure in verdict.figures if figure.name == "labels")
    assert own.sign > 0
    assert verdict.verdict == "worse"
    assert verdict.label_agreement["wall"] < 0.5
    assert any("do not fit the images" in reason for reason in verdict.reasons)


def test_labels_of_another_capture_make_nothing_better() -> None:
    roll = torch.tensor([[0, -1, 0, 0], [1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]).double()
    labels, _ = wall_tracks(roll @ arc(VIEWS) @ roll.mT, seed=1)
    assert judge(turned(6.0), turned(0.5), [capture()], config=CONFIG).verdict == "better"
    verdict = judge(turned(6.0), turned(0.5), [capture(labels)], config=CONFIG)
    assert verdict.verdict == "no change"
    assert "not of these images" in verdict.reasons[0]


@pytest.mark.parametrize(("estimate", "verdict"), [(0.1, "better"), (0.2, "no change")])
def test_what_looks_worse_is_not_better_however_uncertain(estimate: float, verdict: str) -> None:
    found = judge(turned(6.0), turned(0.5), [capture()], config=CONFIG)
    figures = [
        dataclasses.replace(figure, change=(estimate, -0.3, 0.9), sign=0) if figure.name == "direction" else figure
        for figure in found.figures
    ]
    measured = [measure(turned(6.0), capture(), CONFIG.views, CONFIG.sets)]
    assert _rule(figures, {}, measured, measured, CONFIG)[0] == verdict


def test_true_labels_agree_with_the_images() -> None:
    assert label_agreement(capture(wall_tracks(arc(VIEWS), seed=1)[0])) == 1.0
    assert label_agreement(capture()) is None


def test_too_little_evidence_says_so(tmp_path: Path) -> None:
    verdict = judge(turned(5.0), turned(0.0), [capture(frames=(3,))], config=CONFIG)
    assert verdict.verdict == "no change"
    assert "Too little evidence" in verdict.reasons[0]
    unknown = dataclasses.replace(capture(), K=None)
    replay = dataclasses.replace(unknown, name="elsewhere")
    verdict = judge(turned(5.0), turned(0.0), [unknown], [replay], config=CONFIG)
    assert verdict.verdict == "no change"
    assert "wall, elsewhere" in verdict.reasons[-1]
    assert verdict.moved == {}
    write_verdict_page(tmp_path / "page.html", verdict, turned(5.0), turned(0.0), [unknown], CONFIG)
    assert "Too little evidence" in (tmp_path / "page.html").read_text()


def test_every_set_has_its_held_out_frame_and_no_pair_twice() -> None:
    sets = view_sets(capture(), 4, 3)
    assert {chosen[0] for chosen in sets} == set(HELD)
    assert len(sets) == 3 * len(HELD)
    pairs = [(chosen[0], other) for chosen in sets for other in chosen[1:]]
    assert len(set(pairs)) == len(pairs) == 3 * 3 * len(HELD)


def test_a_replay_capture_tells_how_far_predictions_moved() -> None:
    replay = dataclasses.replace(capture(frames=()), name="elsewhere")
    still = judge(turned(2.0), turned(2.0), [capture()], [replay], config=CONFIG)
    assert still.moved["elsewhere"] == {"depth": 0.0, "rotation_deg": pytest.approx(0.0, abs=1e-3)}
    moved = judge(bent(0.0), bent(0.2), [capture()], [replay], config=CONFIG)
    assert moved.moved["elsewhere"]["depth"] == pytest.approx(math.expm1(0.1), rel=0.1)


def test_frames_of_long_captures() -> None:
    held = range(0, 400, 10)
    chosen = _chosen(400, held)
    assert len(chosen) == MOST_FRAMES
    assert len(set(chosen) & set(held)) == MOST_FRAMES // 2
    assert _chosen(10, (3,)) == list(range(10))


@pytest.mark.slow
def test_evidence_comes_from_the_images(tmp_path: Path) -> None:
    folder = write_capture(
        tmp_path / "room", SynthConfig(seed=3, views=6, width=256, height=192, span=20.0, supersample=1)
    )
    evidence = gather_evidence(load_capture(folder), long_side=64, patch=8, frames=(1, 4))
    assert evidence.views.size == (48, 64)
    assert evidence.frames == (1, 4)
    assert evidence.reference is not None
    assert bool(evidence.reference.reached.all())
    _, truth = load_truth_cameras(folder)
    between = relative(evidence.reference.world_from_cam.double())[..., :3, :3].mT @ relative(truth)[..., :3, :3]
    assert float(rotation_angle(between).rad2deg().median()) < 0.3


def load_truth_cameras(folder: Path) -> tuple[list[str], torch.Tensor]:
    """Names and cameras of a rendered capture."""
    import json

    frames = json.loads((folder / "cameras.json").read_text())["frames"]
    return [frame["name"] for frame in frames], torch.tensor([f["cam_to_world"] for f in frames]).double()


def test_the_page_holds_verdict_figures_and_pictures(tmp_path: Path) -> None:
    poor, good = turned(5.0), turned(1.0)
    verdict = judge(poor, good, [capture()], config=CONFIG)
    write_verdict_page(tmp_path / "page.html", verdict, poor, good, [capture()], CONFIG)
    page = (tmp_path / "page.html").read_text()
    assert "Verdict: better" in page
    assert page.count("data:image/jpeg") == 3 * len(HELD)
    assert "http" not in page.replace("http://www.w3.org", "")
    assert (tmp_path / "page.png").stat().st_size > 10_000

"""What refinement finds out about a lens: focal length with a prior, distortion where held-out tracks show it."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from PIL import Image

import small_scene
from reliev3r.core.types import Tracks
from reliev3r.data.capture import load_capture
from reliev3r.export.images import write_images
from reliev3r.export.lens import straightened_capture, straightened_tracks
from reliev3r.geometry.camera import pixel_grid, project, transform
from reliev3r.geometry.radial import distort, undistort
from reliev3r.geometry.rigid import invert, relative, rigid_from, rotation_angle, so3_exp
from reliev3r.geometry.sampling import sample_bilinear
from reliev3r.sfm import bundle_pycolmap
from reliev3r.sfm import lens as lens_module
from reliev3r.sfm.bundle_pycolmap import Bundle
from reliev3r.sfm.lens import CameraLens, LensPrior, adjust_with_lens
from reliev3r.sfm.quarter_turn import QuarterTurn
from reliev3r.sfm.refine import _straightened, refine_cameras

VIEWS = 8
FOCAL = 605.0
K = torch.tensor([[FOCAL, 0.0, 322.5], [0.0, FOCAL, 238.0], [0.0, 0.0, 1.0]], dtype=torch.float64)


@pytest.fixture(autouse=True)
def square_pixels(monkeypatch):
    monkeypatch.setattr(small_scene, "K", K)


def nadir(views: int = VIEWS) -> torch.Tensor:
    """Cameras in two rows over a floor 4 away, all looking straight at it, as a drone does; a little turned."""
    generator = torch.Generator().manual_seed(7)
    turn = so3_exp(0.01 * torch.randn(views, 3, generator=generator, dtype=torch.float64))
    column, row = torch.arange(views) % (views // 2), torch.arange(views) // (views // 2)
    centre = torch.stack([0.7 * column - 1.05, 0.9 * row - 0.45, 0.02 * torch.randn(views, generator=generator)], -1)
    return rigid_from(turn, centre.double())


def floor(count: int, seed: int) -> torch.Tensor:
    """Points of ground that is as good as flat: grass and stones of 1 % of the height."""
    generator = torch.Generator().manual_seed(seed)
    place = torch.rand(count, 3, generator=generator, dtype=torch.float64)
    return place * torch.tensor([5.0, 4.0, 0.04]) + torch.tensor([-2.5, -2.0, 3.96])


def photographed(points, cameras, *, k1, seed, noise_px=0.5, false_share=0.1) -> Tracks:
    """Tracks as a lens with k1 shows them; ``k1`` of each view or of all."""
    tracks = small_scene.observe(points, cameras, noise_px=noise_px, false_share=false_share, longest=6, seed=seed)
    k1 = torch.as_tensor(k1, dtype=torch.float64).expand(len(cameras))
    uv = distort(tracks.uv.double(), small_scene.K.expand(len(cameras), 3, 3), k1)
    return dataclasses.replace(tracks, uv=uv.float())


def start(cameras, *, focal, degrees=1.0, share=0.02):
    """What a network might say: cameras a little off, and the prior's focal length (of all views or of each)."""
    generator = torch.Generator().manual_seed(0)
    views = len(cameras)

    def directions():
        return torch.nn.functional.normalize(torch.randn(views, 3, generator=generator, dtype=torch.float64), dim=-1)

    moved = cameras.clone()
    moved[:, :3, :3] = so3_exp(math.radians(degrees) * directions()) @ moved[:, :3, :3]
    moved[:, :3, 3] += share * 4 * directions()
    reconstruction = small_scene.reconstruction(views)
    rays = reconstruction.prediction.rays.clone()
    rays[..., :2] *= (FOCAL / torch.as_tensor(focal, dtype=torch.float32)).expand(views)[:, None, None, None]
    prediction = dataclasses.replace(reconstruction.prediction, rays=rays)
    return dataclasses.replace(reconstruction, prediction=prediction).with_cameras(moved)


def errors(result, cameras) -> tuple[float, float]:
    """Largest rotation error (degrees) and translation direction error (degrees) over all pairs of views."""
    found, true = relative(result.prediction.world_from_cam.double()), relative(cameras)
    rotation = rotation_angle(found[..., :3, :3].mT @ true[..., :3, :3]).rad2deg().mean()
    off = ~torch.eye(len(cameras), dtype=torch.bool)
    a, b = (torch.nn.functional.normalize(pose[..., :3, 3][off], dim=-1) for pose in (found, true))
    return float(rotation), float(torch.linalg.cross(a, b).norm(dim=-1).asin().rad2deg().mean())


def around(views: int = VIEWS) -> torch.Tensor:
    """Cameras that walk a third of the way around what they look at, 4 away, high and low, a little rolled."""
    cameras = []
    for step in torch.linspace(-1, 1, views, dtype=torch.float64).tolist():
        pan, tilt, roll = torch.eye(3).double()[[1, 0, 2]] * torch.tensor([[-1.05], [1.0], [0.2]]).double()
        turn = so3_exp(pan * step) @ so3_exp(tilt * 0.3 * math.sin(5 * step)) @ so3_exp(roll * step)
        cameras.append(rigid_from(turn, torch.tensor([0, 0, 4.0]).double() - 4 * turn[:, 2]))
    return torch.stack(cameras)


def cloud(count: int, seed: int) -> torch.Tensor:
    """Points in a cube of 2.4."""
    generator = torch.Generator().manual_seed(seed)
    place = 2.4 * torch.rand(count, 3, generator=generator, dtype=torch.float64) - 1.2
    return place + torch.tensor([0, 0, 4.0], dtype=torch.float64)


ONE_CAMERA = LensPrior(camera_of=(0,) * VIEWS, focal_sigma=0.05)


def taken(cameras, scene, *, k1, tracks=500):
    """(tracks to adjust on, held-out tracks) of a scene."""
    return photographed(scene(tracks, 1), cameras, k1=k1, seed=2), photographed(scene(100, 3), cameras, k1=k1, seed=4)


def test_a_lens_with_a_wrong_prior_is_found_and_the_cameras_gain() -> None:
    cameras = around()
    tracks, heldout = taken(cameras, cloud, k1=-0.15)
    network = start(cameras, focal=1.05 * FOCAL)
    found, fixed = refine_cameras(network, tracks, heldout, lens=ONE_CAMERA), refine_cameras(network, tracks, heldout)
    (lens,) = found.lenses
    assert lens.prior_px == pytest.approx(1.05 * FOCAL, rel=1e-4)
    assert lens.focal_px == pytest.approx(FOCAL, rel=0.015)
    assert lens.k1 == pytest.approx(-0.15, abs=0.02)
    for with_lens, without in zip(errors(found.reconstruction, cameras), errors(fixed.reconstruction, cameras)):
        assert with_lens < 0.4 * without
    assert found.after.median_px < fixed.after.median_px
    assert f"focal length 635 -> {lens.focal_px:.0f} px, radial distortion k1 = {lens.k1:.4f}" in found.reason
    K = found.reconstruction.K_original
    torch.testing.assert_close(K[:, 0, 0], torch.full((VIEWS,), lens.focal_px).double(), atol=0.05, rtol=0)
    assert found.reconstruction.radial == pytest.approx([lens.k1] * VIEWS)


def test_portrait_and_landscape_pictures_share_their_lens(monkeypatch) -> None:
    centred = K.clone()  # which way up a camera was held is not told
    centred[:2, 2] = torch.tensor([320.0, 240.0])
    monkeypatch.setattr(small_scene, "K", centred)
    cameras = around()
    tracks, _ = taken(cameras, cloud, k1=-0.15, tracks=250)
    prior = centred.clone()
    prior[[0, 1], [0, 1]] *= 1.05
    prior, sizes = prior.repeat(VIEWS, 1, 1), ((640, 480),) * VIEWS
    alike, (known,) = adjust_with_lens(tracks, prior, cameras, sizes, ONE_CAMERA)
    held = QuarterTurn(sizes, torch.arange(VIEWS) % 3 == 1)  # those were taken in portrait
    mixed, (lens,) = adjust_with_lens(
        held.tracks(tracks), held.K(prior), held.cameras(cameras), held.turned_sizes, ONE_CAMERA
    )
    assert lens.views == VIEWS
    assert lens.focal_px == pytest.approx(known.focal_px, rel=2e-3)
    assert lens.k1 == pytest.approx(known.k1, abs=2e-3)
    torch.testing.assert_close(mixed.K, held.K(alike.K), rtol=2e-3, atol=0.5)
    turned_back = mixed.world_from_cam.double() @ held.cameras(torch.eye(4).double().repeat(VIEWS, 1, 1)).mT
    angle = rotation_angle(relative(turned_back)[..., :3, :3].mT @ relative(alike.world_from_cam.double())[..., :3, :3])
    assert float(angle.rad2deg().max()) < 0.05


def test_a_quarter_turn_moves_pixels_and_cameras_alike() -> None:
    cameras, points, sizes = around(3), cloud(20, 0), ((640, 480), (480, 640), (640, 480))
    intrinsics = K.repeat(3, 1, 1)
    turn = QuarterTurn.of(sizes, (0, 0, 0))
    assert turn.across.tolist() == [False, True, False]
    assert turn.turned_sizes == ((640, 480),) * 3
    seen = project(transform(invert(cameras), points.expand(3, -1, -1)), intrinsics)
    again = project(transform(invert(turn.cameras(cameras)), points.expand(3, -1, -1)), turn.K(intrinsics))
    tracks = turn.tracks(Tracks(uv=seen, weight=torch.ones(3, 20)))
    torch.testing.assert_close(tracks.uv, again)


@pytest.mark.parametrize("k1", [0.0, -0.02])
def test_over_flat_ground_the_prior_stays(k1) -> None:
    cameras = nadir()
    result = refine_cameras(start(cameras, focal=FOCAL), *taken(cameras, floor, k1=k1), lens=ONE_CAMERA)
    assert result.kept
    assert result.lenses[0].focal_px == pytest.approx(FOCAL, rel=0.01)
    assert result.lenses[0].k1 == 0
    assert result.reconstruction.radial is None


def test_a_strong_lens_over_flat_ground_does_not_become_a_bent_ground() -> None:
    cameras = nadir()
    tracks, heldout = taken(cameras, floor, k1=-0.15)
    network = start(cameras, focal=FOCAL)
    found = refine_cameras(network, tracks, heldout, lens=ONE_CAMERA)
    (lens,) = found.lenses
    assert lens.k1 == pytest.approx(-0.15, abs=0.05)
    assert lens.focal_px == pytest.approx(FOCAL, rel=0.04)
    pinhole = refine_cameras(network, tracks, heldout)
    assert errors(pinhole.reconstruction, cameras)[0] > 2  # it bends the ground
    assert errors(found.reconstruction, cameras)[0] < 1.5


def test_a_lens_that_flat_ground_hides_is_told() -> None:
    lens = CameraLens(
        view=0, views=8, prior_px=600.0, free_px=700.0, share=0.1, focal_px=605.0, k1=0.0, k1_share=0.3
    )  # fmt: skip
    assert "near what was known, for the tracks hardly tell (alone: 700)" in lens.sentence
    assert "distortion taken as none, for the tracks cannot tell it" in lens.sentence
    assert "distortion taken as none" not in dataclasses.replace(lens, k1_share=0.9).sentence


def test_what_is_not_evident_pulls_the_mean_to_the_prior() -> None:
    free = Bundle(
        world_from_cam=torch.eye(4).double()[None], K=K[None] * torch.tensor([1.2, 1.2, 1.0]).double()[:, None],
        radial=torch.tensor([-0.2]).double(), points=torch.zeros(1, 3).double(), kept=torch.ones(1, 1).bool(),
        adjusted=torch.ones(1).bool(), lens_covariance=torch.tensor([[[100.0, 0.0], [0.0, 1.0]]]).double(),
    )  # fmt: skip
    prior = LensPrior(camera_of=(0,), focal_sigma=0.05)
    weighed = lens_module._weighed(0, K[None], free, prior)
    # standard deviations of the tracks: 0.15 times those of the covariance, 1.5 for the focal length and 0.15 for k1
    assert weighed.share == pytest.approx(0.05**2 / (0.05**2 + 1.5**2), rel=1e-6)
    assert weighed.log_zoom == pytest.approx(weighed.share * math.log(1.2), rel=1e-6)
    assert weighed.k1_share == pytest.approx(0.1**2 / (0.1**2 + 0.15**2))
    assert weighed.k1 == 0  # the mean, -0.06, lies within 2.5 standard deviations of 0.08
    sure = dataclasses.replace(free, lens_covariance=0.01 * free.lens_covariance)
    assert lens_module._weighed(0, K[None], sure, prior).k1 == pytest.approx(-0.2 / 1.0225)


def test_the_prior_does_not_move_where_adjusting_the_focal_length_fails(monkeypatch) -> None:
    def runs_away(*args, free_focal=False, **kwargs):
        if free_focal:
            raise bundle_pycolmap.NotAdjusted("the focal length ran away")
        return bundle_pycolmap.adjust_bundle(*args, **kwargs)

    monkeypatch.setattr(lens_module, "adjust_bundle", runs_away)
    cameras = around()
    prior = dataclasses.replace(ONE_CAMERA, distortion=False)
    result = refine_cameras(start(cameras, focal=620.0), *taken(cameras, cloud, k1=0), lens=prior)
    assert result.kept
    assert result.lenses[0].focal_px == pytest.approx(620)
    assert "focal length 620 px kept, the tracks do not tell one, no distortion" in result.reason


def test_two_cameras_get_two_focal_lengths() -> None:
    cameras, zoom = around(), torch.tensor([1.0, 1.3] * (VIEWS // 2)).double()
    centre = K[:2, 2]
    tracks, heldout = (
        dataclasses.replace(t, uv=(centre + zoom[:, None, None] * (t.uv.double() - centre)).float())
        for t in taken(cameras, cloud, k1=0)
    )
    prior = LensPrior(camera_of=(0, 1) * (VIEWS // 2), focal_sigma=0.05, distortion=False)
    result = refine_cameras(start(cameras, focal=FOCAL * zoom / 1.04), tracks, heldout, lens=prior)
    K_found = result.reconstruction.K_original
    torch.testing.assert_close(K_found[:, 0, 0], FOCAL * zoom, rtol=0.012, atol=0)
    assert K_found[::2, 0, 0].std() < 0.05
    assert "camera of frame0 (4 views): focal length" in result.reason
    assert "camera of frame1 (4 views): focal length" in result.reason


@pytest.mark.parametrize("k1", [-0.3, -0.05, 0.0, 0.2])
def test_distortion_and_back(k1) -> None:
    uv = torch.rand(3, 200, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    uv = uv * torch.tensor(small_scene.SIZE)
    lens = torch.full((3,), k1, dtype=torch.float64)
    torch.testing.assert_close(undistort(distort(uv, K.expand(3, 3, 3), lens), K.expand(3, 3, 3), lens), uv)
    corner = distort(torch.tensor([[[322.5 + FOCAL / 2, 238.0]]]).double(), K[None], lens[:1])
    assert corner[0, 0, 0].item() == pytest.approx(322.5 + FOCAL / 2 * (1 + k1 / 4))


def test_where_a_barrel_never_reaches_is_its_edge() -> None:
    lens = torch.tensor([-0.4]).double()
    far = torch.tensor([[[322.5 + 5 * FOCAL, 238.0]]]).double()
    assert undistort(far, K[None], lens)[0, 0, 0].item() == pytest.approx(322.5 + FOCAL / math.sqrt(1.2))


def test_maps_photographs_and_tracks_lose_the_lens_together(tmp_path) -> None:
    k1, spot = -0.2, torch.tensor([[[500.0, 380.0]]]).double()
    stored = distort(spot, K[None], torch.tensor([k1]).double())
    u, v = np.meshgrid(np.arange(640) + 0.5, np.arange(480) + 0.5)
    dot = 250 * np.exp(-((u - stored[0, 0, 0].item()) ** 2 + (v - stored[0, 0, 1].item()) ** 2) / 50)
    (tmp_path / "photos").mkdir()
    for name in ("frame0", "frame1"):
        Image.fromarray(dot.astype(np.uint8)).convert("RGB").save(tmp_path / "photos" / f"{name}.png")
    capture = load_capture(tmp_path / "photos")
    reconstruction = dataclasses.replace(
        start(around(2), focal=FOCAL), image_files=("frame0.png", "frame1.png"), radial=(k1, k1)
    )
    reconstruction.save(tmp_path / "saved")
    reconstruction = type(reconstruction).load(tmp_path / "saved")
    assert reconstruction.radial == (k1, k1)
    tracks = Tracks(uv=stored.expand(2, 1, 2).float(), weight=torch.ones(2, 1))
    straight = straightened_tracks(tracks, reconstruction)
    torch.testing.assert_close(straight.uv.double(), spot.expand(2, 1, 2), atol=0.05, rtol=0)
    write_images(capture, capture.names, tmp_path / "out")  # links, as of an export before the refinement
    files = write_images(straightened_capture(capture, reconstruction), capture.names, tmp_path / "out")
    shown = np.asarray(Image.open(tmp_path / "out" / files[0]).convert("L")).astype(float)
    assert (shown * u).sum() / shown.sum() == pytest.approx(500.0, abs=0.1)
    assert (shown * v).sum() / shown.sum() == pytest.approx(380.0, abs=0.1)
    original = np.asarray(Image.open(tmp_path / "photos" / "frame0.png").convert("L")).astype(float)
    assert (original * u).sum() / original.sum() == pytest.approx(stored[0, 0, 0].item(), abs=0.1)


def test_depth_follows_the_pixels_that_lose_the_lens(monkeypatch) -> None:
    monkeypatch.setattr(small_scene, "MAP", (120, 140))  # of nearest pixels there must be some
    truth, k1 = small_scene.reconstruction(2), torch.tensor([-0.2, -0.2]).double()
    K_map = truth.prediction.K.double()
    height, width = small_scene.MAP
    pixels = pixel_grid(height, width).double().reshape(-1, 2).expand(2, -1, -1)
    seen = undistort(pixels, K_map, k1)  # what each pixel of the stored image really shows
    bent = sample_bilinear(truth.prediction.depth.double(), seen).unflatten(-1, (height, width)).float()
    prediction = dataclasses.replace(truth.prediction, depth=bent)
    straight = _straightened(dataclasses.replace(truth, prediction=prediction), k1)
    inner = np.s_[:, 4:-4, 4:-4]
    before, after = (
        (depth / truth.prediction.depth - 1).abs()[inner].mean() for depth in (bent, straight.prediction.depth)
    )
    assert after < 0.001  # half a pixel of the nearest one
    assert before > 3 * after
    torch.testing.assert_close(straight.prediction.K, truth.prediction.K)

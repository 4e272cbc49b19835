import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image

from reliev3r.core.cameras_json import PosedEntry, write_frames
from reliev3r.core.types import Tracks
from reliev3r.data.capture import load_capture
from reliev3r.labels.registry import track_expert
from reliev3r.labels.tracks.moving_objects import weigh_moving
from reliev3r.labels.tracks.union import PairMatches
from reliev3r.synthetic.capture import SynthConfig
from reliev3r.synthetic.path import sample_path
from reliev3r.synthetic.render import render
from reliev3r.synthetic.scene import make_scene

VIEWS, SIZE = 7, (240, 320)


def moved(scene, number, offset):
    """The scene with one object at another place."""
    pose = scene.world_from_object.clone()
    pose[number, :3, 3] += torch.tensor(offset)
    return dataclasses.replace(scene, world_from_object=pose)


def put(scene, number, place, half):
    pose, extent = scene.world_from_object.clone(), scene.half.clone()
    pose[number, :3, 3] = place
    extent[number] = torch.tensor(half)
    return dataclasses.replace(scene, world_from_object=pose, half=extent)


@pytest.fixture(scope="module")
def traffic(tmp_path_factory):
    """(capture, where the moving box is seen [v, h, w]): a textured box rises and drifts while the camera walks."""
    config = SynthConfig(seed=1, views=VIEWS, width=SIZE[1], height=SIZE[0], span=40.0)
    scene = make_scene(config.seed)
    cameras = sample_path(scene, config.K, SIZE, config.camera_path, seed=config.seed)
    K = config.K.expand(VIEWS, 3, 3)
    ahead = cameras[VIEWS // 2] @ torch.tensor([-0.1, 0.35, 1.6, 1.0])
    scene = put(scene, 1, ahead[:3], (0.3, 0.3, 0.3))
    folder = tmp_path_factory.mktemp("traffic")
    masks, frames = [], []
    for k in range(VIEWS):
        step = [0.03 * k, -0.03 * k, 0.09 * k]
        with_box = moved(scene, 1, step)
        views, truth = render(with_box, K[k : k + 1], cameras[k : k + 1], SIZE, supersample=1)
        _, empty = render(moved(scene, 1, [0.0, 0.0, 50.0]), K[k : k + 1], cameras[k : k + 1], SIZE, supersample=1)
        masks.append((truth.depth[0] - empty.depth[0]).abs() > 1e-3)
        image = (views.image[0].movedim(0, -1) * 255).round().byte().numpy()
        Image.fromarray(image).save(folder / f"{k}.png")
        intrinsics = config.K.double().numpy()
        frames.append(PosedEntry(name=str(k), image=f"{k}.png", width=SIZE[1], height=SIZE[0], K=intrinsics))
    write_frames(folder / "cameras.json", frames)
    return load_capture(folder), torch.stack(masks)


def on_box(tracks, masks):
    """Share of each track's observations that lie on the box."""
    column = tracks.uv[..., 0].long().clamp(0, SIZE[1] - 1)
    row = tracks.uv[..., 1].long().clamp(0, SIZE[0] - 1)
    hit = masks[torch.arange(len(masks))[:, None], row, column] & tracks.visible
    return hit.sum(0) / tracks.visible.sum(0)


def test_tracks_on_a_moving_thing_weigh_less(traffic):
    capture, masks = traffic
    assert masks.flatten(1).float().mean(1).min() > 0.03  # it is in every picture
    tracks = track_expert("sift").track(capture)
    weight, share = tracks.weight.amax(0), on_box(tracks, masks)
    moving, still = weight[share > 0.8], weight[share == 0]
    assert len(moving) >= 30  # neighbouring frames tie them although they move
    assert moving.median() < 0.5
    assert (moving < 1).float().mean() > 0.8
    assert moving.min() > 0
    assert (still == 1).float().mean() > 0.95
    seen = tracks.weight > 0
    assert bool(((tracks.weight == weight) | ~seen).all())  # one weight a track


def ring(count=20):
    """Keypoints a pixel apart in two places far from each other: the first half, the second half."""
    row = np.arange(count, dtype=float)
    return np.stack([row + 1000 * (row >= count // 2), row], axis=1)


def pair(first, second, good, against):
    index = np.array(good)
    return PairMatches(
        first=first, second=second, index_first=index, index_second=index, doubt=np.zeros(len(index)), F=np.eye(3),
        against=np.stack([against, against], 1) if len(against) else np.zeros((0, 2), int),
    )  # fmt: skip


def two_places(pairs):
    """Weights of one track in the first place and one in the second, both seen by views 0 and 1."""
    uv = torch.from_numpy(ring()[[4, 15]]).float().expand(3, 2, 2)
    tracks = Tracks(uv=uv, weight=torch.tensor([[1.0, 1.0], [1.0, 1.0], [0.0, 0.0]]))
    return weigh_moving(tracks, [ring()] * 3, pairs).weight


def test_by_hand_a_place_that_most_pairs_contradict():
    still, place = np.arange(10), np.arange(10, 20)
    # Views 0 and 1 follow closely and agree everywhere; against view 2 the second place has moved.
    close = pair(0, 1, np.arange(20), [])
    far = [pair(view, 2, np.concatenate([still, still]), place) for view in (0, 1)]
    # a pair's votes count by how clear its majority is: 1, and (20 - 10) / 30
    for times in (1, 2, 5):
        weight = two_places([close, *far * times])
        torch.testing.assert_close(weight[:, 0], torch.tensor([1.0, 1.0, 0.0]))
        share = (times / 3) / (1 + times / 3)
        expected = 1 - (1 - 0.05) * (share - 0.2) / 0.5
        torch.testing.assert_close(weight[:, 1], torch.tensor([expected, expected, 0.0]))


def test_scattered_contradictions_are_false_matches_and_count_nothing():
    rng = np.random.default_rng(0)
    place = np.arange(10, 20)
    index = np.stack([place, rng.permutation(place)], axis=1)
    points = [ring(), ring() * 50, ring() * 50]  # far apart there: each contradicting match goes elsewhere
    far = dataclasses.replace(pair(0, 1, np.arange(20), []), against=index)
    uv = torch.from_numpy(ring()[[15]]).float().expand(3, 1, 2)
    tracks = Tracks(uv=uv, weight=torch.tensor([[1.0], [1.0], [0.0]]))
    assert weigh_moving(tracks, points, [far] * 3).weight[:2].tolist() == [[1], [1]]


def test_a_pair_without_a_static_majority_says_nothing():
    few = [pair(0, 1, np.arange(5), np.arange(5, 20))] * 5
    assert two_places(few).tolist() == [[1, 1], [1, 1], [0, 0]]


def test_nothing_to_weigh():
    empty = Tracks(uv=torch.zeros(2, 0, 2), weight=torch.zeros(2, 0))
    assert weigh_moving(empty, [np.zeros((0, 2))] * 2, []).weight.shape == (2, 0)

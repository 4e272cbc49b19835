"""The data path: captures on disk, read by view; batches by any number of workers, the same to the bit."""

import dataclasses
import multiprocessing
import os
import pickle
import signal
import time
from pathlib import Path

import pytest
import torch
from test_loop import batches, network, weak, weights

from reliev3r.core.errors import TrainingStopped, UserError
from reliev3r.core.types import CameraLabels, DepthLabels, PseudoLabels, Tracks, Views, named_tensors
from reliev3r.data.augment import AugmentConfig
from reliev3r.geometry.camera import K_from_fov
from reliev3r.labels.prepare import PrepareConfig, Prepared
from reliev3r.training.batches import SceneBatchConfig, SceneBatches
from reliev3r.training.captures import CapturesConfig, PreparedCaptures
from reliev3r.training.config import TrainConfig
from reliev3r.training.loader import Feed, affordable
from reliev3r.training.loop import train
from reliev3r.training.prepared import PreparedCapture, write_prepared

VIEWS, HEIGHT, WIDTH, TRACKS = 12, 24, 32, 300


def made(seed: int, **changes) -> Prepared:
    """A capture as it comes out of the preparation; each track is seen by about four views in a row."""
    g = torch.Generator().manual_seed(seed)

    def tracks(count: int) -> Tracks:
        middle = torch.rand(count, generator=g) * VIEWS
        weight = torch.rand(VIEWS, count, generator=g).clamp_min(0.1)
        weight[(torch.arange(VIEWS)[:, None] - middle).abs() > 2] = 0
        uv = torch.rand(VIEWS, count, 2, generator=g) * torch.tensor([WIDTH, HEIGHT])
        return Tracks(uv=uv, weight=weight, depth=1 + torch.rand(VIEWS, count, generator=g))

    depth = 0.5 + 3 * torch.rand(VIEWS, HEIGHT, WIDTH, generator=g)
    valid = torch.rand(VIEWS, HEIGHT, WIDTH, generator=g) > 0.1
    pose = torch.eye(4).repeat(VIEWS, 1, 1)
    pose[:, :3, 3] = torch.rand(VIEWS, 3, generator=g)
    image = (torch.rand(VIEWS, 3, HEIGHT, WIDTH, generator=g) * 255).round() / 255
    labels = PseudoLabels(
        depth=DepthLabels(depth=depth, valid=valid, trust=torch.rand(VIEWS, generator=g)), tracks=tracks(TRACKS),
        cameras=CameraLabels(world_from_cam=pose, weight=torch.ones(VIEWS)),
    )  # fmt: skip
    empty = torch.zeros(0, dtype=torch.long)
    return Prepared(
        views=Views(image=image, K=K_from_fov(1.0, HEIGHT, WIDTH).repeat(VIEWS, 1, 1)), labels=labels,
        heldout=tracks(30), regions=torch.zeros(VIEWS, 4), train_index=empty, heldout_index=empty, raw_depth=depth,
        focal_over_width=None, notes=[], **changes,
    )  # fmt: skip


def source(folder: Path, *seeds: int, spoiled: tuple[int, ...] = ()) -> PreparedCaptures:
    """Captures on disk; of those that are spoiled one view's trust is not a number."""
    captures = []
    for seed in seeds:
        prepared = made(seed)
        if seed in spoiled:
            trust = prepared.labels.depth.trust.clone()
            trust[:] = torch.nan
            depth = dataclasses.replace(prepared.labels.depth, trust=trust)
            prepared = dataclasses.replace(prepared, labels=dataclasses.replace(prepared.labels, depth=depth))
        path = folder / f"walk{seed}.safetensors"
        write_prepared(path, prepared)
        captures.append(PreparedCapture(f"walk{seed}", path))
    config = CapturesConfig(prepare=PrepareConfig(image_size=WIDTH), tracks=64)
    return PreparedCaptures(captures, config, patch=8)


def scene_batches(folder: Path, *seeds: int, **more) -> SceneBatches:
    config = SceneBatchConfig(views=(2, 4), images=8, tracks=48, augment=AugmentConfig())
    return SceneBatches([source(folder, *seeds, **more)], [1.0], config, seed=5)


def tensors(views: Views, labels: PseudoLabels) -> dict[str, torch.Tensor]:
    return dict([*named_tensors(views), *named_tensors(labels, "labels.")])


def feed(batches: SceneBatches, *, workers: int, start: int = 3) -> Feed:
    return Feed(batches, torch.device("cpu"), start=start, rank=1, accumulate=2, workers=workers)


# On disk -------------------------------------------------------------------------------------------------------------


def test_a_sample_is_what_was_prepared(tmp_path) -> None:
    prepared, index = made(0), [7, 3, 4]
    capture = source(tmp_path, 0).capture(0)
    assert (capture.count, capture.size, capture.has_K) == (VIEWS, (HEIGHT, WIDTH), True)
    views, labels = capture.sample(index)
    expected = prepared.labels.select_views(index)
    assert torch.equal(views.image, prepared.views.image[index])
    assert torch.equal(views.K, prepared.views.K[index])
    assert torch.equal(labels.depth.valid, expected.depth.valid)
    valid = labels.depth.valid
    assert (labels.depth.depth / expected.depth.depth - 1)[valid].abs().max() < 2e-5
    assert torch.equal(labels.depth.trust, expected.depth.trust)
    assert torch.equal(labels.cameras.world_from_cam, expected.cameras.world_from_cam)
    several = (expected.tracks.weight > 0).sum(0) >= 2
    kept = expected.tracks.select_tracks(several.nonzero()[:, 0])
    assert 10 < len(several.nonzero()) < TRACKS
    seen = kept.weight > 0
    assert torch.equal(labels.tracks.weight, kept.weight)
    assert torch.equal(labels.tracks.uv[seen], kept.uv[seen])
    assert torch.equal(labels.tracks.depth[seen], kept.depth[seen])
    both = (prepared.labels.tracks.weight > 0).float()
    assert torch.equal(capture.shared(), both @ both.T)
    assert torch.equal(capture.heldout().weight, prepared.heldout.weight)
    assert capture.heldout().depth is None


def test_views_that_share_nothing_have_no_tracks(tmp_path) -> None:
    _, labels = source(tmp_path, 0).capture(0).sample([0, 11])
    assert labels.tracks.weight.shape == (2, 0)


def test_nothing_of_the_captures_is_in_memory(tmp_path) -> None:
    captures = source(tmp_path, 0, 1, 2)
    for seed in range(4):
        captures.sample(seed, group=0, views=3)
    assert len(pickle.dumps(captures)) < 0.01 * sum(capture.path.stat().st_size for capture in captures.captures)


# Workers -------------------------------------------------------------------------------------------------------------


def test_batches_are_the_same_with_any_number_of_workers(tmp_path) -> None:
    given = scene_batches(tmp_path, 0, 1, 2, spoiled=(1,))
    alone, two = feed(given, workers=0), feed(given, workers=2)
    said = []
    for _ in range(8):
        (*a, passed_a), (*b, passed_b) = alone.next(), two.next()
        first, second = tensors(*a), tensors(*b)
        assert first.keys() == second.keys()
        assert all(torch.equal(first[name], second[name]) for name in first)
        assert passed_a == passed_b
        said += passed_a
    two.close()
    assert said
    assert all(line.startswith("walk1: is not finite (view ") and "depth.trust" in line for line in said)
    expected = given(4, 3)  # the last micro-batch of the second step
    again = feed(given, workers=0, start=4)
    again.next()
    assert torch.equal(again.next()[0].image, expected[0].image)


def test_a_run_with_workers_that_was_interrupted_equals_one_without(tmp_path) -> None:
    config = TrainConfig(steps=9, precision="fp32", bad_steps=0)
    whole, parts = network(), network()
    train(whole, weak, batches(), config, folder=tmp_path / "whole")

    def signalled(prediction, labels, progress):
        if round(9 * progress) == 4:
            for worker in multiprocessing.active_children():  # a Ctrl-C and a SIGTERM reach all processes of a job
                os.kill(worker.pid, signal.SIGINT)
                os.kill(worker.pid, signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGTERM)
        return weak(prediction, labels, progress)

    config = dataclasses.replace(config, data_workers=2)
    assert train(network(), signalled, batches(), config, folder=tmp_path / "parts").steps == 5
    train(parts, weak, batches(), config, folder=tmp_path / "parts", resume=True)
    assert all(torch.equal(a, b) for a, b in zip(weights(whole), weights(parts), strict=True))
    until = time.monotonic() + 30
    while multiprocessing.active_children() and time.monotonic() < until:  # they are told, and take a moment
        time.sleep(0.05)
    assert not multiprocessing.active_children()


# Samples that are not finite -----------------------------------------------------------------------------------------


def test_too_many_bad_samples_are_an_error(tmp_path) -> None:
    given = scene_batches(tmp_path, 0, 1, spoiled=(1,))
    config = TrainConfig(steps=50, precision="fp32", bad_samples=3)
    with pytest.raises(TrainingStopped, match=r"walk1: is not finite .* samples before it were not either"):
        train(network(), weak, given, config, folder=tmp_path / "run")


def test_where_nothing_is_finite_the_run_ends_at_once(tmp_path) -> None:
    with pytest.raises(UserError, match="16 samples in a row are not finite, the last one: walk1"):
        scene_batches(tmp_path, 1, spoiled=(1,))(0, 0)


def test_no_more_workers_than_cores(monkeypatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _pid: {0, 1}, raising=False)
    assert [affordable(workers) for workers in (1, 2, 8)] == [1, 2, 2]

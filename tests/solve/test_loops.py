"""Where a walk comes back: candidates by look, far from one another, and none that cannot be a loop."""

import dataclasses
import inspect

import numpy as np
import torch

import builders
from reliev3r.data.capture import load_capture
from reliev3r.evaluation.systems import system_from_spec
from reliev3r.model.passes import predict_in_passes
from reliev3r.model.predict import reconstruct_capture
from reliev3r.solve.capture import reconstruct_groups
from reliev3r.solve.loops import candidates, loop_pairs


def test_candidates_are_far_apart_in_time_and_from_one_another():
    angle = 2 * np.pi * np.arange(220) / 120  # nearly twice around: view k looks like view k + 120
    look = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    found = candidates(look @ look.T, beyond=60, count=5)
    assert len(found) == 5
    assert all(j - i == 120 for i, j in found[:2])
    assert all(j - i >= 60 for i, j in found)
    for number, (i, j) in enumerate(found):
        assert all(abs(i - a) > 15 or abs(j - b) > 15 for a, b in found[:number])


def test_a_short_walk_has_none():
    assert candidates(np.ones((50, 50)), beyond=60, count=5) == []


def test_systems_that_are_evaluated_and_ranked_close_the_loops_that_reconstruct_closes(tmp_path, monkeypatch):
    for function, limits in ((predict_in_passes, {"at_once": 6, "overlap": 2}), (loop_pairs, {"beyond": 6})):
        defaults = inspect.unwrap(function).__kwdefaults__  # below the checks of shapes
        for name, limit in limits.items():
            monkeypatch.setitem(defaults, name, limit)
    network = builders.network()
    network.describe(image_size=64, precision="fp32", facts={})
    network.save_pretrained(tmp_path / "checkpoint")
    there = load_capture(builders.capture(tmp_path / "walk", views=6, width=160, height=120))
    back = tuple(dataclasses.replace(frame, name=f"{frame.name} again") for frame in reversed(there.frames))
    capture = dataclasses.replace(there, frames=(*there.frames, *back))
    system = system_from_spec(f"model:{tmp_path / 'checkpoint'}", device="cpu")
    found = system.run(capture, tmp_path).prediction.world_from_cam
    [verb] = reconstruct_groups(capture, tmp_path / "checkpoint", device="cpu")
    assert torch.equal(found, verb.prediction.world_from_cam)
    left_open = reconstruct_capture(capture, tmp_path / "checkpoint", device="cpu")
    assert not torch.equal(found, left_open.prediction.world_from_cam)

"""A loss of your own in the training loop: python examples/new_loss.py photos/ OUT 500 depth-anything-v2-small"""

import sys
from pathlib import Path

import reliev3r as r3
from reliev3r.labels.prepare import PrepareConfig, prepare_capture
from reliev3r.losses.weak import ObjectiveConfig, objective
from reliev3r.model.network import PRESETS, Reliev3R
from reliev3r.training.batches import BatchConfig, CaptureBatches
from reliev3r.training.config import TrainConfig
from reliev3r.training.loop import train


def smooth(prediction: r3.Prediction, labels: r3.PseudoLabels, progress: float) -> r3.Loss:  # progress: from 0 to 1
    weak, log_depth = objective(prediction, labels, ObjectiveConfig()), prediction.depth.log()  # [b v h w]
    jumps = log_depth.diff(dim=-1).abs().mean() + log_depth.diff(dim=-2).abs().mean()  # from pixel to pixel
    return r3.Loss(total=weak.total + 0.1 * jumps, parts={**weak.parts, "jumps": jumps})  # parts go to the log


images, out, steps, depth = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
labels = r3.label(images, out / "labels", depth=depth)  # or any object with predict(): labels/expert.py
model = Reliev3R(PRESETS["tiny"])  # unknown intrinsics need a network that predicts them: replace(..., fov="shared")
ready = prepare_capture(labels.capture, labels, PrepareConfig(), patch=model.patch_size)  # at the network's resolution
train(model, smooth, CaptureBatches(ready.views, ready.labels, BatchConfig()), TrainConfig(steps=steps), folder=out)

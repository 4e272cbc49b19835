"""Adapt a pretrained network to footage without annotation, and keep the result only if it is better.

python examples/adapt_pretrained.py pi3:PATH walk.mp4 RUN minutes=20
"""

import sys

import reliev3r as r3

checkpoint, footage, out, *settings = sys.argv[1:]

# The checkpoint is never written to. Footage: a folder of images, a video, or a folder of such. It is labelled first
# (monocular depth and matches); some frames and matches are kept out of training, to judge the result by.
changes = dict(setting.split("=", 1) for setting in settings)  # any field of AdaptConfig: lora.rank=8 or train=last
run = r3.adapt(checkpoint, footage, out, **changes)

# "better", "no change" or "worse", with reasons; no ground truth is read. Only what is better becomes RUN/checkpoint,
# everything else is kept aside in RUN/rejected.
print(f"{run.verdict.verdict}:", *run.verdict.reasons, sep="\n  ")
network = r3.load_model(run.checkpoint if run.verdict.verdict == "better" else checkpoint)
print(f"use {type(network).__name__} with images of {network.image_size} pixels; {out}/report.html shows both")

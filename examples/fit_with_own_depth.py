"""Train a network on one capture with depth maps of your own, from whatever made them.

python examples/fit_with_own_depth.py photos/ maps/ RUN 800 prepare.image_size=144
"""

import sys

import reliev3r as r3

images, maps, out, steps, *settings = sys.argv[1:]

capture = r3.load_capture(images)
print(f"wanted: {maps}/{capture.names[0]}.npy and so on, one map for each of {len(capture.frames)} images")

# A map is a 2D array of z-depth that covers the whole image, at any resolution. Each may have its own unknown factor;
# 0, negative, NaN and infinite mean "unknown here". PNG (16 bits, millimetres) and .npz work too, and
# "folder-disparity:PATH" takes inverse depth. Cameras come from matches between the images, found here (SIFT).
changes = dict(setting.split("=", 1) for setting in settings)  # any other field of FitConfig
run = r3.fit(capture, out, depth=f"folder:{maps}", steps=int(steps), **changes)  # or minutes=5

print(run.quality.summary)  # by matches that training never saw: no ground truth is needed
print(*run.notes, sep="\n")
print(f"open {out}/report.html; {out}/checkpoint reconstructs the scene again, run.model is that network")

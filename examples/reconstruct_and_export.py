"""Cameras, depth and points of a few images in one forward pass, as files for other programs.

python examples/reconstruct_and_export.py photos/ RUN/checkpoint results/
"""

import sys

import reliev3r as r3

images, checkpoint, out = sys.argv[1:4]

# A folder of images or a video. Without cameras.json or EXIF, intrinsics="fov:60" tells the lens (in degrees across).
capture = r3.load_capture(images)
# A checkpoint knows the image size that it was trained with. "pi3:PATH", "vggt:PATH" and "da3:PATH" name other systems.
model = r3.load_model(checkpoint)
scene = r3.reconstruct(capture, model)

depth = scene.prediction.depth  # [views, height, width], z-depth; one unknown scale for all views together
centres = scene.prediction.world_from_cam[:, :3, 3]  # camera to world, OpenCV axes: x right, y down, z forward
print(f"{len(depth)} depth maps of {depth.shape[2]}x{depth.shape[1]}; camera centres:", centres.tolist(), sep="\n")

# The suffix decides: .glb, .ply, .npz, transforms.json; a folder gets them all, depth maps and a COLMAP model too.
print(*scene.export(out, capture=images), sep="\n")

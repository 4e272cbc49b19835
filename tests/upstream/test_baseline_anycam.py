"""AnyCam's pose network and UniMatch from their own code, with random weights, the depth given.

UniDepth needs xformers (its Nystrom attention, no longer in new versions), so the whole pipeline is not run here.
"""

import json

import numpy as np
from upstream_systems import System

RUN = """
import json
from reliev3r_adapters import anycam, shared
shared.add_repo(repo)
shared.repair_torchvision()
settings = {"focal_parameterization": "linlog-candidates", "focal_min": 0.2, "focal_max": 7,
            "rotation_parameterization": "axis-angle", "separate_pose_candidates": True,
            "separate_uncertainty_candidates": True}

class Depth(torch.nn.Module):
    def infer(self, image):
        return {"depth": 1 + image.mean(1, keepdim=True)}

model = torch.nn.ModuleList([shared.seeded(lambda: anycam._pose_network(settings)),
                             shared.seeded(anycam._flow_network), Depth()])
images = [np.random.default_rng(seed).integers(0, 255, (90, 120, 3), dtype=np.uint8) for seed in range(4)]
K = np.tile(np.array([[100.0, 0, 60], [0, 100, 45], [0, 0, 1]]), (4, 1, 1))
inputs, regions = anycam.prepare(images, K, size=112)
raw = anycam.run(model, inputs, "cpu")
decoded = anycam.decode(raw, inputs)
print(json.dumps({"raw": {name: value.shape for name, value in raw.items()},
                  "candidates": raw["focal_candidates"].tolist(),
                  "poses": decoded["world_from_cam"].tolist(), "depth": decoded["depth"].shape}))
"""


def test_pose_and_flow_networks():
    system = System("anycam", "anycam", "transformers", "cv2")
    said = json.loads(system.script(RUN).splitlines()[-1])
    assert said["raw"] == {
        "poses": [2, 4, 32, 4, 4],
        "focal_probs": [32],
        "focal_candidates": [32],
        "depth": [4, 112, 112],
    }
    expected = 0.75 * np.geomspace(0.2, 7, 32) + 0.25 * np.linspace(0.2, 7, 32)
    np.testing.assert_allclose(said["candidates"], expected, rtol=1e-4)
    poses = np.array(said["poses"])
    assert np.isfinite(poses).all()
    np.testing.assert_allclose(
        poses[:, :3, :3] @ poses[:, :3, :3].swapaxes(1, 2), np.tile(np.eye(3), (4, 1, 1)), atol=1e-6
    )
    assert np.abs(poses[1:] - np.eye(4)).max() > 0

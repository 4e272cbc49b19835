"""Makes the network that comes with the package.

OMP_NUM_THREADS=1 reliev3r train reliev3r-tiny --out RUN      # a core-hour, no download
python studies/package_weights.py RUN/checkpoint              # into src/reliev3r/weights, in half precision
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from safetensors.torch import load_file, save_file

from reliev3r.core.files import atomic_path, file_hash

WEIGHTS = Path(__file__).parent.parent / "src" / "reliev3r" / "weights"


def package(checkpoint: Path, folder: Path = WEIGHTS) -> str:
    """Copy a checkpoint with its tensors as float16; returns the hash of the new file."""
    folder.mkdir(exist_ok=True)
    tensors = {name: tensor.half().contiguous() for name, tensor in load_file(checkpoint / "model.safetensors").items()}
    with atomic_path(folder / "model.safetensors") as temporary:
        save_file(tensors, str(temporary), metadata={"format": "pt"})
    for name in ("config.json", "README.md"):
        shutil.copy(checkpoint / name, folder / name)
    return file_hash(folder / "model.safetensors")


if __name__ == "__main__":
    print(package(Path(sys.argv[1])))

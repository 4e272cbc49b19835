"""pi^3's checkpoints as networks of ours, and back (yyfz/Pi3, pi3/models/pi3.py at 9fa3ddb; 1210 tensors)."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from reliev3r.core.errors import UserError
from reliev3r.core.files import atomic_path
from reliev3r.model.network import NetworkConfig, Reliev3R
from reliev3r.model.weights.files import read_weights, take, weight_files

RENAMED = {"depth_decoder": "point_decoder", "depth_head": "point_head"}
"""Parts that pi^3 names otherwise. All other names, all shapes and all layouts are the same."""
OURS_ALONE = ("match_head.", "camera_head.fc_fov.")
"""What pi^3 has no place for."""
IMAGE_SIZE = 518
"""Long side in pixels that pi^3 was trained up to."""
CONFIDENCE = ("conf_decoder.", "conf_head.")


def pi3_name(name: str) -> str:
    """pi^3's name of one of our tensors."""
    part, dot, rest = name.partition(".")
    return f"{RENAMED.get(part, part)}{dot}{rest}"


def load_pi3(where: str | Path, *, local_files_only: bool = True) -> Reliev3R:
    """The network in a pi^3 checkpoint (file, folder or hub id), in evaluation mode; sizes are read off the tensors.

    ``shape`` is "point": without known K the rays come from pi^3's point head, and depth is its z. The confidence
    branch keeps pi^3's decoder under a last layer of zeros, hence W = 1 everywhere at first: pi^3's logits mean
    something else (a probability that a point is right). A checkpoint of its first two stages has no such branch;
    its point decoder is copied then, as pi^3's third stage does.

    Raises:
        UserError: the file is unreadable, or tensors are missing, surplus or misshapen.
    """
    tensors = read_weights(weight_files(where, local_files_only=local_files_only))
    source = f"pi3:{where}"
    if not any(name.startswith(CONFIDENCE) for name in tensors):
        tensors |= _confidence_of_points(tensors)
    with torch.device("meta"):  # no random weights only to overwrite them
        model = Reliev3R(_sizes(tensors, source))
    model.load_state_dict(take(model.state_dict(), pi3_name, tensors, source=source), assign=True)
    for parameter in model.conf_head.parameters():
        nn.init.zeros_(parameter)
    return model.eval()


def _confidence_of_points(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A confidence branch from the point branch; the last layer is zeroed afterwards, so its values do not matter."""
    branch = {name.replace("point", "conf", 1): x for name, x in tensors.items() if name.startswith("point_")}
    return {name: (x[: len(x) // 3] if name.startswith("conf_head.") else x).clone() for name, x in branch.items()}


def _sizes(tensors: Mapping[str, Tensor], source: str) -> NetworkConfig:
    """The configuration whose tensors have these shapes; heads' attention is as wide as the decoder's."""

    def size(name: str, axis: int) -> int:
        if name not in tensors or tensors[name].ndim <= axis:
            raise UserError(f"{source}: {name} is missing or misshapen, so this is no checkpoint of pi^3 (nor Pi3X's)")
        return tensors[name].shape[axis]

    def depth(part: str) -> int:
        found = (re.match(rf"{re.escape(part)}\.(\d+)\.", name) for name in tensors)
        return 1 + max((int(match[1]) for match in found if match), default=-1)

    dim, head_dim = size("register_token", 3), size("point_decoder.projects.weight", 0)
    width = size("decoder.0.attn.q_norm.weight", 0)
    try:
        return NetworkConfig(
            dim=dim, heads=dim // width, encoder_depth=depth("encoder.blocks"), decoder_depth=depth("decoder"),
            patch_size=size("encoder.patch_embed.proj.weight", 3),
            encoder_grid=math.isqrt(size("encoder.pos_embed", 1) - 1),
            encoder_registers=size("encoder.register_tokens", 1), decoder_registers=size("register_token", 2),
            head_dim=head_dim, head_heads=head_dim // width, head_depth=depth("point_decoder.blocks"),
            camera_dim=size("camera_decoder.linear_out.weight", 0),
            mlp_ratio=size("decoder.0.mlp.fc1.weight", 0) / dim, shape="point",
            image_size=IMAGE_SIZE,
        )  # fmt: skip
    except (ValueError, ZeroDivisionError) as error:
        raise UserError(f"{source}: its tensors make no network ({error}); give a checkpoint of pi^3") from error


def export_pi3(model: Reliev3R, path: Path | str, *, confidence_of: Path | str | None = None) -> list[str]:
    """Write pi^3's layout: a safetensors file that upstream's ``load_state_dict(strict=True)`` takes.

    Args:
        model: a network with ``shape="point"`` and pi^3's own heads.
        path: the file, ``.safetensors``.
        confidence_of: a pi^3 checkpoint whose confidence branch is written in place of ours. Without it our own is,
            and upstream's ``sigmoid(conf)`` is W / 2 (where the logit is within our bounds of +-4).

    Returns:
        The names of tensors that pi^3 has no place for and that were left out.

    Raises:
        UserError: pi^3 cannot compute what this network does, or the confidence branch does not fit.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise UserError(f"{path}: pi^3's layout is written as .safetensors; give such a name")
    _refuse_what_pi3_lacks(model.config)
    state = model.state_dict()
    kept = {name: value for name, value in state.items() if not name.startswith(OURS_ALONE)}
    if confidence_of is not None:
        branch = {name: value for name, value in kept.items() if name.startswith(CONFIDENCE)}
        theirs = read_weights(weight_files(confidence_of))
        theirs = {name: value for name, value in theirs.items() if name.startswith(CONFIDENCE)}
        kept |= take(branch, pi3_name, theirs, source=str(confidence_of))
    with atomic_path(path) as temporary:
        save_file({pi3_name(name): value.float().cpu().contiguous() for name, value in kept.items()}, temporary)
    return sorted(set(state) - set(kept))


def _refuse_what_pi3_lacks(config: NetworkConfig) -> None:
    lacking = {
        "a depth head instead of a point head": config.shape != "point",
        "guided pixel heads": config.guided,
        "camera_contrast": config.camera_contrast,
        "heads whose attention is not as wide as the decoder's": (
            config.head_dim * config.heads != config.dim * config.head_heads
        ),
    }
    found = [what for what, is_there in lacking.items() if is_there]
    if found:
        raise UserError(
            f"this network has {' and '.join(found)}, which pi^3 has not; only networks made like it export"
        )

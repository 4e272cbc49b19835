"""What experts there are: names, licences, weights, how to install them."""

from __future__ import annotations

import importlib.util
import re

from reliev3r.labels.depth import da3_mono
from reliev3r.labels.depth.moge import RELEASES as MOGE
from reliev3r.labels.expert import ExpertInfo
from reliev3r.labels.lens import anycalib
from reliev3r.labels.tracks import aliked, cotracker, loma, roma, romav2, tapnext
from reliev3r.labels.tracks.efficientloftr import EfficientLoftrMatcher
from reliev3r.labels.tracks.matcher import INSTALL
from reliev3r.labels.tracks.superpoint_lightglue import SuperPointLightGlueMatcher

_HUB = "DIR, else the Hugging Face cache, else its hub"
_TRANSFORMERS = "pip install 'reliev3r[experts]'"

DEPTH_EXPERT_INFO = (
    ExpertInfo(
        name="depth-anything-v2-small[:DIR]",
        kind="depth",
        licence="Apache-2.0 (base and large: CC-BY-NC-4.0)",
        weights="depth-anything/Depth-Anything-V2-Small-hf",
        looked_for=_HUB,
        install=_TRANSFORMERS,
        package="transformers",
    ),
    ExpertInfo(
        name="depth-pro[:DIR]",
        kind="depth",
        licence="code Apache-2.0, weights: Apple's own licence",
        weights="apple/DepthPro-hf",
        looked_for=_HUB,
        install=_TRANSFORMERS,
        package="transformers",
    ),
    *(
        ExpertInfo(
            name=f"{name}[:FILE or DIR]",
            kind="depth",
            licence="MIT",
            weights=f"model.pt of {release.model_id}" + ("; on a GPU only" if release.refined else ""),
            looked_for="FILE, DIR/model.pt, else the Hugging Face cache, else its hub",
            install=release.install,
            package=release.package,
        )
        for name, release in MOGE.items()
    ),
    ExpertInfo(
        name="da3-mono[:FILE or DIR]",
        kind="depth",
        licence="Apache-2.0",
        weights="model.safetensors of depth-anything/DA3MONO-LARGE",
        looked_for="FILE, DIR/model.safetensors, else the Hugging Face cache, else its hub",
        install=da3_mono.INSTALL,
        package="depth_anything_3",
    ),
    ExpertInfo(
        name="onnx:FILE",
        kind="depth",
        licence="the network's own",
        weights="any depth network as FILE, declared in FILE.json",
        looked_for="FILE",
        install="pip install 'reliev3r[onnx]'",
        package="onnxruntime",
    ),
    ExpertInfo(
        name="folder:PATH",
        kind="depth",
        licence="the maps' own",
        weights="none: one depth map an image",
        looked_for="PATH/NAME.png, .npy or .npz",
    ),
    ExpertInfo(
        name="folder-disparity:PATH",
        kind="depth",
        licence="the maps' own",
        weights="none: one inverse depth map an image",
        looked_for="PATH/NAME.png, .npy or .npz",
    ),
    ExpertInfo(
        name="simulated",
        kind="depth",
        licence="Apache-2.0",
        weights="none: degraded ground truth, synthetic captures only",
        looked_for="CAPTURE/depth",
    ),
    ExpertInfo(name="none", kind="depth", licence="Apache-2.0", weights="none", looked_for="-"),
)
DEPTH_EXPERTS = tuple(info.name for info in DEPTH_EXPERT_INFO)

TRACK_EXPERT_INFO = (
    ExpertInfo(
        name="sift",
        kind="tracks",
        licence="Apache-2.0 (OpenCV)",
        weights="none",
        looked_for="",
        package="cv2",
    ),
    ExpertInfo(
        name="network[:CHECKPOINT]",
        kind="tracks",
        licence="Apache-2.0",
        weights="of this package, else any network of ours that solves its cameras",
        looked_for="the package, or CHECKPOINT",
    ),
    ExpertInfo(
        name="aliked[:WEIGHTS]",
        kind="tracks",
        licence="Apache-2.0 (kornia), weights BSD-3",
        weights="aliked-n16.pth or a sibling; aliked_lightglue.pth beside it in a folder: LightGlue matches",
        looked_for="WEIGHTS (file or folder), else torch.hub's checkpoints",
        install=aliked.INSTALL,
        package="kornia",
    ),
    ExpertInfo(
        name="superpoint-lightglue[:DIR]",
        kind="tracks",
        licence="Apache-2.0 (LightGlue), SuperPoint's weights: non-commercial (Magic Leap)",
        weights=SuperPointLightGlueMatcher.model_id,
        looked_for="DIR, else the Hugging Face cache",
        install=INSTALL,
        package="transformers",
    ),
    ExpertInfo(
        name="efficientloftr[:DIR]",
        kind="tracks",
        licence="Apache-2.0",
        weights=EfficientLoftrMatcher.model_id,
        looked_for="DIR, else the Hugging Face cache",
        install=INSTALL,
        package="transformers",
    ),
    ExpertInfo(
        name="xfeat:WEIGHTS",
        kind="tracks",
        licence="Apache-2.0",
        weights="xfeat.pt",
        looked_for="WEIGHTS (file or folder)",
        install=aliked.INSTALL,
        package="kornia",
    ),
    ExpertInfo(
        name="roma:DIR",
        kind="tracks",
        licence="MIT, DINOv2's weights Apache-2.0",
        weights="roma_outdoor.pth and dinov2_vitl14_pretrain.pth",
        looked_for="DIR",
        install=roma.INSTALL,
        package="romatch",
    ),
    ExpertInfo(
        name="romav2[:WEIGHTS]",
        kind="tracks",
        licence="MIT; DINOv3, also in the weights: DINOv3 License (Meta)",
        weights=romav2.FILE,
        looked_for="WEIGHTS (file or folder), else torch.hub's checkpoints",
        install=romav2.INSTALL,
        package="romav2",
    ),
    ExpertInfo(
        name="loma[:WEIGHTS]",
        kind="tracks",
        licence="MIT, matcher Apache-2.0 (as LightGlue), DINOv2's weights Apache-2.0",
        weights=f"{', '.join(loma.MODELS)}: the first that is there",
        looked_for="WEIGHTS (file or folder), else torch.hub's checkpoints",
        install=loma.INSTALL,
        package="loma",
    ),
    ExpertInfo(
        name="cotracker:CHECKPOINT",
        kind="tracks",
        licence="CC-BY-NC 4.0: not for commercial use (code and weights)",
        weights="scaled_offline.pth of facebook/cotracker3; videos only",
        looked_for="CHECKPOINT",
        install=cotracker.INSTALL,
        package="cotracker",
    ),
    ExpertInfo(
        name="tapnext:CHECKPOINT",
        kind="tracks",
        licence="Apache-2.0",
        weights="tapnextpp_ckpt.pt of google-deepmind/tapnet; videos only",
        looked_for="CHECKPOINT",
        install=tapnext.INSTALL,
        package="tapnet",
    ),
)
TRACK_EXPERTS = tuple(info.name for info in TRACK_EXPERT_INFO)

FOV_EXPERT_INFO = (
    *(
        ExpertInfo(
            name=f"expert (--depth {name}) or expert:{name}[:FILE or DIR]",
            kind="fov",
            licence="MIT",
            weights="as the depth expert",
            looked_for="as the depth expert",
            install=release.install,
            package=release.package,
        )
        for name, release in MOGE.items()
    ),
    ExpertInfo(
        name="expert (--depth depth-pro) or expert:depth-pro[:DIR]",
        kind="fov",
        licence="code Apache-2.0, weights: Apple's own licence",
        weights="as the depth expert",
        looked_for="as the depth expert",
        install="pip install 'reliev3r[experts]'",
        package="transformers",
    ),
    ExpertInfo(
        name="expert:anycalib[:FILE or DIR]",
        kind="fov",
        licence="Apache-2.0",
        weights="anycalib_pinhole.pt of javrtg/AnyCalib",
        looked_for="FILE, DIR/anycalib_pinhole.pt, else the Hugging Face cache, else its hub",
        install=anycalib.INSTALL,
        package="anycalib",
    ),
    ExpertInfo(
        name="expert:anycalib-radial[:FILE or DIR]",
        kind="fov",
        licence="Apache-2.0",
        weights="anycalib_gen.pt of javrtg/AnyCalib; radial distortion is taken out of the images",
        looked_for="FILE, DIR/anycalib_gen.pt, else the Hugging Face cache, else its hub",
        install=anycalib.INSTALL,
        package="anycalib",
    ),
    ExpertInfo(
        name="exif",
        kind="fov",
        licence="Apache-2.0",
        weights="none",
        looked_for="the images' EXIF",
    ),
)


def licence_of(role: str, name: str) -> str:
    """The licence of whoever made labels, by the name in its fingerprint; ``role``: depth, intrinsics, or else tracks.

    An expert that is not listed (another version made the labels) has a licence that nobody here knows.
    """
    known = {"depth": DEPTH_EXPERT_INFO, "intrinsics": (*DEPTH_EXPERT_INFO, *FOV_EXPERT_INFO)}
    bare = {bare_name(info.name): info.licence for info in known.get(role, TRACK_EXPERT_INFO)}
    if name in bare:
        return bare[name]
    alike = [licence for base, licence in bare.items() if base.startswith(name) or name.startswith(base)]
    return alike[0] if alike else "unknown: ask whoever made the labels"


def bare_name(name: str) -> str:
    """Of ``NAME:ARGUMENT``, ``NAME[:ARGUMENT]`` or ``expert:NAME[...]``."""
    return re.split(r"[:\[]", name.removeprefix("expert:"))[0]


_HEADINGS = {
    "depth": "depth experts (--depth)",
    "tracks": "track experts (--tracks)",
    "fov": "lens experts: field of view, distortion (--intrinsics)",
}


def all_experts() -> tuple[ExpertInfo, ...]:
    """Of all kinds, in the order in which they are shown."""
    return (*DEPTH_EXPERT_INFO, *TRACK_EXPERT_INFO, *FOV_EXPERT_INFO)


def is_installed(info: ExpertInfo) -> bool:
    """Whether the expert's package can be imported; it is only looked for."""
    try:
        return not info.package or importlib.util.find_spec(info.package) is not None
    except (ImportError, ValueError):  # a broken or half-removed package
        return False


def expert_table(kind: str = "all") -> str:
    """The experts of one kind ("depth", "tracks", "fov") or of all, as plain text for any terminal."""
    blocks = []
    for heading in _HEADINGS if kind == "all" else (kind,):
        blocks.append(_HEADINGS[heading])
        blocks += [_entry(info) for info in all_experts() if info.kind == heading]
    return "\n\n".join(blocks)


def _entry(info: ExpertInfo) -> str:
    package = f" ({info.package})" if info.package else ""
    state = f"installed{package}" if is_installed(info) else f"not installed: {info.install}"
    lines = {"licence": info.licence, "weights": info.weights, "looked for": info.looked_for, "package": state}
    return "\n".join([f"  {info.name}", *(f"    {name:<11} {text}" for name, text in lines.items() if text)])

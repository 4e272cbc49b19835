"""Experts by name."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

from reliev3r.core.device import resolve_device
from reliev3r.core.errors import UserError
from reliev3r.labels.depth import da3_mono
from reliev3r.labels.depth.da3_mono import Da3Mono
from reliev3r.labels.depth.depth_anything_v2 import DepthAnythingV2
from reliev3r.labels.depth.depth_pro import DepthPro
from reliev3r.labels.depth.moge import RELEASES as MOGE
from reliev3r.labels.depth.moge import MoGe
from reliev3r.labels.depth.onnx import OnnxDepth
from reliev3r.labels.depth.precomputed import FolderDepth
from reliev3r.labels.depth.simulated import SimulatedDepth
from reliev3r.labels.expert import DepthExpert, ExpertInfo, LensExpert, LensOfDepth, NoDepth, TrackExpert
from reliev3r.labels.lens import anycalib
from reliev3r.labels.lens.anycalib import AnyCalib
from reliev3r.labels.tracks import aliked, cotracker, loma, roma, romav2, tapnext
from reliev3r.labels.tracks.aliked import AlikedMatcher
from reliev3r.labels.tracks.cotracker import CoTracker3
from reliev3r.labels.tracks.efficientloftr import EfficientLoftrMatcher
from reliev3r.labels.tracks.loma import LomaMatcher
from reliev3r.labels.tracks.matcher import INSTALL
from reliev3r.labels.tracks.network import network_tracks
from reliev3r.labels.tracks.pairwise import PairwiseTracks
from reliev3r.labels.tracks.roma import RomaMatcher
from reliev3r.labels.tracks.romav2 import RomaV2Matcher
from reliev3r.labels.tracks.sift import SiftMatcher
from reliev3r.labels.tracks.superpoint_lightglue import SuperPointLightGlueMatcher
from reliev3r.labels.tracks.tapnext import TapNext
from reliev3r.labels.tracks.xfeat import XFeatMatcher
from reliev3r.model.load import PACKAGED

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


def depth_expert(spec: str, *, device: str = "auto") -> DepthExpert:
    """The expert that ``spec`` names, of the form NAME or NAME:ARGUMENT; weights are read at its first use only.

    ``device``: auto (the accelerator where there is one), cpu, cuda, ...

    Raises:
        UserError: no such expert, an argument is missing or superfluous, an ONNX file is not declared, or the expert
            runs on a GPU only and ``device`` is none.
    """
    name, _, argument = spec.partition(":")
    device = resolve_device(device).type
    if name == "depth-anything-v2-small":
        return DepthAnythingV2(weights=argument or None, device=device)
    if name == "depth-pro":
        return DepthPro(weights=argument or None, device=device)
    if name in MOGE:
        return MoGe(version=name, weights=argument or None, device=device)
    if name == "da3-mono":
        return Da3Mono(weights=argument or None, device=device)
    if name == "onnx" and argument:
        return OnnxDepth.open(Path(argument), device=device)
    if name in ("folder", "folder-disparity") and argument:
        return FolderDepth(folder=Path(argument), disparity=name == "folder-disparity")
    if spec == "simulated":
        return SimulatedDepth()
    if spec == "none":
        return NoDepth()
    raise UserError(f"depth expert {spec!r}: choose one of {', '.join(DEPTH_EXPERTS)}")


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


def track_expert(spec: str, *, device: str = "auto") -> TrackExpert:
    """The expert that ``spec`` names, of the form NAME or NAME:WEIGHTS; weights are read at its first use only.

    ``device``: as of :func:`depth_expert`.

    Raises:
        UserError: no such expert, or an argument is missing or superfluous.
    """
    name, _, argument = spec.partition(":")
    device = resolve_device(device).type
    if spec == "sift":
        return PairwiseTracks(matcher=SiftMatcher())
    if name == "network":
        return network_tracks(argument or PACKAGED, device=device)
    if name == "aliked":
        matcher = AlikedMatcher(weights=argument or None, device=device)
        return PairwiseTracks(matcher=matcher, long_side=1024, min_share=0.4)
    if name == "superpoint-lightglue":
        glue = SuperPointLightGlueMatcher(weights=argument or None, device=device)
        return PairwiseTracks(matcher=glue, long_side=1024)
    if name == "efficientloftr":
        return PairwiseTracks(matcher=EfficientLoftrMatcher(weights=argument or None, device=device), long_side=832)
    if name == "xfeat" and argument:
        return PairwiseTracks(matcher=XFeatMatcher(weights=argument, device=device), long_side=1024)
    if name == "roma" and argument:
        return PairwiseTracks(matcher=RomaMatcher(weights=argument, device=device), long_side=1024)
    if name == "romav2":
        return PairwiseTracks(matcher=RomaV2Matcher(weights=argument or None, device=device), long_side=1024)
    if name == "loma":
        return PairwiseTracks(matcher=LomaMatcher(weights=argument or None, device=device), long_side=1024)
    if name == "cotracker" and argument:
        return CoTracker3(checkpoint=Path(argument), device=device)
    if name == "tapnext" and argument:
        return TapNext(checkpoint=Path(argument), device=device)
    raise UserError(f"track expert {spec!r}: choose one of {', '.join(TRACK_EXPERTS)}")


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


def lens_expert(spec: str, *, device: str = "auto") -> LensExpert:
    """Whom ``--intrinsics expert:SPEC`` asks: an expert in lenses, or a depth expert, for its field of view.

    ``device``: as of :func:`depth_expert`.

    Raises:
        UserError: as :func:`depth_expert`.
    """
    name, _, argument = spec.partition(":")
    if name in ("anycalib", "anycalib-radial"):
        on = resolve_device(device).type
        return AnyCalib(weights=argument or None, device=on, radial=name == "anycalib-radial")
    if name not in {_bare(depth) for depth in DEPTH_EXPERTS}:
        asked = (info.name for info in FOV_EXPERT_INFO if info.name != "exif")
        raise UserError(f"--intrinsics expert:{spec}: choose one of {', '.join(asked)}")
    return LensOfDepth(expert=depth_expert(spec, device=device))


def licence_of(role: str, name: str) -> str:
    """The licence of whoever made labels, by the name in its fingerprint; ``role``: depth, intrinsics, or else tracks.

    An expert that is not listed (another version made the labels) has a licence that nobody here knows.
    """
    known = {"depth": DEPTH_EXPERT_INFO, "intrinsics": (*DEPTH_EXPERT_INFO, *FOV_EXPERT_INFO)}
    bare = {_bare(info.name): info.licence for info in known.get(role, TRACK_EXPERT_INFO)}
    if name in bare:
        return bare[name]
    alike = [licence for base, licence in bare.items() if base.startswith(name) or name.startswith(base)]
    return alike[0] if alike else "unknown: ask whoever made the labels"


def _bare(name: str) -> str:
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

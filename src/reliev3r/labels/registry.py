"""Experts by name; what each is, is in the catalogue."""

from __future__ import annotations

from pathlib import Path

from reliev3r.core.device import resolve_device
from reliev3r.core.errors import UserError
from reliev3r.labels.catalogue import DEPTH_EXPERTS, FOV_EXPERT_INFO, TRACK_EXPERTS, bare_name
from reliev3r.labels.depth.da3_mono import Da3Mono
from reliev3r.labels.depth.depth_anything_v2 import DepthAnythingV2
from reliev3r.labels.depth.depth_pro import DepthPro
from reliev3r.labels.depth.moge import RELEASES as MOGE
from reliev3r.labels.depth.moge import MoGe
from reliev3r.labels.depth.onnx import OnnxDepth
from reliev3r.labels.depth.precomputed import FolderDepth
from reliev3r.labels.depth.simulated import SimulatedDepth
from reliev3r.labels.expert import DepthExpert, LensExpert, LensOfDepth, NoDepth, TrackExpert
from reliev3r.labels.lens.anycalib import AnyCalib
from reliev3r.labels.tracks.aliked import AlikedMatcher
from reliev3r.labels.tracks.cotracker import CoTracker3
from reliev3r.labels.tracks.efficientloftr import EfficientLoftrMatcher
from reliev3r.labels.tracks.loma import LomaMatcher
from reliev3r.labels.tracks.network import network_tracks
from reliev3r.labels.tracks.pairwise import PairwiseTracks
from reliev3r.labels.tracks.roma import RomaMatcher
from reliev3r.labels.tracks.romav2 import RomaV2Matcher
from reliev3r.labels.tracks.sift import SiftMatcher
from reliev3r.labels.tracks.superpoint_lightglue import SuperPointLightGlueMatcher
from reliev3r.labels.tracks.tapnext import TapNext
from reliev3r.labels.tracks.xfeat import XFeatMatcher
from reliev3r.model.load import PACKAGED


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
    if name not in {bare_name(depth) for depth in DEPTH_EXPERTS}:
        asked = (info.name for info in FOV_EXPERT_INFO if info.name != "exif")
        raise UserError(f"--intrinsics expert:{spec}: choose one of {', '.join(asked)}")
    return LensOfDepth(expert=depth_expert(spec, device=device))

"""Track experts by name."""

from __future__ import annotations

from pathlib import Path

from reliev3r.errors import UserError
from reliev3r.labels.expert import ExpertInfo, TrackExpert
from reliev3r.labels.tracks import aliked, cotracker, roma
from reliev3r.labels.tracks.aliked import AlikedMatcher
from reliev3r.labels.tracks.cotracker import CoTracker3
from reliev3r.labels.tracks.efficientloftr import EfficientLoftrMatcher
from reliev3r.labels.tracks.pairwise import PairwiseTracks
from reliev3r.labels.tracks.roma import RomaMatcher
from reliev3r.labels.tracks.sift import SiftMatcher
from reliev3r.labels.tracks.superpoint_lightglue import SuperPointLightGlueMatcher
from reliev3r.labels.tracks.transformers_matcher import INSTALL
from reliev3r.labels.tracks.xfeat import XFeatMatcher

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
        name="cotracker:CHECKPOINT",
        kind="tracks",
        licence="CC-BY-NC 4.0: not for commercial use (code and weights)",
        weights="scaled_offline.pth of facebook/cotracker3; videos only",
        looked_for="CHECKPOINT",
        install=cotracker.INSTALL,
        package="cotracker",
    ),
)
TRACK_EXPERTS = tuple(info.name for info in TRACK_EXPERT_INFO)


def track_expert(spec: str, *, device: str = "cpu") -> TrackExpert:
    """The expert that ``spec`` names, of the form NAME or NAME:WEIGHTS; weights are read at its first use only.

    Raises:
        UserError: no such expert, or an argument is missing or superfluous.
    """
    name, _, argument = spec.partition(":")
    if spec == "sift":
        return PairwiseTracks(matcher=SiftMatcher())
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
    if name == "cotracker" and argument:
        return CoTracker3(checkpoint=Path(argument), device=device)
    raise UserError(f"track expert {spec!r}: choose one of {', '.join(TRACK_EXPERTS)}")

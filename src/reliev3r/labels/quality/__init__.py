"""Are these labels worth training on? Figures and a verdict from images and labels alone, never from ground truth."""

from reliev3r.labels.quality.assess import (
    LabelQuality,
    assess_labels,
    quality_of,
    read_quality,
    why_no_matches,
    write_quality,
)
from reliev3r.labels.quality.ties import check_labels, connected_parts, shared_tracks

__all__ = [
    "LabelQuality",
    "assess_labels",
    "check_labels",
    "connected_parts",
    "quality_of",
    "read_quality",
    "shared_tracks",
    "why_no_matches",
    "write_quality",
]

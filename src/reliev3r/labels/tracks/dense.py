"""Three times the tracks, for the last bundle adjustment: COLMAP's SIFT (pycolmap) on the pairs that belong together.

Training takes few tracks, evenly spread over the pairs. Cameras at the edge of a set hang on what little they share
with the others; there every further match counts. These tracks are for adjustment and export and not for training.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from reliev3r.core.progress import Progress
from reliev3r.core.quiet_colmap import quiet_colmap
from reliev3r.core.types import Tracks
from reliev3r.data.capture import Capture
from reliev3r.data.masks import without_masked
from reliev3r.labels.tracks.pairwise import working_image
from reliev3r.labels.tracks.union import PairMatches, thin, track_budget, tracks_from_matches
from reliev3r.sfm.held_views import confirmed

_LONG_SIDE = 1600
"""Larger images are matched at this size in pixels."""
_FEATURES = 6000
"""Keypoints an image, the largest."""
_LEAST = 15
"""Verified matches of a pair that count, and known tracks that tie a pair."""
_PARTNERS = 16
"""Views that a view is matched with: those that share most with it."""
_AT_ONCE = 8
"""Pairs that COLMAP is given at a time: it says nothing before it is through."""
_STRANGERS = 32
"""Views that a view is matched with that shares nothing yet."""
_MOST = 12000
"""Tracks of up to 32 views, and in proportion of more."""


def dense_tracks(capture: Capture, known: Tracks, *, progress: Progress | None = None) -> Tracks:
    """Tracks [v, m] in original pixels of the views that tracks ``known`` tie to each other, the ``known`` first.

    A view that is tied to none (:func:`tied_views`) is matched with up to 32 of the tied ones, evenly chosen. Many such
    matches would agree with its camera, a guess, by chance; but they may tell where it is. Masked pixels get none.
    pycolmap runs on one thread and seeded.

    Raises:
        UserError: unreadable images.
    """
    views, count = known.weight.shape
    pairs = _tied(known)
    if not pairs:
        return known
    pairs += _of_strangers(tied_views(known))
    steps = len(capture.frames) + len(pairs)

    def tell(done: int, what: str) -> None:
        if progress:
            progress(done, steps, what)

    import pycolmap

    with quiet_colmap(), tempfile.TemporaryDirectory(prefix="reliev3r-dense-") as folder:
        pycolmap.set_random_seed(0)
        scale = _features(capture, Path(folder), tell)
        found = _matched(Path(folder), pairs, views, lambda done, what: tell(len(capture.frames) + done, what))
    uv = found.uv * torch.from_numpy(scale).float()[:, None]
    found = without_masked(Tracks(uv=uv, weight=found.weight), capture.masks)
    found = thin(confirmed(found), max(1, track_budget(_MOST, views) - count))
    return Tracks(uv=torch.cat([known.uv, found.uv], dim=1), weight=torch.cat([known.weight, found.weight], dim=1))


def tied_views(known: Tracks) -> Bool[Tensor, " v"]:
    """Views that share enough tracks with another one for their cameras to be more than guesses."""
    tied = torch.zeros(len(known.weight), dtype=torch.bool)
    tied[[view for pair in _tied(known) for view in pair]] = True
    return tied


def _of_strangers(tied: Bool[Tensor, " v"]) -> list[tuple[int, int]]:
    """Pairs of each view that nothing ties with some that are tied."""
    others = tied.nonzero()[:, 0]
    chosen = others[torch.linspace(0, len(others) - 1, min(len(others), _STRANGERS)).round().long()].tolist()
    strangers = (~tied).nonzero()[:, 0].tolist()
    return [(min(view, other), max(view, other)) for view in strangers for other in chosen]


def _tied(known: Tracks) -> list[tuple[int, int]]:
    """Pairs of views that share enough; of each view those with its closest partners."""
    seen = known.visible.double()
    shared = (seen @ seen.T).fill_diagonal_(0)
    closest = shared.topk(min(_PARTNERS, len(shared)), dim=1)
    chosen = torch.zeros_like(shared, dtype=torch.bool).scatter_(1, closest.indices, closest.values >= _LEAST)
    return [(first, second) for first, second in (chosen | chosen.T).triu(1).nonzero().tolist()]


def _name(view: int) -> str:
    return f"{view:05d}.png"


def _features(capture: Capture, folder: Path, tell: Callable[[int, str], None]) -> Float[np.ndarray, "v 2"]:
    """Keypoints of all images into COLMAP's database; original pixels per pixel of theirs."""
    import pycolmap

    (folder / "images").mkdir()
    options = pycolmap.FeatureExtractionOptions()
    options.use_gpu, options.num_threads, options.max_image_size = False, 1, _LONG_SIDE
    options.sift.first_octave, options.sift.max_num_features = 0, _FEATURES
    scale = []
    for view, frame in enumerate(capture.frames):
        image = working_image(capture.image(view), _LONG_SIDE, grey=True)
        cv2.imwrite(str(folder / "images" / _name(view)), image, [cv2.IMWRITE_PNG_COMPRESSION, 1])
        scale.append([frame.width / image.shape[1], frame.height / image.shape[0]])
        pycolmap.extract_features(
            folder / "database.db", folder / "images", [_name(view)],
            pycolmap.CameraMode.PER_IMAGE, pycolmap.ImageReaderOptions(), options, pycolmap.Device.cpu,
        )  # fmt: skip
        tell(view + 1, "more keypoints")
    return np.array(scale)


def _matched(folder: Path, pairs: list[tuple[int, int]], views: int, tell: Callable[[int, str], None]) -> Tracks:
    """Verified matches of the pairs, joined to tracks in the database's pixels."""
    import pycolmap

    listed = folder / "pairs.txt"
    matching, pairing = pycolmap.FeatureMatchingOptions(), pycolmap.ImportedPairingOptions()
    matching.use_gpu, matching.num_threads, pairing.match_list_path = False, 1, str(listed)
    for start in range(0, len(pairs), _AT_ONCE):
        some = pairs[start : start + _AT_ONCE]
        listed.write_text("".join(f"{_name(a)} {_name(b)}\n" for a, b in some), encoding="utf8")
        pycolmap.match_image_pairs(folder / "database.db", matching, pairing, device=pycolmap.Device.cpu)
        tell(start + len(some), "more matches")
    with pycolmap.Database.open(folder / "database.db") as database:
        ids = {image.name: image.image_id for image in database.read_all_images()}
        points = [np.asarray(database.read_keypoints(ids[_name(view)]), np.float64)[:, :2] for view in range(views)]
        matches = []
        for first, second in pairs:
            a, b = ids[_name(first)], ids[_name(second)]
            if not database.exists_two_view_geometry(a, b):
                continue
            geometry = database.read_two_view_geometry(a, b)
            index = np.asarray(geometry.inlier_matches, dtype=np.int64).reshape(-1, 2)
            if len(index) >= _LEAST:
                pair = PairMatches(
                    first=first, second=second, index_first=index[:, 0], index_second=index[:, 1],
                    doubt=np.zeros(len(index)), F=np.asarray(geometry.F), against=np.zeros((0, 2), np.int64),
                )  # fmt: skip
                matches.append(pair)
    return tracks_from_matches(points, matches)

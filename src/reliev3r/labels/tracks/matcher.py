"""What a pairwise matcher is. Two kinds: one finds keypoints in single images, the other sees both images at once."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from reliev3r.labels.expert_weights import load_pretrained, require, weights_folder, weights_hash


@dataclass(frozen=True, kw_only=True, eq=False)
class Features:
    """Keypoints of one image at working resolution."""

    uv: Float[np.ndarray, "n 2"]
    """Working pixels, corner convention, float64."""
    descriptor: Float[np.ndarray, "n d"]
    """Of unit length, float32."""
    size: tuple[int, int]
    """(width, height) of the working image."""


@dataclass(frozen=True, kw_only=True, eq=False)
class IndexMatches:
    """Candidate matches between the keypoints of two images."""

    first: Int[np.ndarray, " n"]
    second: Int[np.ndarray, " n"]
    """Positions in the images' lists of keypoints; each appears once at most."""
    doubt: Float[np.ndarray, " n"]
    """The surer a match, the smaller; comparable across pairs of one matcher."""
    sure: Bool[np.ndarray, " n"]
    """Those that the geometry of the pair is estimated from; the others are taken if they agree with it."""


@dataclass(frozen=True, kw_only=True, eq=False)
class PointMatches:
    """Matches of a pair of images without keypoints of their own."""

    first: Float[np.ndarray, "n 2"]
    second: Float[np.ndarray, "n 2"]
    """Working pixels, corner convention, float64."""
    confidence: Float[np.ndarray, " n"]
    """In [0, 1]."""


@runtime_checkable
class FeatureMatcher(Protocol):
    """Detector, descriptor and a way to compare descriptors."""

    @property
    def name(self) -> str:
        """As it is shown beside results."""
        ...

    @property
    def grey(self) -> bool:
        """Whether ``detect`` wants one channel [h, w] instead of RGB [h, w, 3]."""
        ...

    def fingerprint(self) -> dict[str, Any]:
        """Versions, checkpoint hash and settings as JSON scalars."""
        ...

    def detect(self, image: UInt8[np.ndarray, "h w *c"]) -> Features:
        """Keypoints of a working image."""
        ...

    def match(self, a: Features, b: Features) -> IndexMatches:
        """Candidates between two sets of keypoints (of two keypoints or more)."""
        ...


@runtime_checkable
class ImageMatcher(Protocol):
    """A matcher that sees both images at once."""

    @property
    def name(self) -> str:
        """As it is shown beside results."""
        ...

    @property
    def cell(self) -> float:
        """Points of one image closer than about this many working pixels are one keypoint, so that tracks can join."""
        ...

    def fingerprint(self) -> dict[str, Any]:
        """Versions, checkpoint hash and settings as JSON scalars."""
        ...

    def match_images(self, first: UInt8[np.ndarray, "h w 3"], second: UInt8[np.ndarray, "h2 w2 3"]) -> PointMatches:
        """Matches between two working images (RGB)."""
        ...


Matcher = FeatureMatcher | ImageMatcher


def mutual_neighbours(
    a: Float[np.ndarray, "n d"], b: Float[np.ndarray, "m d"]
) -> tuple[Int[np.ndarray, " k"], Int[np.ndarray, " k"], Float[np.ndarray, " k"]]:
    """Mutual nearest neighbours of unit descriptors, m >= 2: positions in a and b, distance over second distance."""
    similarity = a @ b.T
    nearest = similarity.argmax(1)
    best = similarity[np.arange(len(a)), nearest]
    index = np.nonzero(best >= similarity.max(0)[nearest])[0]  # argmax over columns would be much slower
    nearest, best = nearest[index], best[index]
    others = similarity[index]
    others[np.arange(len(index)), nearest] = -1
    second = others.max(1)
    ratio = np.sqrt(np.maximum(2 - 2 * best, 0) / np.maximum(2 - 2 * second, 1e-9))
    return index, nearest, ratio


def match_by_ratio(a: Features, b: Features, ratio: float) -> IndexMatches:
    """Mutual nearest neighbours; those whose distance is below ``ratio`` of the second's are sure (Lowe 2004)."""
    first, second, doubt = mutual_neighbours(a.descriptor, b.descriptor)
    return IndexMatches(first=first, second=second, doubt=doubt, sure=doubt < ratio)


INSTALL = "pip install 'reliev3r[experts]'"


@dataclass(frozen=True, kw_only=True)
class TransformersMatcher:
    """Weights and image processor; a subclass names them and says how to match."""

    name: ClassVar[str]
    model_id: ClassVar[str]
    model_class: ClassVar[str]
    processor: ClassVar[tuple[str, str]]
    """Module and class: the package's own name for it stands for another class where torchvision is installed."""

    weights: str | None = None
    """Folder with config.json and safetensors; None: the Hugging Face cache (never an unasked download)."""
    device: str = "cpu"

    @cached_property
    def _folder(self) -> Path:
        return weights_folder(self.name, self.weights, self.model_id, download=False)

    @cached_property
    def _hash(self) -> str:
        return weights_hash(self._folder)

    def _load(self) -> Any:
        return load_pretrained(self.model_class, self._folder, device=self.device)

    def _new_processor(self, **settings: Any) -> Any:
        module, name = self.processor
        return getattr(require(module, self.name, INSTALL), name)(**settings)

"""Which images are matched with which."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from itertools import combinations

import numpy as np
from jaxtyping import Float

EXHAUSTIVE = 60
"""Up to so many photographs all pairs are tried."""
EXHAUSTIVE_VIDEO = 30
"""Up to so many frames of a video: they lie far apart then."""
WINDOW = 8
"""Frames of a longer video are matched with their neighbours up to this far apart."""
LOOPS = 3
"""Candidates of each frame of a video beyond its window."""
NEAREST = 10
"""Of more photographs, each is matched with so many that look most like it."""
MUTUAL = 20
"""And with those among so many that look like it and to which it looks alike too."""


def is_exhaustive(views: int, *, ordered: bool) -> bool:
    """Whether :func:`choose_pairs` takes all pairs."""
    return views <= (EXHAUSTIVE_VIDEO if ordered else EXHAUSTIVE)


def choose_pairs(
    views: int, *, ordered: bool, descriptors: Callable[[], Float[np.ndarray, "v d"]]
) -> list[tuple[int, int]]:
    """Pairs (i, j), i < j, in order.

    Few views: all. A longer video (``ordered``): windows in time, and beyond them the frames that look most alike.
    More photographs: the most alike by the global ``descriptors`` (unit length or zero; asked for in these cases only),
    neighbours by name, and what is needed to tie all together. Geometry decides afterwards which pairs are true.
    """
    if is_exhaustive(views, ordered=ordered):
        return list(combinations(range(views), 2))
    described = descriptors()
    similarity = (described @ described.T).astype(np.float64)
    index = np.arange(views)
    apart = np.abs(index[:, None] - index)
    if ordered:
        chosen = (apart <= WINDOW) | _nearest(np.where(apart > WINDOW, similarity, -np.inf), LOOPS)
    else:
        similarity[index, index] = -np.inf
        look_alike = _nearest(similarity, MUTUAL)
        chosen = _nearest(similarity, NEAREST) | (look_alike & look_alike.T) | (apart <= 1)
        chosen |= _spanning_tree(similarity)
    first, second = np.nonzero(np.triu(chosen | chosen.T, 1))
    return list(zip(first.tolist(), second.tolist()))


def _nearest(similarity: Float[np.ndarray, "v v"], count: int) -> np.ndarray:
    """For each row the ``count`` most similar columns, as a mask; minus infinity is never taken."""
    order = np.argsort(-similarity, axis=1, kind="stable")[:, :count]
    mask = np.zeros(similarity.shape, dtype=bool)
    np.put_along_axis(mask, order, True, axis=1)
    return mask & np.isfinite(similarity)


def _spanning_tree(similarity: Float[np.ndarray, "v v"]) -> np.ndarray:
    """The tree over all views with the largest sum of similarities, as a mask; minus infinity is no edge."""
    from scipy.sparse.csgraph import minimum_spanning_tree

    cost = 1 + similarity.max() - similarity  # at least 1: to scipy, 0 is no edge (nor is infinity)
    return minimum_spanning_tree(cost).toarray() > 0


_WORDS = 32
_SAMPLE = 200
"""Local descriptors of an image that the vocabulary is learned from."""
_ITERATIONS = 10


def global_descriptors(local: Sequence[Float[np.ndarray, "_ d"]]) -> Float[np.ndarray, "v k"]:
    """VLAD (Jegou et al. 2010; intra-normalised, Arandjelovic & Zisserman 2013) over the capture's own vocabulary.

    ``local`` are each image's local descriptors, of unit length. The mean over the images is taken off: what all of
    them share tells none from another. Of unit length; zero where an image has no features. Deterministic.
    """
    rng = np.random.default_rng(0)
    sample = np.concatenate([x[rng.permutation(len(x))[:_SAMPLE]] for x in local]).astype(np.float32)
    if not len(sample):
        return np.zeros((len(local), 1), np.float32)
    words = _k_means(sample, rng)
    described = np.stack([_vlad(x.astype(np.float32), words) for x in local])
    empty = np.array([len(x) == 0 for x in local])
    described -= described[~empty].mean(0)
    described[empty] = 0
    return _unit(described)


def _k_means(sample: Float[np.ndarray, "n d"], rng: np.random.Generator) -> Float[np.ndarray, "k d"]:
    from scipy.cluster.vq import kmeans2

    words = sample[rng.permutation(len(sample))[:_WORDS]]
    with warnings.catch_warnings():  # a word that is nobody's nearest stays where it is
        warnings.filterwarnings("ignore", "One of the clusters is empty")
        return kmeans2(sample, words, iter=_ITERATIONS, minit="matrix")[0]


def _vlad(x: Float[np.ndarray, "n d"], words: Float[np.ndarray, "k d"]) -> Float[np.ndarray, " k_times_d"]:
    nearest = (x @ words.T - 0.5 * (words**2).sum(1)).argmax(1)
    residual = np.zeros_like(words)
    np.add.at(residual, nearest, x - words[nearest])
    return _unit(_unit(residual).ravel()[None])[0]


def _unit(x: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n d"]:
    norm = np.linalg.norm(x, axis=1, keepdims=True)
    return x / np.maximum(norm, 1e-9)

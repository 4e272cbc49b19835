"""A global descriptor of each image from its local ones, without weights: what looks alike may overlap."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

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
    words = sample[rng.permutation(len(sample))[:_WORDS]]
    for _ in range(_ITERATIONS):
        nearest = _assign(sample, words)
        count = np.bincount(nearest, minlength=len(words))
        total = np.zeros_like(words)
        np.add.at(total, nearest, sample)
        words = np.where(count[:, None] > 0, total / np.maximum(count, 1)[:, None], words).astype(np.float32)
    return words


def _assign(x: Float[np.ndarray, "n d"], words: Float[np.ndarray, "k d"]) -> np.ndarray:
    return (x @ words.T - 0.5 * (words**2).sum(1)).argmax(1)


def _vlad(x: Float[np.ndarray, "n d"], words: Float[np.ndarray, "k d"]) -> Float[np.ndarray, " k_times_d"]:
    nearest = _assign(x, words)
    residual = np.zeros_like(words)
    np.add.at(residual, nearest, x - words[nearest])
    return _unit(_unit(residual).ravel()[None])[0]


def _unit(x: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n d"]:
    norm = np.linalg.norm(x, axis=1, keepdims=True)
    return x / np.maximum(norm, 1e-9)

"""Pictures of one thing: which ones a frozen network sees as nearly the same.

Features of a network have much in common within one data set: a cosine of them says mostly that both are of that kind.
Whitened by the covariance of the training pictures, what sets a picture apart counts as much as what all share. Of
pictures of hands that had lost a twentieth, 18 % were more similar to themselves than any validation picture to a
training picture, and 68 % with whitening (docs/benchmarks/similar.md).
"""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import solve_triangular
from threadpoolctl import threadpool_limits

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

# Of training pictures, for the covariance: more say nothing new.
_MAX_FOR_COVARIANCE = 4000
_BLOCK = 1024
_TIMED_ROWS = 256
_N_TIMED = 5
# Most crops that lost a twentieth are more similar than that to their picture, and few pictures as they came: each of
# the eight such pairs of waste shows one object (docs/benchmarks/similar.md).
_LEAST_SIMILARITY = 0.6
# Robust standard deviations above the median: in microscopy, where all differ in the same way, few crops reach 0.6, and
# no picture as it came reaches 0.4.
_N_SPREADS = 6
_LEAST_OF_ALL = 0.4


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Nearest:
    """The most similar training picture of each of n other pictures.

    Args:
        rows: (n,) int64, which training picture it is.
        similarities: (n,) cosines, up to 1.
    """

    rows: Ints
    similarities: Floats


def nearest_of(train: Floats, others: Floats) -> Nearest:
    """Find the most similar training picture of each other one.

    Args:
        train: (n_train, n_features) float32, at least one.
        others: (n_others, n_features) float32.

    Example:
        >>> train = np.random.default_rng(0).normal(size=(50, 8)).astype(np.float32)
        >>> found = nearest_of(train, train[[7, 3]] + 0.01)
        >>> found.rows.tolist(), bool((found.similarities > 0.99).all())
        ([7, 3], True)
    """
    with threadpool_limits(1, user_api="blas"):  # threads that wait for each other beside other work are far slower
        white = _Whitening.of(train[np.unique(np.linspace(0, len(train) - 1, _MAX_FOR_COVARIANCE, dtype=np.int64))])
        wanted = white(others)
        rows, similarities = np.zeros(len(others), np.int64), np.full(len(others), -1.0, np.float32)
        for start in range(0, len(train), _BLOCK):
            cosines = wanted @ white(train[start : start + _BLOCK]).T
            best = cosines.argmax(axis=1)
            here = cosines[np.arange(len(others)), best]
            is_nearer = here > similarities
            rows[is_nearer] = start + best[is_nearer]
            similarities[is_nearer] = here[is_nearer]
    return Nearest(rows=rows, similarities=similarities)


def least_similarity(similarities: Floats) -> float:
    """From which similarity on a picture and its nearest training picture are told to show one thing.

    A fixed one, or less where all others of the set are far less similar.

    Args:
        similarities: (n,) of all other pictures, as `nearest_of` gives them.

    Example:
        >>> least_similarity(np.array([0.3, 0.2, 0.4, 0.9], np.float32)), least_similarity(np.full(9, 0.1, np.float32))
        (0.6, 0.4)
    """
    median = float(np.median(similarities)) if len(similarities) else 0.0
    spread = 1.4826 * float(np.median(np.abs(similarities - median))) if len(similarities) else 0.0
    return min(_LEAST_SIMILARITY, max(_LEAST_OF_ALL, median + _N_SPREADS * spread))


def expected_s(n_train: int, n_others: int, n_features: int) -> float:
    """Seconds that `nearest_of` is expected to take, by a product of so many features."""
    some, times = np.ones((_TIMED_ROWS, n_features), np.float32), []
    with threadpool_limits(1, user_api="blas"):
        for _ in range(_N_TIMED):
            begun = time.perf_counter()
            some @ some.T
            times.append(time.perf_counter() - begun)
    product_s = statistics.median(times) / (_TIMED_ROWS * _TIMED_ROWS * n_features)
    whitening = n_features**2 * (min(n_train, _MAX_FOR_COVARIANCE) + n_features + n_train + n_others)
    return product_s * (whitening + n_features * n_train * n_others)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Whitening:
    """Features to directions of length 1 in which training pictures spread alike.

    Args:
        mean: (n_features,) of training pictures.
        largest: distance from it of a single feature: squares of what is divided by it stay finite.
        factor: (n_features, n_features) lower triangle whose square is their covariance, to which its average is added:
            there are fewer pictures than would tell it exactly.
    """

    mean: Floats
    largest: np.float32
    factor: Floats

    @classmethod
    def of(cls, train: Floats) -> _Whitening:
        mean = train.mean(axis=0)
        centred = train - mean
        largest = max(np.abs(centred).max(), np.finfo(np.float32).tiny)
        centred /= largest
        covariance = centred.T @ centred / np.float32(len(train))
        average = float(np.trace(covariance)) / len(covariance)
        covariance[np.diag_indices_from(covariance)] += average if average > 0 else 1.0
        return cls(mean=mean, largest=largest, factor=np.linalg.cholesky(covariance))

    def __call__(self, features: Floats) -> Floats:
        centred = (features - self.mean) / self.largest
        white = solve_triangular(self.factor, centred.T, lower=True, check_finite=False).T
        lengths = np.linalg.norm(white, axis=1, keepdims=True)
        return np.asarray(np.divide(white, lengths, out=np.zeros_like(white), where=lengths > 0), dtype=np.float32)

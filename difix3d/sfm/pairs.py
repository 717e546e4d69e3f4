"""Which pairs of photos are worth matching: all, neighbours in time, or those that look alike.

Looking alike is judged by VLAD (Jegou et al. 2010): residuals of SIFT descriptors to a small vocabulary learnt from
the capture itself, so nothing has to be downloaded.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

Pairs = list[tuple[int, int]]
"""Rows of the photo list, the smaller one first, sorted, none twice."""

EXHAUSTIVE_ORDERED = 24
"""Up to here, all pairs are hardly more than the neighbours are."""
EXHAUSTIVE_UNORDERED = 80
OVERLAP = 10
LOOP_CLOSURES = 5
NEIGHBOURS = 20
_WORDS = 32
_SAMPLED_FEATURES = 600


def choose_pairs(
    count: int, ordered: bool, matching: str, global_descriptors: Callable[[], NDArray[np.float32]]
) -> tuple[str, Pairs]:
    """(the matcher used, its pairs). matching: auto | exhaustive | sequential | retrieval.

    global_descriptors: called only where photos have to be compared; [count, D] unit rows.
    """
    if matching == "auto":
        if count <= (EXHAUSTIVE_ORDERED if ordered else EXHAUSTIVE_UNORDERED):
            matching = "exhaustive"
        else:
            matching = "sequential" if ordered else "retrieval"
    if matching == "exhaustive":
        return matching, exhaustive_pairs(count)
    if matching == "sequential":
        near = sequential_pairs(count)
        return matching, _merged(near, retrieval_pairs(global_descriptors(), LOOP_CLOSURES, apart=OVERLAP + 1))
    descriptors = global_descriptors()
    alike = retrieval_pairs(descriptors, NEIGHBOURS)
    return "retrieval", _merged(alike, joining_pairs(descriptors, alike, NEIGHBOURS))


def exhaustive_pairs(count: int) -> Pairs:
    """Every pair."""
    return [(first, second) for first in range(count) for second in range(first + 1, count)]


def sequential_pairs(count: int, overlap: int = OVERLAP) -> Pairs:
    """Each photo with the next `overlap`, and with those 2^k further on (COLMAP's quadratic overlap)."""
    steps = sorted({*range(1, overlap + 1), *(2**k for k in range(overlap))})
    return _merged([(first, first + step) for step in steps for first in range(count - step)])


def retrieval_pairs(descriptors: NDArray[np.float32], neighbours: int, apart: int = 1) -> Pairs:
    """Each photo with the `neighbours` most similar ones at least `apart` places away. descriptors: [N, D] unit."""
    count = len(descriptors)
    similarity = descriptors @ descriptors.T
    places = np.arange(count)
    similarity[np.abs(places[:, None] - places) < apart] = -np.inf
    best = np.argsort(-similarity, axis=1, kind="stable")[:, :neighbours]
    return _merged(
        [(row, int(other)) for row in range(count) for other in best[row] if similarity[row, other] > -np.inf]
    )


def joining_pairs(descriptors: NDArray[np.float32], pairs: Pairs, most: int) -> Pairs:
    """What the pairs lack to hang together: of each group of photos that they part, the `most` likest outside it.

    Where a spot was photographed more often than there are neighbours, those alone show nothing but the spot.
    """
    count = len(descriptors)
    similarity = descriptors @ descriptors.T
    added: Pairs = []
    while True:
        edges = np.array([*pairs, *added], dtype=np.int64).reshape(-1, 2)
        graph = coo_array((np.ones(len(edges), np.int8), edges.T), shape=(count, count))
        groups, group_of = connected_components(graph, directed=False)
        if groups < 2:
            return _merged(added)
        for group in range(groups):
            inside, outside = np.flatnonzero(group_of == group), np.flatnonzero(group_of != group)
            across = similarity[np.ix_(inside, outside)]
            nearest = across.argmax(axis=1)
            strongest = np.argsort(-across.max(axis=1), kind="stable")[:most]
            added += [(int(inside[row]), int(outside[nearest[row]])) for row in strongest]


def vlad(features: Sequence[NDArray[np.uint8]], seed: int = 0) -> NDArray[np.float32]:
    """SIFT descriptors of each photo ([F_i, 128] uint8, strongest first or not) to unit rows [N, 4096].

    A photo without features gets a row of zeros: like nothing.
    """
    rng = np.random.default_rng(seed)
    rooted = []
    for rows in features:
        take = rng.permutation(len(rows))[:_SAMPLED_FEATURES]
        rooted.append(rows[take].astype(np.float32) / 512.0)
    sample = np.concatenate([rows[:100] for rows in rooted]) if rooted else np.empty((0, 128), np.float32)
    if not len(sample):
        return np.zeros((len(rooted), _WORDS * 128), np.float32)
    words = _kmeans(sample, min(_WORDS, len(sample)), rng)
    out = np.zeros((len(rooted), _WORDS, 128), np.float32)
    for row, descriptors in enumerate(rooted):
        nearest = _nearest(descriptors, words)
        np.add.at(out[row], nearest, descriptors - words[nearest])
    # Each word's residual counts once, however many features fell on it (intra-normalisation, Arandjelovic 2013).
    out /= np.maximum(np.linalg.norm(out, axis=2, keepdims=True), 1e-9)
    flat = out.reshape(len(rooted), -1)
    return flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-9)


def _kmeans(sample: NDArray[np.float32], count: int, rng: np.random.Generator) -> NDArray[np.float32]:
    words = sample[rng.choice(len(sample), count, replace=False)]
    for _ in range(8):
        nearest = _nearest(sample, words)
        for word in range(count):
            if (members := nearest == word).any():
                words[word] = sample[members].mean(axis=0)
    return words


def _nearest(descriptors: NDArray[np.float32], words: NDArray[np.float32]) -> NDArray[np.int64]:
    return np.argmin((words**2).sum(axis=1) - 2 * descriptors @ words.T, axis=1)


def _merged(*lists: Pairs) -> Pairs:
    return sorted({(min(pair), max(pair)) for pairs in lists for pair in pairs})

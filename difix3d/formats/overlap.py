"""Do photos that follow each other by name show the same thing? Then they were taken along a walk."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

FEATURES = 500
RATIO = 0.8  # Lowe's ratio test
LEAST_MATCHES = 12  # consistent with one epipolar geometry; unrelated photos reach 8 or fewer by chance
LONG_SIDE_PX = 480
_GAP = 10  # numbers that a camera roll may leave out (deleted photos) and still be one walk


def natural_key(name: str) -> list[tuple[int, int, str]]:
    """Sort key under which IMG_9 comes before IMG_10."""
    parts = re.split(r"(\d+)", name.casefold())
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts if part]


def numbered_in_sequence(stems: Sequence[str]) -> bool:
    """Whether file stems, in this order, are one counter going up: IMG_0012, IMG_0013, IMG_0015, ..."""
    numbers = []
    for stem in stems:
        groups = re.findall(r"\d+", stem)
        if not groups:
            return False
        numbers.append(int(groups[-1][-12:]))
    steps = np.diff(numbers)
    return len(steps) > 0 and bool((steps > 0).all() and np.median(steps) <= _GAP)


class OverlapCounter:
    """Fed photo after photo, counts how many neighbours show the same thing."""

    def __init__(self) -> None:
        import cv2

        self._cv2: Any = cv2
        self._orb = self._cv2.ORB_create(FEATURES)
        self._matcher = cv2.BFMatcher(cv2.NORM_HAMMING)
        self._last: tuple[Any, Any] | None = None
        self.pairs = 0
        self.overlapping = 0

    def add(self, rgb: NDArray[np.uint8]) -> None:
        cv2 = self._cv2
        grey = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
        scale = min(1.0, LONG_SIDE_PX / max(grey.shape))
        grey = cv2.resize(grey, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        features = self._orb.detectAndCompute(grey, None)
        if self._last is not None:
            self.pairs += 1
            self.overlapping += self._matches(self._last, features) >= LEAST_MATCHES
        self._last = features

    def _matches(self, one: tuple[Any, Any], other: tuple[Any, Any]) -> int:
        (points_a, codes_a), (points_b, codes_b) = one, other
        if codes_a is None or codes_b is None or len(codes_b) < 2:
            return 0
        pairs = [pair for pair in self._matcher.knnMatch(codes_a, codes_b, k=2) if len(pair) == 2]
        good = [first for first, second in pairs if first.distance < RATIO * second.distance]
        if len(good) < LEAST_MATCHES:
            return 0
        a = np.array([points_a[match.queryIdx].pt for match in good], np.float32)
        b = np.array([points_b[match.trainIdx].pt for match in good], np.float32)
        self._cv2.setRNGSeed(0)
        _, inliers = self._cv2.findFundamentalMat(a, b, self._cv2.FM_RANSAC, 2.0, 0.999)
        return 0 if inliers is None else int(inliers.sum())

    @property
    def share(self) -> float:
        """Share of neighbours that overlap, 0 where there are none."""
        return self.overlapping / self.pairs if self.pairs else 0.0

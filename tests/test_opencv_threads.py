"""OpenCV's threads, the process's own, are put back however many asked for one, in whatever order they end."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import cv2
import pytest

from difix3d.sfm.opencv_threads import one_opencv_thread


@pytest.fixture(autouse=True)
def two_threads() -> Iterator[None]:
    before = cv2.getNumThreads()
    cv2.setNumThreads(2)
    yield
    cv2.setNumThreads(before)


def test_the_last_to_end_puts_them_back() -> None:
    first, second = ExitStack(), ExitStack()
    first.enter_context(one_opencv_thread())
    second.enter_context(one_opencv_thread())
    assert cv2.getNumThreads() == 1
    first.close()
    assert cv2.getNumThreads() == 1
    second.close()
    assert cv2.getNumThreads() == 2


def test_errors_put_them_back() -> None:
    with pytest.raises(ValueError), one_opencv_thread():
        raise ValueError
    assert cv2.getNumThreads() == 2

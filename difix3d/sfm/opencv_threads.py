"""Keep OpenCV from sharing out calls among threads while several threads make them already.

Sharing out calls of fractions of a millisecond costs more than it gains, as in sweeping planes. The number of threads
is one for the whole process.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import cv2


class _Threads:
    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._holders = 0
        self._usual = 0

    @contextmanager
    def one(self) -> Iterator[None]:
        """Each call keeps to the thread that makes it, until the last holder is done."""
        with self._lock:
            if self._holders == 0:
                self._usual = cv2.getNumThreads()
                cv2.setNumThreads(1)
            self._holders += 1
        try:
            yield
        finally:
            with self._lock:
                self._holders -= 1
                if self._holders == 0:
                    cv2.setNumThreads(self._usual)


one_opencv_thread = _Threads().one

"""Read an uploaded video: bounded, upright, no container trusted that we do not know. OpenCV's FFmpeg decodes."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from difix3d.errors import CaptureError
from difix3d.formats.photos import sharpness

VIDEO_SUFFIXES = frozenset((".mp4", ".m4v", ".mov", ".webm", ".mkv", ".3gp"))
MAX_BYTES = 4 * 2**30
MAX_PIXELS = 36_000_000  # 8K
MAX_SECONDS = 180.0
MAX_FRAMES = 12_000
# Between samples a hand moves a few pixels: enough to track, and a third of the frames to look at.
SAMPLES_PER_SECOND = 12.0
GREY_PX = 320

_ADVICE = "Film 20 to 60 seconds while you walk slowly around the subject, as MP4, MOV, WebM or MKV."


@dataclass(frozen=True)
class Sample:
    """One frame that was looked at. grey: [h, w] uint8, longer side GREY_PX; sharpness: as formats.photos has it."""

    index: int
    seconds: float
    grey: NDArray[np.uint8]
    sharpness: float


class Clip:
    """One video file, open for reading from its start. Use as a context manager."""

    def __init__(self, path: Path):
        self.path = path
        _require_container(path)
        self._video = _open(path)
        if not self._video.isOpened():
            raise CaptureError(_why_not_opened(path))
        import cv2

        self._cv2 = cv2
        fps = self._video.get(cv2.CAP_PROP_FPS)
        self.fps = fps if 1 <= fps <= 480 else 30.0
        # What the container claims, used for the progress bar only.
        claimed = self._video.get(cv2.CAP_PROP_FRAME_COUNT)
        self.frames = int(min(claimed, MAX_FRAMES, MAX_SECONDS * self.fps)) if claimed > 0 else 0
        self.cut = False
        width, height = (int(self._video.get(p)) for p in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT))
        if width * height > MAX_PIXELS:
            self.close()
            raise CaptureError(
                f"{path.name} has {width}x{height} pixels; at most {MAX_PIXELS // 10**6} million are decoded. "
                "Export it at 4K or less."
            )

    def __enter__(self) -> Clip:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._video.release()

    def samples(self) -> Iterator[Sample]:
        """About SAMPLES_PER_SECOND frames a second, from the start to the end or a limit (then `cut` is True)."""
        cv2 = self._cv2
        stride = max(1, round(self.fps / SAMPLES_PER_SECOND))
        index = -1
        while self._video.grab():
            index += 1
            if index >= MAX_FRAMES or index / self.fps > MAX_SECONDS:
                self.cut = True
                return
            if index % stride:
                continue
            ok, frame = self._video.retrieve()
            if not ok or frame is None:
                continue
            grey = cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY)
            scale = GREY_PX / max(grey.shape)
            small = cv2.resize(grey, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
            yield Sample(index, index / self.fps, small, sharpness(grey))

    def pictures(self, indices: Sequence[int]) -> Iterator[tuple[int, NDArray[np.uint8]]]:
        """(index, [H, W, 3] uint8 RGB) of those frames, in order; call on a freshly opened clip."""
        wanted = set(indices)
        for index in range(max(wanted, default=-1) + 1):
            if not self._video.grab():
                return
            if index in wanted:
                ok, frame = self._video.retrieve()
                if ok and frame is not None:
                    yield index, self._cv2.cvtColor(frame, self._cv2.COLOR_BGR2RGB)


def _open(path: Path) -> Any:
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "8")  # fatal only: what is wrong is said by our own message
    import cv2

    before = cv2.utils.logging.getLogLevel()
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        # CAP_FFMPEG: the other backends would take a name with % in it for a numbered picture sequence.
        video = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
        video.set(cv2.CAP_PROP_ORIENTATION_AUTO, 1)
        return video
    finally:
        cv2.utils.logging.setLogLevel(before)


def _head(path: Path, count: int = 64) -> bytes:
    with path.open("rb") as stream:
        return stream.read(count)


def _require_container(path: Path) -> None:
    """CaptureError unless the bytes are ISO (MP4, MOV) or Matroska (WebM, MKV).

    FFmpeg guesses by content: a playlist named clip.mp4 would make it open the files and addresses listed in there.
    """
    size = path.stat().st_size
    if size == 0:
        raise CaptureError(f"{path.name} is empty (0 bytes). Upload the video again; the copy may not have finished.")
    if size > MAX_BYTES:
        raise CaptureError(
            f"{path.name} has {size / 2**30:.1f} GB; at most {MAX_BYTES // 2**30} GB are read. Trim the video."
        )
    head = _head(path)
    iso = head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip")
    if not iso and not head.startswith(b"\x1aE\xdf\xa3"):
        raise CaptureError(
            f"{path.name} is no video: its first bytes are not those of MP4, MOV, WebM or MKV. {_ADVICE}"
        )


def _why_not_opened(path: Path) -> str:
    """What is missing in a container that FFmpeg refused, by its box names (ISO/IEC 14496-12)."""
    boxes = set(_boxes(path))
    if boxes and b"moov" not in boxes:
        return (
            f"{path.name} is cut off: its index (moov) is missing, so no frame can be found. "
            "Copy or upload the whole file again."
        )
    if boxes and b"vide" not in _handlers(path):
        return f"{path.name} holds no pictures, only sound. {_ADVICE}"
    return f"{path.name} cannot be decoded: it is damaged, or its codec is unknown here. Export it as H.264 MP4."


def _boxes(path: Path) -> Iterator[bytes]:
    """Names of the top-level boxes of an ISO file."""
    size = path.stat().st_size
    if _head(path)[4:8] != b"ftyp":
        return
    with path.open("rb") as stream:
        offset = 0
        for _ in range(1000):  # a real file has a handful
            stream.seek(offset)
            header = stream.read(16)
            if len(header) < 8:
                return
            yield header[4:8]
            length = int.from_bytes(header[:4], "big")
            if length == 1:
                length = int.from_bytes(header[8:16], "big")
            if length < 8 or offset + length >= size:
                return
            offset += length


def _handlers(path: Path) -> set[bytes]:
    """Kinds of tracks: the four letters 12 bytes after each "hdlr" in the file's first and last 4 MB."""
    found = set()
    with path.open("rb") as stream:
        parts = [stream.read(4 * 2**20)]
        stream.seek(max(0, path.stat().st_size - 4 * 2**20))
        parts.append(stream.read())
    for data in parts:
        at = data.find(b"hdlr")
        while at >= 0:
            found.add(data[at + 12 : at + 16])
            at = data.find(b"hdlr", at + 4)
    return found

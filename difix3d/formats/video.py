"""Write frames as a video that browsers play: VP8 in WebM or VP9 in MP4, with the FFmpeg inside OpenCV's wheel.

Why not H.264: no freely licensed wheel brings an encoder (OpenCV's FFmpeg has none, PyAV's brings x264, which is
GPL); AV1 has none there either, and the MPEG-4 part 2 that it can write plays in no browser. VP8 in WebM plays in
Chromium, Firefox and Safari 16, and is coded three to four times as fast as VP9 here, with fewer traces of coding: a
video for comparing renders should not add faults of its own. MP4 is for programs that take no WebM.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from difix3d.atomic import replacing_file
from difix3d.errors import FormatError, MissingBackendError, ShapeError
from difix3d.formats.webm_colour import mark_bt601

CODECS = {".webm": "VP80", ".mp4": "vp09"}
MIN_SIDE_PX, MAX_SIDE_PX = 4, 16_383
"""VP8 has 14 bits for a side (RFC 6386, 9.1); OpenCV opens no encoder for 2 pixels."""


@contextlib.contextmanager
def open_video(path: Path | str, size: tuple[int, int], fps: float) -> Iterator[Callable[[NDArray[np.uint8]], None]]:
    """Gives write(rgb [H, W, 3] uint8); the file appears, whole, when the block ends well.

    size: (width, height); smaller frames are centred on black. The video's sides are even, as 4:2:0 needs: where
    `size` is odd the last row or column is repeated. FormatError for a name or rate that cannot be, or no frames.
    """
    path, (width, height) = Path(path), size
    if path.suffix not in CODECS:
        raise FormatError(f"{path.name}: videos are written as {' or '.join(CODECS)}, got {path.suffix or 'no suffix'}")
    if not (np.isfinite(fps) and 0 < fps <= 480):
        raise FormatError(f"{path.name}: expected a frame rate above 0 and up to 480, got {fps}")
    if not (MIN_SIDE_PX <= width <= MAX_SIDE_PX and MIN_SIDE_PX <= height <= MAX_SIDE_PX):
        raise FormatError(f"{path.name}: expected {MIN_SIDE_PX} to {MAX_SIDE_PX} pixels a side, got {width}x{height}")
    written = 0
    with replacing_file(path) as temporary:
        encoder = _encoder(temporary, (width + width % 2, height + height % 2), fps)

        def write(rgb: NDArray[np.uint8]) -> None:
            nonlocal written
            encoder.write(_bgr(rgb, width, height))
            written += 1

        try:
            yield write
        finally:
            encoder.release()
        if not written:
            raise FormatError(f"{path.name}: a video needs at least 1 frame, got none")
        if path.suffix == ".webm":
            mark_bt601(temporary)
        else:
            _mark_mp4_bt601(temporary)


def _bgr(rgb: NDArray[np.uint8], width: int, height: int) -> NDArray[np.uint8]:
    """The frame in OpenCV's order of channels, on a canvas with even sides."""
    if rgb.ndim != 3 or rgb.shape[2] != 3 or rgb.dtype != np.uint8 or rgb.shape[0] > height or rgb.shape[1] > width:
        raise ShapeError(
            f"frame: expected uint8 [H, W, 3] of at most {height} rows and {width} columns, "
            f"got {rgb.dtype} {list(rgb.shape)}"
        )
    top, left = (height - rgb.shape[0]) // 2, (width - rgb.shape[1]) // 2
    around = ((top, height - rgb.shape[0] - top), (left, width - rgb.shape[1] - left), (0, 0))
    padded = np.pad(rgb[..., ::-1], around)
    return np.ascontiguousarray(np.pad(padded, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge"))


def _mark_mp4_bt601(path: Path) -> None:
    """Say in an MP4 by OpenCV's FFmpeg how its colours are coded, as mark_bt601 does in a WebM.

    VP9's vpcC box (webmproject.org/vp9/mp4) has a byte each for primaries, transfer and matrix, which the encoder
    leaves at 2, unspecified.
    """
    data = path.read_bytes()
    # After the box's name: version and flags (4 bytes), profile, level, depth and subsampling.
    at = data.find(b"vpcC") + 11
    if at > 11 and data[at : at + 3] == bytes([2, 2, 2]):
        with path.open("r+b") as stream:
            stream.seek(at)
            stream.write(bytes([1, 1, 6]))


def _encoder(path: Path, size: tuple[int, int], fps: float):
    import cv2

    codec = CODECS[path.suffix]
    with _silent_stderr():
        encoder = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*codec), fps, size)
    if not encoder.isOpened():
        raise MissingBackendError(
            f"OpenCV cannot write {codec} here: expected opencv-python-headless from PyPI, which brings FFmpeg. "
            "Install it again: pip install --force-reinstall opencv-python-headless"
        )
    return encoder


@contextlib.contextmanager
def _silent_stderr() -> Iterator[None]:
    """OpenCV prints "tag VP80 is not supported" and then writes VP8 all the same: WebM names codecs, it has no tags."""
    with contextlib.ExitStack() as stack:
        try:
            kept = os.dup(2)
            stack.callback(os.close, kept)
            nowhere = os.open(os.devnull, os.O_WRONLY)
            stack.callback(os.close, nowhere)
            os.dup2(nowhere, 2)
            stack.callback(os.dup2, kept, 2)
        except OSError:
            pass  # no stderr to keep clean
        yield

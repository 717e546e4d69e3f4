"""Say in a WebM file how its colours are coded, where the encoder did not.

Without it browsers guess by the picture's height (BT.709 from 720 rows on), and reds and greens shift by ten levels.
EBML (RFC 8794): an element is an id, a size and its data, and may hold others. Video gets a Colour element
(RFC 9559, 5.1.4.1.28.16); the room is taken from the Tags after it, which hold nothing but the encoder's name, so that
no other element moves.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

_SEGMENT, _SEEK_HEAD, _SEEK, _SEEK_ID = 0x18538067, 0x114D9B74, 0x4DBB, 0x53AB
_TRACKS, _TRACK_ENTRY, _VIDEO, _TAGS, _VOID = 0x1654AE6B, 0xAE, 0xE0, 0x1254C367, 0xEC
# Matrix BT.601 (SMPTE 170M), limited range, transfer and primaries BT.709: how OpenCV turns sRGB frames into 4:2:0.
_COLOUR = bytes.fromhex("55b0 90 55b1 81 06 55b9 81 01 55ba 81 01 55bb 81 01")
_HEAD_BYTES = 1 << 16
"""Everything before the first frame is well within this."""


class _Element(NamedTuple):
    """id, and where in the file it starts, its data starts, and it ends."""

    id: int
    start: int
    data: int
    end: int


def mark_bt601(path: Path) -> bool:
    """Write the Colour element into a WebM file by OpenCV's FFmpeg; False (and the file as it was) where it has none
    of the expected order of elements: Tracks with one video track, then Tags."""
    with path.open("r+b") as stream:
        head = bytearray(stream.read(_HEAD_BYTES))
        try:
            patched = _patched(head)
        except (IndexError, StopIteration):
            return False
        stream.seek(0)
        stream.write(patched)
    return True


def _patched(head: bytearray) -> bytes:
    """`head`, of the same length, with Colour in and Tags out. StopIteration or IndexError where it cannot be."""
    segment = _first(head, 0, len(head), _SEGMENT)
    top = list(_elements(head, segment.data, len(head)))
    seek_head = next(one for one in top if one.id == _SEEK_HEAD)
    at = next(i for i, one in enumerate(top) if one.id == _TRACKS)
    tracks, tags = top[at], top[at + 1]
    track = _first(head, tracks.data, tracks.end, _TRACK_ENTRY)
    video = _first(head, track.data, track.end, _VIDEO)
    if tags.id != _TAGS or tags.end > len(head):
        raise StopIteration

    new_video = _element(_VIDEO, bytes(head[video.data : video.end]) + _COLOUR)
    new_track = _element(_TRACK_ENTRY, bytes(head[track.data : video.start]) + new_video + head[video.end : track.end])
    rest = bytes(head[track.end : tracks.end])
    new_tracks = _element(_TRACKS, bytes(head[tracks.data : track.start]) + new_track + rest)
    left = tags.end - tracks.start - len(new_tracks)
    result = bytes(head[: tracks.start]) + new_tracks + _void(left) + head[tags.end :]
    # The table of contents no longer lists the Tags.
    for seek in _elements(head, seek_head.data, seek_head.end):
        if seek.id == _SEEK and _listed(head, seek) == _TAGS:
            result = result[: seek.start] + _void(seek.end - seek.start) + result[seek.end :]
    return result


def _listed(data: bytearray, seek: _Element) -> int:
    listed = _first(data, seek.data, seek.end, _SEEK_ID)
    return int.from_bytes(data[listed.data : listed.end], "big")


def _elements(data: bytearray, start: int, end: int) -> Iterator[_Element]:
    while start < end:
        id_bytes = _width(data[start])
        size_bytes = _width(data[start + id_bytes])
        begin = start + id_bytes + size_bytes
        size = int.from_bytes(data[start + id_bytes : begin], "big") & ((1 << (7 * size_bytes)) - 1)
        yield _Element(int.from_bytes(data[start : start + id_bytes], "big"), start, begin, begin + size)
        start = begin + size


def _first(data: bytearray, start: int, end: int, wanted: int) -> _Element:
    return next(one for one in _elements(data, start, end) if one.id == wanted)


def _width(first: int) -> int:
    """Bytes of a variable-length number, by its first one."""
    if first == 0:
        raise IndexError("no EBML number")
    return 9 - first.bit_length()


def _element(identifier: int, data: bytes) -> bytes:
    """An element with the usual 8-byte size, or a shorter one."""
    width = 1 if len(data) < 127 else 8
    size = (len(data) | (1 << (7 * width))).to_bytes(width, "big")
    return identifier.to_bytes((identifier.bit_length() + 7) // 8, "big") + size + data


def _void(total: int) -> bytes:
    """An element of `total` bytes that says nothing."""
    if not 2 <= total < 128:
        raise IndexError("no room")
    return bytes([_VOID, 0x80 | (total - 2)]) + bytes(total - 2)

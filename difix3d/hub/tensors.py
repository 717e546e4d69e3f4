"""Some tensors of a safetensors file on the Hub: its header, then the bytes that are wanted, and no others."""

from __future__ import annotations

import json
import struct
import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from difix3d.errors import CheckpointError
from difix3d.events import Event, Progress
from difix3d.hub.transfer import read_span

_MOST_HEADER_BYTES = 10_000_000
_GAP_BYTES = 2**16
"""Tensors closer than this in the file are read in one go."""
_TELL_EVERY_S = 0.5

Tensors = dict[str, NDArray[np.float32]]


@dataclass(frozen=True)
class Source:
    """One file of a repository at a commit."""

    repo: str
    commit: str
    path: str

    def __str__(self) -> str:
        return f"{self.path} of {self.repo} at {self.commit[:12]}"


def fetch_tensors(source: Source, names: Sequence[str] | None, stage: str) -> Generator[Event, None, Tensors]:
    """The float32 tensors of those names, in their order, or all of a small file; tells on behalf of `stage` how far
    it is. CheckpointError for a file that is something else, or lacks one."""
    yield Progress(stage, f"Reading what {source.path} of {source.repo} holds")
    (length,) = struct.unpack("<Q", _read(source, 0, 8))
    if length > _MOST_HEADER_BYTES:
        raise CheckpointError(f"{source} is no safetensors file: its header would have {length:,} bytes")
    try:
        header = json.loads(_read(source, 8, 8 + length))
    except ValueError as error:
        raise CheckpointError(f"{source} is no safetensors file: its header is not JSON") from error
    header.pop("__metadata__", None)
    names = list(header) if names is None else list(names)
    for name in names:
        if (found := header.get(name, {}).get("dtype", "nothing")) != "F32":
            raise CheckpointError(f"{source}: expected {name} in float32 (F32), found {found}")

    offsets = {name: tuple(header[name]["data_offsets"]) for name in names}
    spans = _spans(list(offsets.values()))
    total, done, told = sum(stop - start for start, stop in spans), 0, 0.0
    tensors: Tensors = {}
    for start, stop in spans:
        read = bytearray()
        for chunk in read_span(source.repo, source.commit, source.path, 8 + length + start, 8 + length + stop):
            read += chunk
            done += len(chunk)
            if time.monotonic() - told > _TELL_EVERY_S or done == total:
                told = time.monotonic()
                yield Progress(stage, f"Downloading {source.repo}", round(done / 1e6, 1), round(total / 1e6, 1), "MB")
        for name, (first, last) in offsets.items():
            if start <= first and last <= stop:
                values = np.frombuffer(bytes(read[first - start : last - start]), "<f4")
                tensors[name] = values.reshape(header[name]["shape"])
    return {name: tensors[name] for name in names}


def _spans(ranges: Sequence[tuple[int, ...]]) -> list[tuple[int, int]]:
    """The fewest spans that cover `ranges` without reading much between them."""
    spans: list[tuple[int, int]] = []
    for start, stop in sorted(ranges):
        if spans and start - spans[-1][1] <= _GAP_BYTES:
            spans[-1] = (spans[-1][0], max(stop, spans[-1][1]))
        else:
            spans.append((start, stop))
    return spans


def _read(source: Source, start: int, stop: int) -> bytes:
    return b"".join(read_span(source.repo, source.commit, source.path, start, stop))

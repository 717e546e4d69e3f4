"""Which splats touch which part of the picture, front to back.

The picture is cut into tiles of TILE_PX pixels, the unit of blending, and split x split tiles make a bin, the unit of
the lists (split is 1 but for huge splats on huge pictures, where lists per tile would not fit into memory).
One depth sort of all visible splats (radix, stable), then a counting sort into bins that keeps the order.
Everything is a function of its input alone, however many threads share the work.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from difix3d.splatting.cpu.compile import aligned_empty, inlined, kernel, run, take
from difix3d.splatting.cpu.lanes import load, store
from difix3d.splatting.cpu.projection import CULLED, EXTENT_X, EXTENT_Y, ROW, X, Y

TILE_PX = 32  # 8x8 blocks: which of them a splat touches fits into 64 bits
MAX_ENTRIES = 1 << 23  # (splat, bin) pairs before bins are made larger; each takes 8 bytes, and 48 more with gradients
MAX_COUNTS = 1 << 24  # (chunk, bin) pairs before bins are made larger; each takes 8 bytes
CHUNK = 2048  # splats counted and placed at once


@dataclass(frozen=True)
class Tiling:
    """ids: [V] visible splats front to back; rows: [V, ROW] as projected, in that order. Entry e says that splat
    entry_splat[e] (row of `rows`) touches a bin; bin i owns entries bin_start[i]:bin_start[i + 1], front to back.
    entry_slot[e]: its row among gradient slots; splat n of all N owns slots first_slot[n]:first_slot[n + 1].
    order: bins, most entries first."""

    split: int
    tiles_x: int
    tiles_y: int
    ids: NDArray[np.int32]
    rows: NDArray[np.float32]
    bin_start: NDArray[np.int64]
    entry_splat: NDArray[np.int32]
    entry_slot: NDArray[np.int32]
    first_slot: NDArray[np.int64]
    order: NDArray[np.int64]


@kernel
def sort_visible(keys: Any) -> Any:
    """Indices of keys other than CULLED in ascending order, ties by index: LSD radix sort, 11 bits a pass."""
    visible = 0
    for n in range(len(keys)):
        visible += keys[n] != CULLED
    order = np.empty(visible, np.int32)
    values = np.empty(visible, np.uint32)
    counts = np.zeros((3, 2048), np.int64)
    at = 0
    for n in range(len(keys)):
        key = keys[n]
        if key != CULLED:
            order[at] = n
            values[at] = key
            at += 1
            counts[0, key & 2047] += 1
            counts[1, (key >> 11) & 2047] += 1
            counts[2, key >> 22] += 1
    other_order = np.empty(visible, np.int32)
    other_values = np.empty(visible, np.uint32)
    for digit in range(3):
        before = 0
        for bucket in range(2048):
            counts[digit, bucket], before = before, before + counts[digit, bucket]
        for i in range(visible):
            bucket = (values[i] >> np.uint32(11 * digit)) & np.uint32(2047)
            target = counts[digit, bucket]
            counts[digit, bucket] = target + 1
            other_order[target] = order[i]
            other_values[target] = values[i]
        order, other_order = other_order, order
        values, other_values = other_values, values
    return order


@inlined
def _bin_range(x: float, extent: float, bin_px: int, bins: int) -> Any:
    """First and one past the last bin whose pixel centres an interval may touch."""
    low = max(0.0, min((x - extent) / bin_px, np.float64(bins)))
    high = max(0.0, min((x + extent) / bin_px, np.float64(bins)))
    return np.int64(low), min(np.int64(high) + 1, bins)


@kernel
def count_entries(
    counter: Any, ids: Any, rows: Any, sorted_rows: Any, bin_px: int, bins_x: int, bins_y: int, most: int,
    chunk_counts: Any, splat_counts: Any,
) -> None:  # fmt: skip
    """Bring rows into depth order; count entries per chunk and bin [chunks, bins], and per splat [N].

    Given up once a thread has more than `most`: then the sum of splat_counts is more, too, and the rest is unfinished.
    """
    count, found = len(ids), 0
    flat, sorted_flat = rows.reshape(-1), sorted_rows.reshape(-1)
    while True:
        chunk = take(counter)
        if (chunk * CHUNK >= count) | (found > most):
            break
        chunk_counts[chunk, :] = 0
        for i in range(chunk * CHUNK, min((chunk + 1) * CHUNK, count)):
            n = np.int64(ids[i])
            store(sorted_flat, i * ROW, load(flat, n * ROW))
            x0, x1 = _bin_range(rows[n, X], rows[n, EXTENT_X], bin_px, bins_x)
            y0, y1 = _bin_range(rows[n, Y], rows[n, EXTENT_Y], bin_px, bins_y)
            splat_counts[n] = (x1 - x0) * (y1 - y0)
            found += splat_counts[n]
            if found > most:
                break
            for y in range(y0, y1):
                for x in range(x0, x1):
                    chunk_counts[chunk, y * bins_x + x] += 1


@kernel
def place_starts(chunk_counts: Any, bin_start: Any, splat_counts: Any, first_slot: Any) -> None:
    """Turn counts into starts: of each bin, of each chunk inside each bin (in place), and of each splat's slots."""
    chunks, bins = chunk_counts.shape
    bin_start[0] = 0
    for bin in range(bins):
        bin_start[bin + 1] = 0
    for chunk in range(chunks):
        for bin in range(bins):
            bin_start[bin + 1] += chunk_counts[chunk, bin]
    for bin in range(bins):
        bin_start[bin + 1] += bin_start[bin]
    running = bin_start[:-1].copy()
    for chunk in range(chunks):
        for bin in range(bins):
            here = chunk_counts[chunk, bin]
            chunk_counts[chunk, bin] = running[bin]
            running[bin] += here
    first_slot[0] = 0
    for i in range(len(splat_counts)):
        first_slot[i + 1] = first_slot[i] + splat_counts[i]


@kernel
def place_entries(
    counter: Any, ids: Any, rows: Any, bin_px: int, bins_x: int, bins_y: int, chunk_starts: Any, first_slot: Any,
    entry_splat: Any, entry_slot: Any,
) -> None:  # fmt: skip
    """Write each splat (rows in depth order) into the lists of its bins."""
    count = len(rows)
    while True:
        chunk = take(counter)
        if chunk * CHUNK >= count:
            break
        for i in range(chunk * CHUNK, min((chunk + 1) * CHUNK, count)):
            slot = first_slot[ids[i]]
            x0, x1 = _bin_range(rows[i, X], rows[i, EXTENT_X], bin_px, bins_x)
            y0, y1 = _bin_range(rows[i, Y], rows[i, EXTENT_Y], bin_px, bins_y)
            for y in range(y0, y1):
                for x in range(x0, x1):
                    bin = y * bins_x + x
                    entry = chunk_starts[chunk, bin]
                    chunk_starts[chunk, bin] = entry + 1
                    entry_splat[entry] = i
                    entry_slot[entry] = slot
                    slot += 1


def bin_splats(rows: NDArray[np.float32], keys: NDArray[np.uint32], width: int, height: int) -> Tiling:
    """Sort projected splats by depth and into bins. rows: [N, ROW]; keys: [N], see `project`.

    Bins double in size while there would be more than MAX_ENTRIES entries, or MAX_COUNTS counts of them, so that
    neither many splats nor large ones nor a large picture take more memory.
    """
    ids = sort_visible(keys)
    sorted_rows = aligned_empty(len(ids), ROW)
    splat_counts = np.zeros(len(keys), np.int64)
    chunks = -(-len(ids) // CHUNK)
    split = 1
    while True:
        bin_px = TILE_PX * split
        bins_x, bins_y = -(-width // bin_px), -(-height // bin_px)
        one = bins_x * bins_y == 1
        if one or chunks * bins_x * bins_y <= MAX_COUNTS:
            most = len(keys) if one else MAX_ENTRIES
            chunk_counts = np.empty((chunks, bins_x * bins_y), np.int64)
            run(count_entries, ids, rows, sorted_rows, bin_px, bins_x, bins_y, most, chunk_counts, splat_counts)
            if one or int(splat_counts.sum()) <= MAX_ENTRIES:
                break
        split *= 2
    bin_start = np.empty(bins_x * bins_y + 1, np.int64)
    first_slot = np.empty(len(keys) + 1, np.int64)
    place_starts(chunk_counts, bin_start, splat_counts, first_slot)
    entry_splat = np.empty(bin_start[-1], np.int32)
    entry_slot = np.empty(bin_start[-1], np.int32)
    run(place_entries, ids, sorted_rows, bin_px, bins_x, bins_y, chunk_counts, first_slot, entry_splat, entry_slot)
    order = np.argsort(-np.diff(bin_start), kind="stable")
    tiles_x, tiles_y = -(-width // TILE_PX), -(-height // TILE_PX)
    return Tiling(
        split, tiles_x, tiles_y, ids, sorted_rows, bin_start, entry_splat, entry_slot, first_slot, order
    )  # fmt: skip

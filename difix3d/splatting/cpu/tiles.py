"""Which splats touch which tile of the picture, front to back.

One depth sort of all visible splats (radix, stable), then a counting sort into tiles that keeps the order.
Everything is a function of its input alone, however many threads share the work.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from difix3d.splatting.cpu.compile import inlined, kernel, run, take
from difix3d.splatting.cpu.lanes import load, store
from difix3d.splatting.cpu.projection import CULLED, EXTENT_X, EXTENT_Y, ROW, X, Y

TILE_PX = 32  # a multiple of the block size
MAX_ENTRIES = 1 << 24  # (splat, tile) pairs before tiles are made larger: 24 bytes each, and 40 more with gradients
CHUNK = 2048  # splats counted and placed at once


@dataclass(frozen=True)
class Tiling:
    """ids: [V] visible splats front to back; rows: [V, ROW] as projected, in that order. Entry e says that splat
    entry_splat[e] (row of `rows`) touches a tile; tile t owns entries tile_start[t]:tile_start[t + 1], front to back.
    entry_slot[e]: its row among gradient slots; splat n of all N owns slots first_slot[n]:first_slot[n + 1].
    order: tiles, most entries first."""

    tile_px: int
    tiles_x: int
    tiles_y: int
    ids: NDArray[np.int32]
    rows: NDArray[np.float32]
    tile_start: NDArray[np.int64]
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
def _tile_range(x: float, extent: float, tile_px: int, tiles: int) -> tuple[int, int]:
    """First and one past the last tile whose pixel centres an interval may touch."""
    low = max(0.0, min((x - extent) / tile_px, np.float64(tiles)))
    high = max(0.0, min((x + extent) / tile_px, np.float64(tiles)))
    return np.int64(low), min(np.int64(high) + 1, tiles)


@kernel
def count_entries(
    counter: Any, ids: Any, rows: Any, sorted_rows: Any, tile_px: int, tiles_x: int, tiles_y: int,
    chunk_counts: Any, splat_counts: Any,
) -> None:  # fmt: skip
    """Bring rows into depth order; count entries per chunk and tile [chunks, tiles], and per splat [N]."""
    count = len(ids)
    flat, sorted_flat = rows.reshape(-1), sorted_rows.reshape(-1)
    while True:
        chunk = take(counter)
        if chunk * CHUNK >= count:
            break
        chunk_counts[chunk, :] = 0
        for i in range(chunk * CHUNK, min((chunk + 1) * CHUNK, count)):
            n = np.int64(ids[i])
            store(sorted_flat, i * ROW, load(flat, n * ROW))
            x0, x1 = _tile_range(rows[n, X], rows[n, EXTENT_X], tile_px, tiles_x)
            y0, y1 = _tile_range(rows[n, Y], rows[n, EXTENT_Y], tile_px, tiles_y)
            splat_counts[n] = (x1 - x0) * (y1 - y0)
            for y in range(y0, y1):
                for x in range(x0, x1):
                    chunk_counts[chunk, y * tiles_x + x] += 1


@kernel
def place_starts(chunk_counts: Any, tile_start: Any, splat_counts: Any, first_slot: Any) -> None:
    """Turn counts into starts: of each tile, of each chunk inside each tile (in place), and of each splat's slots."""
    chunks, tiles = chunk_counts.shape
    tile_start[0] = 0
    for tile in range(tiles):
        tile_start[tile + 1] = 0
    for chunk in range(chunks):
        for tile in range(tiles):
            tile_start[tile + 1] += chunk_counts[chunk, tile]
    for tile in range(tiles):
        tile_start[tile + 1] += tile_start[tile]
    running = tile_start[:-1].copy()
    for chunk in range(chunks):
        for tile in range(tiles):
            here = chunk_counts[chunk, tile]
            chunk_counts[chunk, tile] = running[tile]
            running[tile] += here
    first_slot[0] = 0
    for i in range(len(splat_counts)):
        first_slot[i + 1] = first_slot[i] + splat_counts[i]


@kernel
def place_entries(
    counter: Any, ids: Any, rows: Any, tile_px: int, tiles_x: int, tiles_y: int, chunk_starts: Any, first_slot: Any,
    entry_splat: Any, entry_slot: Any,
) -> None:  # fmt: skip
    """Write each splat (rows in depth order) into the lists of its tiles."""
    count = len(rows)
    while True:
        chunk = take(counter)
        if chunk * CHUNK >= count:
            break
        for i in range(chunk * CHUNK, min((chunk + 1) * CHUNK, count)):
            slot = first_slot[ids[i]]
            x0, x1 = _tile_range(rows[i, X], rows[i, EXTENT_X], tile_px, tiles_x)
            y0, y1 = _tile_range(rows[i, Y], rows[i, EXTENT_Y], tile_px, tiles_y)
            for y in range(y0, y1):
                for x in range(x0, x1):
                    tile = y * tiles_x + x
                    entry = chunk_starts[chunk, tile]
                    chunk_starts[chunk, tile] = entry + 1
                    entry_splat[entry] = i
                    entry_slot[entry] = slot
                    slot += 1


def bin_splats(rows: NDArray[np.float32], keys: NDArray[np.uint32], width: int, height: int) -> Tiling:
    """Sort projected splats by depth and into tiles. rows: [N, ROW]; keys: [N], see `project`.

    Tiles double in size while there would be more than MAX_ENTRIES pairs (huge splats on a huge picture).
    """
    ids = sort_visible(keys)
    sorted_rows = np.empty((len(ids), ROW), np.float32)
    splat_counts = np.zeros(len(keys), np.int64)
    chunks = -(-len(ids) // CHUNK)
    tile_px = TILE_PX
    while True:
        tiles_x, tiles_y = -(-width // tile_px), -(-height // tile_px)
        chunk_counts = np.empty((chunks, tiles_x * tiles_y), np.int64)
        run(count_entries, ids, rows, sorted_rows, tile_px, tiles_x, tiles_y, chunk_counts, splat_counts)
        if tiles_x * tiles_y == 1 or int(splat_counts.sum()) <= MAX_ENTRIES:
            break
        tile_px *= 2
    tile_start = np.empty(tiles_x * tiles_y + 1, np.int64)
    first_slot = np.empty(len(keys) + 1, np.int64)
    place_starts(chunk_counts, tile_start, splat_counts, first_slot)
    entry_splat = np.empty(tile_start[-1], np.int32)
    entry_slot = np.empty(tile_start[-1], np.int32)
    run(place_entries, ids, sorted_rows, tile_px, tiles_x, tiles_y, chunk_counts, first_slot, entry_splat, entry_slot)
    order = np.argsort(-np.diff(tile_start), kind="stable")
    return Tiling(
        tile_px, tiles_x, tiles_y, ids, sorted_rows, tile_start, entry_splat, entry_slot, first_slot, order
    )  # fmt: skip

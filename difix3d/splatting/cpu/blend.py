"""Front-to-back blending of a tile's splats, and its gradient (3DGS Eq. 3), sixteen pixels at a time.

Notation, per pixel, splats i front to back
    sigma = |U d|^2 / 2, d = centre - pixel;  alpha = min(0.999, opacity exp(-sigma)), 0 below 1/255
    T_i = prod_{j<i} (1 - alpha_j);  w_i = alpha_i T_i;  T ends as the transmittance that the background shows through
    q_i = dL/dw_i at fixed others;  R_i = sum_{j>i} w_j q_j + T_end q_background
    so that dL/dalpha_i = T_i q_i - R_i / (1 - alpha_i)

Both directions walk front to back and repeat the same decisions: R starts as the sum over all splats, which the
forward pass's picture gives, and what a splat adds is taken off as it is passed.
A finished pixel has T negative: its size is the final transmittance, and every test `next > 1e-4` fails.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from difix3d.splatting.base import MAX_ALPHA, MIN_ALPHA, MIN_TRANSMITTANCE, TINY_ALPHA
from difix3d.splatting.cpu.compile import inlined, kernel, take
from difix3d.splatting.cpu.lanes import (
    BLOCK,
    WIDTH,
    anywhere,
    exp,
    fill,
    lane_x,
    lane_y,
    load,
    magnitude,
    select,
    store,
    total,
)
from difix3d.splatting.cpu.projection import (
    BLUE, DEPTH, EXTENT_X, EXTENT_Y, GREEN, LOG_OPACITY, RED, SLOT, A, B, C, X, Y,
)  # fmt: skip

LOG_MIN_ALPHA = math.log(MIN_ALPHA)
CHECK_EVERY = 8  # visits of a block between looks whether all its pixels are finished; a power of two


@inlined
def _block_range(centre: float, extent: float, origin: int, blocks: int) -> tuple[int, int]:
    """First and one past the last block of a tile with pixel centres inside centre +- extent."""
    low = (centre - extent - origin - 0.5) / BLOCK
    high = (centre + extent - origin - 0.5) / BLOCK
    first = np.int64(max(0.0, min(low, np.float64(blocks))))
    return first, min(np.int64(max(-1.0, min(high, np.float64(blocks))) + 1.0), blocks)


@inlined
def _first_transmittance(T: Any, alive: Any, blocks: int, x0: int, y0: int, width: int, height: int) -> int:
    """T = 1 inside the picture and -1 (finished) outside; alive[block] = 0; how many blocks have pixels inside."""
    inside = 0
    for block in range(blocks * blocks):
        bx, by = x0 + (block % blocks) * BLOCK, y0 + (block // blocks) * BLOCK
        shown = (lane_x() < np.float32(width - bx)) & (lane_y() < np.float32(height - by))
        store(T, block * WIDTH, select(shown, 1.0, -1.0))
        some = (bx < width) & (by < height)
        alive[block] = 0 if some else -1
        inside += some
    return inside


@kernel
def blend(
    counter: Any, tile_order: Any, tiles_x: int, tile_px: int, tile_start: Any, entry_splat: Any, rows: Any,
    background: Any, rgb: Any, alpha_out: Any, depth_out: Any, transmittance: Any,
) -> None:  # fmt: skip
    """Draw: rgb [H, W, 3] over background [3], alpha [H, W], depth [H, W], transmittance [H, W]."""
    height, width = alpha_out.shape
    blocks = tile_px // BLOCK
    lanes = blocks * blocks * WIDTH
    T, red, green, blue, far = np.empty(lanes, np.float32), np.empty(lanes, np.float32), np.empty(
        lanes, np.float32), np.empty(lanes, np.float32), np.empty(lanes, np.float32)  # fmt: skip
    alive = np.empty(blocks * blocks, np.int32)  # visits so far; -1: nothing left to do
    while True:
        turn = take(counter)
        if turn >= len(tile_order):
            break
        tile = tile_order[turn]
        x0, y0 = (tile % tiles_x) * tile_px, (tile // tiles_x) * tile_px
        left = _first_transmittance(T, alive, blocks, x0, y0, width, height)
        red[:] = 0.0
        green[:] = 0.0
        blue[:] = 0.0
        far[:] = 0.0
        for entry in range(tile_start[tile], tile_start[tile + 1]):
            if left == 0:
                break
            row = rows[entry_splat[entry]]
            bx0, bx1 = _block_range(row[X], row[EXTENT_X], x0, blocks)
            by0, by1 = _block_range(row[Y], row[EXTENT_Y], y0, blocks)
            a, b, c, log_opacity = row[A], row[B], row[C], row[LOG_OPACITY]
            for by in range(by0, by1):
                dy = (row[Y] - np.float32(y0 + by * BLOCK + 0.5)) - lane_y()
                v = c * dy
                bdy = b * dy
                ceiling = log_opacity - 0.5 * (v * v)
                for bx in range(bx0, bx1):
                    block = by * blocks + bx
                    if alive[block] < 0:
                        continue
                    at = block * WIDTH
                    dx = (row[X] - np.float32(x0 + bx * BLOCK + 0.5)) - lane_x()
                    u = a * dx + bdy
                    power = ceiling - 0.5 * (u * u)
                    alpha = exp(power)
                    alpha = select(alpha < MAX_ALPHA, alpha, MAX_ALPHA)
                    alpha = select(power >= LOG_MIN_ALPHA, alpha, 0.0)
                    now = load(T, at)
                    rest = now - now * alpha
                    go_on = rest > MIN_TRANSMITTANCE
                    w = select(go_on, now * alpha, 0.0)
                    store(T, at, select(go_on, rest, 0.0 - magnitude(now)))
                    store(red, at, load(red, at) + w * row[RED])
                    store(green, at, load(green, at) + w * row[GREEN])
                    store(blue, at, load(blue, at) + w * row[BLUE])
                    store(far, at, load(far, at) + w * row[DEPTH])
                    alive[block] += 1
                    if (alive[block] & (CHECK_EVERY - 1)) == 0 and not anywhere(load(T, at) > 0.0):
                        alive[block] = -1
                        left -= 1
        for y in range(y0, min(y0 + tile_px, height)):
            for x in range(x0, min(x0 + tile_px, width)):
                block = ((y - y0) // BLOCK) * blocks + (x - x0) // BLOCK
                at = block * WIDTH + ((y - y0) % BLOCK) * BLOCK + (x - x0) % BLOCK
                through = abs(T[at])
                opaque = np.float32(1.0) - through
                rgb[y, x, 0] = red[at] + through * background[0]
                rgb[y, x, 1] = green[at] + through * background[1]
                rgb[y, x, 2] = blue[at] + through * background[2]
                alpha_out[y, x] = opaque
                depth_out[y, x] = far[at] / max(opaque, np.float32(TINY_ALPHA))
                transmittance[y, x] = through


@kernel
def blend_backward(
    counter: Any, tile_order: Any, tiles_x: int, tile_px: int, tile_start: Any, entry_splat: Any, entry_slot: Any,
    rows: Any, rgb: Any, depth: Any, transmittance: Any, grad_rgb: Any, grad_alpha: Any, grad_depth: Any, slots: Any,
) -> None:  # fmt: skip
    """Write every entry's gradient slot [entries, SLOT], given dL/d(rgb, alpha, depth) of the picture drawn."""
    height, width = transmittance.shape
    blocks = tile_px // BLOCK
    lanes = blocks * blocks * WIDTH
    T, R, gr, gg, gb = np.empty(lanes, np.float32), np.empty(lanes, np.float32), np.zeros(
        lanes, np.float32), np.zeros(lanes, np.float32), np.zeros(lanes, np.float32)  # fmt: skip
    gz, gc = np.zeros(lanes, np.float32), np.zeros(lanes, np.float32)
    alive = np.empty(blocks * blocks, np.int32)
    while True:
        turn = take(counter)
        if turn >= len(tile_order):
            break
        tile = tile_order[turn]
        x0, y0 = (tile % tiles_x) * tile_px, (tile // tiles_x) * tile_px
        left = _first_transmittance(T, alive, blocks, x0, y0, width, height)
        if (x0 + tile_px > width) | (y0 + tile_px > height):  # lanes outside the picture keep nothing of another tile
            R[:], gr[:], gg[:], gb[:], gz[:], gc[:] = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
        for y in range(y0, min(y0 + tile_px, height)):
            for x in range(x0, min(x0 + tile_px, width)):
                block = ((y - y0) // BLOCK) * blocks + (x - x0) // BLOCK
                at = block * WIDTH + ((y - y0) % BLOCK) * BLOCK + (x - x0) % BLOCK
                gr[at], gg[at], gb[at] = grad_rgb[y, x, 0], grad_rgb[y, x, 1], grad_rgb[y, x, 2]
                # depth = sum(w z) / sum(w), so dL/dw_i holds (z_i - depth): these sum to zero over the splats
                opaque = np.float32(1.0) - transmittance[y, x]
                per_weight = grad_depth[y, x] / max(opaque, np.float32(TINY_ALPHA))
                gz[at] = per_weight
                gc[at] = -per_weight * depth[y, x]
                R[at] = (
                    rgb[y, x, 0] * gr[at]
                    + rgb[y, x, 1] * gg[at]
                    + rgb[y, x, 2] * gb[at]
                    - transmittance[y, x] * grad_alpha[y, x]
                )
        for entry in range(tile_start[tile], tile_start[tile + 1]):
            slot = slots[entry_slot[entry]]
            row = rows[entry_splat[entry]]
            bx0, bx1 = _block_range(row[X], row[EXTENT_X], x0, blocks)
            by0, by1 = _block_range(row[Y], row[EXTENT_Y], y0, blocks)
            if left == 0:
                bx1 = bx0
            a, b, c, log_opacity = row[A], row[B], row[C], row[LOG_OPACITY]
            s0, sx, sy = fill(0.0), fill(0.0), fill(0.0)
            sxx, sxy, syy = fill(0.0), fill(0.0), fill(0.0)
            dred, dgreen, dblue, dfar = fill(0.0), fill(0.0), fill(0.0), fill(0.0)
            for by in range(by0, by1):
                dy = (row[Y] - np.float32(y0 + by * BLOCK + 0.5)) - lane_y()
                v = c * dy
                bdy = b * dy
                ceiling = log_opacity - 0.5 * (v * v)
                for bx in range(bx0, bx1):
                    block = by * blocks + bx
                    if alive[block] < 0:
                        continue
                    at = block * WIDTH
                    dx = (row[X] - np.float32(x0 + bx * BLOCK + 0.5)) - lane_x()
                    u = a * dx + bdy
                    power = ceiling - 0.5 * (u * u)
                    unclipped = exp(power)
                    alpha = select(unclipped < MAX_ALPHA, unclipped, MAX_ALPHA)
                    alpha = select(power >= LOG_MIN_ALPHA, alpha, 0.0)
                    now = load(T, at)
                    rest = now - now * alpha
                    go_on = rest > MIN_TRANSMITTANCE
                    w = select(go_on, now * alpha, 0.0)
                    store(T, at, select(go_on, rest, 0.0 - magnitude(now)))
                    vr, vg, vb, vz = load(gr, at), load(gg, at), load(gb, at), load(gz, at)
                    q = vr * row[RED] + vg * row[GREEN] + vb * row[BLUE] + vz * row[DEPTH] + load(gc, at)
                    wq = w * q
                    behind = load(R, at) - wq
                    store(R, at, behind)
                    # dL/dsigma = -alpha dL/dalpha, none where alpha is clipped
                    s = behind * (alpha / (1.0 - alpha)) - wq
                    s = select((w > 0.0) & (unclipped <= MAX_ALPHA), s, 0.0)
                    s0 = s0 + s
                    sdx = s * dx
                    sdy = s * dy
                    sx = sx + sdx
                    sy = sy + sdy
                    sxx = sxx + sdx * dx
                    sxy = sxy + sdx * dy
                    syy = syy + sdy * dy
                    dred = dred + w * vr
                    dgreen = dgreen + w * vg
                    dblue = dblue + w * vb
                    dfar = dfar + w * vz
                    alive[block] += 1
                    if (alive[block] & (CHECK_EVERY - 1)) == 0 and not anywhere(load(T, at) > 0.0):
                        alive[block] = -1
                        left -= 1
            slot[0], slot[1], slot[2] = total(s0), total(sx), total(sy)
            slot[3], slot[4], slot[5] = total(sxx), total(sxy), total(syy)
            slot[6], slot[7], slot[8], slot[9] = total(dred), total(dgreen), total(dblue), total(dfar)

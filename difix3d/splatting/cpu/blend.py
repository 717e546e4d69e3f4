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
    lane_index,
    lane_x,
    lane_y,
    larger,
    load,
    magnitude,
    select,
    smaller,
    sqrt,
    store,
    total,
)
from difix3d.splatting.cpu.projection import (
    BLUE,
    DEPTH,
    EXTENT_Y,
    GREEN,
    INVERSE_A,
    LOG_OPACITY,
    REACH2,
    RED,
    TURN_Y,
    A,
    B,
    C,
    X,
    Y,
)  # fmt: skip

LOG_MIN_ALPHA = math.log(MIN_ALPHA)
SLACK_PX = 0.01  # rounding must not lose a block
CHECK_EVERY = 8  # visits of a block between looks whether all its pixels are finished; a power of two


@inlined
def _block_rows(row: Any, y0: int, blocks: int) -> tuple[int, int]:
    """First and one past the last row of blocks that a splat touches in the tile that begins at y0."""
    low = (row[Y] - row[EXTENT_Y] - y0 - (BLOCK - 0.5)) / BLOCK + 1.0
    high = (row[Y] + row[EXTENT_Y] - y0 - 0.5) / BLOCK + 1.0
    first = np.int64(max(0.0, min(low, np.float64(blocks))))
    return first, np.int64(max(0.0, min(high, np.float64(blocks))))


@inlined
def _block_spans(spans: Any, row: Any, x0: int, y: int, blocks: int) -> None:
    """spans [32]: for sixteen rows of blocks from pixel row y on, the first block that the ellipse touches there, and
    one past the last: its sides x(dy) = (-b dy -+ sqrt(reach^2 - c^2 dy^2)) / a at their outermost in each row."""
    top = (np.float32(y + 0.5) - row[Y]) + BLOCK * lane_index()
    bottom = top + (BLOCK - 1.0)
    turn = row[TURN_Y]
    right_y = smaller(larger(top, turn), bottom)
    left_y = smaller(larger(top, -turn), bottom)
    b, c2, reach2 = row[B], row[C] * row[C], row[REACH2]
    right = sqrt(larger(reach2 - c2 * (right_y * right_y), 0.0)) - b * right_y
    left = sqrt(larger(reach2 - c2 * (left_y * left_y), 0.0)) + b * left_y
    centre = row[X] - np.float32(x0)
    first = ((centre - SLACK_PX - (BLOCK - 0.5)) - left * row[INVERSE_A]) * (1.0 / BLOCK) + 1.0
    past = ((centre + SLACK_PX - 0.5) + right * row[INVERSE_A]) * (1.0 / BLOCK) + 1.0
    store(spans, 0, smaller(larger(first, 0.0), np.float32(blocks)))
    store(spans, WIDTH, smaller(larger(past, 0.0), np.float32(blocks)))


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
    spans = np.empty(2 * WIDTH, np.float32)
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
            by0, by1 = _block_rows(row, y0, blocks)
            a, b, c, log_opacity = row[A], row[B], row[C], row[LOG_OPACITY]
            for by in range(by0, by1):
                dy = (row[Y] - np.float32(y0 + by * BLOCK + 0.5)) - lane_y()
                v = c * dy
                bdy = b * dy
                ceiling = log_opacity - 0.5 * (v * v)
                if (by - by0) % WIDTH == 0:
                    _block_spans(spans, row, x0, y0 + by * BLOCK, blocks)
                in_spans = (by - by0) % WIDTH
                for bx in range(np.int64(spans[in_spans]), np.int64(spans[WIDTH + in_spans])):
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
    spans = np.empty(2 * WIDTH, np.float32)
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
            by0, by1 = _block_rows(row, y0, blocks)
            if left == 0:
                by1 = by0
            a, b, c, log_opacity = row[A], row[B], row[C], row[LOG_OPACITY]
            s0, sx, sy = fill(0.0), fill(0.0), fill(0.0)
            sxx, sxy, syy = fill(0.0), fill(0.0), fill(0.0)
            dred, dgreen, dblue, dfar = fill(0.0), fill(0.0), fill(0.0), fill(0.0)
            for by in range(by0, by1):
                dy = (row[Y] - np.float32(y0 + by * BLOCK + 0.5)) - lane_y()
                v = c * dy
                bdy = b * dy
                ceiling = log_opacity - 0.5 * (v * v)
                if (by - by0) % WIDTH == 0:
                    _block_spans(spans, row, x0, y0 + by * BLOCK, blocks)
                in_spans = (by - by0) % WIDTH
                for bx in range(np.int64(spans[in_spans]), np.int64(spans[WIDTH + in_spans])):
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

"""Front-to-back blending of a tile's splats, and its gradient (3DGS Eq. 3), sixteen pixels at a time.

Notation, per pixel, splats i front to back
    sigma = log(2) |U d|^2, d = centre - pixel;  alpha = min(0.999, opacity exp(-sigma)), 0 below 1/255
    T_i = prod_{j<i} (1 - alpha_j);  w_i = alpha_i T_i;  T ends as the transmittance that the background shows through
    q_i = dL/dw_i at fixed others;  R_i = sum_{j>i} w_j q_j + T_end q_background
    so that dL/dalpha_i = T_i q_i - R_i / (1 - alpha_i)

Both directions walk front to back and repeat the same decisions: R starts as the sum over all splats, which the
forward pass's picture gives, and what a splat adds is taken off as it is passed.
A finished pixel has T negative: its size is the final transmittance, and every test `next > 1e-4` fails.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from difix3d.splatting.base import MAX_ALPHA, MIN_TRANSMITTANCE, TINY_ALPHA
from difix3d.splatting.cpu.compile import aligned_lanes, inlined, kernel, take
from difix3d.splatting.cpu.lanes import (
    BLOCK,
    WIDTH,
    anywhere,
    exp2,
    fill,
    lane_index,
    lane_x,
    lane_y,
    larger,
    load,
    lowest_bit,
    magnitude,
    reciprocal,
    row_bits,
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
    LOG2_MIN_ALPHA,
    LOG2_OPACITY,
    REACH2,
    RED,
    TURN_Y,
    A,
    B,
    C,
    X,
    Y,
)
from difix3d.splatting.cpu.projection_backward import (
    ABS_X,
    ABS_Y,
    SU,
    SUU,
    SUV,
    SV,
    SVV,
    TO_BLUE,
    TO_DEPTH,
    TO_GREEN,
    TO_RED,
    S,
)
from difix3d.splatting.cpu.tiles import TILE_PX

TILE_BLOCKS = TILE_PX // BLOCK
TILE_LANES = TILE_PX * TILE_PX
SLACK_PX = 0.01  # rounding must not lose a block
CHECK_EVERY = 32  # splats between looks which blocks are finished; a power of two


@inlined
def _touched(row: Any, x0: int, y0: int) -> Any:
    """Bits of the tile's blocks that an ellipse touches. Its sides x(dy) = (-b dy -+ sqrt(reach^2 - c^2 dy^2)) / a are
    taken where they lie outermost within each row of blocks, all rows at once."""
    top = (np.float32(y0 + 0.5) - row[Y]) + BLOCK * lane_index()
    bottom = top + (BLOCK - 1.0)
    turn, b, c2 = row[TURN_Y], row[B], row[C] * row[C]
    right_y = smaller(larger(top, turn), bottom)
    left_y = smaller(larger(top, -turn), bottom)
    right = sqrt(larger(row[REACH2] - c2 * (right_y * right_y), 0.0)) - b * right_y
    left = sqrt(larger(row[REACH2] - c2 * (left_y * left_y), 0.0)) + b * left_y
    centre = row[X] - np.float32(x0)
    first = ((centre - (SLACK_PX + BLOCK - 0.5)) - left * row[INVERSE_A]) * (1.0 / BLOCK) + 1.0
    past = ((centre + (SLACK_PX - 0.5)) + right * row[INVERSE_A]) * (1.0 / BLOCK) + 1.0
    first = smaller(larger(first, 0.0), TILE_BLOCKS)
    past = smaller(larger(past, first), TILE_BLOCKS)
    reached = (bottom + row[EXTENT_Y] >= -SLACK_PX) & (top - row[EXTENT_Y] <= SLACK_PX)
    return row_bits(first, select(reached, past, first))


@inlined
def _begin(T: Any, x0: int, y0: int, width: int, height: int) -> Any:
    """T = 1 inside the picture and -1 (finished) outside; bits of the blocks that have pixels inside."""
    alive = np.uint64(0)
    for block in range(TILE_BLOCKS * TILE_BLOCKS):
        bx, by = x0 + (block % TILE_BLOCKS) * BLOCK, y0 + (block // TILE_BLOCKS) * BLOCK
        shown = (lane_x() < np.float32(width - bx)) & (lane_y() < np.float32(height - by))
        store(T, block * WIDTH, select(shown, 1.0, -1.0))
        if (bx < width) & (by < height):
            alive |= np.uint64(1) << np.uint64(block)
    return alive


@inlined
def _still_alive(T: Any, alive: Any) -> Any:
    """alive without the blocks whose pixels are all finished."""
    left = alive
    while left != np.uint64(0):
        block = lowest_bit(left)
        left &= left - np.uint64(1)
        if not anywhere(load(T, block * np.uint64(WIDTH)) > 0.0):
            alive ^= np.uint64(1) << block
    return alive


@kernel
def blend(
    counter: Any, order: Any, tiles_x: int, tiles_y: int, split: int, bin_start: Any, entry_splat: Any, rows: Any,
    background: Any, rgb: Any, alpha_out: Any, depth_out: Any, transmittance: Any,
) -> None:  # fmt: skip
    """Draw: rgb [H, W, 3] over background [3], alpha [H, W], depth [H, W], transmittance [H, W].

    A bin of the entry lists is split x split tiles; order: bins, in the order they are dealt out."""
    height, width = alpha_out.shape
    T, red, green = aligned_lanes(TILE_LANES), aligned_lanes(TILE_LANES), aligned_lanes(TILE_LANES)
    blue, far = aligned_lanes(TILE_LANES), aligned_lanes(TILE_LANES)
    bins_x = -(-tiles_x // split)
    while True:
        turn = take(counter)
        if turn >= len(order) * split * split:
            break
        at_bin, part = order[turn // (split * split)], turn % (split * split)
        tile_x, tile_y = (at_bin % bins_x) * split + part % split, (at_bin // bins_x) * split + part // split
        if (tile_x >= tiles_x) | (tile_y >= tiles_y):
            continue
        x0, y0 = tile_x * TILE_PX, tile_y * TILE_PX
        alive = _begin(T, x0, y0, width, height)
        red[:], green[:], blue[:], far[:] = 0.0, 0.0, 0.0, 0.0
        for entry in range(bin_start[at_bin], bin_start[at_bin + 1]):
            if (entry & (CHECK_EVERY - 1)) == 0:
                alive = _still_alive(T, alive)
                if alive == np.uint64(0):
                    break
            row = rows[entry_splat[entry]]
            bits = _touched(row, x0, y0) & alive
            a, b, c, log2_opacity = row[A], row[B], row[C], row[LOG2_OPACITY]
            own_red, own_green, own_blue, own_z = fill(row[RED]), fill(row[GREEN]), fill(row[BLUE]), fill(row[DEPTH])
            corner_x = (row[X] - np.float32(x0 + 0.5)) - lane_x()
            corner_y = (row[Y] - np.float32(y0 + 0.5)) - lane_y()
            while bits != np.uint64(0):
                block = lowest_bit(bits)
                bits &= bits - np.uint64(1)
                at = block * np.uint64(WIDTH)
                dx = corner_x - np.float32((block % np.uint64(TILE_BLOCKS)) * np.uint64(BLOCK))
                dy = corner_y - np.float32((block // np.uint64(TILE_BLOCKS)) * np.uint64(BLOCK))
                u, v = a * dx + b * dy, c * dy
                power = log2_opacity - v * v - u * u
                alpha = select(power >= LOG2_MIN_ALPHA, smaller(exp2(power), MAX_ALPHA), 0.0)
                now = load(T, at)
                rest = now - now * alpha
                go_on = rest > MIN_TRANSMITTANCE
                w = select(go_on, now * alpha, 0.0)
                store(T, at, select(go_on, rest, 0.0 - magnitude(now)))
                store(red, at, load(red, at) + w * own_red)
                store(green, at, load(green, at) + w * own_green)
                store(blue, at, load(blue, at) + w * own_blue)
                store(far, at, load(far, at) + w * own_z)
        for block in range(TILE_BLOCKS * TILE_BLOCKS):
            at = block * WIDTH
            through = magnitude(load(T, at))
            store(T, at, through)
            store(red, at, load(red, at) + through * background[0])
            store(green, at, load(green, at) + through * background[1])
            store(blue, at, load(blue, at) + through * background[2])
            store(far, at, load(far, at) / larger(1.0 - through, TINY_ALPHA))
            bx, by = x0 + (block % TILE_BLOCKS) * BLOCK, y0 + (block // TILE_BLOCKS) * BLOCK
            for j in range(min(BLOCK, height - by)):
                for i in range(min(BLOCK, width - bx)):
                    pixel = at + j * BLOCK + i
                    rgb[by + j, bx + i, 0] = red[pixel]
                    rgb[by + j, bx + i, 1] = green[pixel]
                    rgb[by + j, bx + i, 2] = blue[pixel]
                    alpha_out[by + j, bx + i] = np.float32(1.0) - T[pixel]
                    depth_out[by + j, bx + i] = far[pixel]
                    transmittance[by + j, bx + i] = T[pixel]


@kernel
def blend_backward(
    counter: Any, order: Any, tiles_x: int, tiles_y: int, split: int, bin_start: Any, entry_splat: Any,
    entry_slot: Any, rows: Any, rgb: Any, depth: Any, transmittance: Any, grad_rgb: Any, grad_alpha: Any,
    grad_depth: Any, slots: Any,
) -> None:  # fmt: skip
    """Write every entry's gradient slot [entries, SLOT], given dL/d(rgb, alpha, depth) of the picture drawn.

    grad_alpha and grad_depth may be empty [0, 0]: none. One thread walks all tiles of a bin, adding to its slots."""
    height, width = transmittance.shape
    with_alpha, with_depth = grad_alpha.size > 0, grad_depth.size > 0
    T, R, gr = aligned_lanes(TILE_LANES), aligned_lanes(TILE_LANES), aligned_lanes(TILE_LANES)
    gg, gb = aligned_lanes(TILE_LANES), aligned_lanes(TILE_LANES)
    gz, gc = aligned_lanes(TILE_LANES), aligned_lanes(TILE_LANES)
    bins_x = -(-tiles_x // split)
    while True:
        turn = take(counter)
        if turn >= len(order):
            break
        at_bin = order[turn]
        for entry in range(bin_start[at_bin], bin_start[at_bin + 1]):
            slots[entry_slot[entry]] = 0.0
        for part in range(split * split):
            tile_x, tile_y = (at_bin % bins_x) * split + part % split, (at_bin // bins_x) * split + part // split
            if (tile_x >= tiles_x) | (tile_y >= tiles_y):
                continue
            x0, y0 = tile_x * TILE_PX, tile_y * TILE_PX
            alive = _begin(T, x0, y0, width, height)
            if (x0 + TILE_PX > width) | (y0 + TILE_PX > height):  # nothing of another tile outside the picture
                R[:], gr[:], gg[:], gb[:], gz[:], gc[:] = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
            for block in range(TILE_BLOCKS * TILE_BLOCKS):
                bx, by = x0 + (block % TILE_BLOCKS) * BLOCK, y0 + (block // TILE_BLOCKS) * BLOCK
                for j in range(min(BLOCK, height - by)):
                    for i in range(min(BLOCK, width - bx)):
                        pixel, y, x = block * WIDTH + j * BLOCK + i, by + j, bx + i
                        gr[pixel], gg[pixel], gb[pixel] = grad_rgb[y, x, 0], grad_rgb[y, x, 1], grad_rgb[y, x, 2]
                        R[pixel] = rgb[y, x, 0] * gr[pixel] + rgb[y, x, 1] * gg[pixel] + rgb[y, x, 2] * gb[pixel]
                        if with_alpha:
                            R[pixel] -= transmittance[y, x] * grad_alpha[y, x]
                        if with_depth:
                            # depth = sum(w z) / sum(w): dL/dw_i holds (z_i - depth), and these add nothing to R
                            opaque = max(np.float32(1.0) - transmittance[y, x], np.float32(TINY_ALPHA))
                            gz[pixel] = grad_depth[y, x] / opaque
                            gc[pixel] = -gz[pixel] * depth[y, x]
            for entry in range(bin_start[at_bin], bin_start[at_bin + 1]):
                if (entry & (CHECK_EVERY - 1)) == 0:
                    alive = _still_alive(T, alive)
                    if alive == np.uint64(0):
                        break
                row = rows[entry_splat[entry]]
                bits = _touched(row, x0, y0) & alive
                if bits == np.uint64(0):
                    continue
                a, b, c, log2_opacity = row[A], row[B], row[C], row[LOG2_OPACITY]
                own_red, own_green, own_blue = fill(row[RED]), fill(row[GREEN]), fill(row[BLUE])
                own_z = fill(row[DEPTH])
                corner_x = (row[X] - np.float32(x0 + 0.5)) - lane_x()
                corner_y = (row[Y] - np.float32(y0 + 0.5)) - lane_y()
                s, su, sv, suu, suv, svv = fill(0.0), fill(0.0), fill(0.0), fill(0.0), fill(0.0), fill(0.0)
                to_red, to_green, to_blue, to_z = fill(0.0), fill(0.0), fill(0.0), fill(0.0)
                abs_u, abs_y = fill(0.0), fill(0.0)
                while bits != np.uint64(0):
                    block = lowest_bit(bits)
                    bits &= bits - np.uint64(1)
                    at = block * np.uint64(WIDTH)
                    dx = corner_x - np.float32((block % np.uint64(TILE_BLOCKS)) * np.uint64(BLOCK))
                    dy = corner_y - np.float32((block // np.uint64(TILE_BLOCKS)) * np.uint64(BLOCK))
                    u, v = a * dx + b * dy, c * dy
                    power = log2_opacity - v * v - u * u
                    unclipped = exp2(power)
                    alpha = select(power >= LOG2_MIN_ALPHA, smaller(unclipped, MAX_ALPHA), 0.0)
                    now = load(T, at)
                    rest = now - now * alpha
                    go_on = rest > MIN_TRANSMITTANCE
                    w = select(go_on, now * alpha, 0.0)
                    store(T, at, select(go_on, rest, 0.0 - magnitude(now)))
                    vr, vg, vb = load(gr, at), load(gg, at), load(gb, at)
                    q = vr * own_red + vg * own_green + vb * own_blue
                    if with_depth:
                        vz = load(gz, at)
                        q = q + vz * own_z + load(gc, at)
                        to_z = to_z + w * vz
                    wq = w * q
                    behind = load(R, at) - wq
                    store(R, at, behind)
                    # dL/dsigma = -alpha dL/dalpha = R alpha / (1 - alpha) - w q; none where alpha is clipped
                    own_s = behind * alpha * reciprocal(1.0 - alpha) - wq
                    own_s = select((w > 0.0) & (unclipped <= MAX_ALPHA), own_s, 0.0)
                    own_su, own_sv = own_s * u, own_s * v
                    abs_u, abs_y = abs_u + magnitude(own_su), abs_y + magnitude(b * own_su + c * own_sv)
                    s, su, sv = s + own_s, su + own_su, sv + own_sv
                    suu, suv, svv = suu + own_su * u, suv + own_su * v, svv + own_sv * v
                    to_red, to_green, to_blue = to_red + w * vr, to_green + w * vg, to_blue + w * vb
                slot = slots[entry_slot[entry]]
                slot[S] += total(s)
                slot[SU] += total(su)
                slot[SV] += total(sv)
                slot[SUU] += total(suu)
                slot[SUV] += total(suv)
                slot[SVV] += total(svv)
                slot[TO_RED] += total(to_red)
                slot[TO_GREEN] += total(to_green)
                slot[TO_BLUE] += total(to_blue)
                slot[TO_DEPTH] += total(to_z)
                slot[ABS_X] += a * total(abs_u)
                slot[ABS_Y] += total(abs_y)

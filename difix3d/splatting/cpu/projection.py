"""From splats in the world to ellipses on the screen (EWA splatting, 3DGS Eq. 5), sixteen splats at a time.

Notation, per splat
    o = mean - camera centre, t = W o      W is the rotation of cam_from_world
    J                                      Jacobian of the projection at t, 2x3; P = J W
    Q = P R(q) diag(s)                     2x3, rows q0 and q1; screen covariance C = Q Q^T + 0.3 I
    C^-1 = 2 log(2) U^T U, U = [[a, b], [0, c]]    so that alpha = 2^(log2 opacity - |U d|^2); the exponent is a sum of
                                           squares, and rounding cannot turn it positive

det C is taken as |q0 x q1|^2 + 0.3 (|q0|^2 + |q1|^2) + 0.3^2 (Lagrange), which unlike C00 C11 - C01^2 does not cancel
for needles, so that float32 is enough.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from difix3d.splatting.base import BLUR_PX2, FOV_MARGIN, LARGEST, MIN_ALPHA, NEAR_PLANE
from difix3d.splatting.cpu.compile import inlined, kernel, take
from difix3d.splatting.cpu.lanes import (
    WIDTH,
    anywhere,
    exp,
    fill,
    larger,
    load,
    log,
    magnitude,
    select,
    smaller,
    sqrt,
    store,
)
from difix3d.splatting.cpu.sh import fill_basis
from difix3d.types import Camera

# A projected splat: one cache line of floats
ROW = 16
X, Y, A, B, C, LOG2_OPACITY, RED, GREEN, BLUE, DEPTH, EXTENT_X, EXTENT_Y, REACH2, TURN_Y, INVERSE_A = range(15)

# Camera vector: W row by row, then
CENTRE, FX, FY, CX, CY, IMAGE_WIDTH, IMAGE_HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 9, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21

PARAMETERS = 11  # mean, quat, log-scale, opacity logit
GROUPS = 16  # groups of sixteen splats dealt out at once
CULLED = np.uint32(0xFFFFFFFF)
LARGEST_DET_PX4 = 1e30
"""Splats whose determinant of the projected covariance is beyond this are not drawn: 3e7 pixels across, and float32
would not hold what is made of it. These kernels' own limit: gsplat has none."""
LOG2_MIN_ALPHA = math.log2(MIN_ALPHA)
TO_BITS = math.sqrt(0.5 / math.log(2))  # brings a factor of C^-1 to one of C^-1 / (2 log 2)


def camera_vector(camera: Camera) -> NDArray[np.float32]:
    """The camera as the kernels read it. LEFT to BOTTOM hold x/z and y/z where the Jacobian stops changing: beyond
    the picture and a margin the affine approximation explodes."""
    K = camera.K
    focal, centre = np.array([K[0, 0], K[1, 1]]), np.array([K[0, 2], K[1, 2]])
    size = np.array([camera.width, camera.height])
    margin = FOV_MARGIN * 0.5 * size / focal
    low, high = -centre / focal - margin, (size - centre) / focal + margin
    rotation = camera.cam_from_world[:3, :3].ravel()
    return np.concatenate(
        [rotation, camera.position, focal, centre, size, [low[0], high[0], low[1], high[1]]], dtype=np.float32
    )


@inlined
def load_splats(own: Any, means: Any, quats: Any, log_scales: Any, opacity_logits: Any, start: int) -> None:
    """own [PARAMETERS * 16]: parameters of splats start to start + 15 (the last one again beyond the end)."""
    for i in range(WIDTH):
        n = min(start + i, len(means) - 1)
        own[i], own[WIDTH + i], own[2 * WIDTH + i] = means[n, 0], means[n, 1], means[n, 2]
        own[3 * WIDTH + i], own[4 * WIDTH + i] = quats[n, 0], quats[n, 1]
        own[5 * WIDTH + i], own[6 * WIDTH + i] = quats[n, 2], quats[n, 3]
        own[7 * WIDTH + i], own[8 * WIDTH + i] = log_scales[n, 0], log_scales[n, 1]
        own[9 * WIDTH + i], own[10 * WIDTH + i] = log_scales[n, 2], opacity_logits[n]


@inlined
def offsets(own: Any, cam: Any) -> Any:
    """o and t."""
    ox, oy = load(own, 0) - cam[CENTRE], load(own, WIDTH) - cam[CENTRE + 1]
    oz = load(own, 2 * WIDTH) - cam[CENTRE + 2]
    tx = ox * cam[0] + oy * cam[1] + oz * cam[2]
    ty = ox * cam[3] + oy * cam[4] + oz * cam[5]
    tz = ox * cam[6] + oy * cam[7] + oz * cam[8]
    return ox, oy, oz, tx, ty, tz


@inlined
def unit_quaternion(own: Any) -> Any:
    """w, x, y, z and 1 / length before."""
    w, x, y, z = load(own, 3 * WIDTH), load(own, 4 * WIDTH), load(own, 5 * WIDTH), load(own, 6 * WIDTH)
    over = 1.0 / sqrt(w * w + x * x + y * y + z * z)
    return w * over, x * over, y * over, z * over, over


@inlined
def rotation_rows(w: Any, x: Any, y: Any, z: Any) -> Any:
    """R of a unit quaternion, row by row."""
    x2, y2, z2 = x + x, y + y, z + z
    xx, yy, zz, xy, xz, yz = x * x2, y * y2, z * z2, x * y2, x * z2, y * z2
    wx, wy, wz = w * x2, w * y2, w * z2
    return (
        1.0 - yy - zz, xy - wz, xz + wy,
        xy + wz, 1.0 - xx - zz, yz - wx,
        xz - wy, yz + wx, 1.0 - xx - yy,
    )  # fmt: skip


@inlined
def held(slope: Any, low: float, high: float) -> Any:
    return smaller(larger(slope, low), high)


@inlined
def screen_axes(cam: Any, over_z: Any, hx: Any, hy: Any) -> Any:
    """P = J W, row by row; J = [[fx/z, 0, -fx hx/z], [0, fy/z, -fy hy/z]]."""
    jx, jy = over_z * cam[FX], over_z * cam[FY]
    return (
        jx * (cam[0] - hx * cam[6]), jx * (cam[1] - hx * cam[7]), jx * (cam[2] - hx * cam[8]),
        jy * (cam[3] - hy * cam[6]), jy * (cam[4] - hy * cam[7]), jy * (cam[5] - hy * cam[8]),
    )  # fmt: skip


@inlined
def scaled_axes(p: Any, r: Any, s0: Any, s1: Any, s2: Any) -> Any:
    """Q, row by row."""
    return (
        (p[0] * r[0] + p[1] * r[3] + p[2] * r[6]) * s0,
        (p[0] * r[1] + p[1] * r[4] + p[2] * r[7]) * s1,
        (p[0] * r[2] + p[1] * r[5] + p[2] * r[8]) * s2,
        (p[3] * r[0] + p[4] * r[3] + p[5] * r[6]) * s0,
        (p[3] * r[1] + p[4] * r[4] + p[5] * r[7]) * s1,
        (p[3] * r[2] + p[4] * r[5] + p[5] * r[8]) * s2,
    )


@inlined
def _finite(own: Any) -> Any:
    """Mask of splats without a NaN or an infinity."""
    size = magnitude(load(own, 0))
    for k in range(1, PARAMETERS):
        size = size + magnitude(load(own, k * WIDTH))
    return size < LARGEST


@inlined
def _ellipses(own: Any, cam: Any, out: Any) -> Any:
    """Write everything of a row but its colour to out [ROW * 16]; mask of the splats that touch the picture.

    Comparisons are such that a NaN culls."""
    _, _, _, tx, ty, tz = offsets(own, cam)
    over_z = 1.0 / tz
    slope_x, slope_y = tx * over_z, ty * over_z
    u, v = slope_x * cam[FX] + cam[CX], slope_y * cam[FY] + cam[CY]
    w, x, y, z, _ = unit_quaternion(own)
    p = screen_axes(cam, over_z, held(slope_x, cam[LEFT], cam[RIGHT]), held(slope_y, cam[TOP], cam[BOTTOM]))
    s0, s1, s2 = exp(load(own, 7 * WIDTH)), exp(load(own, 8 * WIDTH)), exp(load(own, 9 * WIDTH))
    q = scaled_axes(p, rotation_rows(w, x, y, z), s0, s1, s2)
    c00 = q[0] * q[0] + q[1] * q[1] + q[2] * q[2]
    c01 = q[0] * q[3] + q[1] * q[4] + q[2] * q[5]
    c11 = q[3] * q[3] + q[4] * q[4] + q[5] * q[5]
    n0, n1, n2 = q[1] * q[5] - q[2] * q[4], q[2] * q[3] - q[0] * q[5], q[0] * q[4] - q[1] * q[3]
    det = n0 * n0 + n1 * n1 + n2 * n2 + (c00 + c11) * BLUR_PX2 + BLUR_PX2 * BLUR_PX2
    c00, c11 = c00 + BLUR_PX2, c11 + BLUR_PX2

    opacity = 1.0 / (1.0 + exp(0.0 - load(own, 10 * WIDTH)))
    log2_opacity = log(opacity) * (1 / math.log(2))
    reach2 = larger(log2_opacity - LOG2_MIN_ALPHA, 0.0)  # |U d|^2 where alpha falls to 1/255 (StopThePop, B.2)
    extent_x, extent_y = sqrt(reach2 * c00) * (1 / TO_BITS), sqrt(reach2 * c11) * (1 / TO_BITS)
    root_y, root_det = sqrt(c11), sqrt(det)
    store(out, X * WIDTH, u)
    store(out, Y * WIDTH, v)
    store(out, A * WIDTH, root_y / root_det * TO_BITS)
    store(out, B * WIDTH, c01 / (root_y * root_det) * -TO_BITS)
    store(out, C * WIDTH, TO_BITS / root_y)
    store(out, LOG2_OPACITY * WIDTH, log2_opacity)
    store(out, DEPTH * WIDTH, tz)
    store(out, EXTENT_X * WIDTH, extent_x)
    store(out, EXTENT_Y * WIDTH, extent_y)
    store(out, REACH2 * WIDTH, reach2)
    store(out, TURN_Y * WIDTH, c01 / c00 * extent_x)  # height above the centre at which the ellipse is rightmost
    store(out, INVERSE_A * WIDTH, root_det / root_y * (1 / TO_BITS))
    inside = (u + extent_x > 0.0) & (u - extent_x < cam[IMAGE_WIDTH])
    inside = inside & (v + extent_y > 0.0) & (v - extent_y < cam[IMAGE_HEIGHT])
    return inside & _finite(own) & (tz >= NEAR_PLANE) & (opacity >= MIN_ALPHA) & (det < LARGEST_DET_PX4)


@kernel
def project(
    counter: Any, means: Any, quats: Any, log_scales: Any, opacity_logits: Any, dc: Any, dc_step: int, rest: Any,
    rest_step: int, rest_at: int, coefficients: int, cam: Any, rows: Any, keys: Any, radii: Any,
) -> None:  # fmt: skip
    """Fill rows [N, ROW], keys [N] uint32 (order of depth; CULLED) and radii [N] int32 (pixels; 0: culled).

    dc to rest_at: see `rasterizer._sh_arrays`; the first `coefficients` of each splat are used."""
    count = len(means)
    own, out = np.empty(PARAMETERS * WIDTH, np.float32), np.empty(ROW * WIDTH, np.float32)
    basis, shown = np.empty(16 * WIDTH, np.float32), np.empty(WIDTH, np.float32)
    bits = rows.view(np.uint32)
    while True:
        first = take(counter) * (GROUPS * WIDTH)
        if first >= count:
            break
        for start in range(first, min(first + GROUPS * WIDTH, count), WIDTH):
            load_splats(own, means, quats, log_scales, opacity_logits, start)
            visible = _ellipses(own, cam, out)
            store(shown, 0, select(visible, fill(1.0), 0.0))
            if anywhere(visible):
                ox, oy, oz, _, _, _ = offsets(own, cam)
                over = 1.0 / sqrt(ox * ox + oy * oy + oz * oz)
                fill_basis(basis, coefficients, ox * over, oy * over, oz * over)
            for i in range(min(WIDTH, count - start)):
                n = start + i
                keys[n] = CULLED
                radii[n] = 0
                if shown[i] == 0.0:
                    continue
                share, at = basis[i], n * dc_step
                red, green = np.float32(0.5) + share * dc[at], np.float32(0.5) + share * dc[at + 1]
                blue = np.float32(0.5) + share * dc[at + 2]
                for k in range(1, coefficients):
                    share, at = basis[k * WIDTH + i], n * rest_step + rest_at + 3 * (k - 1)
                    red += share * rest[at]
                    green += share * rest[at + 1]
                    blue += share * rest[at + 2]
                if not (abs(red) + abs(green) + abs(blue) < LARGEST):
                    continue
                for k in range(ROW):
                    rows[n, k] = out[k * WIDTH + i]
                rows[n, RED] = max(red, np.float32(0.0))
                rows[n, GREEN] = max(green, np.float32(0.0))
                rows[n, BLUE] = max(blue, np.float32(0.0))
                keys[n] = bits[n, DEPTH]  # positive floats sort as their bits do
                radii[n] = np.int32(min(math.ceil(max(rows[n, EXTENT_X], rows[n, EXTENT_Y])), 1e9))

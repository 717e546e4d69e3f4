"""Gradients of splats' parameters from those of their ellipses on the screen; notation of `projection`.

With C^-1 = U^T U, y = U d and Y = sum over pixels of dL/dsigma y y^T: dL/dC = -U^T Y U / 2, so dL/dQ = -U^T Y (U Q),
and from there by the product rule to the scales, the rotation, and through P = J W to the centre. Moments of y, not of
d, because |y| is at most 3.3: for needles those of d would cancel in float32.
Derived here; checked against tests/reference_rasterizer.py.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from difix3d.splatting.base import LARGEST
from difix3d.splatting.cpu.compile import inlined, kernel, take
from difix3d.splatting.cpu.lanes import WIDTH, exp, load, magnitude, select, sqrt, store
from difix3d.splatting.cpu.projection import (
    BLUE,
    BOTTOM,
    FX,
    FY,
    GREEN,
    GROUPS,
    LEFT,
    PARAMETERS,
    RED,
    RIGHT,
    TO_BITS,
    TOP,
    A,
    B,
    C,
    held,
    load_splats,
    offsets,
    rotation_rows,
    scaled_axes,
    screen_axes,
    unit_quaternion,
)
from difix3d.splatting.cpu.sh import direction_gradient, fill_basis

# One slot per (splat, bin): sums over its pixels of s, s u, s v, s u^2, s u v, s v^2, s = dL/dsigma and (u, v) = U d
# with U as in the rows, then dL/d(red, green, blue, depth), then the sizes of U^T (s u, s v) along x and along y
SLOT = 12
S, SU, SV, SUU, SUV, SVV, TO_RED, TO_GREEN, TO_BLUE, TO_DEPTH, ABS_X, ABS_Y = range(SLOT)
OUT = PARAMETERS + 2  # gradients of the parameters in the order of load_splats, then ScreenSpace.abs_gradients


@inlined
def _add_slots(sums: Any, shape: Any, visible: Any, radii: Any, rows: Any, first_slot: Any, slots: Any,
               start: int) -> int:  # fmt: skip
    """sums [SLOT * 16]: slots of sixteen splats, added in their order, colour's zeroed where it was clamped at 0;
    shape [3 * 16]: a, b, c. How many of the sixteen are visible."""
    found = 0
    for i in range(WIDTH):
        n = start + i
        visible[i] = False
        for k in range(SLOT):
            sums[k * WIDTH + i] = 0.0
        for k in range(3):
            shape[k * WIDTH + i] = 1.0
        if n < len(radii) and radii[n] > 0:
            visible[i] = True
            found += 1
            for slot in range(first_slot[n], first_slot[n + 1]):
                for k in range(SLOT):
                    sums[k * WIDTH + i] += slots[slot, k]
            shape[i], shape[WIDTH + i], shape[2 * WIDTH + i] = rows[n, A], rows[n, B], rows[n, C]
            if rows[n, RED] <= 0.0:
                sums[TO_RED * WIDTH + i] = 0.0
            if rows[n, GREEN] <= 0.0:
                sums[TO_GREEN * WIDTH + i] = 0.0
            if rows[n, BLUE] <= 0.0:
                sums[TO_BLUE * WIDTH + i] = 0.0
    return found


@inlined
def _shape_gradients(own: Any, sums: Any, shape: Any, cam: Any, out: Any) -> None:
    """Gradients of everything but the colour, to out [OUT * 16]."""
    a, b = load(shape, 0) * (1 / TO_BITS), load(shape, WIDTH) * (1 / TO_BITS)
    c = load(shape, 2 * WIDTH) * (1 / TO_BITS)
    su, sv = load(sums, SU * WIDTH) * (1 / TO_BITS), load(sums, SV * WIDTH) * (1 / TO_BITS)
    to_u, to_v = a * su, b * su + c * sv
    store(out, PARAMETERS * WIDTH, load(sums, ABS_X * WIDTH) * (1 / TO_BITS**2))
    store(out, (PARAMETERS + 1) * WIDTH, load(sums, ABS_Y * WIDTH) * (1 / TO_BITS**2))
    # sigma holds -log(opacity): dL/dlogit = -S (1 - opacity)
    store(out, 10 * WIDTH, (0.0 - load(sums, 0)) / (1.0 + exp(load(own, 10 * WIDTH))))

    _, _, _, tx, ty, tz = offsets(own, cam)
    over_z = 1.0 / tz
    slope_x, slope_y = tx * over_z, ty * over_z
    hx, hy = held(slope_x, cam[LEFT], cam[RIGHT]), held(slope_y, cam[TOP], cam[BOTTOM])
    w, x, y, z, over = unit_quaternion(own)
    r = rotation_rows(w, x, y, z)
    p = screen_axes(cam, over_z, hx, hy)
    s0, s1, s2 = exp(load(own, 7 * WIDTH)), exp(load(own, 8 * WIDTH)), exp(load(own, 9 * WIDTH))
    q = scaled_axes(p, r, s0, s1, s2)

    # z = U Q and m = -Y z: dL/dQ = U^T m, dL/d(log s_k) = sum_i m_ik z_ik
    yuu, yuv = load(sums, SUU * WIDTH) * (-1 / TO_BITS**2), load(sums, SUV * WIDTH) * (-1 / TO_BITS**2)
    yvv = load(sums, SVV * WIDTH) * (-1 / TO_BITS**2)
    z00, z01, z02 = a * q[0] + b * q[3], a * q[1] + b * q[4], a * q[2] + b * q[5]
    z10, z11, z12 = c * q[3], c * q[4], c * q[5]
    m00, m01, m02 = yuu * z00 + yuv * z10, yuu * z01 + yuv * z11, yuu * z02 + yuv * z12
    m10, m11, m12 = yuv * z00 + yvv * z10, yuv * z01 + yvv * z11, yuv * z02 + yvv * z12
    store(out, 7 * WIDTH, m00 * z00 + m10 * z10)
    store(out, 8 * WIDTH, m01 * z01 + m11 * z11)
    store(out, 9 * WIDTH, m02 * z02 + m12 * z12)

    # e = dL/d(P R) = dL/dQ diag(s)
    e00, e01, e02 = a * m00 * s0, a * m01 * s1, a * m02 * s2
    e10, e11, e12 = (b * m00 + c * m10) * s0, (b * m01 + c * m11) * s1, (b * m02 + c * m12) * s2

    # Rotation: dL/dR = P^T e, then to the unit quaternion, then through its normalisation
    r00, r01, r02 = p[0] * e00 + p[3] * e10, p[0] * e01 + p[3] * e11, p[0] * e02 + p[3] * e12
    r10, r11, r12 = p[1] * e00 + p[4] * e10, p[1] * e01 + p[4] * e11, p[1] * e02 + p[4] * e12
    r20, r21, r22 = p[2] * e00 + p[5] * e10, p[2] * e01 + p[5] * e11, p[2] * e02 + p[5] * e12
    gw = 2.0 * (x * (r21 - r12) + y * (r02 - r20) + z * (r10 - r01))
    gx = 2.0 * (y * (r01 + r10) + z * (r02 + r20) + w * (r21 - r12) - 2.0 * x * (r11 + r22))
    gy = 2.0 * (x * (r01 + r10) + z * (r12 + r21) + w * (r02 - r20) - 2.0 * y * (r00 + r22))
    gz = 2.0 * (x * (r02 + r20) + y * (r12 + r21) + w * (r10 - r01) - 2.0 * z * (r00 + r11))
    along = gw * w + gx * x + gy * y + gz * z
    store(out, 3 * WIDTH, (gw - along * w) * over)
    store(out, 4 * WIDTH, (gx - along * x) * over)
    store(out, 5 * WIDTH, (gy - along * y) * over)
    store(out, 6 * WIDTH, (gz - along * z) * over)

    # Jacobian: dL/dP = e R^T and dL/dJ = dL/dP W^T, of which four entries of J vary
    p00, p01 = e00 * r[0] + e01 * r[1] + e02 * r[2], e00 * r[3] + e01 * r[4] + e02 * r[5]
    p02, p10 = e00 * r[6] + e01 * r[7] + e02 * r[8], e10 * r[0] + e11 * r[1] + e12 * r[2]
    p11, p12 = e10 * r[3] + e11 * r[4] + e12 * r[5], e10 * r[6] + e11 * r[7] + e12 * r[8]
    to_j00 = p00 * cam[0] + p01 * cam[1] + p02 * cam[2]
    to_j02 = p00 * cam[6] + p01 * cam[7] + p02 * cam[8]
    to_j11 = p10 * cam[3] + p11 * cam[4] + p12 * cam[5]
    to_j12 = p10 * cam[6] + p11 * cam[7] + p12 * cam[8]

    # u = fx x/z + cx; J00 = fx/z; J02 = -fx h/z where h is x/z, or held (then it does not move with x)
    j00, j11 = over_z * cam[FX], over_z * cam[FY]
    free_x = (slope_x >= cam[LEFT]) & (slope_x <= cam[RIGHT])
    free_y = (slope_y >= cam[TOP]) & (slope_y <= cam[BOTTOM])
    to_slope_x = to_u * cam[FX] - select(free_x, j00 * to_j02, 0.0)
    to_slope_y = to_v * cam[FY] - select(free_y, j11 * to_j12, 0.0)
    to_x, to_y = to_slope_x * over_z, to_slope_y * over_z
    turned = to_slope_x * slope_x + to_slope_y * slope_y + j00 * (to_j00 - hx * to_j02) + j11 * (to_j11 - hy * to_j12)
    to_z = load(sums, TO_DEPTH * WIDTH) - turned * over_z
    store(out, 0, to_x * cam[0] + to_y * cam[3] + to_z * cam[6])
    store(out, WIDTH, to_x * cam[1] + to_y * cam[4] + to_z * cam[7])
    store(out, 2 * WIDTH, to_x * cam[2] + to_y * cam[5] + to_z * cam[8])


@inlined
def _colour_gradients(own: Any, sums: Any, visible: Any, dc: Any, dc_step: int, rest: Any, rest_step: int,
                      rest_at: int, coefficients: int, cam: Any, basis: Any, weight: Any, start: int, out: Any,
                      grad_dc: Any, grad_rest: Any) -> None:  # fmt: skip
    """Gradients of sh, and of the centre by the viewing direction (added to out)."""
    ox, oy, oz, _, _, _ = offsets(own, cam)
    over = 1.0 / sqrt(ox * ox + oy * oy + oz * oz)
    ox, oy, oz = ox * over, oy * over, oz * over
    fill_basis(basis, coefficients, ox, oy, oz)
    for i in range(WIDTH):
        if not visible[i]:
            continue
        n = start + i
        red, green, blue = sums[TO_RED * WIDTH + i], sums[TO_GREEN * WIDTH + i], sums[TO_BLUE * WIDTH + i]
        share, at = basis[i], n * dc_step
        grad_dc[at], grad_dc[at + 1], grad_dc[at + 2] = share * red, share * green, share * blue
        weight[i] = red * dc[at] + green * dc[at + 1] + blue * dc[at + 2]
        for k in range(1, coefficients):
            share, at = basis[k * WIDTH + i], n * rest_step + rest_at + 3 * (k - 1)
            grad_rest[at], grad_rest[at + 1], grad_rest[at + 2] = share * red, share * green, share * blue
            weight[k * WIDTH + i] = red * rest[at] + green * rest[at + 1] + blue * rest[at + 2]
        for at in range(n * rest_step + rest_at + 3 * (coefficients - 1), (n + 1) * rest_step):
            grad_rest[at] = 0.0
    dx, dy, dz = direction_gradient(weight, coefficients, ox, oy, oz)
    # A coefficient of any size may have no part in the colour seen from here, and then does not keep a splat from view.
    sound = magnitude(dx) + magnitude(dy) + magnitude(dz) < LARGEST
    dx, dy, dz = select(sound, dx, 0.0), select(sound, dy, 0.0), select(sound, dz, 0.0)
    radial = dx * ox + dy * oy + dz * oz
    store(out, 0, load(out, 0) + (dx - radial * ox) * over)
    store(out, WIDTH, load(out, WIDTH) + (dy - radial * oy) * over)
    store(out, 2 * WIDTH, load(out, 2 * WIDTH) + (dz - radial * oz) * over)


@kernel
def project_backward(
    counter: Any, means: Any, quats: Any, log_scales: Any, opacity_logits: Any, dc: Any, dc_step: int, rest: Any,
    rest_step: int, rest_at: int, coefficients: int, cam: Any, radii: Any, rows: Any, first_slot: Any, slots: Any,
    grad_means: Any, grad_quats: Any, grad_log_scales: Any, grad_opacity_logits: Any, grad_dc: Any, grad_rest: Any,
    on_screen: Any,
) -> None:  # fmt: skip
    """Fill all gradients, zero for culled splats. rows, radii: from `project`; slots [entries, SLOT] of splat n are
    first_slot[n] to first_slot[n + 1]. grad_dc and grad_rest lie as dc and rest do. on_screen [N, 2]:
    ScreenSpace.abs_gradients."""
    count = len(means)
    own, out = np.empty(PARAMETERS * WIDTH, np.float32), np.empty(OUT * WIDTH, np.float32)
    sums, shape = np.empty(SLOT * WIDTH, np.float32), np.empty(3 * WIDTH, np.float32)
    basis, weight = np.empty(16 * WIDTH, np.float32), np.zeros(16 * WIDTH, np.float32)
    visible = np.empty(WIDTH, np.bool_)
    while True:
        first = take(counter) * (GROUPS * WIDTH)
        if first >= count:
            break
        for start in range(first, min(first + GROUPS * WIDTH, count), WIDTH):
            if _add_slots(sums, shape, visible, radii, rows, first_slot, slots, start) > 0:
                load_splats(own, means, quats, log_scales, opacity_logits, start)
                _shape_gradients(own, sums, shape, cam, out)
                _colour_gradients(
                    own, sums, visible, dc, dc_step, rest, rest_step, rest_at, coefficients, cam, basis, weight, start,
                    out, grad_dc, grad_rest,
                )  # fmt: skip
            for i in range(min(WIDTH, count - start)):
                n = start + i
                if not visible[i]:
                    for k in range(3):
                        grad_dc[n * dc_step + k] = 0.0
                    for k in range(n * rest_step + rest_at, (n + 1) * rest_step):
                        grad_rest[k] = 0.0
                    for k in range(OUT):
                        out[k * WIDTH + i] = 0.0
                for k in range(3):
                    grad_means[n, k] = out[k * WIDTH + i]
                    grad_log_scales[n, k] = out[(7 + k) * WIDTH + i]
                for k in range(4):
                    grad_quats[n, k] = out[(3 + k) * WIDTH + i]
                grad_opacity_logits[n] = out[10 * WIDTH + i]
                on_screen[n, 0], on_screen[n, 1] = out[11 * WIDTH + i], out[12 * WIDTH + i]

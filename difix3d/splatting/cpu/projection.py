"""From splats in the world to ellipses on the screen (EWA splatting, 3DGS Eq. 5), and the way back.

Notation, per splat
    t = W m + v                 centre in camera axes; W, v from cam_from_world
    L = R(q) diag(s)            so that the covariance is L L^T
    J                           Jacobian of the projection at t, 2x3
    Q = J W L                   2x3; screen covariance C = Q Q^T + 0.3 I
    C^-1 = U^T U                U = [[a, b], [0, c]]; exponent sigma = |U d|^2 / 2 never turns negative by rounding

Parameters and results are float32; what lies between is float64, because C of a needle nearly cancels.
Source of the derivatives: differentiated here; checked against tests/reference_rasterizer.py.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from difix3d.splatting.base import BLUR_PX2, FOV_MARGIN, MIN_ALPHA, NEAR_PLANE
from difix3d.splatting.cpu.compile import inlined, kernel, take
from difix3d.splatting.cpu.sh import direction_gradient, fill_basis

ROW = 16  # floats per projected splat: one cache line
X, Y, A, B, C, LOG_OPACITY, RED, GREEN, BLUE, DEPTH, EXTENT_X, EXTENT_Y, REACH2 = range(13)

# floats per (splat, tile) gradient slot: sums over pixels of s, s dx, s dy, s dx^2, s dx dy, s dy^2 with
# s = dL/dsigma, then dL/d(red, green, blue, depth)
SLOT = 10

CHUNK = 256  # splats dealt out at once
CULLED = np.uint32(0xFFFFFFFF)

# camera vector: W row by row, v, fx, fy, cx, cy, width, height, camera centre
CAMERA_SIZE = 21


@inlined
def _rotation(qw: float, qx: float, qy: float, qz: float) -> tuple[float, ...]:
    """Rotation matrix of a unit quaternion, row by row."""
    return (
        1.0 - 2.0 * (qy * qy + qz * qz),
        2.0 * (qx * qy - qw * qz),
        2.0 * (qx * qz + qw * qy),
        2.0 * (qx * qy + qw * qz),
        1.0 - 2.0 * (qx * qx + qz * qz),
        2.0 * (qy * qz - qw * qx),
        2.0 * (qx * qz - qw * qy),
        2.0 * (qy * qz + qw * qx),
        1.0 - 2.0 * (qx * qx + qy * qy),
    )


@inlined
def _held_slopes(cam: Any, slope_x: float, slope_y: float) -> tuple[float, float]:
    """x/z and y/z, held inside the image plus a margin: beyond it the affine approximation explodes."""
    margin_x = FOV_MARGIN * 0.5 * cam[16] / cam[12]
    margin_y = FOV_MARGIN * 0.5 * cam[17] / cam[13]
    right = (cam[16] - cam[14]) / cam[12] + margin_x
    left = -cam[14] / cam[12] - margin_x
    bottom = (cam[17] - cam[15]) / cam[13] + margin_y
    top = -cam[15] / cam[13] - margin_y
    return min(right, max(left, slope_x)), min(bottom, max(top, slope_y))


@inlined
def _project_axes(cam: Any, j00: float, j02: float, j11: float, j12: float) -> tuple[float, ...]:
    """P = J W, row by row."""
    return (
        j00 * cam[0] + j02 * cam[6],
        j00 * cam[1] + j02 * cam[7],
        j00 * cam[2] + j02 * cam[8],
        j11 * cam[3] + j12 * cam[6],
        j11 * cam[4] + j12 * cam[7],
        j11 * cam[5] + j12 * cam[8],
    )


@kernel
def project(
    counter: Any, means: Any, quats: Any, log_scales: Any, opacity_logits: Any, sh: Any, coefficients: int,
    cam: Any, rows: Any, keys: Any, radii: Any,
) -> None:  # fmt: skip
    """Fill rows [N, ROW], keys [N] uint32 (order of depth; CULLED) and radii [N] int32 (pixels; 0: culled).

    Comparisons are written so that a NaN anywhere in a splat's geometry culls it.
    """
    count = len(means)
    basis = np.empty(16)
    width, height = cam[16], cam[17]
    while True:
        start = take(counter) * CHUNK
        if start >= count:
            break
        for n in range(start, min(start + CHUNK, count)):
            keys[n] = CULLED
            radii[n] = 0
            mx, my, mz = np.float64(means[n, 0]), np.float64(means[n, 1]), np.float64(means[n, 2])
            tz = cam[6] * mx + cam[7] * my + cam[8] * mz + cam[11]
            if not (tz >= NEAR_PLANE) or not (tz < 1e30):
                continue
            opacity = 1.0 / (1.0 + math.exp(-np.float64(opacity_logits[n])))
            if not (opacity >= MIN_ALPHA):
                continue
            tx = cam[0] * mx + cam[1] * my + cam[2] * mz + cam[9]
            ty = cam[3] * mx + cam[4] * my + cam[5] * mz + cam[10]
            slope_x, slope_y = tx / tz, ty / tz
            u = cam[12] * slope_x + cam[14]
            v = cam[13] * slope_y + cam[15]

            qw, qx, qy, qz = (
                np.float64(quats[n, 0]), np.float64(quats[n, 1]), np.float64(quats[n, 2]), np.float64(quats[n, 3]),
            )  # fmt: skip
            inverse_length = 1.0 / math.sqrt(qw * qw + qx * qx + qy * qy + qz * qz)
            r = _rotation(qw * inverse_length, qx * inverse_length, qy * inverse_length, qz * inverse_length)
            s0 = math.exp(np.float64(log_scales[n, 0]))
            s1 = math.exp(np.float64(log_scales[n, 1]))
            s2 = math.exp(np.float64(log_scales[n, 2]))
            hx, hy = _held_slopes(cam, slope_x, slope_y)
            p = _project_axes(cam, cam[12] / tz, -cam[12] * hx / tz, cam[13] / tz, -cam[13] * hy / tz)
            q00 = (p[0] * r[0] + p[1] * r[3] + p[2] * r[6]) * s0
            q01 = (p[0] * r[1] + p[1] * r[4] + p[2] * r[7]) * s1
            q02 = (p[0] * r[2] + p[1] * r[5] + p[2] * r[8]) * s2
            q10 = (p[3] * r[0] + p[4] * r[3] + p[5] * r[6]) * s0
            q11 = (p[3] * r[1] + p[4] * r[4] + p[5] * r[7]) * s1
            q12 = (p[3] * r[2] + p[4] * r[5] + p[5] * r[8]) * s2
            c00 = q00 * q00 + q01 * q01 + q02 * q02 + BLUR_PX2
            c01 = q00 * q10 + q01 * q11 + q02 * q12
            c11 = q10 * q10 + q11 * q11 + q12 * q12 + BLUR_PX2
            det = c00 * c11 - c01 * c01
            if not (det > 0.0) or not (c00 < 1e18) or not (c11 < 1e18):
                continue

            # Opacity-aware extent (StopThePop, Radl et al. 2024, B.2): where alpha falls to 1/255
            reach2 = 2.0 * math.log(opacity / MIN_ALPHA)
            extent_x, extent_y = math.sqrt(reach2 * c00), math.sqrt(reach2 * c11)
            if not ((u + extent_x > 0.0) & (u - extent_x < width) & (v + extent_y > 0.0) & (v - extent_y < height)):
                continue

            dx, dy, dz = mx - cam[18], my - cam[19], mz - cam[20]
            inverse_distance = 1.0 / math.sqrt(dx * dx + dy * dy + dz * dz)
            fill_basis(basis, coefficients, dx * inverse_distance, dy * inverse_distance, dz * inverse_distance)
            red, green, blue = 0.5, 0.5, 0.5
            for k in range(coefficients):
                red += basis[k] * sh[n, k, 0]
                green += basis[k] * sh[n, k, 1]
                blue += basis[k] * sh[n, k, 2]
            if not (abs(red) + abs(green) + abs(blue) < 1e30):
                continue

            rows[n, X] = u
            rows[n, Y] = v
            rows[n, A] = math.sqrt(c11 / det)
            rows[n, B] = -c01 / math.sqrt(c11 * det)
            rows[n, C] = 1.0 / math.sqrt(c11)
            rows[n, LOG_OPACITY] = math.log(opacity)
            rows[n, RED] = max(red, 0.0)
            rows[n, GREEN] = max(green, 0.0)
            rows[n, BLUE] = max(blue, 0.0)
            rows[n, DEPTH] = tz
            rows[n, EXTENT_X] = extent_x
            rows[n, EXTENT_Y] = extent_y
            rows[n, REACH2] = reach2
            keys[n] = np.float32(tz).view(np.uint32)  # positive floats sort as their bits do
            radii[n] = np.int32(min(math.ceil(max(extent_x, extent_y)), 1e9))


@kernel
def project_backward(
    counter: Any, means: Any, quats: Any, log_scales: Any, opacity_logits: Any, sh: Any, coefficients: int,
    cam: Any, ids: Any, rows: Any, first_slot: Any, slots: Any,
    grad_means: Any, grad_quats: Any, grad_log_scales: Any, grad_opacity_logits: Any, grad_sh: Any, grad_screen: Any,
) -> None:  # fmt: skip
    """Gradients of the visible splats `ids` [V] from their slots; `rows` [V, ROW] as sorted, slots of visible
    splat i are first_slot[i] to first_slot[i + 1], always added in that order. Gradients of others stay as given."""
    count = len(ids)
    basis = np.empty(16)
    weight = np.empty(16)
    g = np.empty(SLOT)
    while True:
        start = take(counter) * CHUNK
        if start >= count:
            break
        for i in range(start, min(start + CHUNK, count)):
            n = ids[i]
            g[:] = 0.0
            for slot in range(first_slot[i], first_slot[i + 1]):
                for k in range(SLOT):
                    g[k] += slots[slot, k]

            # Screen: sigma = |U d|^2 / 2 - log(opacity), d = centre - pixel
            a, b, c = np.float64(rows[i, A]), np.float64(rows[i, B]), np.float64(rows[i, C])
            m00, m01, m11 = a * a, a * b, b * b + c * c
            grad_u = m00 * g[1] + m01 * g[2]
            grad_v = m01 * g[1] + m11 * g[2]
            grad_screen[n, 0] = grad_u
            grad_screen[n, 1] = grad_v
            grad_opacity_logits[n] = -g[0] / (1.0 + math.exp(np.float64(opacity_logits[n])))

            # Inverse: dL/dC = -M G M with M = C^-1 and G = dL/dM
            k00 = m00 * g[3] + m01 * g[4]
            k01 = m00 * g[4] + m01 * g[5]
            k10 = m01 * g[3] + m11 * g[4]
            k11 = m01 * g[4] + m11 * g[5]
            h00 = -0.5 * (k00 * m00 + k01 * m01)
            h01 = -0.5 * (k00 * m01 + k01 * m11)
            h11 = -0.5 * (k10 * m01 + k11 * m11)

            # The forward quantities again
            mx, my, mz = np.float64(means[n, 0]), np.float64(means[n, 1]), np.float64(means[n, 2])
            tx = cam[0] * mx + cam[1] * my + cam[2] * mz + cam[9]
            ty = cam[3] * mx + cam[4] * my + cam[5] * mz + cam[10]
            tz = cam[6] * mx + cam[7] * my + cam[8] * mz + cam[11]
            inverse_z = 1.0 / tz
            slope_x, slope_y = tx / tz, ty / tz
            qw, qx, qy, qz = (
                np.float64(quats[n, 0]), np.float64(quats[n, 1]), np.float64(quats[n, 2]), np.float64(quats[n, 3]),
            )  # fmt: skip
            inverse_length = 1.0 / math.sqrt(qw * qw + qx * qx + qy * qy + qz * qz)
            qw, qx, qy, qz = qw * inverse_length, qx * inverse_length, qy * inverse_length, qz * inverse_length
            r = _rotation(qw, qx, qy, qz)
            s0 = math.exp(np.float64(log_scales[n, 0]))
            s1 = math.exp(np.float64(log_scales[n, 1]))
            s2 = math.exp(np.float64(log_scales[n, 2]))
            hx, hy = _held_slopes(cam, slope_x, slope_y)
            j00, j11 = cam[12] * inverse_z, cam[13] * inverse_z
            p = _project_axes(cam, j00, -j00 * hx, j11, -j11 * hy)
            q00 = (p[0] * r[0] + p[1] * r[3] + p[2] * r[6]) * s0
            q01 = (p[0] * r[1] + p[1] * r[4] + p[2] * r[7]) * s1
            q02 = (p[0] * r[2] + p[1] * r[5] + p[2] * r[8]) * s2
            q10 = (p[3] * r[0] + p[4] * r[3] + p[5] * r[6]) * s0
            q11 = (p[3] * r[1] + p[4] * r[4] + p[5] * r[7]) * s1
            q12 = (p[3] * r[2] + p[4] * r[5] + p[5] * r[8]) * s2

            # C = Q Q^T + blur: dL/dQ = 2 H Q
            e00, e01, e02 = 2.0 * (h00 * q00 + h01 * q10), 2.0 * (h00 * q01 + h01 * q11), 2.0 * (h00 * q02 + h01 * q12)
            e10, e11, e12 = 2.0 * (h01 * q00 + h11 * q10), 2.0 * (h01 * q01 + h11 * q11), 2.0 * (h01 * q02 + h11 * q12)

            # Q = P R diag(s): dL/d(log s_k) = sum_i dQ_ik Q_ik; dL/dR = P^T dQ diag(s)
            grad_log_scales[n, 0] = e00 * q00 + e10 * q10
            grad_log_scales[n, 1] = e01 * q01 + e11 * q11
            grad_log_scales[n, 2] = e02 * q02 + e12 * q12
            e00, e01, e02 = e00 * s0, e01 * s1, e02 * s2
            e10, e11, e12 = e10 * s0, e11 * s1, e12 * s2
            r00, r01, r02 = p[0] * e00 + p[3] * e10, p[0] * e01 + p[3] * e11, p[0] * e02 + p[3] * e12
            r10, r11, r12 = p[1] * e00 + p[4] * e10, p[1] * e01 + p[4] * e11, p[1] * e02 + p[4] * e12
            r20, r21, r22 = p[2] * e00 + p[5] * e10, p[2] * e01 + p[5] * e11, p[2] * e02 + p[5] * e12
            gw = 2.0 * (qx * (r21 - r12) + qy * (r02 - r20) + qz * (r10 - r01))
            gx = 2.0 * (qy * (r01 + r10) + qz * (r02 + r20) + qw * (r21 - r12) - 2.0 * qx * (r11 + r22))
            gy = 2.0 * (qx * (r01 + r10) + qz * (r12 + r21) + qw * (r02 - r20) - 2.0 * qy * (r00 + r22))
            gz = 2.0 * (qx * (r02 + r20) + qy * (r12 + r21) + qw * (r10 - r01) - 2.0 * qz * (r00 + r11))
            along = gw * qw + gx * qx + gy * qy + gz * qz
            grad_quats[n, 0] = (gw - along * qw) * inverse_length
            grad_quats[n, 1] = (gx - along * qx) * inverse_length
            grad_quats[n, 2] = (gy - along * qy) * inverse_length
            grad_quats[n, 3] = (gz - along * qz) * inverse_length

            # dL/dP = dQ diag(s) R^T, then dL/dJ = dL/dP W^T: only the four entries of J that vary
            p00, p01, p02 = (
                e00 * r[0] + e01 * r[1] + e02 * r[2], e00 * r[3] + e01 * r[4] + e02 * r[5],
                e00 * r[6] + e01 * r[7] + e02 * r[8],
            )  # fmt: skip
            p10, p11, p12 = (
                e10 * r[0] + e11 * r[1] + e12 * r[2], e10 * r[3] + e11 * r[4] + e12 * r[5],
                e10 * r[6] + e11 * r[7] + e12 * r[8],
            )  # fmt: skip
            grad_j00 = p00 * cam[0] + p01 * cam[1] + p02 * cam[2]
            grad_j02 = p00 * cam[6] + p01 * cam[7] + p02 * cam[8]
            grad_j11 = p10 * cam[3] + p11 * cam[4] + p12 * cam[5]
            grad_j12 = p10 * cam[6] + p11 * cam[7] + p12 * cam[8]

            # u = fx x/z + cx; J00 = fx/z; J02 = -fx h/z with h = x/z, or held (then it does not move with x)
            grad_hx = -j00 * grad_j02 if hx == slope_x else 0.0
            grad_hy = -j11 * grad_j12 if hy == slope_y else 0.0
            grad_slope_x = cam[12] * grad_u + grad_hx
            grad_slope_y = cam[13] * grad_v + grad_hy
            grad_tx = grad_slope_x * inverse_z
            grad_ty = grad_slope_y * inverse_z
            grad_tz = g[9] - inverse_z * (
                grad_slope_x * slope_x
                + grad_slope_y * slope_y
                + j00 * (grad_j00 - hx * grad_j02)
                + j11 * (grad_j11 - hy * grad_j12)
            )

            # Colour, and how the viewing direction moves with the centre
            ox, oy, oz = mx - cam[18], my - cam[19], mz - cam[20]
            inverse_distance = 1.0 / math.sqrt(ox * ox + oy * oy + oz * oz)
            ox, oy, oz = ox * inverse_distance, oy * inverse_distance, oz * inverse_distance
            red = g[6] if rows[i, RED] > 0.0 else 0.0  # clamped at 0: no gradient
            green = g[7] if rows[i, GREEN] > 0.0 else 0.0
            blue = g[8] if rows[i, BLUE] > 0.0 else 0.0
            fill_basis(basis, coefficients, ox, oy, oz)
            for k in range(coefficients):
                grad_sh[n, k, 0] = basis[k] * red
                grad_sh[n, k, 1] = basis[k] * green
                grad_sh[n, k, 2] = basis[k] * blue
                weight[k] = red * sh[n, k, 0] + green * sh[n, k, 1] + blue * sh[n, k, 2]
            dx, dy, dz = direction_gradient(weight, coefficients, ox, oy, oz)
            radial = dx * ox + dy * oy + dz * oz
            dx, dy, dz = (
                (dx - radial * ox) * inverse_distance, (dy - radial * oy) * inverse_distance,
                (dz - radial * oz) * inverse_distance,
            )  # fmt: skip
            grad_means[n, 0] = cam[0] * grad_tx + cam[3] * grad_ty + cam[6] * grad_tz + dx
            grad_means[n, 1] = cam[1] * grad_tx + cam[4] * grad_ty + cam[7] * grad_tz + dy
            grad_means[n, 2] = cam[2] * grad_tx + cam[5] * grad_ty + cam[8] * grad_tz + dz

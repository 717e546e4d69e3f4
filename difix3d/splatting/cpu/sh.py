"""Colour of a splat seen from a direction: real spherical harmonics up to degree 3, and the way back.

Constants and order as in 3DGS (Kerbl et al. 2023) and gsplat: colour = max(0, 0.5 + sum_k basis_k(d) sh_k).
Every function is scalar and is inlined into the projection kernels.
"""

from __future__ import annotations

import math
from typing import Any

from difix3d.splatting.cpu.compile import inlined

C0 = 0.5 * math.sqrt(1 / math.pi)
C1 = 0.5 * math.sqrt(3 / math.pi)
C2A = 0.5 * math.sqrt(15 / math.pi)  # xy, yz, xz
C2B = 0.25 * math.sqrt(5 / math.pi)  # 3z^2 - 1
C2C = 0.25 * math.sqrt(15 / math.pi)  # x^2 - y^2
C3A = 0.25 * math.sqrt(35 / (2 * math.pi))
C3B = 0.5 * math.sqrt(105 / math.pi)
C3C = 0.25 * math.sqrt(21 / (2 * math.pi))
C3D = 0.25 * math.sqrt(7 / math.pi)
C3E = 0.25 * math.sqrt(105 / math.pi)


@inlined
def fill_basis(basis: Any, count: int, x: float, y: float, z: float) -> None:
    """basis[:count] for the unit direction (x, y, z); count: 1, 4, 9 or 16."""
    basis[0] = C0
    if count > 1:
        basis[1] = -C1 * y
        basis[2] = C1 * z
        basis[3] = -C1 * x
    if count > 4:
        basis[4] = C2A * x * y
        basis[5] = -C2A * y * z
        basis[6] = C2B * (3.0 * z * z - 1.0)
        basis[7] = -C2A * x * z
        basis[8] = C2C * (x * x - y * y)
    if count > 9:
        basis[9] = -C3A * y * (3.0 * x * x - y * y)
        basis[10] = C3B * x * y * z
        basis[11] = -C3C * y * (5.0 * z * z - 1.0)
        basis[12] = C3D * z * (5.0 * z * z - 3.0)
        basis[13] = -C3C * x * (5.0 * z * z - 1.0)
        basis[14] = C3E * z * (x * x - y * y)
        basis[15] = -C3A * x * (x * x - 3.0 * y * y)


@inlined
def direction_gradient(weight: Any, count: int, x: float, y: float, z: float) -> tuple[float, float, float]:
    """d(sum_k basis_k weight_k)/d(x, y, z), the polynomials taken as functions of all of space."""
    gx = 0.0
    gy = 0.0
    gz = 0.0
    if count > 1:
        gx += -C1 * weight[3]
        gy += -C1 * weight[1]
        gz += C1 * weight[2]
    if count > 4:
        gx += C2A * (y * weight[4] - z * weight[7]) + 2.0 * C2C * x * weight[8]
        gy += C2A * (x * weight[4] - z * weight[5]) - 2.0 * C2C * y * weight[8]
        gz += -C2A * (y * weight[5] + x * weight[7]) + 6.0 * C2B * z * weight[6]
    if count > 9:
        gx += (
            -6.0 * C3A * x * y * weight[9]
            + C3B * y * z * weight[10]
            - C3C * (5.0 * z * z - 1.0) * weight[13]
            + 2.0 * C3E * x * z * weight[14]
            - 3.0 * C3A * (x * x - y * y) * weight[15]
        )
        gy += (
            -3.0 * C3A * (x * x - y * y) * weight[9]
            + C3B * x * z * weight[10]
            - C3C * (5.0 * z * z - 1.0) * weight[11]
            - 2.0 * C3E * y * z * weight[14]
            + 6.0 * C3A * x * y * weight[15]
        )
        gz += (
            C3B * x * y * weight[10]
            - 10.0 * C3C * z * (y * weight[11] + x * weight[13])
            + 3.0 * C3D * (5.0 * z * z - 1.0) * weight[12]
            + C3E * (x * x - y * y) * weight[14]
        )
    return gx, gy, gz

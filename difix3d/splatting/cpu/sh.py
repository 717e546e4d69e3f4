"""Colour of a splat seen from a direction: real spherical harmonics up to degree 3, and the way back.

Constants and order as in 3DGS (Kerbl et al. 2023) and gsplat: colour = max(0, 0.5 + sum_k basis_k(d) sh_k).
Sixteen splats at a time; `basis` and `weight` are float32 [16 coefficients * 16 splats].
"""

from __future__ import annotations

import math
from typing import Any

from difix3d.splatting.cpu.compile import inlined
from difix3d.splatting.cpu.lanes import WIDTH, fill, load, store

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
def fill_basis(basis: Any, count: int, x: Any, y: Any, z: Any) -> None:
    """basis for unit directions (x, y, z), lanes; the first count coefficients: 1, 4, 9 or 16."""
    store(basis, 0, fill(C0))
    if count > 1:
        store(basis, WIDTH, y * -C1)
        store(basis, 2 * WIDTH, z * C1)
        store(basis, 3 * WIDTH, x * -C1)
    if count > 4:
        store(basis, 4 * WIDTH, x * y * C2A)
        store(basis, 5 * WIDTH, y * z * -C2A)
        store(basis, 6 * WIDTH, (3.0 * z * z - 1.0) * C2B)
        store(basis, 7 * WIDTH, x * z * -C2A)
        store(basis, 8 * WIDTH, (x * x - y * y) * C2C)
    if count > 9:
        flat = 5.0 * z * z - 1.0
        store(basis, 9 * WIDTH, y * (3.0 * x * x - y * y) * -C3A)
        store(basis, 10 * WIDTH, x * y * z * C3B)
        store(basis, 11 * WIDTH, y * flat * -C3C)
        store(basis, 12 * WIDTH, z * (flat - 2.0) * C3D)
        store(basis, 13 * WIDTH, x * flat * -C3C)
        store(basis, 14 * WIDTH, z * (x * x - y * y) * C3E)
        store(basis, 15 * WIDTH, x * (x * x - 3.0 * y * y) * -C3A)


@inlined
def direction_gradient(weight: Any, count: int, x: Any, y: Any, z: Any) -> Any:
    """d(sum_k basis_k weight_k)/d(x, y, z), the polynomials taken as functions of all of space."""
    gx, gy, gz = fill(0.0), fill(0.0), fill(0.0)
    if count > 1:
        gx = load(weight, 3 * WIDTH) * -C1
        gy = load(weight, WIDTH) * -C1
        gz = load(weight, 2 * WIDTH) * C1
    if count > 4:
        w4, w5, w6 = load(weight, 4 * WIDTH), load(weight, 5 * WIDTH), load(weight, 6 * WIDTH)
        w7, w8 = load(weight, 7 * WIDTH), load(weight, 8 * WIDTH)
        gx = gx + (y * w4 - z * w7) * C2A + x * w8 * (2 * C2C)
        gy = gy + (x * w4 - z * w5) * C2A - y * w8 * (2 * C2C)
        gz = gz - (y * w5 + x * w7) * C2A + z * w6 * (6 * C2B)
    if count > 9:
        w9, w10, w11 = load(weight, 9 * WIDTH), load(weight, 10 * WIDTH), load(weight, 11 * WIDTH)
        w12, w13, w14 = load(weight, 12 * WIDTH), load(weight, 13 * WIDTH), load(weight, 14 * WIDTH)
        w15 = load(weight, 15 * WIDTH)
        flat = 5.0 * z * z - 1.0
        difference = x * x - y * y
        gx = gx - x * y * w9 * (6 * C3A) + y * z * w10 * C3B - flat * w13 * C3C
        gx = gx + x * z * w14 * (2 * C3E) - difference * w15 * (3 * C3A)
        gy = gy - difference * w9 * (3 * C3A) + x * z * w10 * C3B - flat * w11 * C3C
        gy = gy - y * z * w14 * (2 * C3E) + x * y * w15 * (6 * C3A)
        gz = gz + x * y * w10 * C3B - z * (y * w11 + x * w13) * (10 * C3C)
        gz = gz + flat * w12 * (3 * C3D) + difference * w14 * C3E
    return gx, gy, gz

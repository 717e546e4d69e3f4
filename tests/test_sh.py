"""Spherical harmonics in the kernels: the basis is orthonormal, and its gradient is its slope."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from reference_rasterizer import sh_basis

from difix3d.splatting.cpu.compile import kernel
from difix3d.splatting.cpu.lanes import WIDTH, load, store
from difix3d.splatting.cpu.sh import direction_gradient, fill_basis


@kernel
def basis_of(directions, count, basis) -> None:  # type: ignore[no-untyped-def]
    fill_basis(basis, count, load(directions, 0), load(directions, WIDTH), load(directions, 2 * WIDTH))


@kernel
def gradient_of(directions, count, weight, gradient) -> None:  # type: ignore[no-untyped-def]
    x, y, z = load(directions, 0), load(directions, WIDTH), load(directions, 2 * WIDTH)
    gx, gy, gz = direction_gradient(weight, count, x, y, z)
    store(gradient, 0, gx)
    store(gradient, WIDTH, gy)
    store(gradient, 2 * WIDTH, gz)


def sixteen_directions(seed: int = 0) -> np.ndarray:
    """[3, 16] unit."""
    directions = np.random.default_rng(seed).normal(size=(3, WIDTH))
    return (directions / np.linalg.norm(directions, axis=0)).astype(np.float32)


@pytest.mark.parametrize("count", [1, 4, 9, 16])
def test_basis_matches_the_reference(count: int) -> None:
    directions = sixteen_directions()
    basis = np.zeros((16, WIDTH), np.float32)
    basis_of(directions.reshape(-1), count, basis.reshape(-1))
    expected = sh_basis(torch.tensor(directions.T, dtype=torch.float64)).numpy().T
    assert np.allclose(basis[:count], expected[:count], atol=1e-6) and not basis[count:].any()


def test_basis_is_orthonormal_on_the_sphere() -> None:
    count = 4096  # a Fibonacci sphere integrates polynomials of degree 6 well
    z = 1 - (2 * np.arange(count) + 1) / count
    angle = np.pi * (1 + 5**0.5) * np.arange(count)
    xy = np.sqrt(1 - z * z)
    directions = np.stack([xy * np.cos(angle), xy * np.sin(angle), z]).astype(np.float32)
    basis = np.zeros((16, count))
    block = np.zeros((16, WIDTH), np.float32)
    for at in range(0, count, WIDTH):
        basis_of(np.ascontiguousarray(directions[:, at : at + WIDTH]).reshape(-1), 16, block.reshape(-1))
        basis[:, at : at + WIDTH] = block
    assert np.allclose(basis @ basis.T * 4 * np.pi / count, np.eye(16), atol=2e-3)


@pytest.mark.parametrize("count", [1, 4, 9, 16])
def test_direction_gradient_is_the_slope_on_the_sphere(count: int) -> None:
    """Off the sphere the polynomials may differ, so only what is left after removing the radial part counts."""
    directions = sixteen_directions(1)
    weight = np.random.default_rng(2).normal(size=(16, WIDTH)).astype(np.float32)
    gradient = np.zeros((3, WIDTH), np.float32)
    gradient_of(directions.reshape(-1), count, weight.reshape(-1), gradient.reshape(-1))
    exact = torch.tensor(directions.T, dtype=torch.float64, requires_grad=True)
    unit = torch.nn.functional.normalize(exact, dim=-1)
    (sh_basis(unit)[:, :count] * torch.tensor(weight.T[:, :count])).sum().backward()
    assert exact.grad is not None
    tangential = gradient - directions * (gradient * directions).sum(0)
    assert np.allclose(tangential.T, exact.grad.numpy(), atol=1e-4)

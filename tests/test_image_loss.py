"""Fused L1 + SSIM against plain float64 torch, across sizes and threads."""

from __future__ import annotations

import pytest
import torch
from splat_scenes import relative_error

from difix3d.errors import ShapeError
from difix3d.splatting import l1_ssim
from difix3d.splatting.torch_loss import l1_ssim_torch


def pair(height: int, width: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    target = torch.rand(height, width, 3, generator=generator)
    noise = torch.randn(height, width, 3, generator=generator)
    return (target + 0.1 * noise).clamp(0, 1).requires_grad_(), target


def loss_and_gradient(prediction: torch.Tensor, target: torch.Tensor, weight: float) -> tuple[float, torch.Tensor]:
    prediction = prediction.detach().requires_grad_()
    loss = l1_ssim(prediction, target, weight)
    loss.backward()
    assert prediction.grad is not None
    return loss.item(), prediction.grad


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (2, 3), (5, 5), (11, 11), (45, 64), (100, 3), (7, 131)])
@pytest.mark.parametrize("weight", [0.0, 0.2, 1.0])
def test_matches_float64_torch(size: tuple[int, int], weight: float) -> None:
    prediction, target = pair(*size)
    loss, gradient = loss_and_gradient(prediction, target, weight)
    reference = prediction.detach().double().requires_grad_()
    expected = l1_ssim_torch(reference, target.double(), weight)
    expected.backward()
    assert loss == pytest.approx(expected.item(), abs=1e-6)
    assert relative_error(gradient, reference.grad) < 1e-5


def test_smooth_pictures_do_not_lose_their_variance_to_rounding() -> None:
    ramp = torch.linspace(0.5, 0.9, 64)[None, :, None].expand(48, 64, 3).contiguous()
    prediction = ramp + 0.003
    reference = prediction.double().requires_grad_()
    l1_ssim_torch(reference, ramp.double(), 0.2).backward()
    _, gradient = loss_and_gradient(prediction, ramp, 0.2)
    assert relative_error(gradient, reference.grad) < 1e-2


def test_equal_pictures_have_no_loss() -> None:
    _, target = pair(30, 40)
    loss, gradient = loss_and_gradient(target, target, 0.2)
    assert loss == pytest.approx(0, abs=1e-6) and gradient.abs().max() < 1e-6


def test_sizes_do_not_leak_into_one_another() -> None:
    """Half resolution, then full, then half again: borders of one must not be seen by another."""
    small, large = pair(45, 60, 1), pair(90, 121, 2)
    fresh = loss_and_gradient(*small, 0.2)
    loss_and_gradient(*large, 0.2)
    again = loss_and_gradient(*small, 0.2)
    assert fresh[0] == again[0] and torch.equal(fresh[1], again[1])


def test_same_bits_for_any_number_of_threads() -> None:
    threads = torch.get_num_threads()
    results = []
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            results.append(loss_and_gradient(*pair(70, 90), 0.2))
    finally:
        torch.set_num_threads(threads)
    assert results[0][0] == results[1][0] and torch.equal(results[0][1], results[1][1])


def test_wrong_shapes_are_named() -> None:
    prediction, target = pair(4, 5)
    with pytest.raises(ShapeError, match="prediction: expected"):
        l1_ssim(prediction[..., 0], target)
    with pytest.raises(ShapeError, match="target: expected"):
        l1_ssim(prediction, target[:3])
    with pytest.raises(ShapeError, match="prediction: expected"):
        l1_ssim(prediction[:0], target[:0])

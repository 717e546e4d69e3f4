"""(1 - w) L1 + w (1 - SSIM) of two pictures and its gradient, fused.

SSIM (Wang et al. 2004) per colour channel with an 11x11 Gaussian window of sigma 1.5 and "same" zero padding, averaged
over all pixels, as 3DGS has it. Only x^2 + y^2 is filtered, not the two apart: SSIM needs their sum alone.
    m = (2 mx my + C1)(2 sxy + C2) / ((mx^2 + my^2 + C1)(sxx + syy + C2))

Buffers are made anew for each call, with their zero borders: pictures of different sizes never see one another.
Layout: a row is W * 3 floats padded to whole lanes with PAD zeros on both sides; a map has HALF zero rows above and
below, so that the filters run without tests.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.autograd.function import once_differentiable

from difix3d.splatting.cpu.compile import aligned_empty, inlined, kernel, run, take
from difix3d.splatting.cpu.lanes import WIDTH, load, select, store

HALF = 5
_window = np.exp(-0.5 * (np.arange(HALF + 1) / 1.5) ** 2)
W0, W1, W2, W3, W4, W5 = (float(weight) for weight in _window / (_window[0] + 2 * _window[1:].sum()))
C1, C2 = 0.01**2, 0.03**2
PAD = 16  # floats; at least 3 * HALF
ROWS = 8  # rows dealt out at once


@inlined
def _filtered(buffer: Any, at: int, step: int) -> Any:
    """Eleven taps around `at`, `step` floats apart."""
    middle = load(buffer, at) * W0
    middle = middle + (load(buffer, at - step) + load(buffer, at + step)) * W1
    middle = middle + (load(buffer, at - 2 * step) + load(buffer, at + 2 * step)) * W2
    middle = middle + (load(buffer, at - 3 * step) + load(buffer, at + 3 * step)) * W3
    middle = middle + (load(buffer, at - 4 * step) + load(buffer, at + 4 * step)) * W4
    return middle + (load(buffer, at - 5 * step) + load(buffer, at + 5 * step)) * W5


@kernel
def filter_rows(counter: Any, x: Any, y: Any, span: int, maps: Any) -> None:
    """maps [4, H + 2 HALF, span]: x, y, x^2 + y^2 and x y filtered along rows. x, y: [H, W * 3]."""
    height, wide = x.shape
    line_x, line_y = np.zeros(span + 2 * PAD, np.float32), np.zeros(span + 2 * PAD, np.float32)
    squares, product = np.zeros(span + 2 * PAD, np.float32), np.zeros(span + 2 * PAD, np.float32)
    m0, m1, m2, m3 = maps[0].reshape(-1), maps[1].reshape(-1), maps[2].reshape(-1), maps[3].reshape(-1)
    while True:
        start = take(counter) * ROWS
        if start >= height + 2 * HALF:
            break
        for row in range(start, min(start + ROWS, height + 2 * HALF)):
            if (row < HALF) | (row >= height + HALF):
                maps[:, row, :] = 0.0
                continue
            for i in range(wide):
                line_x[PAD + i] = x[row - HALF, i]
                line_y[PAD + i] = y[row - HALF, i]
            for at in range(PAD, PAD + span, WIDTH):
                a, b = load(line_x, at), load(line_y, at)
                store(squares, at, a * a + b * b)
                store(product, at, a * b)
            for i in range(0, span, WIDTH):
                store(m0, row * span + i, _filtered(line_x, PAD + i, 3))
                store(m1, row * span + i, _filtered(line_y, PAD + i, 3))
                store(m2, row * span + i, _filtered(squares, PAD + i, 3))
                store(m3, row * span + i, _filtered(product, PAD + i, 3))


@kernel
def similarity(counter: Any, x: Any, y: Any, span: int, maps: Any, slopes: Any, sums: Any) -> None:
    """Filter maps down columns; SSIM of each value; slopes [3, H + 2 HALF, span]: its derivatives by mx, by the
    filtered x^2 and by the filtered x y, filtered along rows. sums [H, 2]: of |x - y| and of SSIM over each row."""
    height, wide = x.shape
    by_mean, by_square = np.zeros(span + 2 * PAD, np.float32), np.zeros(span + 2 * PAD, np.float32)
    by_product, scratch = np.zeros(span + 2 * PAD, np.float32), np.zeros(span, np.float32)
    m0, m1, m2, m3 = maps[0].reshape(-1), maps[1].reshape(-1), maps[2].reshape(-1), maps[3].reshape(-1)
    d0, d1, d2 = slopes[0].reshape(-1), slopes[1].reshape(-1), slopes[2].reshape(-1)
    while True:
        start = take(counter) * ROWS
        if start >= height + 2 * HALF:
            break
        for row in range(start, min(start + ROWS, height + 2 * HALF)):
            if (row < HALF) | (row >= height + HALF):
                slopes[:, row, :] = 0.0
                continue
            for i in range(0, span, WIDTH):
                at = row * span + i
                mx, my = _filtered(m0, at, span), _filtered(m1, at, span)
                squares, product = _filtered(m2, at, span), _filtered(m3, at, span)
                means = mx * mx + my * my
                both = mx * my
                top1 = 2.0 * both + C1
                top2 = 2.0 * (product - both) + C2
                low1 = means + C1
                low2 = squares - means
                low2 = select(low2 > 0.0, low2, 0.0) + C2
                over1, over2 = 1.0 / low1, 1.0 / low2
                over = over1 * over2
                ssim = top1 * top2 * over
                store(scratch, i, ssim)
                store(by_square, PAD + i, 0.0 - ssim * over2)
                store(by_product, PAD + i, 2.0 * top1 * over)
                store(by_mean, PAD + i, 2.0 * (my * (top2 - top1) * over + mx * ssim * (over2 - over1)))
            error, ssim_sum = 0.0, 0.0
            for i in range(wide):
                error += abs(x[row - HALF, i] - y[row - HALF, i])
                ssim_sum += scratch[i]
            sums[row - HALF, 0], sums[row - HALF, 1] = error, ssim_sum
            # Beyond the picture there is no SSIM to differentiate
            by_mean[PAD + wide :] = 0.0
            by_square[PAD + wide :] = 0.0
            by_product[PAD + wide :] = 0.0
            for i in range(0, span, WIDTH):
                store(d0, row * span + i, _filtered(by_mean, PAD + i, 3))
                store(d1, row * span + i, _filtered(by_square, PAD + i, 3))
                store(d2, row * span + i, _filtered(by_product, PAD + i, 3))


@kernel
def loss_gradient(counter: Any, x: Any, y: Any, span: int, slopes: Any, weight: float, gradient: Any) -> None:
    """gradient [H, W * 3]: dL/dx, from slopes filtered down columns (the window is its own transpose)."""
    height, wide = x.shape
    line = np.zeros(span, np.float32)
    line_x, line_y = np.zeros(span, np.float32), np.zeros(span, np.float32)
    d0, d1, d2 = slopes[0].reshape(-1), slopes[1].reshape(-1), slopes[2].reshape(-1)
    l1_share = (1.0 - weight) / (height * wide)
    ssim_share = weight / (height * wide)
    while True:
        start = take(counter) * ROWS
        if start >= height:
            break
        for row in range(start, min(start + ROWS, height)):
            for i in range(wide):
                line_x[i] = x[row, i]
                line_y[i] = y[row, i]
            for i in range(0, span, WIDTH):
                at = (row + HALF) * span + i
                a, b = load(line_x, i), load(line_y, i)
                by_x = _filtered(d0, at, span) + 2.0 * a * _filtered(d1, at, span) + b * _filtered(d2, at, span)
                sign = select(a > b, 1.0, select(a < b, -1.0, 0.0))
                store(line, i, sign * l1_share - by_x * ssim_share)
            for i in range(wide):
                gradient[row, i] = line[i]


def l1_ssim_arrays(
    prediction: NDArray[np.float32], target: NDArray[np.float32], ssim_weight: float, with_gradient: bool
) -> tuple[float, NDArray[np.float32] | None]:
    """The loss of two [H, W, 3] pictures and, if asked for, its gradient by the first."""
    height, width, channels = prediction.shape
    x, y = prediction.reshape(height, width * channels), target.reshape(height, width * channels)
    span = -(-width * channels // WIDTH) * WIDTH
    maps = aligned_empty(4, height + 2 * HALF, span)
    slopes = aligned_empty(3, height + 2 * HALF, span)
    sums = np.empty((height, 2))
    run(filter_rows, x, y, span, maps)
    run(similarity, x, y, span, maps, slopes, sums)
    l1, ssim = sums.sum(0) / x.size
    loss = float((1 - ssim_weight) * l1 + ssim_weight * (1 - ssim))
    if not with_gradient:
        return loss, None
    gradient = np.empty_like(prediction)
    run(loss_gradient, x, y, span, slopes, float(ssim_weight), gradient.reshape(x.shape))
    return loss, gradient


class _L1SSIM(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, prediction: Any, target: Any, ssim_weight: float) -> Any:
        loss, gradient = l1_ssim_arrays(
            prediction.detach().numpy(), target.detach().numpy(), ssim_weight, ctx.needs_input_grad[0]
        )
        ctx.gradient = gradient
        return prediction.new_tensor(loss)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, scale: Any) -> Any:
        return torch.from_numpy(ctx.gradient) * scale, None, None


def l1_ssim_cpu(prediction: torch.Tensor, target: torch.Tensor, ssim_weight: float) -> torch.Tensor:
    """`l1_ssim` on the CPU, shapes already checked; differentiable in prediction only."""
    return _L1SSIM.apply(prediction.float().contiguous(), target.detach().float().contiguous(), float(ssim_weight))

"""How far off each picture is, at each pixel."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from difix3d.losses import LPIPS
from difix3d.training.lite_errors import MOST, errors_of

pytestmark = pytest.mark.shared  # LPIPS needs VGG-16's weights


def test_their_mean_is_lpips_and_they_lie_where_pictures_differ(shared: Path) -> None:
    rng = np.random.default_rng(0)
    target = rng.integers(0, 255, (12, 16, 3), np.uint8).repeat(8, 0).repeat(8, 1)
    spoiled = target.copy()
    spoiled[:, 64:] = 255 - spoiled[:, 64:]
    frame = np.dstack([spoiled, np.full((*target.shape[:2], 2), 255, np.uint8)])
    photos = np.stack([np.dstack([target, frame[..., 3:], spoiled, frame[..., 3:]])])
    lpips = LPIPS.load("vgg")
    errors = errors_of(target, frame, photos, lpips)
    assert errors.shape == (96, 128, 3) and errors.dtype == np.uint8

    def pixels(picture: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(picture).permute(2, 0, 1)[None].float() / 127.5 - 1

    wanted = float(lpips(pixels(spoiled), pixels(target)))
    render, exact, loose = (errors[..., each].astype(np.float64) * MOST / 255 for each in range(3))
    assert render.mean() == pytest.approx(wanted, rel=0.03) and wanted > 0.1
    assert exact.max() == 0  # the photo is the truth
    np.testing.assert_array_equal(loose, render)
    assert render[:, 96:].mean() > 5 * render[:, :32].mean()


def test_odd_sizes_and_no_photos(shared: Path) -> None:
    rng = np.random.default_rng(0)
    target, frame = rng.integers(0, 255, (45, 61, 3), np.uint8), rng.integers(0, 255, (45, 61, 5), np.uint8)
    errors = errors_of(target, frame, np.empty((0, 45, 61, 10), np.uint8), LPIPS.load("vgg"))
    assert errors.shape == (45, 61, 1) and errors.min() > 0

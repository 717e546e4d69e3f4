"""Metrics against their definitions, published LPIPS values, and what must hold for any pair."""

from __future__ import annotations

import logging
import sys

import numpy as np
import pytest

from difix3d import metrics
from difix3d.errors import ConfigError, ShapeError
from difix3d.formats.image import read_rgb


@pytest.fixture
def pair():
    rng = np.random.default_rng(3)
    a = rng.integers(0, 256, (40, 56, 3), dtype=np.uint8)
    noise = rng.normal(0, 20, a.shape)
    return a, np.clip(a + noise, 0, 255).astype(np.uint8)


def test_psnr_is_its_definition(pair) -> None:
    a, b = pair
    mse = np.mean((a / 255.0 - b / 255.0) ** 2)
    assert metrics.psnr(a, b) == pytest.approx(10 * np.log10(1 / mse))
    assert metrics.psnr(a, a) == np.inf
    assert metrics.psnr(a, b) == pytest.approx(metrics.psnr(a / 255.0, b / 255.0))
    assert metrics.psnr(np.zeros((4, 4, 3)), np.full((4, 4, 3), 0.1)) == pytest.approx(20.0)


def test_ssim_agrees_with_a_direct_sum(pair) -> None:
    """Window by window at a handful of pixels, border ones included."""
    a, b = (picture[..., :1] / 255.0 for picture in pair)
    offsets = np.arange(-5, 6)
    window = np.exp(-(offsets**2) / 4.5)
    window = np.outer(window, window) / window.sum() ** 2
    pad_a, pad_b = (np.pad(x[..., 0], 5) for x in (a, b))
    values = []
    for y in range(a.shape[0]):
        for x in range(a.shape[1]):
            p, q = pad_a[y : y + 11, x : x + 11], pad_b[y : y + 11, x : x + 11]
            mu_p, mu_q = (window * p).sum(), (window * q).sum()
            var_p, var_q = (window * p * p).sum() - mu_p**2, (window * q * q).sum() - mu_q**2
            cov = (window * p * q).sum() - mu_p * mu_q
            values.append(
                (2 * mu_p * mu_q + 1e-4) * (2 * cov + 9e-4) / ((mu_p**2 + mu_q**2 + 1e-4) * (var_p + var_q + 9e-4))
            )
    assert metrics.ssim(a, b) == pytest.approx(np.mean(values), abs=1e-9)


def test_ssim_is_symmetric_bounded_and_one_for_equals(pair) -> None:
    a, b = pair
    assert metrics.ssim(a, a) == pytest.approx(1.0)
    assert metrics.ssim(a, b) == pytest.approx(metrics.ssim(b, a))
    assert -1 <= metrics.ssim(a, 255 - a) < metrics.ssim(a, b) < 1


@pytest.mark.shared
@pytest.mark.parametrize(
    ("first", "second", "alex", "vgg"),
    [
        ("golden/inputs/image_0.png", "golden/inputs/ref_0.png", 0.462094, 0.629968),
        ("golden/inputs/image_0.png", "golden/inputs/image_1.png", 0.405500, 0.538137),
    ],
)
def test_lpips_gives_the_published_values(shared, first, second, alex, vgg) -> None:
    a, b = read_rgb(shared / first), read_rgb(shared / second)
    assert metrics.lpips(a, b, net="alex") == pytest.approx(alex, abs=2e-5)
    assert metrics.lpips(a, b) == pytest.approx(vgg, abs=2e-5)
    assert metrics.lpips(a, a) == 0
    assert metrics.lpips(a / 255.0, b / 255.0, net="alex") == pytest.approx(alex, abs=2e-5)


@pytest.mark.shared
def test_lpips_of_large_photos_gives_the_published_values(shared) -> None:
    a, b = (read_rgb(shared / "scenes" / "dev" / "panel17" / "images" / f"00{number}.jpg") for number in (0, 1))
    assert metrics.lpips(a, b, net="alex") == pytest.approx(0.382619, abs=2e-5)
    assert metrics.lpips(a, b) == pytest.approx(0.427869, abs=2e-5)


def test_lpips_without_weights_is_none_and_says_so_once(monkeypatch, caplog, pair) -> None:
    monkeypatch.setattr("difix3d.perceptual_weights.find_weights", lambda net="vgg": None)
    metrics._say_missing.cache_clear()
    with caplog.at_level(logging.WARNING):
        assert metrics.lpips(*pair) is None
        assert metrics.lpips(*pair) is None
        assert metrics.dists(*pair) is None
    assert sum("difix3d weights" in record.message for record in caplog.records) == 1


@pytest.mark.shared
@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ("golden/inputs/image_0.png", "golden/inputs/ref_0.png", 0.252738),
        ("golden/inputs/image_0.png", "golden/inputs/image_1.png", 0.221773),
    ],
)
def test_dists_gives_its_authors_values(shared, first, second, expected) -> None:
    """The values are those of dists-pytorch 0.1 over the same VGG-16."""
    a, b = read_rgb(shared / first), read_rgb(shared / second)
    assert metrics.dists(a, b) == pytest.approx(expected, abs=2e-5)
    assert metrics.dists(a, a) == pytest.approx(0, abs=1e-6)


@pytest.mark.shared
def test_dists_forgives_texture_that_lies_elsewhere(shared) -> None:
    """Noise drawn again is the same texture; PSNR finds it as far as blur."""
    rng = np.random.default_rng(0)
    a, b = (rng.integers(0, 256, (64, 64, 3), dtype=np.uint8) for _ in range(2))
    grey = np.full_like(a, 128)
    assert metrics.psnr(a, b) < metrics.psnr(a, grey)
    assert metrics.dists(a, b) < 0.5 * metrics.dists(a, grey)


def test_flip_counts_what_is_seen(pair) -> None:
    pytest.importorskip("flip_evaluator", reason="pip install -e '.[benchmarks]'")
    a, b = pair
    assert metrics.flip(a, a) == 0
    assert 0 < metrics.flip(a, b) < metrics.flip(a, 255 - a) <= 1
    black, white = np.zeros_like(a), np.full_like(a, 255)
    assert metrics.flip(black, white) == pytest.approx(0.9673, abs=1e-3)
    assert metrics.flip(black / 255.0, white / 255.0) == pytest.approx(metrics.flip(black, white))


def test_flip_that_is_not_installed_is_none_and_says_so_once(monkeypatch, caplog, pair) -> None:
    monkeypatch.setitem(sys.modules, "flip_evaluator", None)
    metrics._say_no_flip.cache_clear()
    with caplog.at_level(logging.WARNING):
        assert metrics.flip(*pair) is None
        assert metrics.flip(*pair) is None
    assert sum("-e '.[benchmarks]'" in record.message for record in caplog.records) == 1


def test_wrong_input_is_named(pair) -> None:
    a, b = pair
    with pytest.raises(ShapeError, match="one size"):
        metrics.psnr(a, b[:-1])
    with pytest.raises(ConfigError, match="vgg"):
        metrics.lpips(a, b, net="inception")

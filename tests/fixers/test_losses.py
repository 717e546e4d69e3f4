"""Losses against recorded values of the published training code, and their gradients."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file

from difix3d import losses
from difix3d.errors import CheckpointError, ShapeError

pytestmark = pytest.mark.shared


@pytest.fixture(scope="module")
def gram(shared):
    recorded = load_file(shared / "golden" / "expected" / "gram_loss.safetensors")
    weights = {name.removeprefix("vgg."): value for name, value in recorded.items() if name.startswith("vgg.")}
    return losses.ConvFeatures("vgg", weights), recorded


def signed(pixels01: torch.Tensor) -> torch.Tensor:
    return pixels01 * 2 - 1


def test_gram_loss_of_one_image(gram) -> None:
    features, recorded = gram
    found = losses.gram_loss(features, signed(recorded["a_pixels01"]), signed(recorded["b_pixels01"]))
    torch.testing.assert_close(found, recorded["loss_b1"].reshape(1), rtol=1e-5, atol=0)


def test_gram_loss_of_two_images_alone_and_as_the_reference_had_it(gram) -> None:
    features, recorded = gram
    c, d = signed(recorded["c_pixels01"]), signed(recorded["d_pixels01"])
    torch.testing.assert_close(losses.gram_loss(features, c, d), recorded["loss_b2_items"], rtol=1e-5, atol=0)
    joint = losses.gram_loss(features, c, d, across_items=True)
    torch.testing.assert_close(joint, recorded["loss_b2_as_reference"].reshape(1), rtol=1e-5, atol=0)


def test_gram_loss_is_zero_for_equals_and_symmetric(gram) -> None:
    features, recorded = gram
    a, b = signed(recorded["a_pixels01"]), signed(recorded["b_pixels01"])
    assert losses.gram_loss(features, a, a) == 0
    torch.testing.assert_close(losses.gram_loss(features, a, b), losses.gram_loss(features, b, a))


def test_lpips_has_finite_slopes_even_on_flat_images(shared) -> None:
    model = losses.LPIPS.load("alex")
    flat = torch.zeros(2, 3, 48, 64, requires_grad=True)
    target = torch.rand(2, 3, 48, 64) * 2 - 1
    distance = model(flat, target)
    assert distance.shape == (2,)
    distance.mean().backward()
    assert torch.isfinite(flat.grad).all()
    assert flat.grad.abs().sum() > 0


def test_lpips_of_a_batch_is_lpips_of_its_items(shared) -> None:
    model = losses.LPIPS.load("alex")
    a, b = torch.rand(3, 3, 40, 40) * 2 - 1, torch.rand(3, 3, 40, 40) * 2 - 1
    alone = torch.cat([model(a[i : i + 1], b[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(model(a, b), alone)


def test_without_weights_it_is_said_how_to_get_them(monkeypatch) -> None:
    monkeypatch.setattr(losses, "find_weights", lambda net: None)
    with pytest.raises(CheckpointError, match="difix3d weights"):
        losses.LPIPS.load("vgg")
    with pytest.raises(CheckpointError, match="DIFIX3D_LPIPS_WEIGHTS"):
        losses.LPIPS.load("alex")


def test_too_small_images_and_missing_layers_are_named(gram) -> None:
    features, recorded = gram
    tiny = torch.zeros(1, 3, 8, 8)
    with pytest.raises(ShapeError, match="at least 16"):
        losses.gram_loss(features, tiny, tiny)
    weights = {name.removeprefix("vgg."): value for name, value in recorded.items() if name.startswith("vgg.")}
    del weights["17.bias"]
    with pytest.raises(CheckpointError, match=r"17\.bias"):
        losses.ConvFeatures("vgg", weights)


def test_random_crop_takes_the_same_window_of_both() -> None:
    x = torch.arange(3 * 30 * 50, dtype=torch.float32).reshape(1, 3, 30, 50)
    for seed in range(5):
        a, b = losses.random_crop(x, x, size_px=20, generator=torch.Generator().manual_seed(seed))
        assert a.shape == (1, 3, 20, 20)
        assert torch.equal(a, b)
    a, _ = losses.random_crop(x, x, size_px=400)
    assert torch.equal(a, x)

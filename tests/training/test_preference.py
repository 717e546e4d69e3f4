"""Comparisons: the loss's slope and rest, its region, and a training run that prefers what raters preferred."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from difix3d.errors import FormatError
from difix3d.losses import LPIPS
from difix3d.training.dataset import Batch, Draw, PairsDataset, collate
from difix3d.training.pairs import COMPARISONS_NAME, read_pairs
from difix3d.training.preference import PreferenceWeights, preference_loss
from difix3d.training.step import predict

L2_ALONE = PreferenceWeights(lpips=0.0)


def compared(better: torch.Tensor, worse: torch.Tensor, mask: torch.Tensor | None = None) -> Batch:
    return Batch(
        pixels=torch.zeros_like(better)[:, None],
        target=better[:, None],
        prompts=("",) * len(better),
        weights=torch.ones(len(better)),
        numbers=tuple(range(len(better))),
        worse=worse,
        mask=mask,
    )


@pytest.fixture
def pictures() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """start, better, worse: [1, 3, 8, 8]."""
    generator = torch.Generator().manual_seed(0)
    return tuple(torch.rand((1, 3, 8, 8), generator=generator) - 0.5 for _ in range(3))  # type: ignore[return-value]


def test_at_the_start_it_is_log_two_and_leads_from_the_worse_to_the_better(pictures) -> None:
    start, better, worse = pictures
    prediction = start.clone().requires_grad_()
    loss, terms = preference_loss(prediction, start, compared(better, worse), L2_ALONE, None)
    assert loss.item() == pytest.approx(np.log(2) / L2_ALONE.beta, rel=1e-5) and terms["proximity"] == 0
    (slope,) = torch.autograd.grad(loss, prediction)
    torch.testing.assert_close(slope, (worse - better) / prediction.numel())


def test_a_fix_that_was_the_models_own_and_lost_has_a_slope_too(pictures) -> None:
    start, better, _ = pictures
    prediction = start.clone().requires_grad_()
    loss, _ = preference_loss(prediction, start, compared(better, start), L2_ALONE, None)
    assert torch.autograd.grad(loss, prediction)[0].abs().sum() > 0
    # And the same two pictures ask for nothing.
    loss, _ = preference_loss(prediction, start, compared(better, better), L2_ALONE, None)
    assert torch.autograd.grad(loss, prediction)[0].abs().sum() == 0


def test_it_comes_to_rest_between_start_and_better(pictures) -> None:
    start, better, worse = pictures
    prediction = start.clone().requires_grad_()
    descent = torch.optim.Adam([prediction], lr=0.02)
    for _ in range(400):
        descent.zero_grad()
        preference_loss(prediction, start, compared(better, worse), L2_ALONE, None)[0].backward()
        descent.step()
    moved = prediction.detach() - start
    along = (moved * (better - worse)).sum() / (better - worse).square().sum()
    assert 0.05 < along < 1.0
    torch.testing.assert_close(moved, along * (better - worse), rtol=0.05, atol=0.01)


def test_outside_the_marked_region_only_nearness_counts(pictures) -> None:
    start, better, worse = pictures
    mask = torch.zeros(1, 1, 8, 8)
    mask[..., :4] = 1
    prediction = start.clone().requires_grad_()
    loss, _ = preference_loss(prediction, start, compared(better, worse, mask), L2_ALONE, None)
    (slope,) = torch.autograd.grad(loss, prediction)
    assert (slope[..., 4:] == 0).all()
    # Half of the picture: each marked pixel counts twice.
    torch.testing.assert_close(slope[..., :4], 2 * (worse - better)[..., :4] / prediction.numel())


def picture(path: Path, size: tuple[int, int], value: int | None = None, seed: int = 0) -> str:
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)
    Image.fromarray(pixels if value is None else np.full_like(pixels, value)).save(path)
    return path.name


@pytest.fixture
def with_comparisons(export) -> Path:
    """The tiny export, and one comparison of its first row: the target against noise, marked on its left half."""
    rows = json.loads((export / "difix.json").read_text())["train"]
    first = next(iter(rows.values()))
    with Image.open(export / first["image"]) as image:
        size = image.size
    worse = picture(export / "worse.png", size)
    mask = np.zeros((size[1], size[0], 3), np.uint8)
    mask[:, : size[0] // 2] = 255
    Image.fromarray(mask).save(export / "mask.png")
    row = {**first, "worse_image": worse, "mask_image": "mask.png", "weight": 0.5}
    (export / COMPARISONS_NAME).write_text(json.dumps({"train": {"one": row}, "test": {}}))
    return export


@pytest.mark.shared
def test_comparisons_join_the_training_rows_and_have_buckets_of_their_own(with_comparisons) -> None:
    plain = read_pairs(with_comparisons)["train"]
    pairs = read_pairs(with_comparisons, comparisons=True)["train"]
    assert len(pairs) == len(plain) + 1 and pairs[-1].worse_image is not None and pairs[-1].weight == 0.5
    dataset = PairsDataset(pairs)
    assert dataset.shape(len(plain)) == dataset.shape(0) and dataset.bucket(len(plain)) != dataset.bucket(0)
    batch = collate([dataset[Draw(len(plain), 0)], dataset[Draw(len(plain), 1)]])
    assert batch.worse.shape == batch.target[:, 0].shape and batch.mask.shape[1] == 1
    half = batch.mask.shape[-1] // 2
    assert (batch.mask[..., : half - 2] == 1).all() and (batch.mask[..., half + 2 :] == 0).all()
    assert collate([dataset[Draw(0, 0)]]).worse is None


@pytest.mark.shared
def test_a_comparison_without_its_picture_is_named(with_comparisons) -> None:
    (with_comparisons / "worse.png").unlink()
    with pytest.raises(FormatError, match=r"(?s)comparisons\.json.*train/one.*worse_image"):
        read_pairs(with_comparisons, comparisons=True)


@pytest.mark.shared
def test_training_moves_towards_what_was_preferred_and_keeps_the_start(with_comparisons, make_trainer) -> None:
    assert not make_trainer()._start, "no second copy of the weights where nothing is compared"
    pairs = [pair for pair in read_pairs(with_comparisons, comparisons=True)["train"] if pair.worse_image]
    compares = make_trainer(steps=12, learning_rate=1e-3, pairs=pairs, crop=0)  # the marked half is in every step
    batch = compares._dataset[Draw(0, 0)]
    before = predict(compares.pipeline, batch, 0)[:, 0].detach()
    results = list(compares.run())
    assert set(results[0].terms) == {"preference", "proximity"}
    assert results[-1].terms["preference"] < results[0].terms["preference"]
    torch.testing.assert_close(compares._at_start(batch), before, rtol=0, atol=1e-5)
    assert (predict(compares.pipeline, batch, 0)[:, 0] - before).abs().max() > 1e-3


@pytest.mark.shared
def test_lpips_is_part_of_the_distance(with_comparisons, make_trainer) -> None:
    dataset = PairsDataset([read_pairs(with_comparisons, comparisons=True)["train"][-1]])
    batch = dataclasses.replace(dataset[Draw(0, 0)], mask=None)
    prediction = (batch.target[:, 0] + batch.worse) / 2
    with_lpips = preference_loss(prediction, batch.pixels[:, 0], batch, PreferenceWeights(), LPIPS.load("vgg"))[0]
    without = preference_loss(prediction, batch.pixels[:, 0], batch, L2_ALONE, None)[0]
    assert with_lpips != without

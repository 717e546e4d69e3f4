"""Training pairs as tensors: views, targets, sizes, crops."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from difix3d.errors import FormatError
from difix3d.training.dataset import Draw, PairsDataset, collate
from difix3d.training.framing import Framing
from difix3d.types import TrainingPair


@pytest.fixture
def pairs(tmp_path: Path) -> list[TrainingPair]:
    """One without reference, one with two; images of 100x70, the target and a reference of other sizes."""
    rng = np.random.default_rng(0)
    for name, (width, height) in {"image": (100, 70), "target": (100, 70), "near": (70, 100), "far": (50, 35)}.items():
        Image.fromarray(rng.integers(0, 256, (height, width, 3), np.uint8)).save(tmp_path / f"{name}.png")
    image, target, near, far = (tmp_path / f"{name}.png" for name in ("image", "target", "near", "far"))
    return [TrainingPair(image, target, weight=0.5), TrainingPair(image, target, (near, far), "clean it")]


def test_rows_become_views_and_targets(pairs) -> None:
    dataset = PairsDataset(pairs)
    assert [dataset.shape(row) for row in (0, 1)] == [(1, 64, 96), (3, 64, 96)]
    for row in (0, 1):
        sample = dataset[Draw(row, 5)]
        assert sample.pixels.shape[1:] == sample.target.shape[1:] == (dataset.shape(row)[0], 3, 64, 96)
        # A reference is its own target; the image is not.
        assert torch.equal(sample.pixels[:, 1:], sample.target[:, 1:])
        assert not torch.equal(sample.pixels[:, 0], sample.target[:, 0])
    assert sample.prompts == ("clean it",) and sample.numbers == (5,)


def test_samples_of_one_row_stack(pairs) -> None:
    dataset = PairsDataset(pairs)
    batch = collate([dataset[Draw(0, 3)], dataset[Draw(0, 4)]])
    assert batch.pixels.shape == (2, 1, 3, 64, 96) and batch.numbers == (3, 4)
    assert batch.weights.tolist() == [0.5, 0.5]


def test_stretching_gives_every_row_one_size(pairs) -> None:
    dataset = PairsDataset(pairs, Framing(48, 32))
    assert dataset.shape(1) == (3, 32, 48) and dataset[Draw(1, 0)].pixels.shape == (1, 3, 3, 32, 48)


def test_crops_are_of_one_place_in_all_pictures_of_a_row(pairs) -> None:
    whole, cut = PairsDataset(pairs)[Draw(1, 0)], PairsDataset(pairs, Framing(crop_px=32))[Draw(1, 0)]
    places = [
        (top, left)
        for top in range(33)
        for left in range(65)
        if torch.equal(whole.pixels[..., top : top + 32, left : left + 32], cut.pixels)
        and torch.equal(whole.target[..., top : top + 32, left : left + 32], cut.target)
    ]
    assert len(places) == 1


def test_a_crop_follows_from_seed_and_number_alone(pairs) -> None:
    def cut(seed: int, number: int) -> torch.Tensor:
        return PairsDataset(pairs, Framing(crop_px=32), seed=seed)[Draw(0, number)].pixels

    assert torch.equal(cut(1, 7), cut(1, 7))
    assert not torch.equal(cut(1, 7), cut(1, 8)) and not torch.equal(cut(1, 7), cut(2, 7))


def test_what_cannot_be_read_is_named(pairs) -> None:
    data = pairs[0].image.read_bytes()
    pairs[0].image.write_bytes(data[: len(data) // 2])  # since it was checked
    with pytest.raises(FormatError, match=r"image\.png: expected a picture"):
        PairsDataset(pairs)[Draw(0, 0)]
    with pytest.raises(FormatError, match="at least one row"):
        PairsDataset([])

"""The crops that the fixer lite is trained on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from difix3d.errors import CaptureError, ShapeError
from difix3d.training.lite_crops import Batch, Crops, write_pair
from difix3d.training.lite_errors import MOST


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """A pair whose target, frame and photos show one picture, with two photos; and a small one without any. Errors are
    the picture's red, green and blue: of the render, of photos as carried exactly, and in patches."""
    rng = np.random.default_rng(0)
    found = []
    for name, (height, width), count in (("a", (60, 80), 2), ("b", (20, 90), 0)):
        rgb = rng.integers(0, 200, (height, width, 3), np.uint8)
        frame = np.dstack([rgb, np.full((height, width, 2), 255, np.uint8)])
        photo = np.dstack([frame, frame])  # carried exactly, and loosely
        found.append(tmp_path / f"{name}.npy")
        photos = np.stack([photo] * count) if count else np.empty((0, height, width, 10), np.uint8)
        errors = np.dstack([rgb[..., :1], *[rgb[..., 1:2]] * count, *[rgb[..., 2:]] * count])
        write_pair(found[-1], rgb, frame, photos, errors)
    return found


def batches(files: list[Path], seed: int = 0, count: int = 12) -> list[Batch]:
    crops = Crops(files, size_px=32, batch=4, seed=seed)
    return [crops.batch(step) for step in range(count)]


def test_all_planes_are_cut_and_turned_alike(files: list[Path]) -> None:
    differences = []
    for batch in batches(files):
        assert batch.frame.shape == (4, 5, 32, 32) and batch.photos.shape == (4, 4, 10, 32, 32)
        torch.testing.assert_close(batch.frame[:, :3], batch.target)
        shown = batch.present[:, 0] > 0
        differences.append((batch.photos[:, 0, :3] - batch.target)[shown].flatten())
        torch.testing.assert_close(batch.photos[:, :, :3], batch.photos[:, :, 5:8])
        # Light changes the pictures, each by its own gain, and not what their errors are.
        for errors, channel in (
            (batch.error[:, 0], 0),
            (batch.photo_errors[:, 0, 0], 1),
            (batch.photo_errors[:, 0, 1], 2),
        ):
            ratio = batch.frame[:, channel] / (errors / MOST).clamp(min=0.1)
            sure = (errors / MOST > 0.1) & (batch.frame[:, channel] < 1)
            for row in shown.nonzero().flatten():
                assert ratio[row][sure[row]].std() < 1e-5
    # The same picture but for a little exposure of each photo's own.
    assert 0 < torch.cat(differences).abs().mean() < 0.05


def test_filler_is_empty_and_every_number_of_photos_occurs(files: list[Path]) -> None:
    counts = set()
    for batch in batches(files[:1], count=20):
        assert not batch.photos[batch.present == 0].any()
        counts |= set(batch.present.sum(1).int().tolist())
    assert counts == {1, 2}, "without a photo there is nothing to learn"


def test_seed_and_step_decide_the_batch(files: list[Path]) -> None:
    first, again, other = batches(files)[3], batches(files)[3], batches(files, seed=1)[3]
    torch.testing.assert_close(first.photos, again.photos)
    assert not torch.equal(first.target, other.target)


def test_without_pairs_it_says_so() -> None:
    with pytest.raises(CaptureError, match="at least one"):
        Crops([], 32, 4)


def test_errors_must_be_of_the_same_photos(tmp_path: Path) -> None:
    rgb = np.zeros((20, 24, 3), np.uint8)
    frame, photos = np.zeros((20, 24, 5), np.uint8), np.zeros((2, 20, 24, 10), np.uint8)
    with pytest.raises(ShapeError, match="2 photos to have 5 channels"):
        write_pair(tmp_path / "pair.npy", rgb, frame, photos, np.zeros((20, 24, 3), np.uint8))
    assert not (tmp_path / "pair.npy").exists()


def test_a_pair_that_an_earlier_version_prepared_is_named(tmp_path: Path) -> None:
    np.save(tmp_path / "old.npy", np.zeros((20, 24, 3 + 5 + 2 * 10), np.uint8))
    with pytest.raises(ShapeError, match="has 28 channels"):
        Crops([tmp_path / "old.npy"], 16, 1)

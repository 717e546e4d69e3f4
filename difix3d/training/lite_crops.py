"""Crops for training the fixer `lite`, cut from pairs that were prepared once and lie on disk as bytes.

A prepared pair is one file NAME.npy, uint8 [H, W, 3 + 5 + 1 + 12 N]: the true photo, the planes of the frame and how
far the render is off (lite_errors.py), then of each of N photos its planes (difix3d.fixers.lite.planes) and how far it
is off as carried exactly and in patches. Files are mapped, not read: a crop costs the rows it covers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from difix3d.errors import CaptureError, ShapeError
from difix3d.fixers.lite.planes import CARRIED_CHANNELS, FRAME_CHANNELS, PHOTO_CHANNELS
from difix3d.training.lite_errors import MOST

_TARGET, _FRAME, _PHOTO = 3, len(FRAME_CHANNELS), len(PHOTO_CHANNELS)
_OWN, _EACH = _TARGET + _FRAME + 1, _PHOTO + 2
SHARE_OF_COUNTS = (0.25, 0.3, 0.2, 0.25)
"""Of crops that do not show every photo, as it is used: how often they show 1, 2, ..., so that the network is at home
with each number. Without any the render stays, and there is nothing to learn."""
ALL_SHOWN = 0.5
"""Of crops, the share that shows every photo."""
_CONTRAST, _TINT, _PHOTO_EXPOSURE = 0.15, 0.05, 0.03
"""Standard deviations, of log gain: of the whole picture, of its channels, and of each photo against the render."""


@dataclass(frozen=True)
class Batch:
    """frame [B, 5, S, S], photos [B, N, 10, S, S], present [B, N], target [B, 3, S, S]; float32 in [0, 1]. LPIPS of
    what may be shown, at each pixel: of the render error [B, 1, S, S], of the photos photo_errors [B, N, 2, S, S]."""

    frame: Tensor
    photos: Tensor
    present: Tensor
    target: Tensor
    error: Tensor
    photo_errors: Tensor


def write_pair(
    path: Path,
    target: NDArray[np.uint8],
    frame: NDArray[np.uint8],
    photos: NDArray[np.uint8],
    errors: NDArray[np.uint8],
) -> None:
    """Keep a pair for `Crops`. target: [H, W, 3]; frame: [H, W, 5], photos: [N, H, W, 10] as `planes_of` gives them;
    errors: [H, W, 1 + 2 N] as `errors_of` does."""
    count = len(photos)
    for what, found, channels in (("photo", target, 3), ("errors", errors, 1 + 2 * count)):
        if found.shape != (*frame.shape[:2], channels):
            raise ShapeError(
                f"{path.name}: expected the {what} of a frame of {list(frame.shape)} with {count} photos to have "
                f"{channels} channels at its size, found {list(found.shape)}"
            )
    of_each = [part for each in range(count) for part in (photos[each], errors[..., [1 + each, 1 + count + each]])]
    np.save(path, np.concatenate([target, frame, errors[..., :1], *of_each], axis=-1))


class Crops:
    """Random crops of prepared pairs. The same seed and step give the same batch.

    names: of the files. CaptureError where `files` is empty, ShapeError for a pair of another layout; pairs smaller
    than `size_px` are mirrored at their borders.
    """

    def __init__(self, files: Sequence[Path], size_px: int, batch: int, seed: int = 0):
        if not files:
            raise CaptureError("No prepared pair to train on: expected at least one .npy file.")
        self.names = [path.name for path in sorted(files)]
        self._pairs = [np.load(path, mmap_mode="r") for path in sorted(files)]
        for path, pair in zip(sorted(files), self._pairs):
            if (pair.shape[-1] - _OWN) % _EACH:
                raise ShapeError(
                    f"{path} has {pair.shape[-1]} channels, expected {_OWN} and {_EACH} for each photo: it was "
                    "prepared by an earlier version. Prepare again, into another folder."
                )
        self._size_px, self._batch, self._seed = size_px, batch, seed

    def __len__(self) -> int:
        return len(self._pairs)

    def batch(self, step: int) -> Batch:
        rng = np.random.default_rng([self._seed, step])
        most = len(SHARE_OF_COUNTS)
        size = self._size_px
        planes = np.zeros((self._batch, size, size, _OWN + most * _EACH), np.float32)
        present = np.zeros((self._batch, most), np.float32)
        for row in range(self._batch):
            pair = self._pairs[rng.integers(len(self._pairs))]
            crop = turned(crop_of(pair, size, rng), rng).astype(np.float32) / np.float32(255.0)
            there = (crop.shape[-1] - _OWN) // _EACH
            chosen = shown(there, rng)
            photos = crop[..., _OWN:].reshape(size, size, there, _EACH)[:, :, chosen]
            planes[row, ..., :_OWN] = crop[..., :_OWN]
            planes[row, ..., _OWN : _OWN + len(chosen) * _EACH] = photos.reshape(size, size, -1)
            present[row, : len(chosen)] = 1.0
            _expose(planes[row], len(chosen), rng)
        return _batch_of(planes, present)


def shown(there: int, rng: np.random.Generator) -> list[int]:
    """Which photos of `there` the network gets to see, in which order."""
    order = rng.permutation(there)[: len(SHARE_OF_COUNTS)].tolist()
    return order if rng.random() < ALL_SHOWN else order[: 1 + int(rng.choice(len(SHARE_OF_COUNTS), p=SHARE_OF_COUNTS))]


def crop_of(
    pair: NDArray[np.uint8], size: int, rng: np.random.Generator, around: tuple[int, int] | None = None
) -> NDArray[np.uint8]:
    """[size, size, C] of [H, W, C], mirrored at borders where that is smaller. around: (row, column) that is in it."""
    height, width = pair.shape[:2]
    if around is None:
        top, left = (int(rng.integers(max(side - size, 0) + 1)) for side in (height, width))
    else:
        first = [max(0, at - size + 1) for at in around]
        last = [max(low, min(at, side - size)) for low, at, side in zip(first, around, (height, width))]
        top, left = (int(rng.integers(low, high + 1)) for low, high in zip(first, last))
    crop = np.asarray(pair[top : top + size, left : left + size])
    missing = [(0, size - side) for side in crop.shape[:2]]
    return np.pad(crop, [*missing, (0, 0)], mode="symmetric") if any(more for _, more in missing) else crop


def turned(crop: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """One of the eight ways to turn and mirror a square."""
    crop = np.rot90(crop, int(rng.integers(4)))
    return crop[:, ::-1] if rng.random() < 0.5 else crop


def _expose(planes: NDArray[np.float32], photos: int, rng: np.random.Generator) -> None:
    """Other light, in place: the same for everything, and a little of each photo's own."""
    gain = np.exp(rng.normal(0, _CONTRAST) + rng.normal(0, _TINT, 3)).astype(np.float32)
    colours = [slice(0, 3), slice(3, 6)]
    for photo in range(photos):
        own = np.exp(rng.normal(0, _PHOTO_EXPOSURE, 3)).astype(np.float32)
        first = _OWN + photo * _EACH
        for start in (first, first + len(CARRIED_CHANNELS)):
            colours.append(slice(start, start + 3))
            planes[..., colours[-1]] *= own
    for where in colours:
        planes[..., where] = np.minimum(planes[..., where] * gain, 1.0)


def _batch_of(planes: NDArray[np.float32], present: NDArray[np.float32]) -> Batch:
    tensor = torch.from_numpy(planes).permute(0, 3, 1, 2)
    target, frame, error, photos = tensor.split([_TARGET, _FRAME, 1, tensor.shape[1] - _OWN], dim=1)
    photos, errors = photos.unflatten(1, (-1, _EACH)).split([_PHOTO, 2], dim=2)
    return Batch(frame, photos, torch.from_numpy(present), target, MOST * error, MOST * errors)

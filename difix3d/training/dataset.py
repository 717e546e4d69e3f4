"""Training pairs as tensors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from difix3d.errors import FormatError
from difix3d.fixers.difix.images import to_pixels
from difix3d.training.draws import Purpose, generator_of
from difix3d.training.framing import Framing
from difix3d.types import TrainingPair


class Draw(NamedTuple):
    """One sample of a training run: a row, and how many samples the run saw before it, which decides its crop and
    its noise."""

    row: int
    number: int


@dataclass(frozen=True)
class Batch:
    """pixels: [B, V, 3, H, W] in [-1, 1], degraded image and its references; target: the same with the clean image
    in place of the degraded one (a reference is its own target). prompts, numbers (see Draw): B of each; weights [B].

    Of comparisons also worse [B, 3, H, W] in [-1, 1] and mask [B, 1, H, W] in [0, 1]. A batch is all one or the other.
    """

    pixels: Tensor
    target: Tensor
    prompts: tuple[str, ...]
    weights: Tensor
    numbers: tuple[int, ...]
    worse: Tensor | None = None
    mask: Tensor | None = None

    def to(self, device: torch.device) -> Batch:
        pixels, target, weights = (tensor.to(device) for tensor in (self.pixels, self.target, self.weights))
        worse, mask = (None if tensor is None else tensor.to(device) for tensor in (self.worse, self.mask))
        return Batch(pixels, target, self.prompts, weights, self.numbers, worse, mask)


class PairsDataset(Dataset):
    """Draws as one-sample batches; each cuts its crop by (seed, number). FormatError for no pairs at all."""

    def __init__(self, pairs: Sequence[TrainingPair], framing: Framing | None = None, *, seed: int = 0):
        if not pairs:
            raise FormatError("No training pairs: expected at least one row in the train split")
        self.pairs, self.framing, self.seed = list(pairs), framing or Framing(), seed

    def __len__(self) -> int:
        return len(self.pairs)

    def bucket(self, row: int) -> tuple[int, int, int, bool]:
        """Rows of one batch have the same: the shape, and whether they are comparisons."""
        return *self.shape(row), self.pairs[row].worse_image is not None

    def shape(self, row: int) -> tuple[int, int, int]:
        """(V, H, W) of the samples of this row, from the header of its image."""
        pair = self.pairs[row]
        with Image.open(pair.image) as image:
            width, height = self.framing.shown(image.size)
        return 1 + len(pair.references), height, width

    def __getitem__(self, draw: Draw) -> Batch:
        pair = self.pairs[draw.row]
        image = open_picture(pair.image)
        size = self.framing.stretched(image.size)
        references = [to_pixels(open_picture(path), size) for path in pair.references]
        pixels = torch.stack([to_pixels(image, size), *references])
        target = torch.stack([to_pixels(open_picture(pair.target_image), size), *references])
        window = self._window(draw.number, *pixels.shape[-2:])
        worse = mask = None
        if pair.worse_image is not None:
            worse = to_pixels(open_picture(pair.worse_image), size)[window][None]
            mask = torch.ones_like(worse[:, :1])
        if pair.mask_image is not None:
            marked = to_pixels(open_picture(pair.mask_image), size)[window][None].amax(1, keepdim=True)
            mask = (marked > 0).float()
        return Batch(
            pixels[window][None],
            target[window][None],
            (pair.prompt,),
            torch.tensor([pair.weight]),
            (draw.number,),
            worse,
            mask,
        )

    def _window(self, number: int, height: int, width: int) -> tuple:
        side = self.framing.crop_px
        if not side:
            return (...,)
        generator = generator_of(self.seed, Purpose.CROP, number)
        top = int(torch.randint(0, height - side + 1, (), generator=generator))
        left = int(torch.randint(0, width - side + 1, (), generator=generator))
        return (..., slice(top, top + side), slice(left, left + side))


def collate(samples: Sequence[Batch]) -> Batch:
    """One batch of several samples of one shape."""

    def joined(tensors: list[Tensor | None]) -> Tensor | None:
        there = [tensor for tensor in tensors if tensor is not None]
        return torch.cat(there) if there else None

    return Batch(
        torch.cat([sample.pixels for sample in samples]),
        torch.cat([sample.target for sample in samples]),
        tuple(prompt for sample in samples for prompt in sample.prompts),
        torch.cat([sample.weights for sample in samples]),
        tuple(number for sample in samples for number in sample.numbers),
        joined([sample.worse for sample in samples]),
        joined([sample.mask for sample in samples]),
    )


def open_picture(path: Path) -> Image.Image:
    """Decoded whole. FormatError names a file that is no picture."""
    try:
        image = Image.open(path)
        image.load()
    except OSError as error:
        raise FormatError(f"{path.name}: expected a picture, could not read it ({error})") from error
    return image

"""Difix's training JSON, {"train" | "test": {id: {image, target_image, ref_image?, prompt?}}}, as tensors."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from difix3d.errors import ConfigError, FormatError
from difix3d.fixers.difix.images import SIDE_MULTIPLE, to_pixels, working_size
from difix3d.types import TrainingPair

JSON_NAME = "difix.json"
_MAX_NAMED = 5


def find_json(data: Path) -> Path:
    """`data` itself, or the difix.json of the export folder `data`. FormatError where there is none."""
    found = data / JSON_NAME if data.is_dir() else data
    if not found.is_file():
        raise FormatError(
            f"{data}: expected an export folder with {JSON_NAME}, or such a file. Make one with: "
            f"difix3d export --out DIR"
        )
    return found


def read_pairs(data: Path) -> dict[str, list[TrainingPair]]:
    """The rows of each split. Paths in the file are absolute or relative to its folder.

    FormatError names rows without a picture, a target, or files for them.
    """
    path = find_json(data)
    try:
        splits = json.loads(path.read_text())
    except ValueError as error:
        raise FormatError(f"{path.name}: expected JSON, could not read it ({error})") from error
    if not isinstance(splits, dict) or not isinstance(splits.get("train"), dict):
        raise FormatError(f'{path.name}: expected {{"train": {{id: row}}, "test": {{...}}}}, found no "train" in it')
    problems: list[str] = []
    pairs = {
        split: [pair for name, row in rows.items() if (pair := _pair(path.parent, f"{split}/{name}", row, problems))]
        for split, rows in splits.items()
        if isinstance(rows, dict)
    }
    if problems:
        more = f" and {len(problems) - _MAX_NAMED} more" if len(problems) > _MAX_NAMED else ""
        raise FormatError(f"{path.name}: {'; '.join(problems[:_MAX_NAMED])}{more}. Export again, or remove these rows.")
    return pairs


def _pair(folder: Path, name: str, row: Any, problems: list[str]) -> TrainingPair | None:
    if not isinstance(row, dict):
        problems.append(f"row {name} is no object")
        return None
    paths: dict[str, Path] = {}
    for key in ("image", "target_image", "ref_image"):
        value = row.get(key)
        if value is None and key == "ref_image":
            continue
        if not isinstance(value, str) or not (folder / value).is_file():
            problems.append(f"row {name}: {key} {value!r} is no file")
            return None
        paths[key] = folder / value
    prompt = row.get("prompt") or "remove degradation"
    return TrainingPair(paths["image"], paths["target_image"], paths.get("ref_image"), prompt)


@dataclass(frozen=True)
class Batch:
    """pixels: [B, V, 3, H, W] in [-1, 1], degraded image and its reference; target: the same with the clean image
    in place of the degraded one (the reference is its own target). prompts: B of them."""

    pixels: Tensor
    target: Tensor
    prompts: tuple[str, ...]

    def to(self, device: torch.device) -> Batch:
        return Batch(self.pixels.to(device), self.target.to(device), self.prompts)


class PairsDataset(Dataset):
    """Rows as one-sample batches.

    width, height: all pictures are stretched to this size (Lanczos, as inference does; published training used
    1024x576); 0: each keeps its image's own size, down to multiples of 8. crop_px: then one random square of this
    side, at one place for the pictures of a row; 0: all of it. A row's crops repeat with `seed` and `epoch`.
    """

    def __init__(
        self, pairs: Sequence[TrainingPair], *, width: int = 0, height: int = 0, crop_px: int = 0, seed: int = 0
    ):
        if bool(width) != bool(height):
            raise ConfigError(f"width and height: give both or none, got {width}x{height}")
        for name, value in (("width", width), ("height", height), ("crop", crop_px)):
            if value % SIDE_MULTIPLE:
                raise ConfigError(f"{name}: expected a multiple of {SIDE_MULTIPLE}, got {value}")
        if not pairs:
            raise FormatError("No training pairs: expected at least one row in the train split")
        self.pairs = list(pairs)
        self.size = (width, height) if width else None
        self.crop_px = crop_px
        self.seed = seed
        self.epoch = 0

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> Batch:
        pair = self.pairs[index]
        image = _open(pair.image)
        size = self.size or working_size(image)
        names = [pair.ref_image] if pair.ref_image else []
        references = [to_pixels(_open(name), size) for name in names]
        pixels = torch.stack([to_pixels(image, size), *references])
        target = torch.stack([to_pixels(_open(pair.target_image), size), *references])
        window = self._window(index, *pixels.shape[-2:])
        return Batch(pixels[window][None], target[window][None], (pair.prompt,))

    def _window(self, index: int, height: int, width: int) -> tuple:
        if not self.crop_px:
            return (...,)
        if min(height, width) < self.crop_px:
            raise ConfigError(f"crop: expected at most {min(height, width)} pixels for {width}x{height} pictures")
        generator = torch.Generator().manual_seed(hash((self.seed, self.epoch, index)) % 2**63)
        top = int(torch.randint(0, height - self.crop_px + 1, (), generator=generator))
        left = int(torch.randint(0, width - self.crop_px + 1, (), generator=generator))
        return (..., slice(top, top + self.crop_px), slice(left, left + self.crop_px))


def collate(samples: Sequence[Batch]) -> Batch:
    """One batch of several samples. ConfigError where they differ in size or in number of references."""
    shapes = sorted({tuple(sample.pixels.shape[1:]) for sample in samples})
    if len(shapes) > 1:
        raise ConfigError(
            f"Pairs of different shapes {shapes} cannot share a batch: use a batch size of 1, set width and height, "
            f"and keep rows with and without a reference apart"
        )
    return Batch(
        torch.cat([sample.pixels for sample in samples]),
        torch.cat([sample.target for sample in samples]),
        tuple(prompt for sample in samples for prompt in sample.prompts),
    )


def forever(dataset: PairsDataset, batch_size: int, seed: int) -> Iterator[Batch]:
    """Shuffled epochs without end; the last samples of an epoch join the next one's first."""
    generator = torch.Generator().manual_seed(seed)
    waiting: list[Batch] = []
    while True:
        for index in torch.randperm(len(dataset), generator=generator).tolist():
            waiting.append(dataset[index])
            if len(waiting) == batch_size:
                yield collate(waiting)
                waiting = []
        dataset.epoch += 1


def _open(path: Path) -> Image.Image:
    try:
        image = Image.open(path)
        image.load()
    except OSError as error:
        raise FormatError(f"{path.name}: expected a picture, could not read it ({error})") from error
    return image

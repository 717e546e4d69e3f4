"""Pairs as arrays, for training: rows of pairs.jsonl, and the render, references and photo of one of them.

rows = read_rows(folder, split="train")
frame, references, target = load_pair(folder, rows[0])

An export has the same of every frame that it holds, in frames.jsonl: there a row may have no photo.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from difix3d.errors import FormatError
from difix3d.pairs.rows import PairRow
from difix3d.types import Frame, Reference

SIDECAR = "pairs.jsonl"
FRAMES = "frames.jsonl"
"""As SIDECAR, in an export: what was rated or has a photo, with what a fixer was given for it."""


def read_rows(folder: Path, split: str | None = None, name: str = SIDECAR) -> list[PairRow]:
    """The pairs of `split` ("train" or "test"; None: of both), without those left out. name: SIDECAR or FRAMES.
    FormatError names the line that cannot be read."""
    path = folder / name
    if not path.is_file():
        raise FormatError(f"{folder}: expected {name} in it. Make pairs with: difix3d pairs --scenes DIR --out DIR")
    rows = []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        try:
            row = PairRow.from_json(json.loads(line))
        except (ValueError, KeyError, TypeError) as error:
            raise FormatError(f"{path.name}, line {number}: expected a pair, could not read it ({error})") from error
        if not row.left_out and split in (None, row.split):
            rows.append(row)
    return rows


def load_pair(
    folder: Path, row: PairRow, max_references: int | None = None
) -> tuple[Frame, list[Reference], NDArray[np.uint8]]:
    """(the render, its references, best first, and the photo [H, W, 3] uint8). FormatError for a file that is missing
    or has not its camera's size."""
    frame, references = load_inputs(folder, row, max_references)
    size = (row.camera.height, row.camera.width)
    return frame, references, _picture(folder, row.target, "RGB", (*size, 3))


def load_inputs(folder: Path, row: PairRow, max_references: int | None = None) -> tuple[Frame, list[Reference]]:
    """As load_pair, without the photo, which not every frame of an export has."""
    camera = row.camera
    size = (camera.height, camera.width)
    frame = Frame(
        row.id,
        0,
        camera,
        _picture(folder, row.image, "RGB", (*size, 3)),
        _picture(folder, row.alpha, "L", size).astype(np.float32) / np.float32(255.0),
        _depth(folder, row.depth, size),
    )
    references = []
    for one in row.references[:max_references]:
        at = (one.camera.height, one.camera.width)
        rgb = _picture(folder, one.image, "RGB", (*at, 3))
        references.append(Reference(one.name, one.camera, rgb, _depth(folder, one.depth, at) if one.depth else None))
    return frame, references


def _picture(folder: Path, name: str, mode: str, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    def read(path: Path) -> NDArray[np.uint8]:
        with Image.open(path) as image:
            return np.asarray(image.convert(mode))

    return _checked(read, folder, name, shape)


def _depth(folder: Path, name: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
    return _checked(lambda path: np.load(path, allow_pickle=False).astype(np.float32), folder, name, shape)


def _checked(read: Callable[[Path], NDArray[Any]], folder: Path, name: str, shape: tuple[int, ...]) -> NDArray[Any]:
    try:
        array = read(folder / name)
    except (OSError, ValueError, EOFError) as error:
        raise FormatError(f"{name}: could not be read ({error}). Make the pairs again.") from error
    if array.shape != shape:
        raise FormatError(f"{name}: expected {list(shape)} like its camera, found {list(array.shape)}")
    return array

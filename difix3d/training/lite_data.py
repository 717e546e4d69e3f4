"""Rows of an export, or of pairs, as what lite sees: planes of the frame and its photos, and crops of them.

A row is joined with the frame that it is of by its image: frames.jsonl of an export and pairs.jsonl of pairs hold depth
and cameras. Carrying the photos into the frame takes longest: it is done once, and kept as bytes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from difix3d.atomic import replacing_file
from difix3d.errors import FormatError
from difix3d.fixers.difix.images import to_rgb
from difix3d.fixers.lite.fixer import LiteFixer
from difix3d.fixers.lite.planes import FRAME_CHANNELS, PHOTO_CHANNELS, planes_of
from difix3d.kept import Kept
from difix3d.pairs.read import FRAMES, SIDECAR, load_inputs, read_rows
from difix3d.pairs.rows import PairRow
from difix3d.training.dataset import Draw, open_picture
from difix3d.training.draws import Purpose
from difix3d.training.lite_crops import crop_of, shown, turned
from difix3d.types import TrainingPair

_OWN, _PHOTO = len(FRAME_CHANNELS), len(PHOTO_CHANNELS)
_KEPT_PICTURES = 64
"""Of 1.8 MB each at 960x640."""

Planes = tuple[NDArray[np.uint8], NDArray[np.uint8]]
"""As planes_of gives them: frame [H, W, 5], photos [N, H, W, 10]."""


@dataclass(frozen=True)
class LiteBatch:
    """frame [B, 5, S, S], photos [B, 4, 10, S, S], present [B, 4], target [B, 3, S, S], weights [B]; of comparisons
    also worse [B, 3, S, S] and mask [B, 1, S, S]. All in [0, 1]."""

    frame: Tensor
    photos: Tensor
    present: Tensor
    target: Tensor
    weights: Tensor
    worse: Tensor | None = None
    mask: Tensor | None = None


class PreparedPlanes:
    """The planes of the frames of `data` (a folder), kept in `folder` once they are made."""

    def __init__(self, data: Path, folder: Path):
        self._data, self._folder = data, folder
        self._rows = _rows_by_image(data)

    def has(self, pair: TrainingPair) -> bool:
        return pair.image.resolve() in self._rows

    def photos_of(self, pair: TrainingPair) -> tuple[str, ...]:
        """Names of the photos that are carried into the frame of `pair`."""
        row = self._rows[pair.image.resolve()]
        return tuple(one.name for one in row.references[: LiteFixer.max_references])

    def digest(self, seed: str, pairs: Sequence[TrainingPair]) -> str:
        """sha256 over `seed` and all that planes are made of: rows and the files that they name."""
        total = hashlib.sha256(seed.encode())
        for image in dict.fromkeys(pair.image.resolve() for pair in pairs):
            total.update(inputs_digest(self._data, self._rows[image]).encode())
        return total.hexdigest()

    def drop_others(self, pairs: Sequence[TrainingPair]) -> None:
        """Remove what is kept of frames that are none of these, or are not as they were, and what a kill left."""
        named = {self._path(pair.image) for pair in pairs}
        for path in self._folder.glob("*.npy"):  # the names of unfinished ones end so too
            if path not in named:
                path.unlink()

    def bytes_to_write(self, pairs: Sequence[TrainingPair]) -> int:
        """Of `prepare`, at most: photos that show nothing of a frame are left out."""
        return sum(_plane_bytes(self._rows[image.resolve()]) for image in self._missing(pairs))

    def leave_out_photos(self, photos: Set[Path], pairs: Sequence[TrainingPair]) -> None:
        """Carry none of these photos into the frames of `pairs`."""
        unwanted = {photo.resolve() for photo in photos}
        for image in {pair.image.resolve() for pair in pairs}:
            row = self._rows[image]
            kept = tuple(one for one in row.references if (self._data / one.image).resolve() not in unwanted)
            self._rows[image] = replace(row, references=kept)

    def prepare(self, pairs: Sequence[TrainingPair]) -> Iterator[tuple[int, int]]:
        """(done, total) as frames are made that are not there yet."""
        todo = self._missing(pairs)
        for number, image in enumerate(todo):
            yield number, len(todo)
            row = self._rows[image.resolve()]
            own, photos = planes_of(*load_inputs(self._data, row, LiteFixer.max_references))
            with replacing_file(self._path(image)) as temporary:
                np.save(temporary, np.concatenate([own, *photos], axis=-1))

    def mapped(self, pair: TrainingPair) -> NDArray[np.uint8]:
        """[H, W, 5 + 10 N], read where it is looked at."""
        return np.load(self._path(pair.image), mmap_mode="r", allow_pickle=False)

    def planes(self, pair: TrainingPair) -> Planes:
        whole = np.array(self.mapped(pair))
        photos = whole[..., _OWN:].reshape(*whole.shape[:2], -1, _PHOTO).transpose(2, 0, 1, 3)
        return np.ascontiguousarray(whole[..., :_OWN]), np.ascontiguousarray(photos)

    def _missing(self, pairs: Sequence[TrainingPair]) -> list[Path]:
        return [image for image in dict.fromkeys(pair.image for pair in pairs) if not self._path(image).is_file()]

    def _path(self, image: Path) -> Path:
        """Of other inputs, another file."""
        row = self._rows[image.resolve()]
        digest = hashlib.sha256(repr((str(image.resolve()), image.stat().st_mtime_ns, row)).encode()).hexdigest()
        return self._folder / f"{digest[:24]}.npy"


def inputs_digest(data: Path, row: PairRow) -> str:
    """sha256 over what a row says and the contents of the files it names, in the folder `data`."""
    total = hashlib.sha256(json.dumps(row.to_json(), sort_keys=True, default=str).encode())
    photos = [name for one in row.references for name in (one.image, one.depth)]
    for name in (row.image, row.alpha, row.depth, row.target, *photos):
        if name and (data / name).is_file():
            total.update((data / name).read_bytes())
    return total.hexdigest()


def _plane_bytes(row: PairRow) -> int:
    photos = min(len(row.references), LiteFixer.max_references)
    return row.camera.width * row.camera.height * (_OWN + _PHOTO * photos)


def _rows_by_image(data: Path) -> dict[Path, PairRow]:
    for name in (FRAMES, SIDECAR):
        if (data / name).is_file():
            return {(data / row.image).resolve(): row for row in read_rows(data, name=name)}
    raise FormatError(
        f"{data}: expected {FRAMES} or {SIDECAR} in it, which hold the depth and cameras that lite is trained with. "
        "Export again (difix3d export --out DIR), or make pairs (difix3d pairs --scenes DIR --out DIR)."
    )


class LiteCrops:
    """Square crops of rows: all with a target, or all comparisons. The same draw gives the same crop."""

    def __init__(self, pairs: Sequence[TrainingPair], planes: PreparedPlanes, size_px: int, seed: int = 0):
        self.pairs, self._planes, self._size_px, self._seed = list(pairs), planes, size_px, seed
        self._pictures: Kept[NDArray[np.uint8]] = Kept(_KEPT_PICTURES)

    def __len__(self) -> int:
        return len(self.pairs)

    def batch(self, draws: Sequence[Draw]) -> LiteBatch:
        samples = [self._sample(draw) for draw in draws]
        weights = torch.tensor([self.pairs[draw.row].weight for draw in draws])
        frame, photos, present, target, worse, mask = (torch.stack(each) for each in zip(*samples))
        if self.pairs[draws[0].row].worse_image is None:
            return LiteBatch(frame, photos, present, target, weights)
        return LiteBatch(frame, photos, present, target, weights, worse, mask)

    def _sample(self, draw: Draw) -> tuple[Tensor, ...]:
        pair = self.pairs[draw.row]
        compared = pair.worse_image is not None
        purpose = Purpose.LITE_COMPARED if compared else Purpose.LITE_CROP
        rng = np.random.default_rng([self._seed, purpose, draw.number])
        planes = self._planes.mapped(pair)
        size = planes.shape[1], planes.shape[0]
        mask = np.full((*planes.shape[:2], 1), 255, np.uint8)
        around = None
        if pair.mask_image is not None:
            mask = self._picture(pair.mask_image, size)[..., :1]
            if len(marked := np.argwhere(mask[..., 0])):
                around = tuple(int(at) for at in marked[rng.integers(len(marked))])
        # A comparison's worse picture; of others the target again, which nobody looks at.
        target = self._picture(pair.target_image, size)
        worse = self._picture(pair.worse_image, size) if pair.worse_image is not None else target
        whole = np.concatenate([target, worse, mask, planes], axis=-1)
        crop = turned(crop_of(whole, self._size_px, rng, around), rng).astype(np.float32) / np.float32(255.0)  # type: ignore[arg-type]
        tensor = torch.from_numpy(np.ascontiguousarray(crop)).permute(2, 0, 1)
        target_, worse_, mask_, frame, rest = tensor.split([3, 3, 1, _OWN, len(tensor) - 7 - _OWN])
        most = LiteFixer.max_references
        photos = torch.zeros(most, _PHOTO, *tensor.shape[1:])
        present = torch.zeros(most)
        for place, photo in enumerate(shown(len(rest) // _PHOTO, rng)):
            photos[place] = rest[photo * _PHOTO : (photo + 1) * _PHOTO]
            present[place] = 1.0
        return frame, photos, present, target_, worse_, (mask_ > 0).float()

    def _picture(self, path: Path, size: tuple[int, int]) -> NDArray[np.uint8]:
        """[H, W, 3] at the frame's size. Some are kept, since steps come back to them."""
        return self._pictures.get((path, size), lambda: picture_at(path, size))


def picture_at(path: Path, size: tuple[int, int]) -> NDArray[np.uint8]:
    """[H, W, 3] at `size` (width, height)."""
    picture = to_rgb(open_picture(path))
    return np.asarray(picture if picture.size == size else picture.resize(size))

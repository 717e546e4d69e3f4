"""Difix's training JSON, {"train" | "test": {id: {image, target_image, ref_image?, prompt?, weight?}}}, checked.

Liberties beyond the published format: ref_image may be a list of several, and weight says how much a row counts. A row
of comparisons.json also has worse_image, to which raters preferred target_image, and perhaps mask_image, where that is.
"""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

from PIL import Image

from difix3d.errors import FormatError
from difix3d.pairs.read import SIDECAR, read_rows
from difix3d.training.framing import Framing, Size
from difix3d.training.origin import NOT_STATED
from difix3d.types import TrainingPair

JSON_NAME, COMPARISONS_NAME, PROVENANCE_NAME = "difix.json", "comparisons.json", "provenance.json"
APPROVED = "approved_fix"
"""What provenance calls a row whose target is a fix that raters liked, and no photo."""
APART_EVERY = 5
_PROMPT = "remove degradation"
_SHOWN_IN_FULL = 20
_SAME_ASPECT = 0.02
"""A target may differ so much in aspect from its image: rounding to whole pixels at 100 px."""


def find_json(data: Path) -> Path:
    """`data` itself, or the difix.json of the export folder `data`. FormatError where there is none."""
    found = data / JSON_NAME if data.is_dir() else data
    if not found.is_file():
        raise FormatError(
            f"{data}: expected an export folder with {JSON_NAME}, or such a file. Make one with: "
            f"difix3d export --out DIR"
        )
    return found


def read_pairs(
    data: Path, framing: Framing | None = None, *, comparisons: bool = False
) -> dict[str, list[TrainingPair]]:
    """The rows of each split, whose files exist, are pictures and are large enough for `framing`.

    Paths in the file are absolute or relative to its folder. Rows of weight 0 are left out. FormatError names every
    row that cannot be used. comparisons: what raters preferred, in comparisons.json beside, joins "train".
    """
    path = find_json(data)
    pairs = _read(path, framing)
    beside = path.parent / COMPARISONS_NAME
    if comparisons and beside.is_file():
        pairs["train"] = pairs["train"] + _read(beside, framing)["train"]
    return pairs


def has_true_target(pair: TrainingPair) -> bool:
    """Its target is a photo: not what raters preferred."""
    return pair.worse_image is None and pair.provenance.get("kind") != APPROVED


def hold_apart(pairs: dict[str, list[TrainingPair]]) -> tuple[dict[str, list[TrainingPair]], int]:
    """(pairs, how many photos): "test" holds what has a photo as its target, since what raters liked is no truth to
    judge by. Where nothing is left of it, as in data of one scene, every fifth photo that is a target in "train" is
    kept apart to judge by, in all of its rows, with all else that is there of their frames. Of fewer than five none is.

    Rows that had it as a reference stay, without it: a row without references is a lesson too, and photos that are
    near each other are references of most rows. A reference is also trained on, as its own target (dataset.py).
    """
    train = pairs["train"]
    photos = list(dict.fromkeys(pair.target_image for pair in train if has_true_target(pair)))
    if "test" in pairs:
        pairs = {**pairs, "test": [pair for pair in pairs["test"] if has_true_target(pair)]}
    if pairs.get("test") or len(photos) < APART_EVERY:
        return pairs, 0
    apart = set(photos[APART_EVERY // 2 :: APART_EVERY])
    test = [pair for pair in train if has_true_target(pair) and pair.target_image in apart]
    images = {pair.image for pair in test}
    left = [pair for pair in train if pair.image not in images]
    left = [replace(pair, references=tuple(one for one in pair.references if one not in apart)) for pair in left]
    return {"train": left, "test": test}, len(apart)


def _provenance(folder: Path) -> dict[str, Any]:
    """Row -> where it is from, as exports say, and folders of pairs in other words; {} where nothing is said."""
    path = folder / PROVENANCE_NAME
    if not path.is_file():
        return _provenance_of_pairs(folder) if (folder / SIDECAR).is_file() else {}
    try:
        found = json.loads(path.read_text())
    except ValueError as error:
        raise FormatError(f"{path.name}: expected JSON, could not read it ({error})") from error
    return found if isinstance(found, dict) else {}


def _provenance_of_pairs(folder: Path) -> dict[str, Any]:
    found = {}
    for row in read_rows(folder):
        licence = row.provenance.get("licence", {}).get("licence") or NOT_STATED
        found[row.id] = {"scene_id": row.scene, "photo": row.photo, "license": f"photos: {licence}"}
    return found


def _read(path: Path, framing: Framing | None) -> dict[str, list[TrainingPair]]:
    try:
        splits = json.loads(path.read_text())
    except ValueError as error:
        raise FormatError(f"{path.name}: expected JSON, could not read it ({error})") from error
    if not isinstance(splits, dict) or not isinstance(splits.get("train"), dict):
        raise FormatError(f'{path.name}: expected {{"train": {{id: row}}, "test": {{...}}}}, found no "train" in it')
    framing = framing or Framing()
    check = _Check(path.parent, _provenance(path.parent))
    pairs = {
        split: [
            pair
            for name, row in rows.items()
            if (pair := check.row(f"{split}/{name}", row, framing if split == "train" else framing.uncropped))
        ]
        for split, rows in splits.items()
        if isinstance(rows, dict)
    }
    if check.problems:
        raise FormatError(_report(path.name, check.problems, sum(len(rows) for rows in pairs.values())))
    return {split: [pair for pair in rows if pair.weight > 0] for split, rows in pairs.items()}


def _report(file: str, problems: dict[str, str], good: int) -> str:
    """One line for each of the first rows; the others by name, so that the list is whole and still can be read."""
    lines = [f"{file}: {len(problems)} of {len(problems) + good} rows cannot be used. Export again, or remove them."]
    lines += [f"{name}: {problem}" for name, problem in list(problems.items())[:_SHOWN_IN_FULL]]
    if others := list(problems)[_SHOWN_IN_FULL:]:
        lines.append(f"And {', '.join(others)}")
    return "\n".join(lines)


class _Check:
    """Turns rows into pairs. problems: row name -> what is wrong with it."""

    def __init__(self, folder: Path, provenance: dict[str, Any]):
        self.folder, self.provenance = folder, provenance
        self.problems: dict[str, str] = {}
        self._sizes: dict[Path, Size] = {}  # a photo is the reference of many rows

    def row(self, name: str, row: Any, framing: Framing) -> TrainingPair | None:
        try:
            return self._pair(row, framing, self.provenance.get(name.partition("/")[2], {}))
        except FormatError as error:
            self.problems[name] = error.message
            return None

    def _pair(self, row: Any, framing: Framing, provenance: dict[str, Any]) -> TrainingPair:
        if not isinstance(row, dict):
            raise FormatError("expected an object with image and target_image")
        named = row.get("ref_image")
        listed = [] if named is None else named if isinstance(named, list) else [named]
        image, target = (self._picture(key, row.get(key)) for key in ("image", "target_image"))
        references = tuple(self._picture("ref_image", value) for value in listed)
        size, target_size = self._sizes[image], self._sizes[target]
        if problem := framing.problem(size):
            raise FormatError(f"image {row['image']!r} of {problem}")
        if abs(size[0] * target_size[1] / (size[1] * target_size[0]) - 1) > _SAME_ASPECT:
            sizes = (f"{width}x{height}" for width, height in (target_size, size))
            raise FormatError("target_image is {}, of another shape than its image, {}".format(*sizes))
        worse, mask = (
            None if row.get(key) is None else self._picture(key, row[key]) for key in ("worse_image", "mask_image")
        )
        prompt, weight = str(row.get("prompt") or _PROMPT), _weight(row.get("weight", 1))
        return TrainingPair(image, target, references, prompt, weight, worse, mask, provenance)

    def _picture(self, key: str, value: Any) -> Path:
        path = self.folder / value if isinstance(value, str) and value else None
        if path is None or not path.is_file():
            raise FormatError(f"{key} {value!r} is no file")
        if path not in self._sizes:
            try:
                with Image.open(path) as picture:
                    self._sizes[path] = picture.size
                    picture.verify()  # finds truncated PNGs without decoding them
            except (OSError, SyntaxError, Image.DecompressionBombError) as error:  # SyntaxError: a broken PNG chunk
                raise FormatError(f"{key} {value!r} is no picture ({error})") from error
        return path


def _weight(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
        raise FormatError(f"weight {value!r}: expected a number of at least 0")
    return float(value)

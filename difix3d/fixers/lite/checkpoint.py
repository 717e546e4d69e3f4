"""A checkpoint folder of lite, as fine-tuning writes it: lite.safetensors and difix3d.json, which says what it is from.

Folders are told from Difix's by the file of weights.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from difix3d.errors import CheckpointError
from difix3d.fixers.lite.fixer import WEIGHTS, LiteFixer

NAME = "lite"
ABOUT = "difix3d.json"


def weights_of(source: str | Path) -> Path | None:
    """The file of lite's weights that `source` means: "lite", a checkpoint folder or such a file. None where it means
    something else."""
    if str(source) == NAME:
        return WEIGHTS
    path = Path(source)
    if (path / WEIGHTS.name).is_file():
        return path / WEIGHTS.name
    return path if path.suffix == WEIGHTS.suffix and path.is_file() else None


def about(folder: Path) -> dict[str, Any]:
    """What a checkpoint says of itself; {} where it says nothing. CheckpointError where that cannot be read."""
    path = folder / ABOUT
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: expected JSON, could not read it ({error})") from error
    if not isinstance(found, dict):
        raise CheckpointError(f"{path}: expected a JSON object, found {type(found).__name__}")
    return found


def sha256_of(weights: Path) -> str:
    with weights.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class TunedLite(LiteFixer):
    """LiteFixer with the weights of a checkpoint folder or file, called by its name. CheckpointError for another
    folder."""

    def __init__(self, source: str | Path):
        weights = weights_of(source)
        if weights is None:
            raise CheckpointError(f"{source} is no checkpoint of lite: expected {WEIGHTS.name} in it")
        super().__init__(weights)
        self.name = (weights.parent if weights.name == WEIGHTS.name else weights.with_suffix("")).resolve().name
        self.licence = str(about(weights.parent).get("licence") or LiteFixer.licence)

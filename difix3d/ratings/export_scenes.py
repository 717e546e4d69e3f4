"""Which scenes an export reads, to which split each belongs, and under which licence its pictures are."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from difix3d.ratings.candidates import RENDER
from difix3d.scene import Scene


def find_scenes(root: Path, only: str | None = None) -> list[Scene]:
    """The scenes in the folder `root`, by name; or only the one of that name."""
    return [Scene(path.parent) for path in sorted(root.glob(f"{only or '*'}/scene.json"))]


def split_scenes(scene_ids: set[str], test_share: float) -> dict[str, str]:
    """scene id -> "train" | "test", by a hash of the id: a scene stays where it is as others are added.

    With two scenes or more (and test_share > 0) each split has one at least; a single one is in train.
    """
    if not scene_ids:
        return {}
    order = sorted(scene_ids, key=_place)
    splits = {scene_id: "test" if _place(scene_id) < test_share else "train" for scene_id in order}
    if test_share > 0 and len(order) > 1:
        splits[order[0]] = "test"
    splits[order[-1]] = "train"
    return splits


def _place(scene_id: str) -> float:
    """A number in [0, 1) that looks drawn at random and is always the same for this id."""
    return int.from_bytes(hashlib.sha256(scene_id.encode()).digest()[:6], "big") / 2**48


class Licences:
    """seen: what an export holds -> its licence, gathered as rows ask for theirs."""

    def __init__(self, scenes: dict[str, Scene]):
        self._scenes = {scene_id: str(scene.info.get("licence") or "not stated") for scene_id, scene in scenes.items()}
        self.seen: dict[str, str] = {}

    def of(self, scene_id: str, fixer: str | None, settings: dict[str, Any]) -> str:
        """ "photos: MIT; difix: NVIDIA ..." of one picture of a scene."""
        scene = self._scenes.get(scene_id, "not stated")
        self.seen[f"scene {scene_id}"] = scene
        if fixer in (None, RENDER):
            return f"photos: {scene}"
        licence = str(settings.get("licence") or settings.get("license") or "not stated")
        self.seen[f"fixer {fixer}"] = licence
        return f"photos: {scene}; {fixer}: {licence}"

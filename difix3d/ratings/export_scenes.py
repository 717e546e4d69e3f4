"""Which scenes an export reads, to which split each belongs, and under which licence its pictures are."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from difix3d.ratings.candidates import RENDER
from difix3d.scene import Scene

TRAIN, TEST = "train", "test"
_SPLIT = "dataset_split"
"""In scene.json."""


def find_scenes(root: Path, only: str | None = None) -> list[Scene]:
    """The scenes in the folder `root`, by name; or only the one of that name."""
    return [Scene(path.parent) for path in sorted(root.glob(f"{only or '*'}/scene.json"))]


def split_scenes(scene_ids: set[str], test_share: float, known: Mapping[str, str] | None = None) -> dict[str, str]:
    """scene id -> "train" | "test". A scene stays in the split it was in before (`known`); new ones go by a hash.

    With two scenes or more (and test_share > 0) one is in test, unless all were in train before: what a checkpoint was
    trained on must not judge the next one. One at least is in train, and all where test_share is 0, if need be one that
    was in test before: that way nothing is judged by what it has seen, as long as it stays in train from then on.
    """
    if not scene_ids:
        return {}
    order = sorted(scene_ids, key=_place)
    splits = {scene_id: (known or {}).get(scene_id, "") for scene_id in order}
    fresh = [scene_id for scene_id in order if not splits[scene_id]]
    splits |= {scene_id: TEST if _place(scene_id) < test_share else TRAIN for scene_id in fresh}
    if test_share > 0 and len(order) > 1 and fresh and TEST not in splits.values():
        splits[fresh[0]] = TEST
    if TRAIN not in splits.values():
        splits[(fresh or order)[-1]] = TRAIN
    return splits if test_share > 0 else dict.fromkeys(order, TRAIN)


def known_splits(scenes: Iterable[Scene], listed: Iterable[tuple[str, str]] = ()) -> dict[str, str]:
    """Scene id -> its split, of those that were exported or made pairs of before, as their scene.json says and the
    dataset that is written anew (`listed`). Where the two differ it is train: that is never taken back."""
    found: dict[str, str] = {}
    for scene_id, split in [*listed, *((scene.id, str(scene.info.get(_SPLIT) or "")) for scene in scenes)]:
        if split in (TRAIN, TEST) and found.get(scene_id) != TRAIN:
            found[scene_id] = split
    return found


def keep_splits(scenes: Iterable[Scene], splits: Mapping[str, str]) -> list[str]:
    """Write each scene's split into its scene.json, for exports and pairs to come. Returns the ids of scenes whose
    folder cannot be written to."""
    unwritten = []
    for scene in scenes:
        split = splits.get(scene.id)
        if split and scene.info.get(_SPLIT) != split:
            try:
                scene.update_info(**{_SPLIT: split})
            except OSError:
                unwritten.append(scene.id)
    return unwritten


def what_to_know(splits: Mapping[str, str], known: Mapping[str, str], test_share: float) -> list[str]:
    """Sentences on splits that are not as one would expect."""
    told = []
    if len(splits) > 1 and test_share > 0 and TEST not in splits.values():
        told.append(
            f"All {len(splits)} scenes were in train before and stay there: there is no test split. Add a new scene to "
            "have one"
        )
    return told + [
        f"{scene_id} was in test before, and is in train from now on: what is trained on this has seen it"
        for scene_id, split in sorted(splits.items())
        if known.get(scene_id) == TEST and split == TRAIN
    ]


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

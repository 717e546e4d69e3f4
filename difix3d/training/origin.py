"""Where the rows of a training are from, as its checkpoint says: frames and licences."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from difix3d.types import TrainingPair

NOT_STATED = "not stated"


def frames_of(pairs: Sequence[TrainingPair], parents: Mapping[str, Iterable[str]]) -> dict[str, list[str]]:
    """Scene -> what of it was trained on, where the data says: names of photos, and TRAJECTORY/NUMBER of frames at
    which none was taken. parents: as much of the checkpoint that training began with, which knows it too."""
    photo_at = {pair.image: pair.provenance["photo"] for pair in pairs if "photo" in pair.provenance}
    found = {scene: set(seen) for scene, seen in parents.items()}
    for pair in pairs:
        facts = pair.provenance
        seen = photo_at.get(pair.image) or f"{facts.get('trajectory')}/{facts.get('frame_index')}"
        if "scene_id" in facts:
            found.setdefault(facts["scene_id"], set()).add(seen)
    return {scene: sorted(seen) for scene, seen in sorted(found.items())}


def licences_of(pairs: Sequence[TrainingPair], parents: Iterable[str] = ()) -> list[str]:
    """Of the pictures that were trained on, as far as the data says, and of those that the parent was."""
    return sorted({str(pair.provenance.get("license", NOT_STATED)) for pair in pairs} | set(parents))

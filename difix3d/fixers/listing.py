"""The fixers that can be chosen here, and what choosing one means: licence, device, a download, seconds per frame."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from difix3d.fixers import FIXERS, GUIDED, checkpoint_of, load_fixer, pace
from difix3d.hub.files import gigabytes
from difix3d.trajectories import HELDOUT

SIZE = (1024, 576)
"""What seconds are quoted for where no frame is at hand: the size Difix was trained at."""


@dataclass(frozen=True)
class Offer:
    """name: as load_fixer takes it; label: for people; own: trained here."""

    name: str
    label: str
    licence: str
    own: bool = False


@dataclass(frozen=True)
class Facts:
    """An offer looked at closely. device: for people; download_bytes: as in base.Demands; seconds: of a frame of
    width x height, None where nobody knows; measured: by fixes on this machine, else from arithmetic."""

    name: str
    label: str
    licence: str
    references: int
    device: str
    checkpoint: str
    revision: str | None
    download_bytes: int | None
    width: int
    height: int
    seconds: float | None
    measured: bool


@dataclass(frozen=True)
class Trained:
    """A checkpoint that was trained here. parent: what it was trained from, as load_fixer takes it, "" where it does
    not say; held_back: why it is not offered among the fixers, "" for most (training/gate.py); measured: whether
    held-out photos had a say in that."""

    name: str
    folder: Path
    licence: str
    parent: str = ""
    held_back: str = ""
    measured: bool = True


def trained(checkpoints: Path) -> list[Trained]:
    """The checkpoints of Difix and of lite in the folder `checkpoints`, by name, also those that are held back."""
    from difix3d.fixers.difix.checkpoint import licence_of, list_checkpoints
    from difix3d.fixers.lite.checkpoint import about, weights_of

    difix = {name: licence_of(checkpoints / name) for name in list_checkpoints(checkpoints)}
    lite = {}
    for place in checkpoints.iterdir() if checkpoints.is_dir() else ():
        if not place.name.startswith(".") and place.is_dir() and weights_of(place) is not None:
            lite[place.name] = load_fixer(str(place)).licence
    found = []
    for name, licence in sorted({**difix, **lite}.items()):
        says = about(checkpoints / name)
        gate = (says.get("figures") or {}).get("gate") or {}
        parent = str((says.get("start") or {}).get("name", ""))
        held_back, measured = "; ".join(gate.get("problems", [])), gate.get("passed") is not None
        found.append(Trained(name, checkpoints / name, licence, parent, held_back, measured))
    return found


def trained_on(fixer: str) -> dict[str, list[str]]:
    """Scene -> photos and frames of it that the checkpoint `fixer` was trained on (training/origin.py); {} of what was
    not trained here. fixer: as load_fixer takes it."""
    return about_data(fixer).get("frames") or {}


def about_data(fixer: str) -> dict[str, Any]:
    """What the checkpoint `fixer` says of what it was trained on here; {} of what was not."""
    from difix3d.fixers.lite.checkpoint import about

    folder = checkpoint_folder(fixer)
    return about(folder).get("data") or {} if folder else {}


def checkpoint_folder(fixer: str) -> Path | None:
    """Where the weights of a fixer lie, as load_fixer takes it; None where it has none, or they are not here."""
    from difix3d.fixers.difix.checkpoint import here
    from difix3d.fixers.difix.fixer import default_checkpoint
    from difix3d.fixers.lite.checkpoint import weights_of

    if (weights := weights_of(fixer)) is not None:
        return weights.parent
    if fixer in FIXERS and not fixer.startswith("difix"):
        return None
    return here(default_checkpoint() if fixer in FIXERS else checkpoint_of(fixer))


def trained_frames(fixers: Iterable[str], scene_id: str, photos: Mapping[int, str]) -> set[int]:
    """The frames of `heldout` that one of the fixers was trained on. photos: frame -> name of the photo taken there."""
    seen = {what for fixer in fixers for what in trained_on(fixer).get(scene_id, ())}
    return {index for index, name in photos.items() if name in seen or f"{HELDOUT}/{index}" in seen}


def offers(checkpoints: Path, also: str = "") -> list[Offer]:
    """Those of the table, the published checkpoints, those in the folder `checkpoints` that are not held back, and
    `also`. Quick: nothing is loaded and nobody asked."""
    from difix3d.fixers.difix.checkpoint import licence_of
    from difix3d.fixers.difix.fixer import default_checkpoint
    from difix3d.fixers.difix.hub import PUBLISHED
    from difix3d.fixers.lite.checkpoint import weights_of

    default = default_checkpoint()
    found = []
    for name in FIXERS:
        if name in ("difix", "difix-guided"):
            label = f"{name} ({Path(default).name if Path(default).is_dir() else default})"
            found.append(Offer(name, label, licence_of(default)))
        else:
            found.append(Offer(name, name, load_fixer(name).licence))
    found += [Offer(name, name, licence_of(name)) for name in PUBLISHED if name != default]
    for one in trained(checkpoints):
        if not one.held_back:
            found.append(Offer(str(one.folder), f"{one.name} (trained here)", one.licence, own=True))
            if weights_of(one.folder) is None:  # of Difix: lite starts from photos anyway
                label = f"{one.name}, guided (trained here)"
                found.append(Offer(f"{GUIDED}{one.folder}", label, one.licence, own=True))
    if also and also not in {offer.name for offer in found}:
        fixer = load_fixer(also)
        found.append(Offer(also, fixer.name, fixer.licence))
    return found


def look_closely(offer: Offer, width: int = SIZE[0], height: int = SIZE[1]) -> Facts:
    """The facts about an offer, for frames of that size. The first look at a fixer with weights imports torch and
    times a convolution."""
    fixer = load_fixer(offer.name)
    demands, device = fixer.demands(width, height), fixer.device()
    seconds = pace.measured(fixer.name, device, width, height)
    measured = seconds is not None
    if seconds is None and demands.teraflop is not None:
        seconds = pace.estimated(demands.teraflop, device)
    return Facts(
        name=offer.name,
        label=offer.label,
        licence=offer.licence,
        references=fixer.max_references,
        device=pace.device_name(device),
        checkpoint=demands.checkpoint,
        revision=demands.revision,
        download_bytes=demands.download_bytes,
        width=width,
        height=height,
        seconds=seconds,
        measured=measured,
    )


def phrases(facts: Facts) -> list[str]:
    """The facts in words."""
    references = {0: "no reference photos", 1: "1 reference photo"}.get(
        facts.references, f"up to {facts.references} reference photos"
    )
    return [_seconds(facts), facts.device, references, _weights(facts), facts.licence]


def brief(facts: Facts) -> list[str]:
    """What most people want to know before they press the button."""
    waiting = [] if facts.download_bytes == 0 else [f"{_size(facts)} to download first"]
    timed = [] if facts.seconds is None else [_seconds(facts)]
    return [*timed, facts.device, *waiting, facts.licence]


def _weights(facts: Facts) -> str:
    if not facts.checkpoint:
        return "nothing to download"
    name = Path(facts.checkpoint).name if Path(facts.checkpoint).is_dir() else facts.checkpoint
    if facts.download_bytes == 0:
        return f"weights of {name}{f' at {facts.revision[:7]}' if facts.revision else ''} are here"
    at = f"at {facts.revision[:7]}" if facts.revision else "as they are then"
    return f"weights of {name}, {at}, come from the Hub at first use: {_size(facts)}"


def _size(facts: Facts) -> str:
    return gigabytes(facts.download_bytes) if facts.download_bytes else "gigabytes, the Hub says how many,"


def _seconds(facts: Facts) -> str:
    if facts.seconds is None:
        return "not timed on this machine yet"
    how = "measured here" if facts.measured else "estimated"
    return f"about {_rounded(facts.seconds)} a frame of {facts.width}x{facts.height} ({how})"


def _rounded(seconds: float) -> str:
    if seconds < 1:
        return f"{seconds:.2g} s"
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"

"""Checkpoints from the Hugging Face Hub: only data files, at a known revision."""

from __future__ import annotations

import re
import time
from collections.abc import Generator
from pathlib import Path

from difix3d.errors import CheckpointError
from difix3d.events import Event, Progress, Warned
from difix3d.fixers.difix import layout
from difix3d.hub.files import (
    HubFile,
    Listing,
    broken_safetensors,
    cached,
    forget,
    gigabytes,
    hub_cache,
    list_files,
    remember_revision,
    require_space,
)
from difix3d.hub.transfer import fetch_file

PINNED_REVISIONS = {"nvidia/difix": "2b0c6fb5797c26b01154dfdeb19d36e5e2eaf388"}
"""Revisions whose files were checked against the description this code was written from. Of nvidia/difix_ref no commit
is known to us: what `main` is when it is fetched stays in use here, and is named wherever its fixes are."""
PUBLISHED = ("nvidia/difix_ref", "nvidia/difix")

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")
_TELL_EVERY_S = 0.5


def is_hub_id(source: str) -> bool:
    """Whether `source` reads like owner/model."""
    return _HUB_ID.fullmatch(source) is not None


def on_disk(model_id: str, revision: str | None = None) -> tuple[Path, str] | None:
    """The local folder of a Hub model and its commit, where all that is needed of it is here and whole. Asks nobody."""
    files = [cached(model_id, _wanted(model_id, revision), name) for name in layout.NEEDED]
    if any(path is None or (path.suffix == ".safetensors" and broken_safetensors(path)) for path in files):
        return None
    assert files[0] is not None
    return files[0].parent, files[0].parent.name


def download(model_id: str, revision: str | None = None) -> tuple[Path, str]:
    """`fetch` for those who only wait."""
    steps = fetch(model_id, revision)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value


def fetch(model_id: str, revision: str | None = None, stage: str = "fix") -> Generator[Event, None, tuple[Path, str]]:
    """Bring a Hub model here, telling how far it is; returns its folder and the commit it is at.

    revision: branch, tag or commit; None: the pinned commit where we know one, else `main`. What is here already is
    used without asking the Hub. Closing the generator stops; the next call goes on from there. Raises CheckpointError,
    with what to do, where it cannot be had.
    """
    wanted = _wanted(model_id, revision)
    if found := on_disk(model_id, wanted):
        return found
    listing = list_files(model_id, wanted, layout.EVERYTHING)
    if missing := sorted(set(layout.NEEDED) - {file.path for file in listing.files}):
        raise CheckpointError(
            f"{model_id} is no Difix checkpoint: {', '.join(missing)} not found. Expected diffusers' layout, as "
            f"{PUBLISHED[0]} has it."
        )
    for file in listing.files:
        if (path := cached(model_id, listing.commit, file.path)) and (wrong := _damage(path, file)):
            yield Warned(stage, f"{file.path} of {model_id} is damaged on this disk ({wrong}): it is fetched again.")
            forget(path)
    absent = [file for file in listing.files if cached(model_id, listing.commit, file.path) is None]
    if absent:
        yield from _fetch_all(listing, absent, stage)
    remember_revision(listing, wanted)
    if found := on_disk(model_id, listing.commit):
        return found
    here = ((name, cached(model_id, listing.commit, name)) for name in layout.WEIGHTS)
    names = [name for name, path in here if path and broken_safetensors(path)]
    raise CheckpointError(
        f"{', '.join(names)} of {model_id} came as the Hub lists it, and is no whole safetensors file. Name another "
        "revision, or tell the people of that repository."
    )


def _wanted(model_id: str, revision: str | None) -> str:
    return revision or PINNED_REVISIONS.get(model_id, "main")


def _damage(path: Path, file: HubFile) -> str:
    """What is wrong with a file of the cache, as far as a quick look tells; "" for nothing."""
    size = path.stat().st_size
    if size != file.size:
        return f"{size:,} of {file.size:,} bytes"
    return broken_safetensors(path) if path.suffix == ".safetensors" else ""


def _fetch_all(listing: Listing, files: list[HubFile], stage: str) -> Generator[Event, None, None]:
    total = sum(file.size for file in files)
    free = require_space(listing.repo, hub_cache(), total)
    yield Warned(
        stage,
        f"{listing.repo} is not on this machine yet: {gigabytes(total)} come from the Hub to {hub_cache()} "
        f"({gigabytes(free)} free). Stopping does no harm; it goes on where it stopped.",
    )
    message, before = f"Downloading {listing.repo}", 0
    started, told, first = time.monotonic(), 0.0, None
    for file in files:
        for here in fetch_file(listing, file):
            done, now = before + here, time.monotonic()
            first = done if first is None else first  # what an earlier try left
            if now - told < _TELL_EVERY_S and done < total:
                continue
            told = now
            rate = (done - first) / max(now - started, 1e-9)
            left = round((total - done) / rate, 1) if rate else None
            yield Progress(stage, message, round(done / 1e6, 1), round(total / 1e6, 1), "MB", left)
        before += file.size

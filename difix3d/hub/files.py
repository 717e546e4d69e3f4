"""What a repository of the Hub holds, and what of it is on this machine."""

from __future__ import annotations

import fnmatch
import json
import os
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from difix3d.atomic import replacing_file
from difix3d.errors import CheckpointError
from difix3d.hub.refusals import telling
from difix3d.machine import free_disk_bytes

_KEPT_FREE_BYTES = 2**29
"""Left on the disk for everybody else."""
_MOST_HEADER_BYTES = 100_000_000  # safetensors' own limit


@dataclass(frozen=True)
class HubFile:
    """sha256: "" for the small files that git keeps itself."""

    path: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Listing:
    """The files of `repo` at `commit`."""

    repo: str
    commit: str
    files: tuple[HubFile, ...]


def own_cache() -> Path:
    """Where this program keeps what can be had again: $HF_HOME/difix3d, else difix3d in the user's cache folder."""
    if home := os.environ.get("HF_HOME"):
        return Path(home).expanduser() / "difix3d"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "difix3d"


def hub_cache() -> Path:
    """huggingface_hub's folder of repositories."""
    from huggingface_hub.constants import HF_HUB_CACHE

    return Path(HF_HUB_CACHE)


def list_files(repo: str, revision: str, patterns: Sequence[str]) -> Listing:
    """What `repo` holds at a branch, tag or commit, of files whose paths match one of `patterns`; asks the Hub."""
    from huggingface_hub import HfApi
    from huggingface_hub.constants import HF_HUB_ETAG_TIMEOUT

    with telling(repo, revision):
        found = HfApi().model_info(repo, revision=revision, files_metadata=True, timeout=HF_HUB_ETAG_TIMEOUT)
    files = tuple(
        HubFile(each.rfilename, each.size or 0, each.lfs.sha256 if each.lfs else "")
        for each in found.siblings or ()
        if any(fnmatch.fnmatchcase(each.rfilename, pattern) for pattern in patterns)
    )
    return Listing(repo, found.sha or revision, files)


def cached(repo: str, revision: str, path: str) -> Path | None:
    """A file in huggingface_hub's cache; None where it is not there. Asks nobody."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(repo, path, revision=revision)
    return Path(found) if isinstance(found, str) else None


def blobs_of(repo: str) -> Path:
    """Where the cache keeps the files of `repo`, by their hash: its documented layout."""
    return hub_cache() / f"models--{repo.replace('/', '--')}" / "blobs"


def forget(path: Path) -> None:
    """Remove a file from the cache: its name in the snapshot, and what the name points to."""
    path.resolve().unlink(missing_ok=True)
    path.unlink(missing_ok=True)


def remember_revision(listing: Listing, revision: str) -> None:
    """Note in the cache which commit a branch or tag was at, so that it is found there without the Hub."""
    if revision != listing.commit:
        with replacing_file(blobs_of(listing.repo).parent / "refs" / revision) as temporary:
            temporary.write_text(listing.commit)


def require_space(what: str, folder: Path, needed_bytes: int) -> int:
    """Free bytes on the disk of `folder`, which need not exist yet. CheckpointError where `needed_bytes` do not fit."""
    free = free_disk_bytes(folder)
    if free < needed_bytes + _KEPT_FREE_BYTES:
        raise CheckpointError(
            f"{what} needs {gigabytes(needed_bytes)} of disk at {folder}, and {gigabytes(free)} are free there. "
            "Free some, or set HF_HOME to a folder on a larger disk."
        )
    return free


def broken_safetensors(path: Path) -> str:
    """What is wrong with a safetensors file, as far as its header tells (little is read); "" for nothing."""
    size = path.stat().st_size
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > min(size, _MOST_HEADER_BYTES):
                return "it has no header of safetensors"
            header = json.loads(file.read(length))
        ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
    except (ValueError, struct.error, LookupError, TypeError, AttributeError):
        return "it has no header of safetensors"
    expected = 8 + length + max(ends, default=0)
    return "" if size == expected else f"it has {size:,} bytes, and its header speaks of {expected:,}"


def gigabytes(count: float) -> str:
    """Bytes for people: "5.2 GB", "59 MB"."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{max(1, round(count / 1e6))} MB"

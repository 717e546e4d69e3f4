"""A backend takes a folder of photos and leaves a folder of undistorted photos with a COLMAP model of them.

Adding one: a file here with a class that follows SfmBackend, a line in the table in `difix3d/sfm/__init__.py`.
tests/test_sfm.py then tests it at once.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from difix3d.errors import ReconstructionError
from difix3d.events import Progress, Warned
from difix3d.machine import cores
from difix3d.types import Reconstruction

STAGE = "reconstruct"
"""Whose events these are: there is one stage that finds cameras."""
PHASES = ("extract", "match", "map", "refine", "straighten")
"""Of every backend, in their order; a result's figures have the seconds of each as "seconds_<phase>"."""


@dataclass(frozen=True)
class Photo:
    """One decoded photo. name: its file in the folder; source: what the person called it; focal_px: from EXIF, for
    this size, None where unknown; camera: make and model, "" where unknown; lens and zoomed_mm: see formats.photos."""

    name: str
    width: int
    height: int
    source: str = ""
    focal_px: float | None = None
    camera: str = ""
    lens: str = ""
    zoomed_mm: float | None = None


@dataclass(frozen=True)
class PhotoSet:
    """Photos in one folder. ordered: neighbours in the list were taken one after the other."""

    folder: Path
    photos: tuple[Photo, ...]
    ordered: bool = False

    def source_of(self, name: str) -> str:
        """What the person called the photo stored as `name`."""
        return next((photo.source or photo.name for photo in self.photos if photo.name == name), name)


@dataclass(frozen=True)
class SfmSettings:
    """matching: auto | sequential | exhaustive | retrieval; mapper: auto | incremental | global;
    known_poses: a COLMAP folder or a transforms.json, for the backend that reads one; threads: 0 = all cores."""

    matching: str = "auto"
    mapper: str = "auto"
    known_poses: str = ""
    seed: int = 0
    threads: int = 0

    @property
    def thread_count(self) -> int:
        """At least 1; the cores this process may use where `threads` is 0."""
        if self.threads > 0:
            return self.threads
        return cores()


@dataclass(frozen=True)
class Snapshot:
    """The cameras and points found so far, in whatever world they grow in: something to look at."""

    reconstruction: Reconstruction


Said = Progress | Warned | Snapshot
"""What a backend says while it works."""


@dataclass(frozen=True)
class SfmResult:
    """images_dir: undistorted photos; sparse_dir: their COLMAP model with PINHOLE cameras, in the backend's own
    world; left_out: names of the photos without a camera; figures: what was measured, JSON-ready."""

    images_dir: Path
    sparse_dir: Path
    left_out: tuple[str, ...]
    figures: dict[str, Any] = field(default_factory=dict)


@runtime_checkable
class SfmBackend(Protocol):
    name: str

    def reconstruct(self, photos: PhotoSet, workspace: Path, settings: SfmSettings) -> Generator[Said, None, SfmResult]:
        """Find the cameras; everything written goes into the empty folder `workspace`.

        Same photos and seed, same cameras, up to the order in which threads finish. Raises ReconstructionError
        where no trustworthy scene comes out. close() stops the work soon.
        """
        ...


def needed_photos(photos: int) -> int:
    """How many registered photos make a scene: one in eight, but at least 4 (less gives no parallax to speak of)
    and at most 8 (from there on a small scene is a scene, however much was left out)."""
    return min(8, max(4, -(-photos // 8)))


def require_enough_photos(photos: PhotoSet) -> None:
    """ReconstructionError for a set that cannot become a scene, whatever is on the photos."""
    if len(photos.photos) < needed_photos(0):
        found = "1 photo" if len(photos.photos) == 1 else f"{len(photos.photos)} photos"
        raise ReconstructionError(
            f"Found {found}; at least {needed_photos(0)} are needed, and 20 to 60 make a good scene. "
            "Walk around the subject and take a photo every step or two."
        )

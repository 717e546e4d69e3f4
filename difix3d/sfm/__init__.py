"""The ways there are to find cameras: from the photos alone, or from poses that somebody already has."""

from __future__ import annotations

from importlib import import_module

from difix3d.errors import ConfigError
from difix3d.sfm.base import SfmBackend

BACKENDS: dict[str, str] = {
    "colmap": "difix3d.sfm.colmap:ColmapBackend",
    "known_poses": "difix3d.sfm.known_poses:KnownPosesBackend",
}
"""name -> "module:Class"; the class is called with no arguments."""


def load_backend(name: str) -> SfmBackend:
    """The backend called `name`. ConfigError for a name that is none."""
    if name not in BACKENDS:
        raise ConfigError(f"There is no camera backend {name!r}. Choose one of {', '.join(BACKENDS)}.")
    module, _, cls = BACKENDS[name].partition(":")
    return getattr(import_module(module), cls)()

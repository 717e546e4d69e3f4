"""Small pictures of a scene's photos."""

from __future__ import annotations

import logging
from pathlib import Path

from difix3d.derived import derived_file
from difix3d.errors import Difix3DError, SceneError
from difix3d.formats.contact_sheet import thumbnail
from difix3d.formats.image import read_rgb, write_rgb
from difix3d.scene import Scene
from difix3d.ui.media import Media

log = logging.getLogger(__name__)


def thumbnail_of(scene: Scene, name: str) -> Path:
    """A small JPEG of a photo, made at first use; photos of COLMAP's may lie in folders. SceneError without it."""
    source = scene.images_dir / name
    if ".." in Path(name).parts or scene.images_dir not in source.parents or not source.is_file():
        raise SceneError(f"There is no photo {name[:80]!r} in this scene.")
    path = scene.previews_dir / "photos" / f"{source.relative_to(scene.images_dir)}.jpg"
    return derived_file(path, source, lambda target: write_rgb(target, thumbnail(read_rgb(source))))


def thumbnail_url(media: Media, scene: Scene, name: str) -> str:
    """Where a browser gets it; empty where none can be made (a full disk, a photo that cannot be read): the photo can
    be named all the same."""
    try:
        return media.url(thumbnail_of(scene, name))
    except (Difix3DError, OSError) as error:
        log.warning("no thumbnail of %s in %s: %s", name, scene.id, error)
        return ""

"""Measure on a scene how much of a fixer's fixes to show (fixers/strength.py), and keep it beside the scene.

The photos that were kept out of the fit say so. Where one of them is itself what is fixed, the others do
(FixSession.strength): no figure of a scene has learned from the photo that it was taken at.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Generator
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from difix3d.atomic import write_json
from difix3d.events import Event, Progress
from difix3d.fixers.base import Fixer
from difix3d.fixers.strength import Compared, compare
from difix3d.formats.image import read_rgb
from difix3d.scene import Scene, hash_file
from difix3d.trajectories import HELDOUT

if TYPE_CHECKING:
    from difix3d.stages.fixing import FixSession

_MOST_PHOTOS, _LONG_SIDE_PX = 6, 480
"""Three seconds on two cores. More photos than that hardly change what they say together."""


def measured(session: FixSession, stage: str) -> Generator[Event, None, tuple[Compared, ...]]:
    """What the session's fixer does at a few kept-out photos, from the disk where it was measured before; none where
    there are none, or no splats. Tells how far it is on behalf of `stage`."""
    scene, fixer = session.scene, session.fixer
    reconstruction, heldout = session.reconstruction(), scene.split()["heldout"]
    if reconstruction is None or not heldout or not scene.splats_path.is_file():
        return ()
    of, path = _digest(scene, fixer), scene.strength_path(fixer.name)
    if (kept := _read(path, of)) is not None:
        return kept
    views = {view.name: view for view in reconstruction.views}
    known = [index for index, name in enumerate(heldout) if name in views]
    places = np.linspace(0, len(known) - 1, min(_MOST_PHOTOS, len(known))).round()
    found: list[Compared] = []
    for number, place in enumerate(places):
        yield Progress(stage, "Measuring on kept-out photos how much of a fix to show", number, len(places), "photos")
        index = known[int(place)]
        view = views[heldout[index]]
        assert view.image_path is not None, "read_reconstruction was given images_dir"
        camera = view.camera.resized(min(_LONG_SIDE_PX, max(view.camera.width, view.camera.height)))
        frame = session.render(HELDOUT, index, camera)
        fixed = session.fix_fully(frame)[0]
        photo = read_rgb(view.image_path, (camera.width, camera.height))
        found.append(compare(view.name, photo, frame.rgb, fixed))
    with suppress(OSError):  # a disk that is full or read-only: measured again the next time
        write_json(path, {"of": of, "photos": [asdict(one) for one in found]})
    return tuple(found)


def _digest(scene: Scene, fixer: Fixer) -> str:
    """Of what decides the figures. Cameras are not in it: who makes them anew fits anew."""
    asked = [fixer.name, fixer.settings, hash_file(scene.splats_path), scene.split(), _MOST_PHOTOS, _LONG_SIDE_PX]
    return hashlib.sha256(json.dumps(asked, sort_keys=True, default=str).encode()).hexdigest()[:16]


def _read(path: Path, of: str) -> tuple[Compared, ...] | None:
    """None where there is nothing, or of something else, or nothing that can be read."""
    try:
        kept = json.loads(path.read_text())
        return tuple(Compared(**one) for one in kept["photos"]) if kept["of"] == of else None
    except (OSError, ValueError, KeyError, TypeError):
        return None

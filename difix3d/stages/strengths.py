"""How much of a fixer's fixes a scene shows (fixers/strength.py): measured there, and kept beside it.

The photos that were kept out of the fit say so, at the size of the frames that are fixed: at twice the size that splats
were fitted at, a render is soft, and more of the photos helps. At a camera that a kept-out photo was taken from the
others say: no figure of a scene has learned from the photo that it was taken at. It is of this scene's own splats;
renders from elsewhere, put beside them, are shown by it too.
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
from difix3d.errors import Difix3DError
from difix3d.events import Event, Progress
from difix3d.fixers.base import Trusting
from difix3d.fixers.listing import trained_frames
from difix3d.fixers.strength import Compared, compare, strength_of
from difix3d.formats.image import read_rgb
from difix3d.scene import hash_file
from difix3d.spread import evenly
from difix3d.trajectories import HELDOUT
from difix3d.types import Camera, View

if TYPE_CHECKING:
    from difix3d.stages.fixing import FixSession

MEASURING = "Measuring on kept-out photos how much of a fix to show"
VERSION = 2
"""Of what fixers make with the same settings and how it is shown. Raised, what was measured, fixed and judged before is
made anew."""
_MOST_PHOTOS = 6
"""It takes about as long as so many fixes of frames that large, whose photos are not at hand yet."""
_SIZES_PX = 32
"""Sizes are told apart in steps of so many pixels."""
_SAME_PLACE = 1e-6
"""Scenes are of size 1 or so (geometry.normalising_similarity), and files keep doubles."""


class Strengths:
    """Of a session's scene, for the fixer that it has at the moment."""

    def __init__(self, session: FixSession):
        self._session = session
        self._known: dict[str, tuple[Compared, ...]] = {}
        self._so_far: dict[tuple[str, str], Compared | None] = {}
        self._splats = ""

    def of(self, camera: Camera, *, measure: bool = True) -> float:
        """In (0, 1], of a frame at `camera`; 1 for a fixer that does not mix, and where nothing can be compared.
        measure: at first need, which takes seconds; else what is not known yet is 1."""
        long_side_px = max(camera.width, camera.height)
        found = self._at_hand(long_side_px)
        if found is None and measure:
            for _ in self.measure(long_side_px):
                pass
            found = self._at_hand(long_side_px)
        views = {view.name: view for view in self._views()} if found else {}

        def is_here(name: str) -> bool:
            view = views.get(name)
            return view is not None and np.allclose(
                view.camera.cam_from_world, camera.cam_from_world, rtol=0, atol=_SAME_PLACE
            )

        return strength_of(one for one in found or () if not is_here(one.photo))

    def measure(self, long_side_px: int, stage: str = "fix") -> Generator[Event, None, None]:
        """What `of` needs for frames of that size, telling how far it is on behalf of `stage`. Photos that cannot be
        read or fixed have no say. Closing it stops, and the next call goes on."""
        if self._at_hand(long_side_px) is not None:
            return
        of, scene = self._digest(long_side_px), self._session.scene
        photos = self._photos()
        for number, (index, view) in enumerate(photos):
            yield Progress(stage, MEASURING, number, len(photos), "photos")
            if (of, view.name) not in self._so_far:
                self._so_far[of, view.name] = self._compared(index, view, long_side_px)
        found = [one for _, view in photos if (one := self._so_far[of, view.name]) is not None]
        self._known[of] = tuple(found)
        if found and (scene.root / "scene.json").is_file():  # it may have been deleted meanwhile
            with suppress(OSError):  # a disk that is full or read-only: measured again the next time
                write_json(self._path(long_side_px), {"of": of, "photos": [asdict(one) for one in found]})

    def _at_hand(self, long_side_px: int) -> tuple[Compared, ...] | None:
        """None where it has to be measured."""
        session = self._session
        if not isinstance(session.fixer, Trusting) or not session.scene.splats_path.is_file():
            return ()
        of = self._digest(long_side_px)
        if of not in self._known:
            with suppress(OSError, ValueError, KeyError, TypeError):  # not there, or nothing that can be read
                kept = json.loads(self._path(long_side_px).read_text())
                if kept["of"] == of:
                    self._known[of] = tuple(Compared(**one) for one in kept["photos"])
        return self._known.get(of)

    def _photos(self) -> list[tuple[int, View]]:
        """(number among the kept-out photos, view) of those to compare at, evenly spread; without those that the fixer
        was trained on, where others are left."""
        from difix3d.fixers.lite.fixer import LiteFixer

        session, views = self._session, {view.name: view for view in self._views()}
        known = {index: name for index, name in enumerate(session.scene.split()["heldout"]) if name in views}
        if isinstance(session.fixer, LiteFixer):
            seen = trained_frames([str(session.fixer.weights.parent)], session.scene.id, known)
            known = {index: name for index, name in known.items() if index not in seen} or known
        return [(index, views[known[index]]) for index in evenly(list(known), _MOST_PHOTOS)]

    def _compared(self, index: int, view: View, long_side_px: int) -> Compared | None:
        assert view.image_path is not None, "read_reconstruction was given images_dir"
        camera = view.camera.resized(min(self._side(long_side_px), max(view.camera.width, view.camera.height)))
        try:
            photo = read_rgb(view.image_path, (camera.width, camera.height))
            frame = self._session.render(HELDOUT, index, camera)
            return compare(view.name, photo, frame.rgb, self._session.fix_fully(frame)[0])
        except (Difix3DError, OSError):
            return None

    def _side(self, long_side_px: int) -> int:
        """The size that stands for frames of that one: nearly the same, and no larger than photos are."""
        largest = max((max(view.camera.width, view.camera.height) for view in self._views()), default=long_side_px)
        return -(-min(long_side_px, largest) // _SIZES_PX) * _SIZES_PX

    def _views(self) -> tuple[View, ...]:
        reconstruction = self._session.reconstruction()
        return () if reconstruction is None else tuple(reconstruction.views)

    def _path(self, long_side_px: int) -> Path:
        return self._session.scene.strength_path(self._session.fixer.name, self._side(long_side_px))

    def _digest(self, long_side_px: int) -> str:
        """Of what decides the figures. Cameras are not in it: who makes them anew fits anew."""
        scene, fixer = self._session.scene, self._session.fixer
        self._splats = self._splats or hash_file(scene.splats_path)  # a session reads them once
        asked = [VERSION, fixer.name, fixer.settings, self._splats, scene.split(), self._side(long_side_px)]
        return hashlib.sha256(json.dumps(asked, sort_keys=True, default=str).encode()).hexdigest()[:16]

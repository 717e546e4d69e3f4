"""Choosing references for a frame: what each photo covers of it, and the fix with those that are chosen, soon enough to
follow clicks."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import cv2
import numpy as np
from numpy.typing import NDArray

from difix3d.errors import FixerError
from difix3d.fixers.coverage import coverage, covered_share
from difix3d.fixers.stepwise import CarriedPhotos, Stepwise, SupersededError
from difix3d.fixers.strength import shown
from difix3d.kept import Kept
from difix3d.stages.fixing import FixSession
from difix3d.types import Camera, Frame

PREVIEW_SIZES_PX = (640, 448, 320)
"""Larger frames are fixed with this long side while photos are chosen, with the next one where that was too slow."""
_PATIENCE_S = 0.8
"""Of a person who presses and looks; sending and drawing the picture come to it."""
_COVERAGE_PX = 128
"""Long side at which coverage is computed: within 0.02 of that at 160, in a hundredth of the time of a full frame."""
_KEPT_FRAMES, _KEPT_CARRIED, _KEPT_DEPTHS, _KEPT_MAPS = 4, 24, 100, 200

Map = NDArray[np.float32]


@dataclass(frozen=True)
class OfferedPhoto:
    """covered: share of the frame that it can be believed to show, in [0, 1]; None where the frame has no depth.
    chosen: whether it is used where nobody chooses."""

    name: str
    angle_deg: float
    covered: float | None
    chosen: bool


@dataclass(frozen=True)
class Preview:
    """rgb: [H, W, 3] uint8, at most PREVIEW_SIZES_PX[0] a side; trust: [H, W] in [0, 1], None where the fixer does not
    say. covered: share of the frame that the references cover together; None where it has no depth. strength: how much
    of the fix is shown."""

    rgb: NDArray[np.uint8]
    trust: Map | None
    references: tuple[str, ...]
    covered: float | None
    seconds: float
    strength: float


class Chooser:
    """Of one scene and fixer. Threads may share it; previews wait for each other."""

    def __init__(self, session: FixSession):
        self.session = session
        self._turn = threading.Lock()
        self._frames: Kept[Frame] = Kept(_KEPT_FRAMES)
        self._depths: Kept[Map] = Kept(_KEPT_DEPTHS)
        self._maps: Kept[Map] = Kept(_KEPT_MAPS)
        self._carried = CarriedPhotos(_KEPT_CARRIED)
        self._slow_at = ("", 0, 0)  # the frame previewed last, and how often that was too slow

    @property
    def previews(self) -> bool:
        """Whether this fixer is one whose fixes can follow clicks."""
        return isinstance(self.session.fixer, Stepwise)

    def offered(self, trajectory: str, index: int, most: int) -> list[OfferedPhoto]:
        """The photos that may be references of a rendered frame, at most `most`: those that are used where nobody
        chooses, then the others, the most helpful first."""
        frame = self._frame(trajectory, index, PREVIEW_SIZES_PX[0])
        chosen = self.session.chosen(frame)
        others = [one for one in self.session.ranked(frame) if one not in chosen]
        offered = [*chosen, *others][:most]
        maps = [self._coverage(trajectory, index, one.name) for one in offered]
        return [
            OfferedPhoto(one.name, one.angle_deg, None if covered is None else covered_share([covered]), one in chosen)
            for one, covered in zip(offered, maps)
        ]

    def preview(
        self, trajectory: str, index: int, references: Sequence[str], stale: Callable[[], bool] = lambda: False
    ) -> Preview:
        """The frame fixed with these photos, best first; only those that were not used for it lately are carried anew.

        SupersededError soon after `stale` says that nobody waits any more. ConfigError for a photo that may not be
        used, FixerError for a fixer that has no previews.
        """
        fixer = self.session.fixer
        if not isinstance(fixer, Stepwise):
            raise FixerError(f"{fixer.name} takes too long to follow clicks. Press the button to fix the frame.")
        names = self.session.checked(references)[: fixer.max_references]
        with self._turn:
            if stale():
                raise SupersededError
            if self._slow_at[:2] != (trajectory, index):  # a busy machine may be idle again
                self._slow_at = (trajectory, index, 0)
            side_px = PREVIEW_SIZES_PX[self._slow_at[2]]
            frame = self._frame(trajectory, index, side_px)
            self.session.fixer.load()
            began = time.monotonic()
            key = self._key(trajectory, index, side_px)
            wanted = [((*key, name), partial(self.session.reference, name, frame.camera)) for name in names]
            rgb, trust = self._carried.fix(fixer, frame, wanted, stale)
            seconds = time.monotonic() - began
            if seconds > _PATIENCE_S:
                self._slow_at = (trajectory, index, min(self._slow_at[2] + 1, len(PREVIEW_SIZES_PX) - 1))
        maps = [self._coverage(trajectory, index, name) for name in names]
        known = [covered for covered in maps if covered is not None]
        covered = covered_share(known) if len(known) == len(maps) else None
        # As it will be shown at the frame's own size. Measuring takes seconds, in which nobody would get a preview.
        strength = (
            self.session.strengths.of(self.session.trajectory(trajectory).cameras[index], measure=False)
            if names
            else 1.0
        )
        return Preview(shown(frame.rgb, rgb, strength), trust, tuple(names), covered, seconds, strength)

    def _key(self, trajectory: str, index: int, long_side_px: int) -> tuple[str, int, int, int]:
        """Changes when the frame is rendered again."""
        render = self.session.scene.renders_dir(trajectory) / f"{index:05d}.png"
        return trajectory, index, long_side_px, render.stat().st_mtime_ns if render.is_file() else 0

    def _frame(self, trajectory: str, index: int, long_side_px: int) -> Frame:
        """As FixSession.frame, no larger than asked."""

        def make() -> Frame:
            largest = long_side_px >= PREVIEW_SIZES_PX[0]
            frame = (
                self.session.frame(trajectory, index)
                if largest
                else self._frame(trajectory, index, PREVIEW_SIZES_PX[0])
            )
            camera = frame.camera
            if max(camera.width, camera.height) <= long_side_px:
                return frame
            small = camera.resized(long_side_px)
            size = (small.width, small.height)
            rgb = np.asarray(cv2.resize(frame.rgb, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)
            alpha = np.asarray(cv2.resize(frame.alpha, size, interpolation=cv2.INTER_AREA), dtype=np.float32)
            # Not a mean: between a wall and what is behind it there is nothing.
            depth = np.asarray(cv2.resize(frame.depth, size, interpolation=cv2.INTER_NEAREST), dtype=np.float32)
            return replace(frame, camera=small, rgb=rgb, alpha=alpha, depth=depth)

        return self._frames.get(self._key(trajectory, index, long_side_px), make)

    def _coverage(self, trajectory: str, index: int, name: str) -> Map | None:
        """[h, w] of a small frame; None where the frame has no depth."""

        def make() -> Map:
            reconstruction = self.session.reconstruction()
            assert reconstruction is not None, "names come from `ranked` and `checked`"
            reference = reconstruction.view(name).camera.resized(_COVERAGE_PX)
            return coverage(frame.camera, frame.depth, reference, self._depth(name, reference), frame.alpha)

        frame = self._frame(trajectory, index, _COVERAGE_PX)
        if not (frame.depth > 0).any():
            return None
        return self._maps.get((*self._key(trajectory, index, _COVERAGE_PX), name), make)

    def _depth(self, name: str, camera: Camera) -> Map | None:
        splats = self.session.splats()
        if splats is None:
            return None
        from difix3d.splatting.surface import surface_depth

        return self._depths.get(name, lambda: surface_depth(splats, camera))

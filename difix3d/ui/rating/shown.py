"""From scenes to what a browser shows, and back from a ticket to the pair that was shown."""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from difix3d.errors import Difix3DError, SceneError
from difix3d.ratings.candidates import Frames, candidates_of
from difix3d.ratings.identity import candidate_key
from difix3d.ratings.pictures import find_picture
from difix3d.ratings.sampling import PairToRate
from difix3d.scene import Scene
from difix3d.types import Candidate
from difix3d.ui.fix import thumbnail_of
from difix3d.ui.rating.ticket import Ticket, seal
from difix3d.ui.studio import Studio

log = logging.getLogger(__name__)

MOST_REFERENCES = 4
_REMEMBERED = 20_000
"""Pairs that were shown since the start; one takes about a kilobyte."""


class PictureGoneError(SceneError):
    """A picture that was shown is no longer there: the scene was deleted, or the picture made again."""


@dataclass
class Shown:
    """Pairs that browsers were given. A vote that comes after a restart finds its pair in the scene."""

    studio: Studio

    def __post_init__(self) -> None:
        self._pairs: OrderedDict[str, PairToRate] = OrderedDict()
        self._lock = threading.Lock()

    def show(self, scene: Scene, pair: PairToRate, rater: str) -> dict[str, Any]:
        """What the browser gets: addresses of the pictures, and a ticket for the vote."""
        with self._lock:
            self._pairs[pair.token] = pair
            while len(self._pairs) > _REMEMBERED:
                self._pairs.popitem(last=False)
        names = references_of(scene, pair)
        a = pair.candidate_a
        keys = candidate_key(a), candidate_key(pair.candidate_b)
        first = names[0] if names else None
        ticket = Ticket(
            pair.token, rater, a.scene_id, a.trajectory, a.frame_index, *keys, pair.left_is, first, time.time()
        )
        media = self.studio.media
        return {
            "ticket": seal(ticket, self.studio.secret),
            "left": media.url(_file(scene, pair.left)),
            "right": media.url(_file(scene, pair.right)),
            "references": [
                {"small": media.url(thumbnail_of(scene, name)), "whole": media.url(scene.images_dir / name)}
                for name in names
            ],
            "place": f"{scene.info['name']}, {a.trajectory}, frame {a.frame_index}",
        }

    def pair_of(self, ticket: Ticket) -> PairToRate:
        """The pair of a ticket. PictureGoneError where its pixels are no longer at hand."""
        with self._lock:
            pair = self._pairs.get(ticket.token)
        if pair is not None:
            return pair
        gone = PictureGoneError(
            "These pictures were deleted or made again since you saw them, so this vote has nothing left to be about. "
            "It was not counted."
        )
        try:
            scene = Scene(self.studio.scenes_root / ticket.scene_id)
            here = candidates_of(scene).get((ticket.trajectory, ticket.frame_index), [])
        except Difix3DError as error:
            raise gone from error
        by_key = {candidate_key(candidate): candidate for candidate in here}
        if ticket.a not in by_key or ticket.b not in by_key:
            raise gone
        return PairToRate(by_key[ticket.a], by_key[ticket.b], ticket.left_is, ticket.token)

    def sizes(self, pair: PairToRate) -> tuple[tuple[int, int], ...]:
        """(width, height) of the left and of the right picture. PictureGoneError unless both have the pixels they
        were shown with."""
        return tuple(self._size(candidate) for candidate in (pair.left, pair.right))

    def _size(self, candidate: Candidate) -> tuple[int, int]:
        root = self.studio.scenes_root
        path, problem = find_picture(root, candidate.scene_id, candidate.image_path, candidate.sha256)
        if path is None:
            what = "made again" if problem == "altered" else "deleted"
            raise PictureGoneError(
                f"One of these pictures was {what} since you saw it, so this vote has nothing left to be about. "
                "It was not counted."
            )
        with Image.open(path) as opened:
            return opened.size


def frames_of(scenes: Sequence[Scene], held: Iterable[Ticket] = ()) -> list[Frames]:
    """Candidates of every scene, but for frames that the browser holds a pair of. A scene that cannot be read is
    left out, and the others can still be rated."""
    holds = {(ticket.scene_id, ticket.trajectory, ticket.frame_index) for ticket in held}
    found: list[Frames] = []
    for scene in scenes:
        try:
            here = candidates_of(scene)
        except Difix3DError as error:
            log.warning("scene %s is not asked about: %s", scene.id, error.message)
            continue
        found.append({frame: candidates for frame, candidates in here.items() if (scene.id, *frame) not in holds})
    return found


def references_of(scene: Scene, pair: PairToRate) -> list[str]:
    """Photos that the fixes were made from, and so show the same place; those of both, each once, a few at most."""
    names = dict.fromkeys((*pair.candidate_a.references, *pair.candidate_b.references))
    return [name for name in names if (scene.images_dir / name).is_file()][:MOST_REFERENCES]


def _file(scene: Scene, candidate: Candidate) -> Path:
    return scene.inside(candidate.image_path)

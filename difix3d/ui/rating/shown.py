"""From scenes to what a browser shows, and back from a ticket to the pair that was shown."""

from __future__ import annotations

import contextlib
import threading
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image
from sqlalchemy.orm import Session

from difix3d.errors import Difix3DError, SceneError
from difix3d.ratings.candidates import candidates_of
from difix3d.ratings.identity import candidate_key
from difix3d.ratings.log import candidate_of
from difix3d.ratings.pictures import find_picture
from difix3d.ratings.sampling import PairToRate
from difix3d.ratings.schema import CandidateRow
from difix3d.scene import Scene
from difix3d.types import Candidate
from difix3d.ui.rating.ticket import Ticket, seal
from difix3d.ui.studio import Studio
from difix3d.ui.thumbnails import thumbnail_url

MOST_REFERENCES = 4
_REMEMBERED = 20_000
"""Pairs that were shown since the start; one takes about a kilobyte."""


class PictureGoneError(SceneError):
    """A picture that was shown is no longer there: the scene was deleted, or the picture made again."""


@dataclass
class Shown:
    """Pairs that browsers were given. A vote that comes after a restart finds its pair in the database."""

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
        ticket = Ticket(pair.token, rater, a.scene_id, a.trajectory, a.frame_index, *keys, pair.left_is, first)
        media = self.studio.media
        return {
            "ticket": seal(ticket, self.studio.secret),
            "left": media.url(_file(scene, pair.left)),
            "right": media.url(_file(scene, pair.right)),
            "references": [
                {"small": thumbnail_url(media, scene, name) or whole, "whole": whole}
                for name, whole in ((name, media.url(scene.images_dir / name)) for name in names)
            ],
            "place": f"{scene.info['name']}, {a.trajectory}, frame {a.frame_index}",
        }

    def pair_of(self, ticket: Ticket) -> PairToRate:
        """The pair of a ticket. PictureGoneError where its pixels are no longer at hand."""
        with self._lock:
            pair = self._pairs.get(ticket.token)
        if pair is not None:
            return pair
        with Session(self.studio.store.engine) as session:
            rows = session.get(CandidateRow, ticket.a), session.get(CandidateRow, ticket.b)
        if rows[0] is None or rows[1] is None:
            raise PictureGoneError("This pair is no longer known here, so this vote was not counted.")
        return PairToRate(candidate_of(rows[0]), candidate_of(rows[1]), ticket.left_is, ticket.token)

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


def offers_pairs(scene: Scene) -> bool:
    """Whether any frame has two candidates or more."""
    try:
        return any(len(candidates) > 1 for candidates in candidates_of(scene).values())
    except Difix3DError:
        return False


def references_of(scene: Scene, pair: PairToRate) -> list[str]:
    """Photos that the fixes were made from, and so show the same place; those of both, each once, a few at most.

    A pair without any (a render against the true photo) has those of the frame's other fixes: a pair with nothing
    beside it would tell what it is.
    """
    a = pair.candidate_a
    shown = [a, pair.candidate_b]
    if not any(candidate.references for candidate in shown):
        with contextlib.suppress(Difix3DError):
            shown = candidates_of(scene).get((a.trajectory, a.frame_index), [])
    names = dict.fromkeys(name for candidate in shown for name in candidate.references)
    return [name for name in names if (scene.images_dir / name).is_file()][:MOST_REFERENCES]


def _file(scene: Scene, candidate: Candidate) -> Path:
    return scene.inside(candidate.image_path)

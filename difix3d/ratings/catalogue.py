"""The questions that scenes offer, in memory: a scene's folders are read again only when they changed.

Whether they did is looked up at most every few seconds. Gold is made by a thread of its own, since that takes seconds.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, field

from difix3d.errors import Difix3DError
from difix3d.ratings.arms import Arm, arm_of
from difix3d.ratings.candidates import Frames, candidates_of, folders_stamp
from difix3d.ratings.gold import GoldPair, make_gold, read_gold
from difix3d.ratings.identity import item_key
from difix3d.ratings.sampling import questions_of
from difix3d.ratings.shelves import Shelves
from difix3d.scene import Scene
from difix3d.types import Candidate

log = logging.getLogger(__name__)

LOOK_EVERY_S = 3.0


@dataclass(frozen=True)
class Question:
    """Two candidates of one frame, in canonical order. gold: where the answer is known."""

    item_id: str
    a: Candidate
    b: Candidate
    arms: tuple[Arm, Arm]
    gold: GoldPair | None = None

    @property
    def kind(self) -> str:
        """ "pair", or of which sort the gold is."""
        return self.gold.kind if self.gold else "pair"

    @property
    def frame(self) -> tuple[str, str, int]:
        return self.a.scene_id, self.a.trajectory, self.a.frame_index


@dataclass
class SceneQuestions:
    """Of one scene, as its folders were at `stamp`."""

    stamp: object = None
    looked_at: float = float("-inf")
    to_rate: dict[str, Question] = field(default_factory=dict)
    gold: dict[str, Question] = field(default_factory=dict)
    shelves: Shelves | None = None
    """For the sampler, which fills it; None when the questions were read anew."""


class Catalogue:
    """Not for several threads at once, but for the one that makes gold. make: whether to make gold at all."""

    def __init__(self, make: bool = True):
        self._scenes: dict[str, SceneQuestions] = {}
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._to_make: queue.Queue[tuple[Scene, Frames, SceneQuestions]] | None = queue.Queue() if make else None
        self._maker: threading.Thread | None = None

    def close(self) -> None:
        """Stop making gold; what was made stays."""
        self._closed.set()

    def look(self, scenes: Iterable[Scene]) -> list[SceneQuestions]:
        """What these scenes offer now."""
        return [self._of(scene) for scene in scenes]

    def known(self) -> list[SceneQuestions]:
        """Of every scene that was looked at."""
        return list(self._scenes.values())

    def forget(self, scene_id: str) -> None:
        """Read its folders anew at the next look."""
        with self._lock:
            self._scenes.pop(scene_id, None)

    def _of(self, scene: Scene) -> SceneQuestions:
        with self._lock:
            known = self._scenes.setdefault(scene.id, SceneQuestions())
        if time.monotonic() - known.looked_at < LOOK_EVERY_S:
            return known
        known.looked_at = time.monotonic()
        stamp = folders_stamp(scene)
        if stamp != known.stamp:
            known.stamp = stamp
            try:
                frames = candidates_of(scene)
            except Difix3DError as error:  # the others can still be rated
                log.warning("scene %s is not asked about: %s", scene.id, error.message)
                frames = {}
            known.to_rate = {
                item: Question(item, a, b, (arm_of(a), arm_of(b))) for item, (a, b) in questions_of([frames]).items()
            }
            known.shelves = None
            known.gold = _gold_questions(read_gold(scene)) if known.to_rate else {}
            if self._to_make is not None and known.to_rate:
                self._to_make.put((scene, frames, known))
                if self._maker is None:
                    # It may die with the program: every file of gold is whole or not there.
                    self._maker = threading.Thread(target=self._make_gold, name="gold", daemon=True)
                    self._maker.start()
        return known

    def _make_gold(self) -> None:
        assert self._to_make is not None
        while True:
            scene, frames, known = self._to_make.get()
            try:
                if not self._closed.is_set():
                    known.gold = _gold_questions(make_gold(scene, frames, stop=self._closed.is_set))
            except Exception:  # nobody waits for this thread to tell
                log.exception("no gold could be made for scene %s", scene.id)
            finally:
                self._to_make.task_done()

    def wait_for_gold(self) -> None:
        """Until all that was asked for is made: for tests and scripts."""
        if self._to_make is not None:
            self._to_make.join()


def _gold_questions(pairs: Iterable[GoldPair]) -> dict[str, Question]:
    made = {}
    for pair in pairs:
        item = item_key(pair.a, pair.b)
        made[item] = Question(item, pair.a, pair.b, (arm_of(pair.a), arm_of(pair.b)), pair)
    return made

"""What a rater is asked next.

1. A question that was given to this rater and that they have neither answered nor hold: a reloaded page goes on
   where it was.
2. About 10 % gold and 7.5 % repeats with sides swapped, in places that a rater cannot foresee and that do not depend on
   what they say.
3. Else, of the questions of their scenes that have too few votes, those of campaigns (campaigns.py), then those with
   the fewest; among some of these drawn at random the one that would tell most about which way of making pictures is
   better (bradley_terry.gains).

A question given out counts as a vote to come while its lease is held (leases.py). Votes on one's own upload count for
the figures, but never make a question done: somebody else is asked as well.

Leases are those of this process. Two servers at one database may ask two people the same at once: no harm is done.
"""

from __future__ import annotations

import hashlib
import random
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from sqlalchemy.orm import Session

from difix3d.ratings.arms import Arm, arm_of
from difix3d.ratings.assignments import append_assignment, open_assignments
from difix3d.ratings.bradley_terry import fit_bradley_terry
from difix3d.ratings.campaigns import entered
from difix3d.ratings.catalogue import LOOK_EVERY_S, Catalogue, Question, SceneQuestions
from difix3d.ratings.leases import LEASE_S, Leases, lease_is_held
from difix3d.ratings.sampling import PairToRate, RatingProgress
from difix3d.ratings.schema import GOLD, RATE, REPEAT, new_id, now
from difix3d.ratings.shelves import Shelves
from difix3d.ratings.standing import Standing
from difix3d.ratings.store import RatingStore
from difix3d.scene import Scene
from difix3d.types import Candidate, Rating

TARGET_VOTES = 5
"""On each question: an odd number has a majority, and alpha's interval at 5 raters is two thirds of that at 3."""
_BLOCK = 40
_GOLD_IN_BLOCK, _REPEATS_IN_BLOCK = 4, 3
_REPEAT_AFTER = 8
"""Votes between a question and its repeat, so that it is judged again and not remembered."""
_DRAWN = 8
"""Questions with the fewest votes that are compared by what they would tell."""
_REFIT_SHARE = 0.02


@dataclass
class _Given:
    """A question that a rater holds."""

    pair: PairToRate
    question: Question
    own_upload: bool


class Sampler:
    """May be used by several threads. scenes: the folder of scenes. make_gold: whether to make gold pairs."""

    def __init__(
        self,
        store: RatingStore,
        scenes: Path | str,
        *,
        target_votes: int = TARGET_VOTES,
        lease_s: float = LEASE_S,
        make_gold: bool = True,
        rng: random.Random | None = None,
        leases: Leases | None = None,
    ):
        self.store = store
        self.scenes = Path(scenes)
        self.target_votes = target_votes
        self.lease_s = lease_s
        self.catalogue = Catalogue(make_gold)
        self._rng = rng or random.Random()
        self._leases = leases or Leases()
        self._standing = Standing(store)
        self._given: dict[str, dict[str, _Given]] = defaultdict(dict)  # rater -> token -> what they hold
        self._pending: Counter[str] = Counter()  # item -> leases that are held
        self._before: dict[str, list] = defaultdict(list)  # rater -> open assignments of a former process
        self._campaign: set[str] = set()  # items that are asked before all others
        self._campaign_read_at = float("-inf")
        self._gains: dict[tuple[Arm, Arm], float] = {}
        self._fitted_at = -1
        self._lock = threading.Lock()
        with Session(store.engine) as session:
            for each in open_assignments(session, lease_s):
                self._before[each.rater].append(each)

    def close(self) -> None:
        self.catalogue.close()

    def next(
        self, rater: str, scenes: Sequence[Scene], *, held: Collection[str] = (), own: Collection[str] = ()
    ) -> PairToRate | None:
        """The next question for this rater; None where there is none left. scenes: those they may see; held: tokens of
        questions that their page has already; own: ids of scenes that they made."""
        with self._lock:
            offers = self.catalogue.look(scenes)
            self._standing.refresh()
            self._read_campaigns()
            self._end_leases()
            self._sort()
            given = self._resumed(rater, offers, held)
            if given is None:
                given = self._draw(rater, offers, held, own)
                if given is None:
                    return None
                self._give(rater, given)
        # What was given before is written again where it is gone: who withdraws takes it along, and may come back.
        self._write(rater, given)
        return given.pair

    def _write(self, rater: str, given: _Given) -> None:
        pair = given.pair
        sizes = {each.sha256: self._size(each) for each in (pair.candidate_a, pair.candidate_b)}
        try:
            self.store.write(
                lambda session: append_assignment(
                    session,
                    given.question,
                    token=pair.token,
                    rater=rater,
                    left_is=pair.left_is,
                    purpose=pair.purpose,
                    own_upload=given.own_upload,
                    lease_s=self.lease_s,
                    sizes=sizes,
                ),
                lasting=False,  # the vote on it makes it last
            )
        except BaseException:
            with self._lock:
                self._take_back(rater, pair.token)
            raise

    def vote(self, rating: Rating, token: str, *, ui_version: str = "") -> str:
        """RatingStore.add of the answer to a question that was given out, by any process; knows by this process's clock
        whether it came late. RatingError for a question that was not."""
        with self._lock:
            held = self._leases.held(token)
        late = None if held is None else not held
        id_ = self.store.add(rating, token, ui_version=ui_version, late=late, asked=True)
        with self._lock:
            self._take_back(rating.rater, token)
        return id_

    def undo(
        self, rater: str, scenes: Sequence[Scene], *, scene_id: str | None = None, token: str | None = None
    ) -> PairToRate | None:
        """RatingStore.undo; the pair as a new question with the same sides and purpose, None where nothing was taken
        back or its scene is not one of `scenes`. The same token again gives the same question."""
        token = token or new_id()
        undone = self.store.undo_vote(rater, scene_id=scene_id, token=token)
        if undone is None or undone.rating.candidate_a.scene_id not in {scene.id for scene in scenes}:
            return None
        said = undone.rating
        a, b = said.candidate_a, said.candidate_b
        question = Question(undone.item_id, a, b, (arm_of(a), arm_of(b)))
        again = hashlib.sha256(f"{rater}\0{token}".encode()).hexdigest()[:36]
        given = _Given(PairToRate(a, b, said.left_is, again, undone.purpose), question, undone.own_upload)
        with self._lock:
            self._give(rater, given)
        self._write(rater, given)
        return given.pair

    def progress(self, rater: str, scenes: Sequence[Scene], own: Collection[str] = ()) -> RatingProgress:
        """Questions that this rater has answered, of those and the ones that they can still be asked."""
        with self._lock:
            offers = self.catalogue.look(scenes)
            self._standing.refresh()
            judged = self._standing.judged(rater)
            here = [item for offer in offers for item in offer.to_rate]
            done = sum(item in judged for item in here)
            still = sum(item not in judged and self._standing.votes[item] < self.target_votes for item in here)
            return RatingProgress(done, done + still)

    def checks_answered(self, rater: str, scenes: Sequence[Scene]) -> int:
        """Gold and repeats of these scenes with an answer of this rater that stands."""
        with self._lock:
            offers = self.catalogue.look(scenes)
            self._standing.refresh()
            gold, repeats = self._standing.judged(rater, GOLD), self._standing.judged(rater, REPEAT)
            return sum(
                sum(item in offer.gold for item in gold) + sum(item in offer.to_rate for item in repeats)
                for offer in offers
            )

    # All below: with the lock held

    def _resumed(self, rater: str, offers: Sequence[SceneQuestions], held: Collection[str]) -> _Given | None:
        for each in self._before.pop(rater, []):
            question = _find(offers, each.item_id)
            if question and lease_is_held(each.issued_at, each.lease_s, now()):
                pair = PairToRate(question.a, question.b, each.left_is, each.token, each.purpose)
                self._give(rater, _Given(pair, question, each.own_upload))
        for token, given in list(self._given[rater].items()):
            if token in self._standing.tokens:
                self._take_back(rater, token)
            elif token not in held and _find(offers, given.question.item_id) and self._is_there(given.question):
                return given
        return None

    def _draw(
        self, rater: str, offers: Sequence[SceneQuestions], held: Collection[str], own: Collection[str]
    ) -> _Given | None:
        holds = [given for token, given in self._given[rater].items() if token in held]
        frames = {given.question.frame for given in holds}
        place = self._standing.given[rater] + len(self._given[rater])
        purpose = _purpose(rater, place)
        if purpose == GOLD and (question := self._gold(rater, offers, frames)):
            return self._asked(question, GOLD, self._rng.choice("ab"), own)
        if purpose == REPEAT and (found := self._repeat(rater, offers, frames)):
            question, left_was = found
            return self._asked(question, REPEAT, "b" if left_was == "a" else "a", own)
        found_question = self._to_rate(rater, offers, frames, {given.question.item_id for given in holds})
        return self._asked(found_question, RATE, self._rng.choice("ab"), own) if found_question else None

    def _asked(self, question: Question, purpose: str, left_is: str, own: Collection[str]) -> _Given:
        pair = PairToRate(question.a, question.b, left_is, new_id(), purpose)
        return _Given(pair, question, question.a.scene_id in own)

    def _gold(self, rater: str, offers: Sequence[SceneQuestions], frames: set) -> Question | None:
        """One that this rater has not seen, of the kind that they saw least."""
        seen = self._standing.judged(rater, GOLD)
        held = {given.question.item_id for given in self._given[rater].values()}
        kinds = Counter(offer.gold[item].kind for offer in offers for item in seen if item in offer.gold)
        left = [
            question
            for offer in offers
            for item, question in offer.gold.items()
            if item not in seen and item not in held and question.frame not in frames and self._is_there(question)
        ]
        if not left:
            return None
        return min(left, key=lambda each: (kinds[each.kind], self._rng.random()))

    def _repeat(self, rater: str, offers: Sequence[SceneQuestions], frames: set) -> tuple[Question, str] | None:
        held = {given.question.item_id for given in self._given[rater].values()}
        for vote in self._standing.to_repeat(rater, _REPEAT_AFTER):
            question = _find(offers, vote.item_id)
            if question and vote.item_id not in held and question.frame not in frames and self._is_there(question):
                return question, vote.left_is
        return None

    def _to_rate(self, rater: str, offers: Sequence[SceneQuestions], frames: set, held: set[str]) -> Question | None:
        judged = self._standing.judged(rater)
        mine = {given.question.item_id for given in self._given[rater].values()} | held
        votes = self._standing.votes

        def is_open(item: str) -> bool:
            return item not in judged and item not in mine and votes[item] < self.target_votes

        shelves = [(offer, self._shelves_of(offer)) for offer in offers]
        for level in sorted({level for _, each in shelves for level in each.levels()}):
            drawn: list[Question] = []
            near: list[Question] = []  # of a frame that the page shows already: only when there is nothing else
            self._rng.shuffle(shelves)
            for offer, each in shelves:
                for item in each.draw(level, is_open, self._rng):
                    question = offer.to_rate[item]
                    (near if question.frame in frames else drawn).append(question)
                    if len(drawn) >= _DRAWN:
                        break
                if len(drawn) >= _DRAWN:
                    break
            for question in sorted(drawn, key=lambda one: -self._gain(one, offers)) + near:
                if self._is_there(question):
                    return question
        return None

    def _shelves_of(self, offer: SceneQuestions) -> Shelves:
        """By votes and leases that are held: a question that is held is asked of others when all else has as many."""
        if offer.shelves is None:
            offer.shelves = Shelves()
            for item in offer.to_rate:
                offer.shelves.put(item, self._level(item))
        return offer.shelves

    def _level(self, item: str) -> int:
        """Votes that it has or will have; those of campaigns lie below all others."""
        return self._standing.votes[item] + self._pending[item] - self.target_votes * (item in self._campaign)

    def _read_campaigns(self) -> None:
        if time.monotonic() - self._campaign_read_at < LOOK_EVERY_S:
            return
        self._campaign_read_at = time.monotonic()
        fresh = entered(self.store).keys() - self._campaign
        self._campaign |= fresh
        self._standing.changed |= fresh

    def _sort(self) -> None:
        """Put what got votes or leases since on its shelf, also of scenes that are not asked about now."""
        changed = self._standing.changed
        for item in changed:
            for offer in self.catalogue.known():
                if offer.shelves is not None and item in offer.shelves:
                    offer.shelves.put(item, self._level(item))
        changed.clear()

    def _gain(self, question: Question, offers: Sequence[SceneQuestions]) -> float:
        count = self._standing.count
        if self._fitted_at < 0 or abs(count - self._fitted_at) > max(10, _REFIT_SHARE * count):
            self._fit(offers)
            self._fitted_at = count
        # Ways of making pictures that came since the fit were never compared: nothing tells more.
        return self._gains.get(question.arms, 1e9)

    def _fit(self, offers: Sequence[SceneQuestions]) -> None:
        arms: dict[Arm, int] = {}
        for offer in offers:
            for question in offer.to_rate.values():
                for arm in question.arms:
                    arms.setdefault(arm, len(arms))
        wins, ties = np.zeros((len(arms), len(arms))), np.zeros((len(arms), len(arms)))
        for offer in offers:
            for item, question in offer.to_rate.items():
                if said := self._standing.choices.get(item):
                    a, b = (arms[arm] for arm in question.arms)
                    wins[a, b] += said["a"]
                    wins[b, a] += said["b"]
                    ties[a, b] += said["tie"] + said["both_bad"]
                    ties[b, a] += said["tie"] + said["both_bad"]
        np.fill_diagonal(wins, 0.0)
        np.fill_diagonal(ties, 0.0)
        gains = fit_bradley_terry(wins, ties).gains()
        self._gains = {(one, other): float(gains[i, j]) for one, i in arms.items() for other, j in arms.items()}

    def _is_there(self, question: Question) -> bool:
        """Both pictures are on disk; where one is not, its scene is read anew the next time."""
        for each in (question.a, question.b):
            if not (self.scenes / each.scene_id / each.image_path).is_file():
                self.catalogue.forget(each.scene_id)
                return False
        return True

    def _size(self, candidate: Candidate) -> int | None:
        """Bytes of its picture; None where that is not at hand."""
        try:
            return (self.scenes / candidate.scene_id / candidate.image_path).stat().st_size
        except OSError:
            return None

    def _give(self, rater: str, given: _Given) -> None:
        self._given[rater][given.pair.token] = given
        self._hold(given, 1)
        self._leases.give(given.pair.token, self.lease_s)

    def _take_back(self, rater: str, token: str) -> None:
        given = self._given[rater].pop(token, None)
        if given is not None:
            self._hold(given, -1)

    def _hold(self, given: _Given, by: int) -> None:
        if given.pair.purpose == RATE:
            self._pending[given.question.item_id] += by
            self._standing.changed.add(given.question.item_id)

    def _end_leases(self) -> None:
        for rater, tokens in list(self._given.items()):
            for token in [token for token in tokens if not self._leases.held(token)]:
                self._take_back(rater, token)


def _find(offers: Sequence[SceneQuestions], item_id: str) -> Question | None:
    for offer in offers:
        if question := offer.to_rate.get(item_id) or offer.gold.get(item_id):
            return question
    return None


def _purpose(rater: str, place: int) -> str:
    """Of the rater's question number `place`: in each 40 there are 4 gold and 3 repeats, shuffled by a hash that
    differs for each rater and block. No repeats in the first ten: there is nothing to repeat yet."""
    block, position = divmod(place, _BLOCK)
    seed = hashlib.sha256(f"{rater}\0{block}".encode()).digest()
    shuffled = list(range(_BLOCK))
    random.Random(seed).shuffle(shuffled)
    slot = shuffled[position]
    if slot < _GOLD_IN_BLOCK:
        return GOLD
    if slot < _GOLD_IN_BLOCK + _REPEATS_IN_BLOCK:
        return REPEAT
    return RATE

"""A store that four raters voted in: two who know, one who guesses, one who always takes the left."""

from __future__ import annotations

import random

from rating_votes import candidate

from difix3d.ratings.identity import canonical_pair, item_key
from difix3d.ratings.log import NewItem, ensure_item
from difix3d.ratings.schema import new_id
from difix3d.ratings.store import RatingStore
from difix3d.types import Judgement, Rating

STRENGTH = {"render": 0.0, "weak": 0.6, "strong": 1.6}


RATERS = ("ann", "bob", "guesses", "left")


def fill(store: RatingStore) -> RatingStore:
    """240 votes on 60 pairs, and 48 on checks."""
    rng = random.Random(1)
    fixers = list(STRENGTH)
    for index in range(60):
        one, other = rng.sample(fixers, 2)
        a, b = canonical_pair(candidate(one, index), candidate(other, index))
        for rater in RATERS:
            left_is = rng.choice("ab")
            knows = "a" if STRENGTH[a.fixer] + rng.gauss(0, 0.5) > STRENGTH[b.fixer] else "b"
            choice = {"guesses": rng.choice("ab"), "left": left_is}.get(rater, knows)
            tagged = Judgement(("blur",) if index % 3 == 0 else (), 2, 3)
            store.add(Rating(a, b, choice, left_is, rater, 2.0, on_a=tagged, on_b=Judgement()), new_id())
    for index in range(100, 112):
        a, b = canonical_pair(candidate("photo", index), candidate("render", index))
        expected = "a" if a.fixer == "photo" else "b"
        item = item_key(a, b)
        store.write(lambda session, a=a, b=b, e=expected: ensure_item(session, NewItem(a, b, "photo", e), {}))
        for rater in RATERS:
            left_is = rng.choice("ab")
            wrong = "b" if expected == "a" else "a"
            choice = {"guesses": (expected, wrong)[index % 2], "left": left_is}.get(rater, expected)
            store.add(Rating(a, b, choice, left_is, rater, 0.1 if rater == "left" else 2.0), f"{rater}{item}")
    return store

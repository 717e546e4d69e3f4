"""Questions of a campaign: entered once, with the votes they have, and nothing that was written is changed."""

from __future__ import annotations

from rating_votes import vote
from sqlalchemy import text

from difix3d.ratings.campaigns import Match, enter, entered, outcomes
from difix3d.ratings.identity import item_key
from difix3d.ratings.store import RatingStore


def test_a_question_with_votes_joins_as_it_is(url: str) -> None:
    said = vote("a")
    item = item_key(said.candidate_a, said.candidate_b)
    match = Match(item, said.candidate_a, said.candidate_b, "a")
    with RatingStore(url) as store:
        store.add(said, "one")

        def rows(table: str) -> list[tuple]:
            with store.engine.connect() as connection:
                return [tuple(row) for row in connection.execute(text(f"SELECT * FROM {table}"))]

        before = rows("items"), rows("candidates"), rows("images")
        enter(store, [match])
        enter(store, [match, match])  # the same again: nothing more
        assert (rows("items"), rows("candidates"), rows("images")) == before and len(rows("campaigns")) == 1
        (found,) = outcomes(entered(store), store.ratings())
        assert (found["wins"], found["losses"], found["win_rate"]) == (1, 0, 1.0)

        # The two change places, the old one is tried against the new: the later row counts.
        enter(store, [Match(item, said.candidate_a, said.candidate_b, "b")])
        assert entered(store) == {item: "b"} and len(rows("campaigns")) == 2
        (found,) = outcomes(entered(store), store.ratings())
        assert (found["wins"], found["losses"]) == (0, 1)

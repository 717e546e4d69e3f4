"""The results page: what it shows of votes, that nobody is dropped in silence, and that counting is not done twice."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest
import voted_store
from PIL import Image
from rating_votes import fixer_vote

from difix3d.errors import ConfigError
from difix3d.ratings.filters import VoteFilter, vote_filter
from difix3d.ratings.identity import canonical_pair
from difix3d.ratings.results import results_of
from difix3d.ratings.schema import new_id
from difix3d.ratings.store import RatingStore
from difix3d.ui.results import counting as counting_module
from difix3d.ui.results.counting import Counting
from difix3d.ui.results.view import results_html


@pytest.fixture
def store(tmp_path: Path) -> Iterator[RatingStore]:
    with RatingStore(f"sqlite:///{tmp_path / 'ratings.sqlite'}") as opened:
        yield opened


def shown(counting: Counting, wanted: VoteFilter = VoteFilter()) -> str:  # noqa: B008  frozen
    return results_html(counting.count(wanted), lambda path, name="": f"media/{path.name}")


def test_everything_that_is_counted_is_on_the_page(store: RatingStore) -> None:
    voted_store.fill(store)
    store.name_rater("ann", "Marianne")
    counting = Counting(store)
    counted = counting.count(VoteFilter())
    assert set(counted.plots) == {"score-fixer", "wins", "gold", "seconds", "days"}
    for path in counted.plots.values():
        with Image.open(path) as plot:
            assert plot.width > 1000 and len(plot.convert("RGB").getcolors(1 << 24) or ()) > 5
    html = shown(counting)
    for name in counted.plots:
        assert f"-{name}.png" in html
    for words in ("240", "Krippendorff", "Scores (Bradley-Terry", "Wins / ties", "Raters", "Scenes", "Artifacts"):
        assert words in html, words
    for each in counted.figures["scores"]["fixer"]:
        assert f"<th>{each['name']}</th><td>{each['score']:+.2f}</td>" in html
    assert "Marianne" not in html and "Marianne" not in counted.file.read_text(), "raters are numbers here"


def test_flagged_raters_count_until_they_are_left_out_and_then_it_is_said(store: RatingStore) -> None:
    voted_store.fill(store)
    bad = {store.person(name).number for name in ("guesses", "left")}
    counting = Counting(store)
    html = shown(counting)
    for number in bad:
        assert re.search(rf"<li>rater {number}: (not above chance on gold|.*left side)", html)
    assert "left out here" not in html.lower()
    without = vote_filter(without_flagged=True)
    figures = counting.count(without).figures
    assert figures["votes"] == 120 and set(figures["filters"]["without_raters"]) == bad
    assert {each["rater"] for each in figures["flagged"]} == bad, "left out, and still named"
    html = shown(counting, without)
    assert html.count("(left out here)") == 2 and "144 of rater 3, 4" in html


def test_what_was_counted_is_kept_until_somebody_votes_or_withdraws(
    store: RatingStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(counting_module, "_MOST_KEPT", 2)
    for rater in ("ann", "bob"):
        store.add(fixer_vote("reproject", rater), f"of {rater}")
    counting = Counting(store)
    first = counting.count(VoteFilter())
    assert counting.count(VoteFilter()) is first and counting.at_hand(VoteFilter()) is first
    store.add(fixer_vote("render", "cid"), "a new vote")
    assert counting.at_hand(VoteFilter()) is None
    assert counting.count(VoteFilter()).figures["votes"] == 3
    store.withdraw("ann")
    last = counting.count(VoteFilter())
    assert last.figures["votes"] == 2
    # Old files go, so that a long campaign does not fill the disk.
    assert not first.file.exists() and len(list(first.file.parent.iterdir())) == 2 * (1 + len(last.plots))


def test_many_who_ask_at_once_wait_for_one_count(store: RatingStore, monkeypatch: pytest.MonkeyPatch) -> None:
    store.add(fixer_vote("reproject"), new_id())
    counts = []
    monkeypatch.setattr(counting_module, "results_of", lambda chosen: counts.append(1) or results_of(chosen))
    counting = Counting(store)
    threads = [threading.Thread(target=counting.count, args=(VoteFilter(),)) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counts == [1]


def test_without_votes_it_says_what_to_do_and_with_filters_what_they_did(store: RatingStore) -> None:
    counting = Counting(store)
    assert "Compare some pairs under Rate" in shown(counting)
    store.add(fixer_vote("reproject"), new_id())
    assert "<dd>1 " in shown(counting), "one vote is enough for a page"
    assert "leave no vote" in shown(counting, vote_filter(since="2999-01-01"))
    assert shown(counting, VoteFilter(since=date(2000, 1, 1))).count("<img") >= 3


def test_hostile_names_are_text(store: RatingStore) -> None:
    hostile = "<img src=x onerror=alert(1)>$x$"
    plain = fixer_vote("reproject")
    a, b = (replace(each, fixer=hostile) if each.fixer == "reproject" else each for each in (
        plain.candidate_a, plain.candidate_b))  # fmt: skip
    a, b = canonical_pair(a, b)
    store.add(replace(plain, candidate_a=a, candidate_b=b), new_id())
    assert "<img src=x" not in shown(Counting(store))


def test_a_day_that_is_none_is_told() -> None:
    with pytest.raises(ConfigError, match="'soon' is no day"):
        vote_filter(since="soon")
    with pytest.raises(ConfigError, match="numbers of raters"):
        vote_filter(without=["ann"])
    assert vote_filter(since=" 2026-11-28 ").since == date(2026, 11, 28)

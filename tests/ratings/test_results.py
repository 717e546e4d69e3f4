"""What the votes say: of fixers, of raters, and of frames; on the command line, too."""

from __future__ import annotations

import json
import math
import os
import sqlite3
from dataclasses import replace
from datetime import date
from pathlib import Path

import numpy as np
import pytest
import voted_store
from rated_scene import make_scene, vote_on
from rating_votes import fixer_vote, vote
from sqlalchemy import update

from difix3d.cli import main
from difix3d.errors import RatingError
from difix3d.ratings import raters
from difix3d.ratings.candidates import candidates_of
from difix3d.ratings.identity import item_key
from difix3d.ratings.results import results
from difix3d.ratings.schema import AssignmentRow, RatingRow
from difix3d.ratings.store import RatingStore
from difix3d.ratings.summary import wilson_interval


@pytest.fixture
def voted(store: RatingStore) -> RatingStore:
    return voted_store.fill(store)


def test_scores_are_in_the_true_order_with_intervals(voted: RatingStore) -> None:
    found = results(voted)
    scores = found["scores"]["fixer"]
    assert [each["name"] for each in scores] == ["strong", "weak", "render"]
    assert all(each["interval"][0] < each["score"] < each["interval"][1] for each in scores)
    assert sum(each["score"] for each in scores) == pytest.approx(0, abs=1e-3)
    assert found["votes"] == 240 and found["gold_votes"] == 48
    matrix = found["win_matrix"]
    assert sum(map(sum, matrix["wins"])) == 240 and len(matrix["names"]) == 3
    assert found["tags"]["render"]["blur"] + found["tags"]["strong"]["blur"] > 0
    assert found["alpha"]["choice"]["alpha"] > 0 and found["alpha"]["faithfulness"]["units"] == 60
    assert sum(found["per_day"].values()) == 288 and list(found["scenes"]) == ["court"]


def test_raters_are_told_apart_and_nobody_is_dropped(voted: RatingStore) -> None:
    by_name = {name: voted.person(name).number for name in ("ann", "bob", "guesses", "left")}
    found = {entry["rater"]: entry for entry in results(voted)["raters"]}
    assert set(found) == set(by_name.values())
    assert found[by_name["ann"]]["flags"] == [] and found[by_name["ann"]]["gold"]["accuracy"] == 1.0
    assert found[by_name["guesses"]]["flags"] == ["not above chance on gold"]
    left = found[by_name["left"]]
    assert left["side"]["left_share"] == 1.0 and "prefers the left side" in left["flags"]
    assert found[by_name["ann"]]["agrees_with_others"] > left["agrees_with_others"]
    without = results(voted, without=[by_name["left"], by_name["guesses"]])
    odd = sorted([by_name["left"], by_name["guesses"]])
    assert without["filters"]["without_raters"] == odd and without["filters"]["votes_left_out"] == 144
    flagged = results(voted, without_flagged=True)
    assert flagged["filters"]["without_raters"] == odd and flagged["votes"] == without["votes"]
    assert results(voted, since=date(2999, 1, 1))["filters"]["votes_before"] == 288
    assert without["alpha"]["choice"]["alpha"] > results(voted)["alpha"]["choice"]["alpha"] + 0.2


def test_intervals_have_a_width_where_questions_tell_nothing_of_it(store: RatingStore) -> None:
    def add(choices: str, index: int) -> list[dict]:
        for number, choice in enumerate(choices):
            store.add(vote(choice, rater=f"rater {number}", index=index), f"{index} {number}")
        return results(store)["scores"]["fixer"]

    def width(scores: list[dict]) -> float:
        better, worse = scores
        assert better["interval"][0] == pytest.approx(-worse["interval"][1], abs=2e-4), "two scores about their mean"
        assert better["interval"][0] < better["score"] < better["interval"][1]
        return better["interval"][1] - better["interval"][0]

    # One question: the fit's own width. Two outcomes without ties are a logistic regression on d = s_i - s_j, and the
    # scores are +-d / 2; a prior of 2 on each is one of sqrt(8) on d, and the tie term hardly counts.
    one = add("aaaabbb", 0)
    p = 1 / (1 + np.exp(-2 * one[0]["score"]))
    assert width(one) == pytest.approx(1.96 / np.sqrt(7 * p * (1 - p) + 1 / 8), rel=0.1)


def test_votes_that_all_agree_are_no_certainty(store: RatingStore) -> None:
    widths = []
    for index in range(12):
        store.add(fixer_vote("reproject", index=index), f"{index}")
        better, _ = results(store)["scores"]["fixer"]
        assert better["name"] == "reproject" and better["interval"][0] < better["score"] < better["interval"][1]
        widths.append(better["interval"][1] - better["interval"][0])
        if index == 2:
            assert better["interval"][0] < 0, "three votes of one mind come of two equal ones once in four times"
    assert better["interval"][0] > 0, "twelve do not"
    assert (np.diff(widths) < 0).all()


def test_repeats_tell_whether_a_rater_says_the_same_again(store: RatingStore) -> None:
    for index, again in enumerate(("a", "b", "a", "tie")):
        first = vote("a", index=index)
        store.add(first, f"first {index}")
        token = f"again {index}"
        item = item_key(first.candidate_a, first.candidate_b)

        def repeat(session, token=token, item=item) -> None:
            session.add(
                AssignmentRow(id=token, rater_number=1, item_id=item, left_is="b", purpose="repeat", lease_s=600.0)
            )

        store.write(repeat)
        store.add(replace(first, choice=again, left_is="b"), token)
    found = results(store)
    assert (found["consistency"]["repeats"], found["consistency"]["same"]) == (4, 2)
    assert found["votes"] == 4 and found["repeat_votes"] == 4  # and none took the first answer's place


def test_an_empty_database_says_so_in_figures(store: RatingStore) -> None:
    found = results(store)
    assert found["votes"] == 0 and found["raters"] == [] and found["scores"]["fixer"] == []
    assert found["alpha"]["choice"]["alpha"] is None and found["gold"]["accuracy"] is None


@pytest.fixture
def scene(tmp_path: Path):
    return make_scene(tmp_path / "scenes", "court")


@pytest.fixture
def database(tmp_path: Path, scene) -> str:
    url = f"sqlite:///{tmp_path / 'r.sqlite'}"
    with RatingStore(url, scene.root.parent) as store:
        for rater in ("ann", "bob", "cid"):
            vote_on(store, scene, "fix", rater, 0)
            vote_on(store, scene, "render", rater, 1)
            vote_on(store, scene, "both_bad", rater, 2)
    return url


def run(capsys, *arguments: str) -> dict:
    main(["ratings", *arguments, "--json"])
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def test_the_command_line_shows_all_of_it(capsys, database: str, scene) -> None:
    figures = run(capsys, "--ratings-db", database)["figures"]
    assert figures["ratings"] == figures["votes"] == 9 and figures["win_rates"]["reproject"]["wins"] == 3
    assert {"alpha", "gold", "consistency", "side_bias", "seconds", "raters", "scores", "win_matrix"} <= set(figures)
    figures = run(capsys, "show", "--without", "1", "--scene", "court", "--ratings-db", database)["figures"]
    assert figures["votes"] == 6 and figures["filters"]["without_raters"] == [1]
    assert run(capsys, "--scene", "nowhere", "--ratings-db", database)["figures"]["votes"] == 0
    figures = run(capsys, "--since", "2000-01-01", "--without-flagged", "--ratings-db", database)["figures"]
    assert figures["votes"] == 9 and figures["filters"]["since"] == "2000-01-01"
    assert "no day" in run(capsys, "--since", "soon", "--ratings-db", database)["error"]["message"]


def test_all_figures_of_the_command_line_are_of_the_same_votes(capsys, database: str, scene) -> None:
    with RatingStore(database, scene.root.parent) as store:
        for rater in ("ann", "bob"):
            store.undo(rater)
            vote_on(store, scene, "tie", f"{rater}'s friend", 2)
            store.add(replace(store.ratings()[0].rating, rater=rater), f"{rater} again")
        numbers = {vote.rating.rater: vote.rater_number for vote in store.ratings()}

    def figures(*names: str) -> dict:
        without = ["--without", *(str(numbers[name]) for name in names)] if names else []
        return run(capsys, *without, "--ratings-db", database)["figures"]

    every = figures()
    assert (every["ratings"], every["items"], every["superseded"]) == (9, 3, 4)
    found = figures("ann", "ann's friend", "bob's friend")
    assert found["filters"]["votes_left_out"] == 4
    assert found["ratings"] == found["votes"] == 5 and found["items"] == found["pairs"] == 3
    assert found["superseded"] == 2, "bob's"
    for told in (every, found):
        matrix, rates = told["fixer_matrix"], told["win_rates"]
        assert {name: sum(row) for name, row in zip(matrix["names"], matrix["wins"])} == {
            name: rate["wins"] for name, rate in rates.items()
        }
    nobody = figures("ann", "ann's friend", "bob", "bob's friend", "cid")
    assert (nobody["ratings"], nobody["items"], nobody["superseded"], nobody["win_rates"]) == (0, 0, 0, {})


def test_how_often_a_fixer_wins_is_told_of_questions_and_not_of_votes(store: RatingStore) -> None:
    for rater in ("ann", "bob", "cid", "dan"):
        for index in range(3):
            store.add(
                fixer_vote("render" if (rater, index) == ("dan", 0) else "reproject", rater, index), f"{rater}{index}"
            )
    store.add(vote("both_bad", "ann", 3), "both bad")
    for rates in (results(store)["win_rates"], store.win_rates()):
        for told in (rates["reproject"], rates["reproject"]["against"]["render"]):
            assert (told["wins"], told["losses"], told["both_bad"], told["pairs"]) == (11, 1, 1, 3)
            assert told["win_rate"] == pytest.approx((3 / 4 + 1 + 1) / 3, abs=1e-4)
            assert told["interval"] == pytest.approx(wilson_interval((3 / 4 + 1 + 1) / 3, 3), abs=1e-4)
        assert rates["render"]["win_rate"] == pytest.approx(1 - rates["reproject"]["win_rate"], abs=1e-4)


def test_the_uploader_alone_decides_nothing(store: RatingStore) -> None:
    said = [fixer_vote("reproject", rater, index) for rater, index in (("owner", 0), ("owner", 1), ("bob", 1))]
    for rating in said:
        store.add(rating, f"{rating.rater} {rating.candidate_a.frame_index}")
    store.write(
        lambda session: session.execute(update(RatingRow).where(RatingRow.rater_number == 1).values(own_upload=True))
    )
    found = results(store)
    assert found["win_rates"]["reproject"]["wins"] == 2
    assert store.win_rates()["reproject"]["wins"] == 3, "who is alone with their captures sees what they chose"
    assert found["votes"] == 3 and found["scores"]["fixer"][0]["votes"] == 2
    # Who can't tell has judged nothing.
    store.add(vote("skip", "ann", 0), "ann skips")
    assert results(store)["win_rates"]["reproject"]["wins"] == 2


def test_of_a_scene_only_those_are_flagged_who_voted_there(voted: RatingStore) -> None:
    flagged = [each["rater"] for each in results(voted)["flagged"]]
    assert len(flagged) == 2 and [each["rater"] for each in results(voted, "court")["flagged"]] == flagged
    assert results(voted, "another")["flagged"] == []
    left_out = results(voted, "court", flagged)
    assert [each["rater"] for each in left_out["flagged"]] == flagged, "left out, and still named"


@pytest.mark.parametrize(("heads", "trials"), [(0, 0), (0, 5), (5, 5), (6, 8), (60, 100), (530, 1000)])
def test_how_unlikely_a_coin_would_be(heads: int, trials: int) -> None:
    ways = sum(math.comb(trials, number) for number in range(heads, trials + 1))
    assert raters._at_least(heads, trials) == pytest.approx(ways / 2**trials, rel=1e-9)
    assert raters._at_least(50_200, 100_000) == pytest.approx(0.1034, abs=1e-3)


def test_checks_are_not_counted_as_changed_or_undone(voted: RatingStore) -> None:
    assert voted.counts()["ratings"] == 240 and voted.counts()["superseded"] == 0
    voted.undo("ann", scene_id="court")
    voted.add(fixer_vote("render", "bob", 500), "first")
    voted.add(fixer_vote("reproject", "bob", 500), "changed")
    assert voted.counts()["superseded"] == 1, "ann's last vote was on a check"


def test_weights_leave_out_what_people_call_worse(capsys, database: str, scene, tmp_path: Path) -> None:
    out = tmp_path / "weights.json"
    scenes = str(scene.root.parent)
    done = run(capsys, "weights", "--scenes", scenes, "--out", str(out), "--ratings-db", database)
    assert done["figures"] == {"frames": 5, "left_out": 2} and done["outputs"] == [str(out)]
    entries = {(each["trajectory"], each["frame_index"]): each for each in json.loads(out.read_text())}
    fixes = {key: frame[1] for key, frame in candidates_of(scene).items()}
    assert {key: each["sha256"] for key, each in entries.items()} == {key: fix.sha256 for key, fix in fixes.items()}
    weights = [entries["orbit", index]["weight"] for index in range(3)]
    assert weights[0] > 0.7 and weights[1:] == [0.0, 0.0]
    assert entries["heldout", 0]["votes"] == 0 and entries["heldout", 0]["weight"] == pytest.approx(0.5, abs=0.01)


def test_verify_hashes_every_picture_again(capsys, database: str, scene) -> None:
    flags = ("verify", "--scenes", str(scene.root.parent), "--ratings-db", database)
    assert run(capsys, *flags)["figures"] == {"checked": 6, "problems": 0}
    fix = candidates_of(scene)["orbit", 1][1]
    kept = scene.root / "rated" / f"{fix.sha256}.png"
    status = kept.stat()
    kept.write_bytes(kept.read_bytes()[:-1] + b"x")  # one name of the same file: both are altered
    os.utime(kept, ns=(status.st_atime_ns, status.st_mtime_ns))  # time and size as they were
    error = run(capsys, *flags)["error"]
    assert error["kind"] == "RatingError" and "1 of 6 rated pictures" in error["message"]
    assert f"court {fix.image_path}: altered" in error["message"]


def test_marks_are_verified_too(store: RatingStore, tmp_path: Path) -> None:
    from test_judgements import ON_A

    from difix3d.ratings.schema import MarksRow

    store.add(replace(vote(), on_a=ON_A), "one")
    assert "marks" not in [each["path"] for each in store.verify(tmp_path)]
    store.write(lambda session: session.execute(update(MarksRow).values(png=b"other")))
    assert {"problem": "altered", "path": "marks"}.items() <= store.verify(tmp_path)[-1].items()


def test_a_backup_is_whole_while_others_write(capsys, database: str, tmp_path: Path) -> None:
    out = tmp_path / "backup.sqlite"
    with RatingStore(database) as store:
        store.add(vote(), "still in the write-ahead log")
        run(capsys, "backup", "--out", str(out), "--ratings-db", database)
        with RatingStore(f"sqlite:///{out}") as copy:
            assert copy.ratings() == store.ratings() and len(copy.ratings()) == 10
    assert sqlite3.connect(out).execute("PRAGMA integrity_check").fetchone() == ("ok",)
    again = run(capsys, "backup", "--out", str(out), "--ratings-db", database)
    assert "never written over" in again["error"]["message"]
    assert "Name the file" in run(capsys, "backup", "--ratings-db", database)["error"]["message"]


def test_postgresql_is_backed_up_by_its_own_program(store: RatingStore, tmp_path: Path) -> None:
    if store.engine.dialect.name == "postgresql":
        with pytest.raises(RatingError, match="pg_dump"):
            store.backup(tmp_path / "copy")

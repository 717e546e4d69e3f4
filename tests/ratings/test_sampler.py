"""What raters are asked next: what is needed most, once, with checks that nobody can foresee."""

from __future__ import annotations

import json
import random
import shutil
from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from datetime import timedelta
from pathlib import Path

import pytest
from rated_scene import make_scene, picture
from sqlalchemy import select, update
from sqlalchemy.orm import Session

from difix3d.errors import RatingError
from difix3d.formats.image import write_rgb
from difix3d.ratings.candidates import candidates_of
from difix3d.ratings.identity import candidate_key, item_key
from difix3d.ratings.leases import LEASE_S, Leases
from difix3d.ratings.sampler import TARGET_VOTES, Sampler, _purpose
from difix3d.ratings.sampling import PairToRate, questions_of
from difix3d.ratings.schema import GOLD, RATE, REPEAT, AssignmentRow, ItemRow, now
from difix3d.ratings.store import RatingStore
from difix3d.scene import Scene, hash_file
from difix3d.types import Candidate, Rating


class Clock:
    def __init__(self) -> None:
        self.now = 50.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def scenes(tmp_path: Path) -> list[Scene]:
    return [make_scene(tmp_path / "scenes", "court"), make_scene(tmp_path / "scenes", "park", seed=7)]


@pytest.fixture
def make(store: RatingStore, scenes: list[Scene], clock: Clock):
    """Samplers over the two scenes; closed at the end."""
    made = []

    def sampler(**options) -> Sampler:
        options = {"make_gold": False, "rng": random.Random(3), "leases": Leases(clock), **options}
        made.append(Sampler(store, scenes[0].root.parent, **options))
        return made[-1]

    yield sampler
    for each in made:
        each.close()


def answer(pair: PairToRate, choice: str, rater: str) -> Rating:
    return Rating(pair.candidate_a, pair.candidate_b, choice, pair.left_is, rater, 1.0)


def item(pair: PairToRate) -> str:
    return item_key(pair.candidate_a, pair.candidate_b)


def votes_per_item(store: RatingStore) -> Counter[str]:
    """Votes that count, skips apart, as the log has them."""
    return Counter(vote.item_id for vote in store.ratings() if vote.rating.choice != "skip")


def items_of(scenes: list[Scene]) -> set[str]:
    return set(questions_of([candidates_of(scene) for scene in scenes]))


def test_everybody_sees_everything_until_it_has_enough_votes(make, scenes: list[Scene], store: RatingStore) -> None:
    sampler = make(target_votes=3)
    everything = items_of(scenes)
    assert len(everything) == 10
    asked: dict[str, list[str]] = defaultdict(list)
    waiting = [f"rater {number}" for number in range(5)]
    rng = random.Random(0)
    while waiting:
        rater = rng.choice(waiting)
        pair = sampler.next(rater, scenes)
        if pair is None:
            waiting.remove(rater)
            continue
        if pair.purpose == RATE:
            votes = votes_per_item(store)
            fewest = min(votes.get(each, 0) for each in everything - set(asked[rater]))
            assert votes.get(item(pair), 0) == fewest < 3
            asked[rater].append(item(pair))
            sampler.vote(answer(pair, rng.choice(("a", "b", "tie")), rater), pair.token)
        else:
            sampler.vote(answer(pair, "a", rater), pair.token)
    assert all(len(set(items)) == len(items) for items in asked.values())
    assert Counter(votes_per_item(store).values()) == {3: 10}
    done = sampler.progress("rater 0", scenes)
    assert done.judged == done.total == len(asked["rater 0"])


def test_a_skip_is_no_vote_and_is_not_asked_again(make, scenes, store) -> None:
    sampler = make(target_votes=1)
    skipped = set()
    while (pair := sampler.next("ann", scenes[:1])) is not None:
        sampler.vote(answer(pair, "skip", "ann"), pair.token)
        assert item(pair) not in skipped
        skipped.add(item(pair))
    assert skipped == items_of(scenes[:1]) and not votes_per_item(store)
    pair = sampler.next("bob", scenes[:1])
    assert pair is not None and item(pair) in skipped


def test_sides_are_balanced_and_order_is_canonical(make, scenes) -> None:
    sampler = make(target_votes=999)
    pairs = [sampler.next(f"rater {number}", scenes) for number in range(400)]
    # 4.5 standard deviations of a fair coin: a wrong alarm once in 10^5, and the seed is fixed.
    assert abs(sum(pair.left_is == "a" for pair in pairs) / 400 - 0.5) < 4.5 * 0.5 / 400**0.5
    for fixer in {each.fixer for pair in pairs for each in (pair.left, pair.right)}:
        shown = [
            pair.left.fixer == fixer for pair in pairs if (pair.left.fixer == fixer) != (pair.right.fixer == fixer)
        ]
        assert abs(sum(shown) / len(shown) - 0.5) < 4.5 * 0.5 / len(shown) ** 0.5
    for pair in pairs:
        assert candidate_key(pair.candidate_a) < candidate_key(pair.candidate_b) and pair.left != pair.right
    assert len({pair.token for pair in pairs}) == 400 and {item(pair) for pair in pairs} == items_of(scenes)


def test_a_question_that_is_held_is_given_to_nobody_else_until_the_lease_ends(make, scenes, clock, store) -> None:
    sampler = make(target_votes=1)
    first = [sampler.next(f"rater {number}", scenes[:1]) for number in range(5)]
    assert len({item(pair) for pair in first}) == 5
    assert sampler.next("rater 0", scenes[:1]) == first[0]  # a reload: the same, and the same sides
    spare = sampler.next("late", scenes[:1])  # all are held: asked twice rather than not at all
    assert spare is not None and item(spare) in {item(pair) for pair in first}
    clock.now += 601
    again = {item(sampler.next(f"new {number}", scenes[:1])) for number in range(5)}
    assert again == {item(pair) for pair in first}

    sampler.vote(answer(first[0], "a", "rater 0"), first[0].token)  # after its lease: kept, and marked
    (late,) = store.ratings()
    assert late.late and late.rating.choice == "a"
    fresh = sampler.next("new 1", scenes[:1])
    sampler.vote(answer(fresh, "b", "new 1"), fresh.token)
    assert [vote.late for vote in store.ratings()] == [True, False]


def test_a_double_submit_and_two_tabs_are_one_vote(make, scenes, store) -> None:
    sampler = make()
    pair = sampler.next("ann", scenes)
    assert sampler.next("ann", scenes) == pair  # the second tab
    ids = {sampler.vote(answer(pair, choice, "ann"), pair.token) for choice in ("a", "a", "b")}
    assert len(ids) == 1 and [vote.rating.choice for vote in store.ratings()] == ["a"]
    following = sampler.next("ann", scenes)
    assert following.token != pair.token and item(following) != item(pair)
    with pytest.raises(RatingError, match="given to somebody else"):
        sampler.vote(answer(following, "a", "bob"), following.token)


def test_what_a_page_has_preloaded_is_not_given_again(make, scenes) -> None:
    sampler = make()
    held: list[str] = []
    seen = []
    for _ in range(3):
        pair = sampler.next("ann", scenes, held=held)
        held.append(pair.token)
        seen.append(pair)
    assert len({item(pair) for pair in seen}) == 3
    frames = {(p.candidate_a.scene_id, p.candidate_a.trajectory, p.candidate_a.frame_index) for p in seen}
    assert len(frames) == 3  # not the same frame twice in a row
    assert sampler.next("ann", scenes, held=held[1:]) == seen[0]


def test_a_server_that_is_started_again_knows_what_it_gave_out(make, scenes, store) -> None:
    pair = make().next("ann", scenes)
    other = make().next("bob", scenes)
    again = make()
    assert again.next("ann", scenes) == pair and again.next("bob", scenes) == other
    again.vote(answer(pair, "tie", "ann"), pair.token)
    assert store.ratings()[0].late is False
    with Session(store.engine) as session, session.begin():  # the clock was set back by a day
        session.execute(update(AssignmentRow).values(issued_at=now() + timedelta(days=1)))
    assert make().next("bob", scenes).token != other.token


def test_gold_and_repeats_have_their_shares_and_cannot_be_foreseen() -> None:
    places = {rater: [_purpose(rater, place) for place in range(400)] for rater in ("ann", "bob")}
    for purposes in places.values():
        assert Counter(purposes) == {GOLD: 40, REPEAT: 30, RATE: 330}
    assert places["ann"] != places["bob"] and places["ann"][:40] != places["ann"][40:80]


def test_gold_and_repeats_are_asked_and_do_not_count_for_who_wins(make, scenes, store) -> None:
    for scene in scenes:  # enough frames for a rater to come to repeats
        for index in range(3, 40):
            write_rgb(scene.renders_dir("orbit") / f"{index:05d}.png", picture(index, (24, 16)))
            folder = scene.root / "fixed" / "orbit" / "reproject"
            write_rgb(folder / f"{index:05d}.png", picture(index + 500, (24, 16)))
        _list_fixes(scene)
    sampler = make(make_gold=True, target_votes=99)
    sampler.next("nobody", scenes)
    sampler.catalogue.wait_for_gold()
    purposes: Counter[str] = Counter()
    sides: dict[str, str] = {}
    for _ in range(80):
        pair = sampler.next("ann", scenes)
        purposes[pair.purpose] += 1
        if pair.purpose == REPEAT:
            assert pair.left_is != sides[item(pair)]
        elif pair.purpose == RATE:
            sides[item(pair)] = pair.left_is
        sampler.vote(answer(pair, "a", "ann"), pair.token)
    assert purposes[GOLD] == 8 and 3 <= purposes[REPEAT] <= 6, purposes
    assert store.counts()["ratings"] == purposes[RATE] == sum(votes_per_item(store).values())
    gold = store.ratings(purposes=[GOLD])
    assert len({vote.item_id for vote in gold}) == 8 and all(vote.expected in ("a", "b", "tie") for vote in gold)
    repeats = store.ratings(purposes=[REPEAT])
    assert len(repeats) == purposes[REPEAT] and not any(vote.superseded_by for vote in repeats)
    first = {vote.item_id: vote.rating.left_is for vote in store.ratings()}
    assert all(first[vote.item_id] != vote.rating.left_is for vote in repeats)
    with Session(store.engine) as session:
        kinds = Counter(session.scalars(select(ItemRow.kind).where(ItemRow.expected.is_not(None))))
    assert set(kinds) == {"photo", "corrupted", "identical"}
    # A vote on gold without its assignment, as an old ticket would send it, is gold all the same.
    store.add(replace(gold[0].rating, rater="bob"), "no assignment")
    assert store.ratings(purposes=[GOLD])[-1].rating.rater == "bob"


def _list_fixes(scene: Scene) -> None:
    folder = scene.fixed_dir("orbit", "reproject")
    listed = [
        asdict(Candidate(scene.id, "orbit", index, "reproject", scene.relative(path), hash_file(path), ("00003.png",)))
        for index, path in ((index, folder / f"{index:05d}.png") for index in range(40))
    ]
    (folder / "candidates.json").write_text(json.dumps(listed))


def test_what_is_undone_is_asked_again_for_the_same_purpose(make, scenes, store) -> None:
    sampler = make(make_gold=True)
    sampler.next("nobody", scenes)
    sampler.catalogue.wait_for_gold()
    ann = next(name for name in map(str, range(99)) if _purpose(name, 1) == GOLD)
    for _ in range(2):
        pair = sampler.next(ann, scenes)
        sampler.vote(answer(pair, "a", ann), pair.token)
    assert pair.purpose == GOLD
    again = sampler.undo(ann, scenes, token="u")
    assert (again.candidate_a, again.candidate_b, again.left_is) == (pair.candidate_a, pair.candidate_b, pair.left_is)
    assert again.purpose == GOLD and again.token != pair.token and sampler.undo(ann, scenes, token="u") == again
    assert sampler.next(ann, scenes) == again  # a reload after the undo
    sampler.vote(answer(again, "b", ann), again.token)
    assert [vote.rating.choice for vote in store.ratings(purposes=[GOLD])] == ["b"]
    assert sampler.undo("nobody at all", scenes) is None and sampler.undo(ann, []) is None


def test_nobody_is_the_only_judge_of_their_own_upload(make, scenes, store) -> None:
    sampler = make(target_votes=1)
    while (pair := sampler.next("owner", scenes[:1], own={"court"})) is not None:
        sampler.vote(answer(pair, "a", "owner"), pair.token)
    own = store.ratings()
    assert len(own) == 5 and all(vote.own_upload for vote in own)
    others = set()
    while (pair := sampler.next("other", scenes[:1])) is not None:
        others.add(item(pair))
        sampler.vote(answer(pair, "b", "other"), pair.token)
    assert len(others) == 5 and not store.ratings()[-1].own_upload


def test_pairs_that_would_tell_most_come_first(make, scenes, store) -> None:
    """In one scene two fixers and the render were compared often. In the other, where nothing has votes yet, questions
    with a fixer that was never compared come first."""
    for scene, fixers in zip(scenes, (("known", "unknown"), ("known",))):
        for number, fixer in enumerate(fixers, 1):
            _add_fixer(scene, fixer, seed=900 * number)
    rng = random.Random(1)
    for a, b in questions_of([candidates_of(scenes[1])]).values():
        for voter in range(30):
            store.add(Rating(a, b, rng.choice("ab"), "a", f"voter {voter}", 1.0), f"{item_key(a, b)} {voter}")
    sampler = make(target_votes=99)
    asked = [sampler.next(f"rater {number}", scenes) for number in range(6)]
    assert all(pair.left.scene_id == "court" for pair in asked)  # the fewest votes
    assert sum("unknown" in (pair.left.fixer, pair.right.fixer) for pair in asked) == 6


def _add_fixer(scene: Scene, fixer: str, seed: int) -> None:
    folder = scene.fixed_dir("orbit", fixer)
    listed = []
    for index in range(3):
        path = folder / f"{index:05d}.png"
        write_rgb(path, picture(seed + index, (24, 16)))
        like = candidates_of(scene)["orbit", index][1]
        listed.append(replace(like, fixer=fixer, image_path=scene.relative(path), sha256=hash_file(path)))
    (folder / "candidates.json").write_text(json.dumps([asdict(each) for each in listed]))


def test_scenes_that_change_or_go_are_noticed(make, scenes, monkeypatch) -> None:
    sampler = make()
    pair = sampler.next("ann", scenes[:1])
    for each in (pair.left, pair.right):
        scenes[0].inside(each.image_path).unlink()
    other = sampler.next("ann", scenes[:1])
    assert other is not None and item(other) != item(pair)
    monkeypatch.setattr("difix3d.ratings.catalogue.LOOK_EVERY_S", 0.0)
    shutil.rmtree(scenes[0].root / "fixed")
    assert sampler.next("bob", scenes[:1]) is None
    shutil.rmtree(scenes[0].root / "renders")
    assert sampler.next("bob", scenes[:1]) is None and sampler.progress("bob", scenes[:1]).total == 0


def test_twenty_at_once_get_different_questions_and_every_vote_counts_once(make, scenes, store) -> None:
    sampler = make(target_votes=2, rng=None)

    def rate(rater: str) -> int:
        given = 0
        while (pair := sampler.next(rater, scenes)) is not None:
            sampler.vote(answer(pair, "a", rater), pair.token)
            given += pair.purpose == RATE
        return given

    with ThreadPoolExecutor(20) as pool:
        given = sum(pool.map(rate, [f"rater {number}" for number in range(20)]))
    votes = votes_per_item(store)
    assert sum(votes.values()) == given and min(votes.values()) >= 2 and len(votes) == 10


def test_a_vote_of_who_withdrew_is_asked_of_others_again(make, scenes, store) -> None:
    sampler = make(target_votes=1)
    while (pair := sampler.next("ann", scenes[:1])) is not None:
        sampler.vote(answer(pair, "a", "ann"), pair.token)
    assert sampler.next("bob", scenes[:1]) is None
    store.withdraw("ann")
    assert sampler.next("bob", scenes[:1]) is not None


def test_the_readme_quotes_what_is_so() -> None:
    words = (Path(__file__).resolve().parents[2] / "README.md").read_text()
    assert (TARGET_VOTES, LEASE_S) == (5, 600.0) and "until each has\nfive votes" in words
    assert "after ten minutes" in words and "About one in ten has a known answer" in words

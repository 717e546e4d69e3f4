"""Tags, scores, marks and comments: kept as given, on the picture they were given to, refused in words otherwise."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rated_scene import RENDER_SIZE, make_scene
from rating_votes import vote

from difix3d.errors import RatingError
from difix3d.ratings.candidates import candidates_of
from difix3d.ratings.store import RatingStore
from difix3d.types import Judgement, Rating


def png(size: tuple[int, int] = RENDER_SIZE, value: int = 255, mode: str = "L") -> bytes:
    pixels = np.zeros((size[1], size[0]), np.uint8)
    pixels[2:5, 3:9] = value
    buffer = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(buffer, "PNG")
    return buffer.getvalue()


ON_A = Judgement(("floaters", "blur"), 4, 2, png())
ON_B = Judgement(("invented_detail",), None, 5)


def test_what_is_said_of_each_picture_comes_back_with_it(store: RatingStore) -> None:
    comment = "'); DROP TABLE ratings; --\n<script>alert(1)</script> \u202e ü 🙂"
    given = replace(vote("a"), on_a=ON_A, on_b=ON_B, comment=comment)
    turned = replace(
        given,
        candidate_a=given.candidate_b,
        candidate_b=given.candidate_a,
        choice="b",
        left_is="b",
        on_a=ON_B,
        on_b=ON_A,
    )
    store.add(given, "one")
    store.add(replace(turned, rater="bob"), "two")
    first, second = store.ratings()
    assert first.rating == given and replace(second.rating, rater="ann") == given
    assert (first.has_marks, second.has_marks) == ("a", "a")
    (light, _) = store.ratings(marks=False)
    assert light.rating == replace(given, on_a=replace(ON_A, marks=None)) and light.has_marks == "a"
    assert store.undo("ann") == given  # what was said comes back to the screen
    store.add(replace(given, on_a=Judgement(), on_b=Judgement(), comment=""), "three")
    assert store.ratings()[-1].rating.on_a == Judgement()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"on_a": Judgement(("ugly",))}, "expected tags out of floaters, blur"),
        ({"on_b": Judgement(artifact_removal=6)}, "expected artifact_removal from 1 to 5, got 6"),
        ({"on_b": Judgement(faithfulness=0)}, "expected faithfulness from 1 to 5, got 0"),
        ({"on_a": Judgement(faithfulness=True)}, "expected faithfulness"),
        ({"on_a": Judgement(marks=b"GIF89a not a picture")}, "expected marks as a PNG, could not read it"),
        ({"on_a": Judgement(marks=png()[:60])}, "expected marks as a PNG, could not read it"),
        ({"on_a": Judgement(marks=png(mode="RGB"))}, "8-bit grey, got mode RGB"),
        ({"comment": "x" * 1001}, "expected at most 1000 characters, got 1001"),
    ],
)
def test_what_makes_no_sense_is_refused_in_words(store: RatingStore, changes: dict, words: str) -> None:
    with pytest.raises(RatingError, match=words):
        store.add(replace(vote(), **changes), "one")
    assert store.last_number() == 0


def test_what_no_database_takes_is_left_out_of_a_comment(store: RatingStore) -> None:
    store.add(replace(vote(), comment="a\x00b\ud800c\x1b[31m\tok\n"), "one")
    assert store.ratings()[0].rating.comment == "ab?c[31m\tok\n"


def test_nothing_marked_is_no_marks(store: RatingStore) -> None:
    store.add(replace(vote(), on_a=Judgement(marks=png(value=0)), on_b=Judgement(marks=b"")), "one")
    assert store.ratings()[0].has_marks == ""


def test_marks_have_the_size_of_the_picture(tmp_path: Path) -> None:
    scene = make_scene(tmp_path, "court")
    a, b = candidates_of(scene)["orbit", 0]
    with RatingStore(f"sqlite:///{tmp_path / 'r.sqlite'}", tmp_path) as store:
        wrong = Rating(a, b, "a", "a", "ann", 1.0, on_b=Judgement(marks=png((25, 16))))
        with pytest.raises(RatingError, match="second picture: expected marks of 24x16 as the picture, got 25x16"):
            store.add(wrong, "one")
        store.add(replace(wrong, on_b=Judgement(marks=png())), "one")
        assert store.ratings()[0].has_marks in ("a", "b")


def test_a_picture_that_would_fill_the_memory_is_not_decoded(store: RatingStore) -> None:
    buffer = io.BytesIO()
    Image.new("L", (8000, 8000)).save(buffer, "PNG")
    with pytest.raises(RatingError, match="at most 40000000 pixels, got 8000x8000"):
        store.add(replace(vote(), on_a=Judgement(marks=buffer.getvalue())), "one")

"""Is a vote one that makes sense? Said in words where it is not."""

from __future__ import annotations

import math
import re
from dataclasses import replace

from difix3d.errors import RatingError
from difix3d.ratings.identity import candidate_key, canonical_rating
from difix3d.ratings.judgements import check_judgement
from difix3d.ratings.schema import CHOICES
from difix3d.types import MAX_COMMENT, Rating

_MAX_RATER = 200
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")


def checked(rating: Rating) -> Rating:
    """The vote in canonical order. RatingError for one that makes no sense."""
    a, b = rating.candidate_a, rating.candidate_b
    if rating.choice not in CHOICES:
        raise RatingError(f"choice: expected one of {', '.join(CHOICES)}, got {rating.choice!r}")
    if rating.left_is not in ("a", "b"):
        raise RatingError(f"left_is: expected a or b, got {rating.left_is!r}")
    if not (math.isfinite(rating.seconds) and rating.seconds >= 0):
        raise RatingError(f"seconds: expected a time from 0 up, got {rating.seconds}")
    if not 0 < len(rating.rater) <= _MAX_RATER:
        raise RatingError(f"rater: expected 1 to {_MAX_RATER} characters, got {len(rating.rater)}")
    if (a.scene_id, a.trajectory, a.frame_index) != (b.scene_id, b.trajectory, b.frame_index):
        raise RatingError("A rating compares two candidates of one frame; these are of two frames")
    if candidate_key(a) == candidate_key(b):
        raise RatingError("A rating compares two candidates; these are one and the same")
    if len(rating.comment) > MAX_COMMENT:
        raise RatingError(f"comment: expected at most {MAX_COMMENT} characters, got {len(rating.comment)}")
    check_judgement(rating.on_a, "the first picture")
    check_judgement(rating.on_b, "the second picture")
    return canonical_rating(replace(rating, comment=clean_text(rating.comment)))


def clean_text(text: str) -> str:
    """Without control characters and half surrogates, which databases refuse; all else is kept as it was written.

    Whoever shows it escapes it.
    """
    return _CONTROL.sub("", text).encode("utf-8", "replace").decode()

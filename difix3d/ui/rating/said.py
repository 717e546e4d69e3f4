"""What a browser says of a pair, checked and turned from screen sides to candidates."""

from __future__ import annotations

import base64
import binascii
import io
import math
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from difix3d.errors import RatingError
from difix3d.ratings.sampling import PairToRate
from difix3d.types import ARTIFACT_TAGS, MAX_COMMENT, SCORES, Judgement, Rating

LONGEST_SECONDS = 24 * 3600.0
_MAX_MARKS_BYTES = 4 * 2**20
_OPAQUE = 128


def rating_of(
    pair: PairToRate, body: dict[str, Any], rater: str, reference: str | None, sizes: tuple[tuple[int, int], ...]
) -> Rating:
    """The vote in `body`: {choice: left | right | tie | both_bad | skip, ms, left: {...}, right: {...}, comment}.

    sizes: (width, height) of the pictures on the left and on the right. RatingError for what makes no sense.
    """
    right_is = "b" if pair.left_is == "a" else "a"
    sides = {"left": pair.left_is, "right": right_is, "tie": "tie", "both_bad": "both_bad", "skip": "skip"}
    choice = body.get("choice")
    if not isinstance(choice, str) or choice not in sides:
        raise RatingError(f"choice: expected one of {', '.join(sides)}, got {str(choice)[:20]!r}")
    on = {
        candidate: judgement_of(side, body.get(side) or {}, size)
        for candidate, side, size in ((pair.left_is, "left", sizes[0]), (right_is, "right", sizes[1]))
    }
    comment = body.get("comment") or ""
    if not isinstance(comment, str) or len(comment) > MAX_COMMENT:
        raise RatingError(f"comment: expected text of at most {MAX_COMMENT} characters. Shorten it and vote again.")
    # PostgreSQL stores no NUL in text.
    comment = comment.replace("\0", "").strip()
    return Rating(
        pair.candidate_a,
        pair.candidate_b,
        sides[choice],
        pair.left_is,
        rater,
        _seconds(body.get("ms")),
        reference,
        on_a=on["a"],
        on_b=on["b"],
        comment=comment,
    )


def judgement_of(side: str, said: Any, size: tuple[int, int]) -> Judgement:
    """{tags, artifact_removal, faithfulness, marks: base64 of a PNG of `size`} of one picture."""
    if not isinstance(said, dict):
        raise RatingError(f"{side}: expected an object, got {type(said).__name__}")
    tags = said.get("tags") or []
    if not isinstance(tags, list) or not set(map(str, tags)) <= set(ARTIFACT_TAGS):
        raise RatingError(f"{side}: expected tags out of {', '.join(ARTIFACT_TAGS)}, got {str(tags)[:80]}")
    return Judgement(
        tuple(tag for tag in ARTIFACT_TAGS if tag in tags),
        _score(side, said, "artifact_removal"),
        _score(side, said, "faithfulness"),
        _marks(side, said.get("marks"), size),
    )


def _score(side: str, said: dict[str, Any], name: str) -> int | None:
    score = said.get(name)
    if score is not None and (type(score) is not int or score not in SCORES):
        raise RatingError(f"{side}: expected {name} from {SCORES[0]} to {SCORES[-1]}, got {str(score)[:20]!r}")
    return score


def _seconds(milliseconds: Any) -> float:
    """The browser's own clock, which starts when both pictures can be seen and stands while the page is hidden."""
    if not isinstance(milliseconds, int | float) or not math.isfinite(milliseconds):
        raise RatingError(f"ms: expected a time in milliseconds, got {str(milliseconds)[:20]!r}")
    return round(min(max(milliseconds / 1000, 0.0), LONGEST_SECONDS), 3)


def _marks(side: str, text: Any, size: tuple[int, int]) -> bytes | None:
    """PNG of 8-bit grey, 255 where the brush was; None where it touched nothing."""
    if not text:
        return None
    if not isinstance(text, str) or len(text) > _MAX_MARKS_BYTES * 4 // 3:
        raise RatingError(
            f"{side}: expected marks as a PNG of at most {_MAX_MARKS_BYTES >> 20} MB. Clear some of them."
        )
    try:
        with Image.open(io.BytesIO(base64.b64decode(text, validate=True)), formats=["PNG"]) as opened:
            if opened.size != size:  # told by the header, before anything is decoded
                raise RatingError(
                    f"{side}: expected marks of {size[0]}x{size[1]} pixels, as the picture has, "
                    f"got {opened.size[0]}x{opened.size[1]}"
                )
            painted = np.asarray(opened.convert("RGBA"))
    except (binascii.Error, UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        raise RatingError(f"{side}: expected marks as a PNG, could not read them ({error})") from error
    # A browser draws white on nothing, with soft edges; a grey PNG from elsewhere is black on full opacity.
    bad = (painted[..., 3] >= _OPAQUE) & (painted[..., :3].max(axis=-1) >= _OPAQUE)
    if not bad.any():
        return None
    written = io.BytesIO()
    Image.fromarray(bad.astype(np.uint8) * 255).save(written, "PNG", optimize=True)
    return written.getvalue()

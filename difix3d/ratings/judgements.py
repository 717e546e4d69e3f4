"""What a vote says of one picture beyond the choice: tags, scores and marked regions."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import null, select
from sqlalchemy.orm import Session

from difix3d.errors import RatingError
from difix3d.ratings.schema import JudgementRow, MarksRow
from difix3d.types import ARTIFACT_TAGS, SCORES, Judgement

Judgements = dict[tuple[str, str], tuple[Judgement, bool]]
"""(rating's id, side a | b) -> (what was said, whether it has marks)"""

MAX_MARKS_PIXELS = 40_000_000
MAX_MARKS_BYTES = 4 << 20
"""A page's brush strokes over 40 megapixels are a tenth of this as PNG."""


@dataclass(frozen=True)
class Marks:
    """A checked picture of marked regions. png: its bytes; sha256: of them; width, height: pixels."""

    png: bytes
    sha256: str
    width: int
    height: int


def check_judgement(judgement: Judgement, name: str) -> None:
    """RatingError for tags and scores that there are not. name: for its text."""
    unknown = [tag for tag in judgement.tags if tag not in ARTIFACT_TAGS]
    if unknown:
        raise RatingError(f"{name}: expected tags out of {', '.join(ARTIFACT_TAGS)}, got {str(unknown[0])[:40]!r}")
    for field in ("artifact_removal", "faithfulness"):
        score = getattr(judgement, field)
        if score is not None and (isinstance(score, bool) or score not in SCORES):
            raise RatingError(f"{name}: expected {field} from {SCORES[0]} to {SCORES[-1]}, got {str(score)[:20]}")


def read_marks(png: bytes | None, name: str, size: tuple[int, int] | None = None) -> Marks | None:
    """Marks as they were sent; None where nothing is marked. size: (width, height) of the picture, where known.

    RatingError for what is no PNG of 8-bit grey, or of another size than the picture.
    """
    if not png:
        return None
    from PIL import Image

    if len(png) > MAX_MARKS_BYTES:
        raise RatingError(f"{name}: expected marks of at most {MAX_MARKS_BYTES >> 20} MB, got {len(png) >> 20} MB")
    try:
        with Image.open(io.BytesIO(png), formats=("PNG",)) as image:
            width, height = image.size
            if image.mode != "L":
                raise RatingError(f"{name}: expected marks as PNG of 8-bit grey, got mode {image.mode}")
            if width * height > MAX_MARKS_PIXELS:
                raise RatingError(f"{name}: expected marks of at most {MAX_MARKS_PIXELS} pixels, got {width}x{height}")
            if size is not None and (width, height) != size:
                raise RatingError(f"{name}: expected marks of {size[0]}x{size[1]} as the picture, got {width}x{height}")
            if image.getextrema()[1] == 0:
                return None
    except RatingError:
        raise
    except Exception as error:  # Pillow raises many kinds for broken files
        raise RatingError(f"{name}: expected marks as a PNG, could not read it ({error})") from error
    return Marks(png, hashlib.sha256(png).hexdigest(), width, height)


def append_judgement(session: Session, rating_id: str, side: str, judgement: Judgement, marks: Marks | None) -> None:
    """Nothing is written where nothing was said."""
    if marks is not None and session.get(MarksRow, marks.sha256) is None:
        session.add(MarksRow(sha256=marks.sha256, width=marks.width, height=marks.height, png=marks.png))
        session.flush()
    scores = (judgement.artifact_removal, judgement.faithfulness)
    if judgement.tags or marks is not None or scores != (None, None):
        session.add(
            JudgementRow(
                rating_id=rating_id,
                side=side,
                tags=list(dict.fromkeys(judgement.tags)),
                artifact_removal=judgement.artifact_removal,
                faithfulness=judgement.faithfulness,
                marks_sha256=marks.sha256 if marks else None,
            )
        )


def read_judgements(session: Session, rating_ids: Sequence[str], marks: bool = True) -> Judgements:
    """Of some hundreds of votes at once."""
    png = MarksRow.png if marks else null()
    query = select(JudgementRow, png).outerjoin(MarksRow, MarksRow.sha256 == JudgementRow.marks_sha256)
    found = session.execute(query.where(JudgementRow.rating_id.in_(rating_ids))).all() if rating_ids else []
    return {
        (row.rating_id, row.side): (
            Judgement(tuple(row.tags), row.artifact_removal, row.faithfulness, pixels),
            row.marks_sha256 is not None,
        )
        for row, pixels in found
    }

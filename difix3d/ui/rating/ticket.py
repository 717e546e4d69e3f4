"""What a browser holds of a pair it was shown, signed: the vote on it is understood after a restart of the server.

A ticket names candidates by their keys, which tell nothing of fixer or quality, and is worth nothing to anybody but
the rater it was made for.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from dataclasses import asdict, dataclass

from difix3d.errors import RatingError

_LONGEST = 4000
_UNKNOWN = "This pair was not shown by this server. Reload the page to go on; nothing else was lost."


@dataclass(frozen=True)
class Ticket:
    """One showing of a pair to one rater. token: what makes the vote on it count once; a, b: candidate keys in
    canonical order; left_is: a | b; reference: the photo that was beside it."""

    token: str
    rater: str
    scene_id: str
    trajectory: str
    frame_index: int
    a: str
    b: str
    left_is: str
    reference: str | None


def seal(ticket: Ticket, secret: str) -> str:
    """The ticket as text for a URL-safe place: its fields, a dot, and their HMAC-SHA256."""
    body = base64.urlsafe_b64encode(json.dumps(asdict(ticket), separators=(",", ":")).encode()).decode()
    return f"{body}.{_signature(body, secret)}"


def unseal(text: str, secret: str) -> Ticket:
    """The ticket that `seal` made. RatingError for anything else."""
    body, _, signature = text.partition(".") if len(text) <= _LONGEST else ("", "", "")
    # As bytes: compare_digest refuses text that is not ASCII.
    if not hmac.compare_digest(signature.encode(), _signature(body, secret).encode()):
        raise RatingError(_UNKNOWN)
    try:
        return Ticket(**json.loads(base64.urlsafe_b64decode(body)))
    except (TypeError, ValueError) as error:  # signed by another version of this program
        raise RatingError(_UNKNOWN) from error


def _signature(body: str, secret: str) -> str:
    return hmac.new(secret.encode(), f"ticket {body}".encode(), hashlib.sha256).hexdigest()

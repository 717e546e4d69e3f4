"""Who rates: the rater behind a request, what they agreed to, what they want to be called, and going away.

On a Space with `hf_oauth: true` a rater may log in with Hugging Face, and is then the same rater in every browser.
Everybody else is known by the random id that their browser keeps. Either way the database gets a keyed hash.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select
from starlette.requests import Request

from difix3d.errors import RatingError
from difix3d.ratings.schema import ConsentRow, RaterRow
from difix3d.ratings.store import RatingStore
from difix3d.ui.studio import Studio

CONSENT_VERSION = "2026-12"
"""Of the text in screen.html. A new text has a new version, and everybody is asked again."""
LICENCE = "CC-BY-4.0"
MAX_NAME = 40


@dataclass(frozen=True)
class Who:
    """visitor: the browser's id, which says what scenes they may see. account: of Hugging Face, {} without."""

    visitor: str
    account: dict[str, str]

    def rater(self, studio: Studio) -> str:
        """Their key in the database: a keyed hash, from which nobody finds out an account or a browser's id."""
        name = f"hf {self.account['sub']}" if self.account else f"visitor {self.visitor}"
        return "rater-" + hmac.new(studio.rater_secret.encode(), name.encode(), hashlib.sha256).hexdigest()[:24]


def can_log_in() -> bool:
    """Whether this is a Space where Hugging Face offers its login."""
    return bool(os.environ.get("SPACE_ID") and os.environ.get("OAUTH_CLIENT_ID"))


def who_asks(request: Request) -> Who:
    """RatingError where the request does not say."""
    visitor = request.headers.get("x-visitor", "")
    if not 16 <= len(visitor) <= 200:
        raise RatingError("Reload the page: it has not told the server who you are.")
    return Who(visitor, _account(request))


def _account(request: Request) -> dict[str, str]:
    """What Gradio's login left in the signed session cookie, while that lasts. Its access to the Hub ends after some
    hours, and is not needed: who it is stays, or votes that wait would be another person's."""
    if not can_log_in() or "session" not in request.scope:
        return {}
    login = request.session.get("oauth_info") or {}
    info = login.get("userinfo") or {}
    if not info.get("sub"):
        return {}
    return {"sub": str(info["sub"]), "name": str(info.get("preferred_username", ""))}


def described(store: RatingStore, studio: Studio, who: Who) -> dict[str, Any]:
    """What their page shows them of themselves."""
    person = store.person(who.rater(studio))
    login = None
    if can_log_in():
        login = {"user": who.account.get("name", ""), "url": "logout" if who.account else "login/huggingface"}
    return {
        "agreed": has_agreed(store, who.rater(studio)),
        "version": CONSENT_VERSION,
        "licence": LICENCE,
        "name": person.pseudonym if person else "",
        "votes": person.votes if person else 0,
        "login": login,
    }


def has_agreed(store: RatingStore, rater: str) -> bool:
    """To this version. One light query: every vote asks."""
    query = (
        select(ConsentRow.number)
        .join(RaterRow, RaterRow.number == ConsentRow.rater_number)
        .where(RaterRow.key == rater, ConsentRow.version == CONSENT_VERSION, ConsentRow.licence == LICENCE)
    )
    with store.engine.connect() as connection:
        return connection.scalar(query.limit(1)) is not None


def agree(store: RatingStore, rater: str, body: dict[str, Any]) -> None:
    """Write down that they agreed to this version, and their name. RatingError for another version."""
    if (body.get("version"), body.get("licence")) != (CONSENT_VERSION, LICENCE):
        raise RatingError("The text was changed since you read it. Reload the page and read it again.")
    name = body.get("name") or ""
    if not isinstance(name, str) or len(name) > MAX_NAME:
        raise RatingError(f"A pseudonym may have {MAX_NAME} characters at most.")
    store.consent(rater, CONSENT_VERSION, LICENCE)
    store.name_rater(rater, name)

"""Addresses under rate/ that the rating screen talks to, in JSON. They are plain HTTP, not Gradio events: a vote is one
request with one answer, which a browser can keep and send again until it is answered.

Every request names its visitor in the header X-Visitor: the random id that the browser keeps. A page of another site
can not send that header, so nobody votes in somebody else's name by a link.

    POST rate/next {scene, everywhere, held: [ticket], want}     -> {pairs: [...], done, left, undoable, empty}
    POST rate/vote {ticket, choice, ms, left, right, comment}    -> {stored}
    POST rate/undo {scene, everywhere, token}                    -> {pair}
    POST rate/me {}                                              -> {me: {agreed, version, licence, name, votes, login}}
    POST rate/agree {version, licence, name}                     -> {me}
    POST rate/withdraw {}                                        -> {me, votes, marks}

What goes wrong is {"error": words for the rater, "kind": ...}: 410 gone (the vote can never count), 422 wrong,
403 consent (agree first, then send it again), 429 fast and 503 again (send it later), and others as FastAPI has them.
Where strangers can come in, pairs too are given only to raters who agreed.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from sqlalchemy.exc import SQLAlchemyError
from starlette.concurrency import run_in_threadpool

from difix3d import __version__
from difix3d.errors import Difix3DError, RatingError
from difix3d.ratings.sampler import Sampler
from difix3d.ratings.sampling import PairToRate
from difix3d.ratings.schema import new_id
from difix3d.scene import Scene
from difix3d.ui.body import json_object
from difix3d.ui.rating.limits import Buckets
from difix3d.ui.rating.people import Who, agree, described, has_agreed, who_asks
from difix3d.ui.rating.said import rating_of
from difix3d.ui.rating.shown import PictureGoneError, Shown, offers_pairs
from difix3d.ui.rating.ticket import Ticket, unseal
from difix3d.ui.scene import NO_SCENE
from difix3d.ui.studio import Studio, owner_key

log = logging.getLogger(__name__)

ROUTE = "rate"
UI_VERSION = f"studio {__version__}"
NO_PAIRS = "Nothing to compare yet: a path has to be rendered and fixed first. Capture shows how far it is."
ALL_RATED = (
    "You have rated every pair there is here. Thank you! Fix frames with other photos, or another path, for more."
)
ENOUGH_VOTES = "Every pair here has the votes it needs. Thank you for coming! Other scenes may need yours."
AWAY = "The ratings cannot be reached just now. Your vote is kept and sent again."
_MAX_BODY_BYTES = 16 * 2**20
_TOO_LONG = f"A vote may take {_MAX_BODY_BYTES >> 20} MB at most. Clear some of the marks."
_MOST_HELD = 50
_MOST_WANTED = 3


VOTES_AT_ONCE, VOTES_PER_S = 60.0, 1.0
"""Of one rater, where strangers can come in: who votes faster for longer than a minute is not looking."""
RATERS_AT_ONCE, RATERS_PER_S = 100.0, 0.5
"""Of new raters on the whole server: a class of students may begin together."""


class TooFastError(RatingError):
    """More than a person does; may be sent again later."""


class NotAgreedError(RatingError):
    """The rater has not agreed to the text yet."""


class Ratings:
    """The rating screen's side of the server. Each method takes (who asks, the request's JSON)."""

    def __init__(self, studio: Studio):
        self.studio = studio
        self.shown = Shown(studio)
        self.sampler = Sampler(studio.store, studio.scenes_root)
        self._votes = Buckets(VOTES_AT_ONCE, VOTES_PER_S)
        self._raters = Buckets(RATERS_AT_ONCE, RATERS_PER_S)

    def next(self, who: Who, body: dict[str, Any]) -> dict[str, Any]:
        """Pairs to show, none of which the browser holds."""
        rater = who.rater(self.studio)
        # What is given out is written down, and visitors cost nothing to invent; those who agree are counted.
        if self.studio.public and not has_agreed(self.studio.store, rater):
            raise NotAgreedError("Read the guide and agree first. Pairs are shown then.")
        scenes = self._scenes(who, body)
        own = self._own(who, scenes)
        held = [unseal(ticket, self.studio.secret).token for ticket in _texts(body, "held")]
        pairs = []
        for _ in range(_wanted(body)):
            pair = self.sampler.next(rater, scenes, held=held, own=own)
            if pair is None:
                break
            pairs.append(self._show(scenes, pair, rater))
            held.append(pair.token)
        progress = self.sampler.progress(rater, scenes, own)
        # Checks count like all other votes: a count that stood still would tell which pair was one.
        checks = self.sampler.checks_answered(rater, scenes)
        done = progress.judged + checks
        return {
            "pairs": pairs,
            "done": done,
            "left": progress.total - progress.judged,
            "undoable": done > 0,
            "empty": "" if pairs or held else _nothing_to_ask(scenes, done),
        }

    def vote(self, who: Who, body: dict[str, Any]) -> dict[str, Any]:
        """Store a vote; the same one again changes nothing."""
        ticket = self._ticket(who, body)
        if not has_agreed(self.studio.store, ticket.rater):
            raise NotAgreedError("Read the guide and agree first. Your vote is kept until then.")
        if self.studio.public and not self._votes.take(ticket.rater):
            raise TooFastError("That is faster than the server takes votes. Yours is kept and sent by itself.")
        pair = self.shown.pair_of(ticket)
        rating = rating_of(pair, body, ticket.rater, ticket.reference, self.shown.sizes(pair))
        return {"stored": self.sampler.vote(rating, pair.token, ui_version=UI_VERSION)}

    def undo(self, who: Who, body: dict[str, Any]) -> dict[str, Any]:
        """Take the last vote back; its pair, to be asked again with the same sides."""
        rater = who.rater(self.studio)
        scenes = self._scenes(who, body)
        only = None if body.get("everywhere") else str(body.get("scene") or "")
        token = str(body.get("token") or new_id())[:100]
        pair = self.sampler.undo(rater, scenes, scene_id=only, token=token)
        if pair is None:
            return {"pair": None}
        try:
            self.shown.sizes(pair)
        except PictureGoneError:
            return {"pair": None}
        return {"pair": self._show(scenes, pair, rater)}

    def me(self, who: Who, body: dict[str, Any]) -> dict[str, Any]:
        return {"me": described(self.studio.store, self.studio, who)}

    def agree(self, who: Who, body: dict[str, Any]) -> dict[str, Any]:
        rater = who.rater(self.studio)
        if self.studio.public and not has_agreed(self.studio.store, rater) and not self._raters.take(""):
            raise TooFastError("Many people begin to rate just now. Try again in a minute.")
        agree(self.studio.store, rater, body)
        return self.me(who, body)

    def withdraw(self, who: Who, body: dict[str, Any]) -> dict[str, Any]:
        """Delete all that this rater said."""
        gone = self.studio.store.withdraw(who.rater(self.studio))
        return {**self.me(who, body), "votes": gone.votes, "marks": gone.marks}

    def _ticket(self, who: Who, body: dict[str, Any]) -> Ticket:
        ticket = unseal(str(body.get("ticket") or ""), self.studio.secret)
        if ticket.rater != who.rater(self.studio):
            raise RatingError(
                "You logged in or out since this pair was shown, so it is not yours to vote on. Reload the page."
            )
        return ticket

    def _show(self, scenes: Sequence[Scene], pair: PairToRate, rater: str) -> dict[str, Any]:
        scene = next(scene for scene in scenes if scene.id == pair.left.scene_id)
        return self.shown.show(scene, pair, rater)

    def _own(self, who: Who, scenes: Sequence[Scene]) -> set[str]:
        return {scene.id for scene in scenes if scene.info.get("owner") == owner_key(who.visitor)}

    def _scenes(self, who: Who, body: dict[str, Any]) -> list[Scene]:
        if body.get("everywhere"):
            return self.studio.scenes_of(who.visitor)
        scene_id = str(body.get("scene") or "")
        return [self.studio.open_scene(scene_id, who.visitor)] if scene_id else []


def _nothing_to_ask(scenes: Sequence[Scene], done: int) -> str:
    """Why there is no pair."""
    if not scenes:
        return NO_SCENE
    if done:
        return ALL_RATED
    return ENOUGH_VOTES if any(offers_pairs(scene) for scene in scenes) else NO_PAIRS


def _wanted(body: dict[str, Any]) -> int:
    want = body.get("want", 1)
    return min(want, _MOST_WANTED) if isinstance(want, int) else 1


def _texts(body: dict[str, Any], name: str) -> list[str]:
    given = body.get(name, [])
    return [str(each) for each in given[:_MOST_HELD]] if isinstance(given, list) else []


def mount(app: FastAPI, studio: Studio) -> Ratings:
    """Serve the addresses of the rating screen, and what answers them."""
    ratings = Ratings(studio)
    for action in (ratings.next, ratings.vote, ratings.undo, ratings.me, ratings.agree, ratings.withdraw):
        app.add_api_route(f"/{ROUTE}/{action.__name__}", _answering(action), methods=["POST"], include_in_schema=False)
    return ratings


def _answering(action: Callable[[Who, dict[str, Any]], dict[str, Any]]) -> Callable[[Request], Any]:
    async def answer(request: Request) -> JSONResponse:
        try:
            body = await json_object(request, _MAX_BODY_BYTES, _TOO_LONG, RatingError)
            return JSONResponse(await run_in_threadpool(action, who_asks(request), body))
        except NotAgreedError as error:
            return _refused(403, "consent", error.message)
        except TooFastError as error:
            return _refused(429, "fast", error.message)
        except PictureGoneError as error:
            return _refused(410, "gone", error.message)
        except RatingError as error:
            if isinstance(error.__cause__, SQLAlchemyError):
                log.warning("rate/%s: %s", action.__name__, error.message)
                return _refused(503, "again", AWAY)
            return _refused(422, "wrong", error.message)
        except Difix3DError as error:
            return _refused(410, "gone", error.message)
        except (SQLAlchemyError, OSError) as error:  # a database that is locked or away, a full disk
            log.warning("rate/%s: %s", action.__name__, error)
            return _refused(503, "again", AWAY)

    return answer


def _refused(status: int, kind: str, words: str) -> JSONResponse:
    return JSONResponse({"error": words, "kind": kind}, status_code=status)

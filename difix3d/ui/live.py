"""The fix that follows a person's choice of photos: one address, plain HTTP, so that a newer click overtakes an older.

    POST fix/preview {scene, trajectory, index, fixer, chosen: [names], page, turn}
      -> {frame: [scene, trajectory, index], before, after, trust, labels, caption, said, references, seconds}: before:
         the render's address; after and trust as data addresses, trust "" where none

The header X-Visitor says who asks, as for rate/. `page` is a random name of the page's own and `turn` counts its
requests: of a page only the newest is worked on, older ones are answered 409 as soon as they notice. Other refusals are
{"error": words}: 410 what was asked for is gone, 422 wrong. Nothing is stored: the button does that, in scenes that
the visitor may change.
"""

from __future__ import annotations

import asyncio
import base64
import logging
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from numpy.typing import NDArray
from starlette.concurrency import run_in_threadpool

from difix3d.errors import ConfigError, Difix3DError, SceneError
from difix3d.fixers.stepwise import SupersededError
from difix3d.stages.choosing import Preview
from difix3d.stages.fixing import FixedFrame
from difix3d.ui.body import json_object
from difix3d.ui.rating.people import who_asks
from difix3d.ui.studio import Studio

log = logging.getLogger(__name__)

ROUTE = "fix/preview"
_MAX_BODY_BYTES = 64 * 2**10
_TOO_LONG = "That is more than a choice of photos. Reload the page."
_PAGES_KNOWN = 1000
_MOST_CHOSEN = 8
NOT_KEPT = "Not kept: this scene is shown to everybody. Make one of your own under Capture to keep fixes."
_QUICK_PNG = [cv2.IMWRITE_PNG_COMPRESSION, 1]


class Turns:
    """The newest request of each page."""

    def __init__(self, pages: int = _PAGES_KNOWN):
        self._pages = pages
        self._newest: OrderedDict[str, int] = OrderedDict()

    def take(self, page: str, turn: int) -> Callable[[], bool]:
        """Tells from now on whether a newer request of that page has come."""
        self._newest[page] = max(turn, self._newest.get(page, turn))
        self._newest.move_to_end(page)
        while len(self._newest) > self._pages:
            self._newest.popitem(last=False)
        return lambda: self._newest.get(page, turn) > turn


class Live:
    """Answers the picker."""

    def __init__(self, studio: Studio):
        self.studio = studio
        self.turns = Turns()

    def preview(self, visitor: str, body: dict[str, Any], stale: Callable[[], bool]) -> dict[str, Any]:
        """Difix3DErrors where it cannot be had, SupersededError where nobody waits for it any more."""
        scene = self.studio.open_scene(_text(body, "scene"), visitor)
        chooser = self.studio.chooser(scene, _text(body, "fixer"))
        trajectory, index = _text(body, "trajectory"), body.get("index")
        if not isinstance(index, int) or isinstance(index, bool):
            raise ConfigError("Expected a frame's number. Reload the page.")
        found = chooser.preview(trajectory, index, _names(body), stale)
        theirs = self.studio.may_change(scene, visitor)
        render = scene.renders_dir(trajectory) / f"{index:05d}.png"
        return {
            "frame": [scene.id, trajectory, index],
            "before": self.studio.media.url(render),
            **unkept(chooser.session.fixer.name, found, theirs),
            "said": _said(found, theirs),
            "references": found.references,
            "seconds": round(found.seconds, 3),
        }


def mount(app: FastAPI, studio: Studio) -> Live:
    """Serve the address."""
    live = Live(studio)
    one_at_a_time = asyncio.Lock()

    async def answer(request: Request) -> JSONResponse:
        try:
            visitor = who_asks(request).visitor
            body = await json_object(request, _MAX_BODY_BYTES, _TOO_LONG, ConfigError)
            page, turn = _text(body, "page"), body.get("turn")
            stale = live.turns.take(f"{visitor} {page}", turn if isinstance(turn, int) else 0)
            # Here those who wait take no thread, and most of them have been overtaken when their turn comes.
            async with one_at_a_time:
                if stale():
                    raise SupersededError
                return JSONResponse(await run_in_threadpool(live.preview, visitor, body, stale))
        except SupersededError:
            return JSONResponse({"error": "", "kind": "superseded"}, status_code=409)
        except SceneError as error:
            return JSONResponse({"error": error.message, "kind": "gone"}, status_code=410)
        except Difix3DError as error:
            return JSONResponse({"error": error.message, "kind": "wrong"}, status_code=422)
        except Exception:
            log.exception("%s failed", ROUTE)
            words = "Something went wrong inside the program; nothing was lost. The server's log has the details."
            return JSONResponse({"error": words, "kind": "failed"}, status_code=500)

    app.add_api_route(f"/{ROUTE}", answer, methods=["POST"], include_in_schema=False)
    return live


def unkept(fixer: str, fixed: FixedFrame | Preview, theirs: bool) -> dict[str, Any]:
    """{after, trust, labels, caption} of a fix that is in no file. theirs: whoever looks may keep it."""
    what = f"{fixer} with {photos_in_words(fixed.references)}{how_much(fixed.strength)}"
    return {
        "after": data_address(fixed.rgb),
        "trust": "" if fixed.trust is None else data_address(as_bytes(fixed.trust)),
        "labels": ["render", fixer],
        "caption": f"render and {what}, not kept{' yet' if theirs else ''}",
    }


def how_much(strength: float) -> str:
    """ ", at 72 %" of a fix that is not shown whole; "" of one that is."""
    return f", at {100 * strength:.0f} %" if strength < 1 else ""


def data_address(picture: NDArray[np.uint8]) -> str:
    """[H, W, 3] RGB or [H, W] grey as a lossless picture inside its own address."""
    pixels = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR) if picture.ndim == 3 else picture
    done, packed = cv2.imencode(".png", pixels, _QUICK_PNG)
    assert done, "PNG takes any 8-bit picture"
    return "data:image/png;base64," + base64.b64encode(packed.tobytes()).decode()


def as_bytes(trust: NDArray[np.float32]) -> NDArray[np.uint8]:
    return (np.clip(trust, 0.0, 1.0) * 255.0 + 0.5).astype(np.uint8)


def _said(found: Preview, theirs: bool) -> str:
    """For the line under the photos, which screen readers read out."""
    parts = [
        f"Fixed with {photos_in_words(found.references)}{how_much(found.strength)} in {max(0.1, found.seconds):.1f} s."
    ]
    if found.references and found.covered is not None:
        together = "Together they cover" if len(found.references) > 1 else "It covers"
        parts.append(f"{together} {found.covered:.0%} of the frame.")
    if found.strength < 1:
        parts.append("More of it would be less true, as photos kept out of the fit say.")
    return " ".join([*parts, "Not kept yet: press the button to keep it." if theirs else NOT_KEPT])


def photos_in_words(names: Sequence[str]) -> str:
    """ "no photos", "photo 3", "photos 3, 12": names are mostly numbers with zeros in front."""
    short = [Path(name).stem.lstrip("0") or "0" for name in names]
    if not short:
        return "no photos"
    return f"photo{'s' * (len(short) > 1)} {', '.join(short)}"


def _names(body: dict[str, Any]) -> list[str]:
    chosen = body.get("chosen")
    if not isinstance(chosen, list) or len(chosen) > _MOST_CHOSEN:
        raise ConfigError(f"Expected at most {_MOST_CHOSEN} photos. Reload the page.")
    return [str(name) for name in chosen]


def _text(body: dict[str, Any], name: str) -> str:
    found = body.get(name)
    if not isinstance(found, str) or len(found) > 500:
        raise ConfigError(f"Expected the text {name!r}. Reload the page.")
    return found

"""The rating screen as a person uses it."""

from __future__ import annotations

from playwright.sync_api import Page, expect
from studio_server import Server, open_step

from difix3d.ratings.schema import GOLD, RATE, REPEAT
from difix3d.ratings.store import RatingStore

HASTE_MS = 350
"""The screen takes no vote that comes sooner after a new pair than anybody could have looked."""
SENT = "!Object.keys(localStorage).some(key => key.startsWith('difix3d-vote-'))"
HOSTILE = "<img src=x onerror='window.hacked=1'>"


def opened(page: Page, studio: Server, scene: str = "yard") -> Page:
    page.goto(f"{studio.url}/?scene={scene}")
    open_step(page, "Rate")
    return page


def ready(page: Page) -> str:
    """Wait until a pair can be voted on; the address of its left picture."""
    expect(page.locator("[data-choice=left]")).to_be_enabled(timeout=30_000)
    page.wait_for_timeout(HASTE_MS)
    return str(page.locator("[data-side=left] .dx-own").get_attribute("src"))


def vote(page: Page, key: str) -> str:
    """Press a key, wait for the next pair; the address of its left picture."""
    before = ready(page)
    page.keyboard.press(key)
    expect(page.locator("[data-side=left] .dx-own")).not_to_have_attribute("src", before)
    return ready(page)


def stored(studio: Server, after: int = 0, everything: bool = False) -> list:
    with RatingStore(f"sqlite:///{studio.folder / 'ratings.sqlite'}") as store:
        votes = store.stream(include_superseded=everything, purposes=(RATE, GOLD, REPEAT))
        return [each for each in votes if each.number > after]


def newest(studio: Server) -> int:
    with RatingStore(f"sqlite:///{studio.folder / 'ratings.sqlite'}") as store:
        return store.last_number()

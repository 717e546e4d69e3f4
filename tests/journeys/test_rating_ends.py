"""Where rating ends: nothing left, nothing yet, and taking everything back."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Browser, Page, expect
from rating_screen import SENT, newest, opened, ready, stored, vote
from studio_server import WIDE, Server

from difix3d.scene import Scene

pytestmark = pytest.mark.browser


def rate_all(page: Page) -> None:
    """Vote until nothing is left: checks are asked among the pairs, so nobody knows how many there are."""
    for _ in range(60):
        ready(page)
        page.keyboard.press("3")
        page.wait_for_function(SENT)
        page.wait_for_timeout(300)
        if page.locator(".dx-nothing").is_visible():
            break
    expect(page.locator(".dx-nothing")).to_contain_text("Thank you")


def test_all_is_rated_and_thanks_are_said_and_all_scenes_offer_more(tab: Page, studio: Server) -> None:
    rate_all(tab)
    tab.locator(".dx-nothing [data-undo]").click()
    expect(tab.locator(".dx-said")).to_contain_text("Taken back")
    rate_all(tab)
    tab.locator("[data-scope]").select_option("all")
    ready(tab)


def test_withdrawing_deletes_everything(tab: Page, studio: Server) -> None:
    start = newest(studio)
    vote(tab, "1")
    tab.wait_for_function(SENT)
    tab.locator("[data-you]").click()
    expect(tab.locator(".dx-known")).to_contain_text("1 vote of yours counts")
    withdraw = tab.locator("[data-withdraw]")
    withdraw.click()
    assert len(stored(studio, start)) == 1, "asked before it is done"
    withdraw.click()
    expect(tab.locator(".dx-guide .dx-told")).to_contain_text("Deleted")
    assert stored(studio, start, everything=True) == []
    tab.locator("[data-agree]").click()
    ready(tab)
    expect(tab.locator(".dx-count")).to_contain_text(re.compile("^0 rated"))


def test_a_scene_that_is_being_made_says_what_is_missing(browser: Browser, studio: Server) -> None:
    Scene.create(studio.scenes / "empty")
    context = browser.new_context(viewport=WIDE)
    page = opened(context.new_page(), studio, "empty")
    page.locator("[data-agree]").click()
    expect(page.locator(".dx-nothing")).to_contain_text("Nothing to compare yet", timeout=15_000)
    context.close()

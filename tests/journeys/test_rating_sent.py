"""Votes that cannot be sent at once: kept, sent again, stored once; or told why they never count."""

from __future__ import annotations

import shutil
import sqlite3
import time
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Browser, Page, expect
from rated_scene import RENDER_SIZE, make_scene, picture
from rating_screen import HASTE_MS, SENT, newest, opened, ready, stored, vote
from studio_server import WIDE, Server, open_step

from difix3d.formats.image import write_rgb

pytestmark = pytest.mark.browser


def test_a_vote_that_was_not_sent_survives_a_reload_and_the_back_button(tab: Page, studio: Server) -> None:
    start = newest(studio)
    ready(tab)
    tab.route("**/rate/vote", lambda route: route.abort())
    tab.keyboard.press("3")
    expect(tab.locator(".dx-said")).to_contain_text("1 vote kept")
    tab.reload()
    open_step(tab, "Rate")
    expect(tab.locator(".dx-said")).to_contain_text("1 vote kept", timeout=30_000)
    tab.unroute_all()
    tab.goto("about:blank")
    tab.go_back()
    tab.wait_for_function(SENT, timeout=30_000)
    assert [each.rating.choice for each in stored(studio, start, everything=True)] == ["tie"]


def test_an_answer_that_was_lost_makes_no_second_vote(tab: Page, studio: Server) -> None:
    start = newest(studio)
    ready(tab)
    lost = []

    def lose(route) -> None:
        if not lost:
            route.fetch()  # the server stores the vote
            lost.append(1)
            route.abort()
        else:
            route.continue_()

    tab.route("**/rate/vote", lose)
    tab.keyboard.press("4")
    tab.wait_for_function(SENT, timeout=20_000)
    assert lost and len(stored(studio, start, everything=True)) == 1


def test_votes_that_come_while_another_is_being_sent_are_sent_too(tab: Page, studio: Server) -> None:
    start = newest(studio)
    ready(tab)

    def slowly(route) -> None:
        tab.wait_for_timeout(1500)
        route.continue_()

    tab.route("**/rate/vote", slowly, times=1)
    tab.keyboard.press("1")
    tab.wait_for_timeout(HASTE_MS + 200)
    tab.keyboard.press("3")
    tab.wait_for_function(SENT, timeout=15_000)
    assert [each.rating.choice for each in stored(studio, start)][1:] == ["tie"]


def test_a_locked_database_and_a_killed_server_lose_nothing(tab: Page, studio: Server) -> None:
    start = newest(studio)
    ready(tab)
    with sqlite3.connect(studio.folder / "ratings.sqlite") as other:
        other.execute("BEGIN IMMEDIATE")
        vote(tab, "1")  # the next pair does not wait for it
        time.sleep(1)
        assert stored(studio, start) == []
        other.rollback()
    tab.wait_for_function(SENT, timeout=40_000)
    assert len(stored(studio, start)) == 1

    ready(tab)
    studio.kill()
    tab.keyboard.press("2")
    expect(tab.locator(".dx-said")).to_contain_text("No connection to the server", timeout=10_000)
    studio.start()
    tab.wait_for_function(SENT, timeout=60_000)
    assert len(stored(studio, start, everything=True)) == 2
    open_step(tab, "Rate")  # Gradio loads the page anew when its server was started again
    vote(tab, "3")


def test_deleted_scenes_and_changed_pictures_are_told(browser: Browser, studio: Server) -> None:
    start = newest(studio)
    make_scene(studio.scenes, "gone", seed=300)
    context = browser.new_context(viewport=WIDE)
    page = opened(context.new_page(), studio, "gone")
    page.locator("[data-agree]").click()
    ready(page)
    for path in (studio.scenes / "gone" / "fixed").rglob("*.png"):
        write_rgb(path, picture_of(path))
    page.keyboard.press("1")
    expect(page.locator(".dx-said")).to_contain_text("made again since you saw it", timeout=10_000)
    assert stored(studio, start) == []
    shutil.rmtree(studio.scenes / "gone")
    ready(page)
    page.keyboard.press("2")
    expect(page.locator(".dx-said")).to_contain_text("deleted", timeout=10_000)
    assert stored(studio, start) == []
    page.wait_for_function(SENT)
    context.close()


def picture_of(path: Path) -> np.ndarray:
    return picture(len(path.parts) + 7, RENDER_SIZE)

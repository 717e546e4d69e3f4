"""Rating as people do it: by keyboard alone, in two tabs, with all that can be said of a picture."""

from __future__ import annotations

import io
import re
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, expect
from rated_scene import RENDER_SIZE
from rating_screen import HOSTILE, SENT, newest, opened, ready, stored, vote
from studio_server import WIDE, Server, open_step

pytestmark = pytest.mark.browser


def test_by_keyboard_alone_with_reload_undo_and_a_second_tab(
    browser: Browser, studio: Server, picture: Callable
) -> None:
    start = newest(studio)
    context = browser.new_context(viewport=WIDE)
    page = context.new_page()
    page.goto(f"{studio.url}/?scene=yard")
    page.get_by_role("tab", name="Capture").wait_for(timeout=30_000)
    tabs = page.get_by_role("tab", name="Rate")
    for _ in range(30):
        page.keyboard.press("Tab")
        if tabs.evaluate("tab => tab === document.activeElement"):
            break
    page.keyboard.press("Enter")
    name = page.locator(".dx-guide input")
    expect(name).to_be_visible(timeout=30_000)
    picture(page, "rating-guide")
    for _ in range(11):
        page.keyboard.press("Tab")
        if name.evaluate("field => field === document.activeElement"):
            break
    page.keyboard.type(HOSTILE)
    page.keyboard.press("Enter")
    ready(page)
    expect(page.locator("[data-you] span")).to_have_text(HOSTILE)
    picture(page, "rating")

    for key in ("1", "3", "4"):
        vote(page, key)
    expect(page.locator(".dx-count")).to_contain_text(re.compile("^3 rated"))
    page.wait_for_function(SENT)
    rows = [each.rating for each in stored(studio, start)]
    assert [row.choice for row in rows] == [rows[0].left_is, "tie", "both_bad"]
    assert all(0.3 <= row.seconds < 60 for row in rows)

    page.keyboard.press("z")
    expect(page.locator(".dx-said")).to_contain_text("Taken back")
    ready(page)
    page.keyboard.press("2")
    expect(page.locator(".dx-count")).to_contain_text(re.compile("^3 rated"))
    page.wait_for_function(SENT)
    last = stored(studio, start)[-1].rating
    assert last.choice != last.left_is and last.choice in "ab"
    assert len(stored(studio, start)) == 3 and len(stored(studio, start, everything=True)) == 4

    page.reload()
    open_step(page, "Rate")
    ready(page)
    expect(page.locator(".dx-count")).to_contain_text(re.compile("^3 rated"))
    other = opened(context.new_page(), studio)
    ready(other)
    other.keyboard.press("0")
    expect(other.locator(".dx-count")).to_contain_text(re.compile("^4 rated"))
    other.wait_for_function(SENT)
    ready(page)
    page.keyboard.press("3")
    page.wait_for_function(SENT)
    votes = stored(studio, start)
    assert len({(each.item_id, each.purpose) for each in votes}) == len(votes), (
        "a pair has one vote of a person, in any tab"
    )
    assert not page.evaluate("window.hacked") and not other.evaluate("window.hacked")
    context.close()


def test_other_keys_of_the_number_block_cast_no_vote(tab: Page, studio: Server) -> None:
    """With NumLock off they scroll, and have the same places as digits."""
    start = newest(studio)
    for key, code in (("PageDown", "Numpad3"), ("End", "Numpad1"), ("Insert", "Numpad0")):
        tab.evaluate(
            f"document.dispatchEvent(new KeyboardEvent('keydown', {{key: '{key}', code: '{code}', bubbles: true}}))"
        )
    tab.wait_for_timeout(500)
    assert stored(studio, start, everything=True) == []


def test_nothing_is_marked_where_no_mark_is_seen(tab: Page) -> None:
    """In the difference, and while the pictures are swapped."""
    stage, brush, undo = tab.locator(".dx-stage"), tab.locator("[data-brush]"), tab.locator("[data-unstroke]")

    def stroke() -> None:
        pane = tab.locator(".dx-pane").nth(1).bounding_box()
        tab.mouse.move(pane["x"] + 0.5 * pane["width"], pane["y"] + 0.5 * pane["height"])
        tab.mouse.down()
        tab.mouse.move(pane["x"] + 0.55 * pane["width"], pane["y"] + 0.5 * pane["height"], steps=3)
        tab.mouse.up()

    tab.keyboard.press("d")
    tab.keyboard.press("b")
    expect(brush).to_have_attribute("aria-pressed", "true")
    expect(tab.locator("[data-mode=difference]")).to_have_attribute("aria-pressed", "false")
    tab.keyboard.press("d")
    expect(brush).to_have_attribute("aria-pressed", "false")
    stroke()
    expect(undo).to_be_disabled()
    tab.keyboard.press("b")
    tab.keyboard.down(" ")
    stroke()
    tab.keyboard.up(" ")
    expect(undo).to_be_disabled()
    stroke()
    expect(undo).to_be_enabled()
    undo.click()
    assert stage.count()


def test_what_is_said_besides_travels_with_the_vote(tab: Page, studio: Server, picture: Callable) -> None:
    start = newest(studio)
    tab.keyboard.press("m")
    tab.locator(".dx-more [data-side=left] [data-tag=ghosting]").click()
    tab.locator(".dx-more [data-side=right] [data-score=faithfulness][data-value='4']").click()
    tab.locator(".dx-more textarea").fill(HOSTILE)
    tab.keyboard.press("Escape")
    tab.keyboard.press("b")
    pane = tab.locator(".dx-pane").nth(1).bounding_box()

    def stroke(x: float) -> None:
        tab.mouse.move(pane["x"] + x * pane["width"], pane["y"] + 0.5 * pane["height"])
        tab.mouse.down()
        tab.mouse.move(pane["x"] + (x + 0.02) * pane["width"], pane["y"] + 0.5 * pane["height"], steps=3)
        tab.mouse.up()

    stroke(0.5)
    stroke(0.3)
    tab.locator("[data-unstroke]").click()
    picture(tab, "rating-more")
    expect(tab.locator("[data-more] b")).to_have_text("4")
    ready(tab)
    tab.locator("[data-choice=tie]").click()
    tab.wait_for_function(SENT)
    (kept,) = stored(studio, start)
    rating = kept.rating
    on_left, on_right = (rating.on_a, rating.on_b) if rating.left_is == "a" else (rating.on_b, rating.on_a)
    assert on_left.tags == ("ghosting",) and on_left.marks is None and on_left.faithfulness is None
    assert on_right.faithfulness == 4 and on_right.tags == () and rating.comment == HOSTILE
    with Image.open(io.BytesIO(on_right.marks)) as marks:
        assert (marks.size, marks.mode) == (RENDER_SIZE, "L")
        bad = np.argwhere(np.asarray(marks))
    # In the middle of the picture; the stroke at its left was taken back.
    assert len(bad) and abs(bad.mean(axis=0) - np.array([7.5, 12])).max() < 1.5

    ready(tab)
    expect(tab.locator("[data-more] b")).to_have_text("")
    tab.keyboard.press("z")
    expect(tab.locator("[data-more] b")).to_have_text("4", timeout=15_000)
    assert tab.locator(".dx-more textarea").input_value() == HOSTILE
    assert not tab.evaluate("window.hacked")


def test_what_was_begun_survives_a_reload_and_two_tabs_ask_different_pairs(tab: Page, studio: Server) -> None:
    tab.keyboard.press("m")
    tab.locator(".dx-more textarea").fill("half said")
    tab.locator(".dx-more [data-side=left] [data-tag=blur]").click()
    place = tab.locator(".dx-place").inner_text()
    tab.reload()
    open_step(tab, "Rate")
    ready(tab)
    assert tab.locator(".dx-place").inner_text() == place, "a reloaded page goes on where it was"
    expect(tab.locator("[data-more] b")).to_have_text("2")
    other = opened(tab.context.new_page(), studio)
    ready(other)
    assert other.locator(".dx-place").inner_text() != place
    expect(other.locator("[data-more] b")).to_have_text("")


def test_the_next_pair_is_there_before_it_is_asked_for(tab: Page, studio: Server) -> None:
    start = newest(studio)
    first = ready(tab)
    tab.wait_for_timeout(1500)
    tab.route("**/rate/**", lambda route: route.abort())
    tab.route("**/media/**", lambda route: route.abort())
    tab.keyboard.press("1")
    expect(tab.locator("[data-side=left] .dx-own")).not_to_have_attribute("src", first, timeout=2000)
    assert tab.locator("[data-side=left] .dx-own").evaluate("image => image.complete && image.naturalWidth") > 0
    expect(tab.locator(".dx-said")).to_contain_text("1 vote kept in this browser")
    expect(tab.locator(".dx-count")).to_contain_text(re.compile("^1 rated"))
    assert stored(studio, start) == []
    tab.unroute_all()
    tab.wait_for_function(SENT, timeout=20_000)
    assert len(stored(studio, start)) == 1
    expect(tab.locator(".dx-said")).not_to_contain_text("kept")


def test_votes_go_on_after_another_step_was_looked_at(tab: Page, studio: Server) -> None:
    start = newest(studio)
    vote(tab, "1")
    open_step(tab, "Fix")
    expect(tab.locator("body")).not_to_have_class(re.compile("dx-rating"))
    tab.keyboard.press("2")
    open_step(tab, "Rate")
    vote(tab, "2")
    tab.wait_for_function(SENT)
    assert len(stored(studio, start, everything=True)) == 2, "keys vote only where the pictures are seen"


def test_a_hurried_double_click_is_one_vote(tab: Page, studio: Server) -> None:
    start = newest(studio)
    ready(tab)
    tab.locator("[data-choice=right]").dblclick()
    tab.wait_for_function(SENT)
    tab.wait_for_timeout(500)
    assert len(stored(studio, start, everything=True)) == 1

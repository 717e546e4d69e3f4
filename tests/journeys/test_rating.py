"""Rating as people do it: by keyboard alone, in two tabs, on a phone, with a server that goes away and comes back."""

from __future__ import annotations

import io
import re
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, expect
from rated_scene import RENDER_SIZE, make_scene, picture
from studio_server import NARROW, WIDE, Server, open_step

from difix3d.formats.image import write_rgb
from difix3d.ratings.schema import GOLD, RATE, REPEAT
from difix3d.ratings.store import RatingStore
from difix3d.scene import Scene

pytestmark = pytest.mark.browser

HASTE_MS = 350
"""The screen takes no vote that comes sooner after a new pair than anybody could have looked."""
SENT = "!Object.keys(localStorage).some(key => key.startsWith('difix3d-vote-'))"
HOSTILE = "<img src=x onerror='window.hacked=1'>"


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server over two scenes that are ready to be rated."""
    folder = tmp_path_factory.mktemp("rating")
    for number, name in enumerate(("yard", "hall")):
        make_scene(folder / "scenes", name, seed=10 * number)
    started = Server(folder)
    started.start()
    yield started
    started.stop()


@pytest.fixture
def tab(browser: Browser, studio: Server) -> Iterator[Page]:
    """A new person's browser on the rating screen, their guide read."""
    context = browser.new_context(viewport=WIDE)
    page = opened(context.new_page(), studio)
    page.locator("[data-agree]").click()
    ready(page)
    yield page
    context.close()


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
    for _ in range(10):
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


def test_ways_to_look(tab: Page) -> None:
    stage = tab.locator(".dx-stage")
    transforms = "views => views.map(view => view.style.transform)"
    pane = tab.locator(".dx-pane").nth(0).bounding_box()
    tab.mouse.move(pane["x"] + 0.75 * pane["width"], pane["y"] + 0.5 * pane["height"])
    tab.mouse.wheel(0, -240)
    left, right = tab.locator(".dx-view").evaluate_all(transforms)
    assert left == right and "scale(1)" not in left and "translate(0%" not in left, "zoom is about the pointer"
    tab.mouse.down()
    tab.mouse.move(pane["x"] + 0.6 * pane["width"], pane["y"] + 0.6 * pane["height"], steps=4)
    tab.mouse.up()
    moved = tab.locator(".dx-view").evaluate_all(transforms)
    assert moved[0] == moved[1] != left
    tab.keyboard.press("-")
    tab.locator("[data-reset]").click()
    assert "scale(1)" in tab.locator(".dx-view").first.evaluate("view => view.style.transform")

    tab.keyboard.down(" ")
    expect(stage).to_have_class(re.compile("dx-swapped"))
    expect(tab.locator(".dx-pane[data-side=left] em")).to_have_text("B")
    other = tab.locator("[data-side=left] .dx-other")
    assert other.get_attribute("src") == tab.locator("[data-side=right] .dx-own").get_attribute("src")
    assert other.evaluate("image => getComputedStyle(image).visibility") == "visible"
    tab.keyboard.up(" ")
    expect(stage).not_to_have_class(re.compile("dx-swapped"))

    tab.keyboard.press("s")
    expect(stage).to_have_attribute("data-mode", "slider")
    before = stage.evaluate("stage => stage.style.getPropertyValue('--at')")
    tab.keyboard.press("ArrowLeft")
    assert stage.evaluate("stage => stage.style.getPropertyValue('--at')") != before
    tab.keyboard.press("d")
    expect(stage).to_have_attribute("data-mode", "difference")
    assert tab.locator(".dx-pane[data-side=right]").evaluate("p => getComputedStyle(p).mixBlendMode") == "difference"
    tab.keyboard.press("d")
    expect(stage).to_have_attribute("data-mode", "pair")
    tab.keyboard.press("r")
    expect(tab.locator(".dx-look img")).to_be_visible()
    tab.keyboard.press("Escape")
    expect(tab.locator(".dx-look")).to_be_hidden()


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


def test_a_hurried_double_click_is_one_vote(tab: Page, studio: Server) -> None:
    start = newest(studio)
    ready(tab)
    tab.locator("[data-choice=right]").dblclick()
    tab.wait_for_function(SENT)
    tab.wait_for_timeout(500)
    assert len(stored(studio, start, everything=True)) == 1


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


@pytest.mark.parametrize("size", [WIDE, NARROW], ids=["desktop", "phone"])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_all_of_it_fits_one_screen(browser: Browser, studio: Server, size: dict, theme: str) -> None:
    context = browser.new_context(viewport=size, has_touch=size == NARROW)
    page = context.new_page()
    page.goto(f"{studio.url}/?scene=yard&__theme={theme}")
    open_step(page, "Rate")
    page.locator("[data-agree]").click()
    ready(page)
    for key in ("", "m", "s"):
        if key:
            page.keyboard.press(key)
        page.wait_for_timeout(200)
        high, wide = page.evaluate("[document.documentElement.scrollHeight, document.documentElement.scrollWidth]")
        assert high <= size["height"] and wide <= size["width"], f"{key}: {wide}x{high}"
        for button in page.locator(".dx-votes button, .dx-tools button").all():
            box = button.bounding_box()
            assert box["x"] >= 0 and box["x"] + box["width"] <= size["width"], button.inner_text()
            assert box["y"] + box["height"] <= size["height"], button.inner_text()
            assert size == WIDE or box["height"] >= 44, "too small for a thumb"
    pictures = page.locator(".dx-pane").first.bounding_box()
    assert pictures["height"] > 0.25 * size["height"]
    context.close()


def test_two_fingers_zoom_both_and_draw_nothing(browser: Browser, studio: Server) -> None:
    context = browser.new_context(viewport=NARROW, has_touch=True, is_mobile=True)
    page = opened(context.new_page(), studio)
    page.locator("[data-agree]").click()
    ready(page)
    page.locator("[data-more]").click()
    page.locator("[data-brush]").click()
    box = page.locator(".dx-pane").first.bounding_box()
    middle = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    touch = context.new_cdp_session(page)

    def fingers(kind: str, *offsets: float) -> None:
        points = [{"x": middle[0] + offset, "y": middle[1], "id": number} for number, offset in enumerate(offsets)]
        touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    fingers("touchStart", -20)
    fingers("touchStart", -20, 20)
    for reach in (30, 50, 80):
        fingers("touchMove", -reach, reach)
    fingers("touchEnd")
    scales = page.locator(".dx-view").evaluate_all("views => views.map(view => view.style.transform)")
    zoom = float(re.search(r"scale\(([\d.]+)\)", scales[0])[1])
    assert scales[0] == scales[1] and 2 < zoom < 6
    expect(page.locator("[data-unstroke]")).to_be_disabled()
    context.close()


def test_a_scene_that_is_being_made_says_what_is_missing(browser: Browser, studio: Server) -> None:
    Scene.create(studio.scenes / "empty")
    context = browser.new_context(viewport=WIDE)
    page = opened(context.new_page(), studio, "empty")
    page.locator("[data-agree]").click()
    expect(page.locator(".dx-nothing")).to_contain_text("Nothing to compare yet", timeout=15_000)
    context.close()

"""What the rating screen shows: ways to look at two pictures, on a desk and on a phone."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Browser, Page, expect
from rating_screen import opened, ready
from studio_server import NARROW, WIDE, Server, open_step

pytestmark = pytest.mark.browser


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

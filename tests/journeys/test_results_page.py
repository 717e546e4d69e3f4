"""The results page: what it says of votes, and that what it leaves out is left out of a dataset too."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from playwright.sync_api import Browser, expect
from rated_scene import make_scene, vote_on
from studio_server import WIDE, Server, open_step

from difix3d.ratings.store import RatingStore

pytestmark = pytest.mark.browser


def test_results_and_their_filters(browser: Browser, studio: Server, picture: Callable) -> None:
    scene = make_scene(studio.scenes, "voted", seed=500)
    context = browser.new_context(viewport=WIDE)
    page = context.new_page()
    page.goto(f"{studio.url}/?scene=voted")
    open_step(page, "Results")
    shown = page.locator("#dx-results-page")
    expect(shown).to_contain_text("No votes yet. Compare some pairs under Rate", timeout=30_000)
    with RatingStore(f"sqlite:///{studio.folder / 'ratings.sqlite'}", studio.scenes) as store:
        for rater in ("ann", "bob", "cid"):
            for index, choice in enumerate(("fix", "fix", "render")):
                vote_on(store, scene, choice, rater, index)
        number = store.person("cid").number
    page.locator("#dx-count-again").click()
    votes = page.locator(".dx-facts div").filter(has_text="votes").first
    expect(votes).to_contain_text("9", timeout=30_000)
    expect(shown.locator("img").first).to_be_visible()
    for plot in shown.locator("img").all():
        assert plot.evaluate("image => image.decode().then(() => image.naturalWidth)") > 1000
    picture(page, "results")
    # These renders have no cameras, which is a matter of the Fix step's alone.
    expect(page.locator(".toast-body")).to_have_count(0)

    page.locator("#dx-without-raters input").click()
    page.get_by_role("option", name=f"rater {number}", exact=True).click()
    expect(votes).to_contain_text("6", timeout=30_000)
    expect(shown).to_contain_text(f"3 of rater {number}")
    page.locator("#dx-since").get_by_role("textbox").fill("soon")
    page.locator("#dx-since").get_by_role("textbox").press("Enter")
    expect(page.get_by_text("is no day. Write it as")).to_be_visible(timeout=15_000)
    page.locator("#dx-since").get_by_role("textbox").fill("2999-01-01")
    page.locator("#dx-since").get_by_role("textbox").press("Enter")
    expect(shown).to_contain_text("leave no vote", timeout=30_000)
    open_step(page, "Dataset")
    note = page.get_by_text("As chosen under Results")
    expect(note).to_contain_text(f"from before 2999-01-01 and of rater {number}", timeout=15_000)
    assert "alembic" not in studio.log(), "what a library says of itself at every start is for nobody"
    context.close()

"""A real server and a real Chromium. Screenshots land in $DIFIX3D_SCREENSHOTS, if that is set."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, Playwright
from rated_scene import make_scene
from rating_screen import opened, ready
from studio_server import NARROW, WIDE, Server

# WebGL in software, so that the 3D viewer draws on a machine without a GPU.
CHROMIUM_FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
WEBGL_FLAGS = [*CHROMIUM_FLAGS, "--enable-unsafe-swiftshader"]


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory, shared: Path) -> Iterator[Server]:
    """One server for all journeys, with a tiny Difix checkpoint to start from."""
    folder = tmp_path_factory.mktemp("studio")
    environment = {"DIFIX3D_FIXER": str(shared / "golden" / "checkpoint_difix_ref"), "DIFIX3D_SHARED": str(shared)}
    started = Server(folder, environment=environment)
    started.start()
    yield started
    started.stop()


@pytest.fixture(scope="session")
def browser(playwright: Playwright, chromium: str) -> Iterator[Browser]:
    opened = playwright.chromium.launch(executable_path=chromium, args=WEBGL_FLAGS)
    yield opened
    opened.close()


@pytest.fixture(scope="session")
def profile(browser: Browser) -> Iterator[object]:
    """One person's browser: what it stores stays from journey to journey."""
    context = browser.new_context(viewport=WIDE)
    yield context
    context.close()


@pytest.fixture
def page(profile, server: Server) -> Iterator[Page]:
    """A new tab on the app; an error in the page's own scripts fails the test."""
    errors: list[str] = []
    tab = profile.new_page()
    tab.on("pageerror", lambda error: errors.append(str(error)))
    tab.goto(server.url)
    tab.get_by_role("tab", name="Capture").wait_for(timeout=30_000)
    yield tab
    tab.close()
    assert not errors, errors


@pytest.fixture(scope="session")
def picture() -> Callable[[Page, str], None]:
    """Take a screenshot at both widths, where somebody wants to look at them; check that nothing sticks out."""
    folder = os.environ.get("DIFIX3D_SCREENSHOTS")

    def take(tab: Page, name: str) -> None:
        for label, size in (("1280", WIDE), ("390", NARROW)):
            tab.set_viewport_size(size)
            tab.evaluate("window.scrollTo(0, 0)")
            tab.wait_for_timeout(400)
            wide = tab.evaluate("document.documentElement.scrollWidth")
            assert wide <= size["width"] + 1, f"{name} at {label}: {wide} px wide"
            if folder:
                Path(folder).mkdir(parents=True, exist_ok=True)
                tab.screenshot(path=f"{folder}/{name}-{label}.png", full_page=label == "390")
        tab.set_viewport_size(WIDE)

    return take


@pytest.fixture(scope="session")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server over two scenes that are ready to be rated."""
    # A pair with five votes is asked no more, and each journey is another person who votes: with as few frames as
    # other tests have, those who came last found next to nothing.
    frames = 15
    folder = tmp_path_factory.mktemp("rating")
    for number, name in enumerate(("yard", "hall")):
        make_scene(folder / "scenes", name, seed=100 * number, orbit_frames=frames)
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

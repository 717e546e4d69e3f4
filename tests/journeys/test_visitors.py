"""Strangers on one server: nobody sees another's scene, and nothing but the page's own files can be fetched."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect
from studio_server import WIDE, Server, upload

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def public(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    started = Server(tmp_path_factory.mktemp("public"), host="0.0.0.0")
    started.start()
    yield started
    started.stop()


def tab_of(browser: Browser, server: Server) -> Page:
    tab = browser.new_context(viewport=WIDE).new_page()
    tab.goto(server.url)
    tab.get_by_role("tab", name="Capture").wait_for(timeout=30_000)
    return tab


def test_each_visitor_sees_their_own_scenes_only(browser: Browser, public: Server, shared: Path) -> None:
    anns, bobs = tab_of(browser, public), tab_of(browser, public)
    upload(anns, sorted((shared / "scenes" / "bad" / "two_photos").glob("*.jpg")))
    expect(anns.locator(".dx-error")).to_contain_text("at least 4", timeout=60_000)
    (scene,) = public.scenes.glob("*/scene.json")
    assert '"owner"' in scene.read_text()

    bobs.reload()
    bobs.get_by_role("tab", name="Capture").wait_for(timeout=30_000)
    bobs.wait_for_timeout(2500)
    expect(bobs.locator(".dx-progress")).to_be_hidden()
    expect(bobs.locator("#dx-scene")).to_have_count(0)
    # Knowing the scene's id does not help.
    bobs.goto(f"{public.url}/?scene={scene.parent.name}")
    bobs.wait_for_timeout(2500)
    expect(bobs.locator(".dx-progress")).to_be_hidden()
    # Ann's browser finds it again.
    anns.reload()
    expect(anns.locator(".dx-error")).to_contain_text("at least 4", timeout=30_000)
    for tab in (anns, bobs):
        tab.context.close()


def test_no_file_of_the_server_and_no_handler_is_offered_to_the_outside(public: Server) -> None:
    info = httpx.get(f"{public.url}/gradio_api/info").json()
    assert info["named_endpoints"] == {} and info["unnamed_endpoints"] == {}
    secrets = [public.folder / "ratings.sqlite", *public.scenes.glob("*/scene.json"), public.scenes / ".server-secret"]
    for path in [*secrets, Path("/etc/passwd")]:
        assert path.is_file()
        assert httpx.get(f"{public.url}/gradio_api/file={path}").status_code in (403, 404)
    assert httpx.get(f"{public.url}/media/{'0' * 40}/file.png").status_code == 404
    health = httpx.get(f"{public.url}/healthz").json()
    assert health["ok"] is True and "version" in health
    assert httpx.get(f"{public.url}/monitoring/summary").status_code in (401, 403, 404)

"""Choosing a fixer and its photos: what it takes is said, its weights come while one watches, trouble leaves the others
working, and the fix follows the photos."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from fitted_scene import render_trajectory, write_fitted_scene
from hub_stand_in import StandInHub, environment
from playwright.sync_api import Browser, Page, expect
from studio_server import WIDE, Server, choose_first_photos, open_step

from difix3d.fixers import DEFAULT_FIXER
from difix3d.fixers.listing import offers
from difix3d.formats.image import read_rgb

pytestmark = [pytest.mark.browser, pytest.mark.shared]

REPO, TUNED = "nvidia/difix_ref", "somebody/tuned"
UNET = "unet/diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def hub(shared: Path) -> Iterator[StandInHub]:
    checkpoint = shared / "golden" / "checkpoint_difix_ref"
    with StandInHub({REPO: checkpoint, TUNED: checkpoint}).serving() as serving:
        yield serving


@pytest.fixture(scope="module")
def studio(hub: StandInHub, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server over one scene with renders, whose Hub is the stand-in."""
    folder = tmp_path_factory.mktemp("fixers")
    render_trajectory(write_fitted_scene(folder / "scenes" / "ball"))
    started = Server(folder, environment=environment(hub.url, folder / "home", DIFIX3D_FIXER=""))
    started.start()
    yield started
    started.stop()


@pytest.fixture
def tab(browser: Browser, studio: Server) -> Iterator[Page]:
    context = browser.new_context(viewport=WIDE)
    page = context.new_page()
    page.goto(studio.url)
    open_step(page, "Fix")
    expect(page.locator("#dx-fix-go")).to_be_visible(timeout=30_000)
    yield page
    context.close()


def choose(tab: Page, label: str) -> None:
    tab.locator("#dx-fix-fixer input").click()
    tab.get_by_role("option", name=label, exact=True).click()
    expect(tab.locator(f"[data-fixer='{label}']")).to_be_visible(timeout=60_000)


def assert_left_shows_the_render(tab: Page, studio: Server, index: int) -> None:
    render = read_rgb(studio.scenes / "ball" / "renders" / "walk" / f"{index:05d}.png")
    columns, row = range(0, render.shape[1] // 2, 5), render.shape[0] // 2
    read = f"(c, x) => [...c.getContext('2d').getImageData(x, {row}, 1, 1).data].slice(0, 3)"
    canvas = tab.locator("#dx-fix-wipe canvas")
    assert [canvas.evaluate(read, column) for column in columns] == [render[row, x].tolist() for x in columns]


def candidates(studio: Server) -> set[Path]:
    return set(studio.scenes.glob("ball/fixed/*/*/candidates.json"))


def test_every_fixer_says_what_it_takes(tab: Page, studio: Server, picture) -> None:
    expect(tab.locator(f"[data-fixer={DEFAULT_FIXER}]")).to_contain_text("CPU", timeout=30_000)
    choose(tab, f"difix ({REPO})")
    said = tab.locator("p[data-fixer]")
    for words in ("NVIDIA", "non-commercial", "5.2 GB to download first", "CPU", "estimated"):
        expect(said).to_contain_text(words)
    expect(tab.locator("#dx-fix-go")).to_have_text("Download 5.2 GB, then fix")
    tab.locator("#dx-fixers").get_by_text("What the fixers take").click()
    expect(tab.locator(".dx-fixer")).to_have_count(len(offers(studio.folder)), timeout=30_000)
    expect(tab.locator(".dx-fixer", has_text="1 reference photo")).to_have_count(1)
    picture(tab, "fixers")


def test_what_goes_wrong_is_said_and_another_fixer_works(tab: Page, studio: Server, hub: StandInHub, picture) -> None:
    hub.damaged[UNET] = 9
    choose(tab, f"difix ({REPO})")
    tab.locator("#dx-fix-go").click()
    expect(tab.get_by_text(f"{UNET} of {REPO} arrived damaged twice")).to_be_visible(timeout=60_000)
    picture(tab, "fix-damaged")
    expect(tab.locator("#dx-fix-stop")).to_be_hidden()
    hub.damaged.clear()

    before = candidates(studio)
    choose(tab, "reproject")
    expect(tab.locator("#dx-fix-go")).to_have_text("Fix this frame")
    expect(tab.locator(".dx-picker button").first).to_be_visible(timeout=30_000)
    tab.locator("#dx-fix-go").click()
    expect(tab.locator("#dx-fix-right input")).to_have_value(re.compile("reproject"), timeout=60_000)
    assert len(candidates(studio) - before) == 1


def test_the_fix_follows_the_photos_that_are_chosen(tab: Page, studio: Server, picture) -> None:
    photos, said = tab.locator(".dx-photos button"), tab.locator(".dx-picker-said")
    caption = tab.locator("#dx-fix-wipe figcaption")
    expect(photos.first).to_be_visible(timeout=30_000)
    expect(photos.first).to_have_attribute("aria-label", re.compile(r"^Photo .*, covers \d+% of the frame.*number 1$"))
    assert photos.first.locator(".dx-covers i").bounding_box()["width"] > 0
    before, pressed = candidates(studio), tab.locator(".dx-photos button[aria-pressed=true]")
    choose_first_photos(tab, 2)

    # By keyboard: the third photo joins as number 3, and the picture is that fix, tinted where it is not trusted.
    photos.first.focus()
    tab.keyboard.press("ArrowRight")
    tab.keyboard.press("ArrowRight")
    tab.keyboard.press("Space")
    expect(photos.nth(2).locator("b")).to_have_text("3")
    expect(said).to_contain_text(re.compile(r"Fixed with photos \d+, \d+, \d+ in .*% of the frame"), timeout=15_000)
    expect(caption).to_contain_text("not kept yet")
    plain = tab.locator("#dx-fix-wipe canvas").screenshot()
    tab.get_by_label("Show where the fix is trusted").check()
    expect(tab.locator(".dx-trust p")).to_contain_text(re.compile(r"Trusted: \d+% of the frame"))
    assert tab.locator("#dx-fix-wipe canvas").screenshot() != plain
    picture(tab, "fix-photos")

    choose(tab, "lite")  # keeps the photos, and who was watching goes on watching
    expect(caption).to_contain_text("lite", timeout=30_000)
    expect(pressed).to_have_count(3)

    # Ten presses faster than the server answers: what is shown is the fix of the last one.
    for number in (3, 3, 4, 4, 5, 5, 2, 1, 0, 3):
        photos.nth(number).click()
    expect(pressed).to_have_count(1)
    expect(said).to_contain_text(re.compile(r"Fixed with photo \d+(, at \d+ %)? in"), timeout=15_000)
    assert candidates(studio) == before, "what is only looked at is no candidate"

    tab.locator("#dx-fix-go").click()
    expect(caption).not_to_contain_text("not kept yet", timeout=30_000)
    assert len(candidates(studio) - before) == 1


def test_arrow_keys_go_through_the_frames_and_the_last_one_counts(tab: Page, studio: Server) -> None:
    """Faster than photos are ranked for any of them; nobody is taken back to a frame they have left."""
    choose(tab, "reproject")
    slider, photos = tab.locator("#dx-fix-frame input[type=range]"), tab.locator(".dx-photos button")
    expect(photos.first).to_be_visible(timeout=30_000)
    slider.focus()
    for key in ("Home", "ArrowRight", "ArrowRight"):
        tab.keyboard.press(key)
    tab.wait_for_timeout(3000)
    expect(slider).to_have_value("2")
    assert_left_shows_the_render(tab, studio, 2)
    before = candidates(studio)
    photos.first.click()
    expect(tab.locator(".dx-picker-said")).to_contain_text("Fixed with", timeout=30_000)
    tab.locator("#dx-fix-go").click()
    expect(tab.locator("#dx-fix-right input")).to_have_value(re.compile("reproject"), timeout=60_000)
    (new,) = candidates(studio) - before
    assert json.loads(new.read_text())[0]["frame_index"] == 2

    # On before the fix is there, while it is measured how much of it to show: what was asked for is fixed and kept,
    # and nobody is taken back.
    choose(tab, "lite")
    expect(photos.first).to_be_visible(timeout=30_000)
    tab.wait_for_timeout(1000)
    tab.locator("#dx-fix-go").click()
    slider.focus()
    tab.keyboard.press("ArrowLeft")
    expect(tab.get_by_text("Frame 2 of walk is fixed.")).to_be_visible(timeout=60_000)
    (new,) = candidates(studio) - before - {new}
    assert json.loads(new.read_text())[0]["frame_index"] == 2
    tab.wait_for_timeout(1000)
    expect(slider).to_have_value("1")
    assert_left_shows_the_render(tab, studio, 1)


def test_a_preview_is_shown_beside_its_own_render(tab: Page, studio: Server) -> None:
    """Whatever was compared before; and one of another frame, come late, is not shown at all."""
    choose(tab, "reproject")
    expect(tab.locator(".dx-photos button").first).to_be_visible(timeout=30_000)
    tab.locator("#dx-fix-go").click()
    kept = tab.locator("#dx-fix-right input")
    expect(kept).to_have_value(re.compile("reproject"), timeout=60_000)
    name, left = kept.input_value(), tab.locator("#dx-fix-wipe .dx-left")
    tab.locator("#dx-fix-left input").click()
    tab.get_by_role("option", name=name, exact=True).click()
    tab.wait_for_timeout(2500)  # the page has read the scene again meanwhile, and leaves the choice alone
    expect(left).to_have_text("reproject")
    tab.locator(".dx-photos button").nth(1).click()
    caption = tab.locator("#dx-fix-wipe figcaption")
    expect(caption).to_contain_text("not kept yet", timeout=30_000)
    expect(left).to_have_text("render")
    assert_left_shows_the_render(tab, studio, int(tab.locator("#dx-fix-frame input[type=range]").input_value()))

    said = caption.inner_text()
    tab.locator("#dx-fix-wipe .dx-wipe").evaluate(
        "root => root.dispatchEvent(new CustomEvent('dx-show', {detail: {frame: ['ball', 'walk', 99], before: '', "
        "after: '', labels: ['a', 'b'], caption: 'late', trust: ''}}))"
    )
    tab.wait_for_timeout(300)
    assert caption.inner_text() == said


def test_a_download_is_watched_and_stopped(tab: Page, studio: Server, hub: StandInHub, picture) -> None:
    start_slowly(tab, hub)
    picture(tab, "fix-downloading")
    tab.locator("#dx-fix-stop").click()
    expect(tab.get_by_text("Stopped. What came so far is kept")).to_be_visible(timeout=15_000)
    expect(tab.locator(".dx-fetching")).to_have_count(0)
    assert not [path for path in candidates(studio) if "difix" in str(path)]


def test_who_closes_the_tab_stands_in_nobodys_way(tab: Page, studio: Server, hub: StandInHub, picture) -> None:
    start_slowly(tab, hub)
    other = tab.context.new_page()
    tab.close()
    hub.bytes_per_s = 0
    other.goto(studio.url)
    open_step(other, "Fix")
    choose(other, f"difix ({REPO})")
    other.locator("#dx-fix-go").click()
    expect(other.locator("#dx-fix-right input")).to_have_value(re.compile(REPO), timeout=120_000)
    expect(other.locator("p[data-fixer]")).not_to_contain_text("download")
    expect(other.locator("#dx-fix-go")).to_have_text("Fix this frame")
    other.wait_for_timeout(2500)  # the page has read the scene again meanwhile, and leaves the choice alone
    expect(other.locator("#dx-fix-fixer input")).to_have_value(f"difix ({REPO})")
    picture(other, "fix-difix")


@pytest.fixture
def tuned(hub: StandInHub, tmp_path: Path) -> Iterator[Server]:
    """A server whose Difix is somebody's on the Hub, of which nobody knows anything before it is here."""
    render_trajectory(write_fitted_scene(tmp_path / "scenes" / "ball"))
    hub.bytes_per_s = 0
    started = Server(tmp_path, environment=environment(hub.url, tmp_path / "home", DIFIX3D_FIXER=TUNED))
    started.start()
    yield started
    started.stop()


def test_photos_are_offered_once_a_checkpoint_is_here_and_looks_at_them(browser: Browser, tuned: Server) -> None:
    context = browser.new_context(viewport=WIDE)
    tab = context.new_page()
    tab.goto(tuned.url)
    open_step(tab, "Fix")
    go, pressed = tab.locator("#dx-fix-go"), tab.locator(".dx-photos button[aria-pressed=true]")
    choose(tab, f"difix ({TUNED})")
    expect(go).to_have_text(re.compile("Download"), timeout=30_000)
    tab.wait_for_timeout(5000)  # the photos for the fixer before it come late, and are not its own
    assert tab.locator(".dx-photos button").count() == 0, "nobody knows yet what it looks at"
    go.click()
    expect(tab.locator("#dx-fix-right input")).to_have_value(re.compile(rf"{TUNED}.*, photo \d+$"), timeout=120_000)
    expect(pressed).to_have_count(1)
    context.close()


def test_photos_without_small_pictures_are_chosen_by_name(browser: Browser, tuned: Server, picture) -> None:
    """A file where small pictures of photos would go: as a full disk, it lets none be made."""
    shutil.rmtree(tuned.scenes / "ball" / "previews" / "photos", ignore_errors=True)
    (tuned.scenes / "ball" / "previews").mkdir(exist_ok=True)
    (tuned.scenes / "ball" / "previews" / "photos").write_text("")
    context = browser.new_context(viewport=WIDE)
    tab = context.new_page()
    tab.goto(tuned.url)
    open_step(tab, "Fix")
    pressed = tab.locator(".dx-photos button[aria-pressed=true]")
    expect(pressed).not_to_have_count(0, timeout=30_000)
    expect(pressed.first).to_contain_text(re.compile(r"^0000\d"))
    picture(tab, "fix-photos-unseen")
    tab.locator("#dx-fix-go").click()
    expect(tab.locator("#dx-fix-right input")).to_have_value(re.compile(r"lite, photos? \d"), timeout=60_000)
    context.close()


def test_a_scene_that_was_deleted_elsewhere_is_left_with_one_word(browser: Browser, tuned: Server, picture) -> None:
    context = browser.new_context(viewport=WIDE)
    tab = context.new_page()
    tab.goto(tuned.url)
    open_step(tab, "Fix")
    expect(tab.locator("#dx-fix-go")).to_be_visible(timeout=30_000)
    tab.wait_for_timeout(3000)  # what the page asks at first is answered
    (tuned.scenes / "ball").rename(tuned.scenes.parent / "gone")
    expect(tab.locator("#dx-fix-go")).to_be_hidden(timeout=30_000)
    expect(tab.get_by_text("is gone: it was deleted")).to_have_count(1)
    tab.wait_for_timeout(1500)
    expect(tab.locator(".toast-body")).to_have_count(1)
    picture(tab, "scene-gone")
    context.close()


def start_slowly(tab: Page, hub: StandInHub) -> None:
    hub.bytes_per_s = 100_000
    choose(tab, f"difix ({REPO})")
    tab.locator("#dx-fix-go").click()
    line = tab.locator(".dx-fetching")
    expect(line).to_contain_text(f"Downloading {REPO}", timeout=30_000)
    expect(line).to_contain_text(re.compile(r"\d of \d MB"))

"""A person watches the splats sharpen, finds them good enough, and the job goes on with what there is."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page, expect
from studio_server import Server
from synthetic_scene import make_synthetic_scene, write_synthetic_scene

from difix3d import jobs
from difix3d.jobs import Step

pytestmark = [pytest.mark.browser, pytest.mark.slow]
FIT_SECONDS = 400.0


def test_a_fit_is_kept_when_it_is_good_enough(page: Page, server: Server, picture):
    scene = write_synthetic_scene(server.scenes / "kept", make_synthetic_scene(160, 120))
    fit = Step("fit", {"seconds": FIT_SECONDS, "renderer": "cpu", "holdout": 4})
    job = jobs.start(scene, [fit, Step("render", {"trajectory": "orbit", "frames": 4})])
    page.goto(f"{server.url}?scene=kept")

    preview = page.locator("figure[data-kind=preview] img")
    expect(preview).to_be_visible(timeout=120_000)
    first = preview.get_attribute("src")
    expect(preview).not_to_have_attribute("src", first, timeout=30_000)
    keep = page.get_by_role("button", name="Good enough, keep it")
    expect(keep).to_be_visible()
    picture(page, "capture-fitting")
    keep.click()

    expect(page.locator(".dx-progress")).to_have_attribute("data-state", "done", timeout=120_000)
    expect(keep).to_be_hidden()
    figures = scene.manifest("fit")["figures"]
    assert figures["kept_early"] and figures["seconds"] < FIT_SECONDS / 2
    assert jobs.find(scene, job.id).state == jobs.DONE
    assert len(list(scene.renders_dir("orbit").glob("*[0-9].png"))) == 4

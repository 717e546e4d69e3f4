"""The scene report: one page that holds all it shows, true to the scene's photos, manifests and events."""

from __future__ import annotations

import base64
import io
import re
import shutil
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from fitted_scene import HELDOUT, write_fitted_scene
from PIL import Image
from playwright.sync_api import Playwright

from difix3d.atomic import write_json
from difix3d.errors import SceneError
from difix3d.events import Artifact, Done, Event, Failed, Progress
from difix3d.formats.colmap import read_reconstruction
from difix3d.formats.image import read_rgb, to_uint8, write_rgb
from difix3d.formats.ply import read_splats
from difix3d.metrics import psnr
from difix3d.scene import Scene
from difix3d.sfm.base import PHASES
from difix3d.splatting import render_view
from difix3d.stages.report import PAGE, ReportConfig, report
from difix3d.stages.report_data import fit_history, phases
from difix3d.stages.report_plots import RESIDUAL_MAX, residual_rgb

CONFIG = ReportConfig(photos=4, renderer="cpu")
RECONSTRUCTED = {
    "stage": "reconstruct",
    "seconds": 9.5,
    "outputs": [],
    "figures": {
        "registered": 12, "photos": 14, "points": 200, "reprojection_px": 0.41, "median_triangulation_deg": 12.3,
        "left_out": ["<b>dark</b>.jpg"], "seconds_match": 4.0, "seconds_map": 3.0,
    },
    "warnings": ["Left out <2> of 14 photos."],
}  # fmt: skip


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    scene = write_fitted_scene(tmp_path_factory.mktemp("report") / "ball")
    scene.update_info(name="The <ball>")
    write_json(scene.manifest_path("reconstruct"), RECONSTRUCTED)
    write_rgb(scene.previews_dir / "sparse.jpg", np.zeros((90, 120, 3), np.uint8))
    for run in (0, 1):  # a second fit: the first one's curve is history
        scene.log(Progress("fit", "Loading"))
        for second in range(1, 6):
            figures = {"seconds": second + 0.5 * run, "splats": 100 * second, "psnr": 20.0 + second + run}
            scene.log(Progress("fit", "Fitting splats", second, 5, "s", 0.0, figures))
        scene.log(Done("fit", 6.0))
    return scene.root


@pytest.fixture
def scene(template: Path, tmp_path: Path) -> Scene:
    shutil.copytree(template, tmp_path / "ball")
    return Scene(tmp_path / "ball")


@pytest.fixture(scope="module")
def reported(template: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Scene, list[Event]]:
    """A scene with its report, for those who only read it; and what was said."""
    scene = Scene(shutil.copytree(template, tmp_path_factory.mktemp("reported") / "ball"))
    return scene, list(report(scene, CONFIG))


def html(scene: Scene) -> str:
    return (scene.root / PAGE).read_text(encoding="utf-8")


def test_the_page_holds_all_it_shows_and_the_worst_photos_come_first(reported: tuple[Scene, list[Event]]) -> None:
    scene, (*events, done) = reported
    assert isinstance(done, Done) and done.outputs == ("report",) and done.figures["photos"] == 12
    assert [event.path for event in events if isinstance(event, Artifact)] == [PAGE]
    page = html(scene)
    assert "http" not in page and "src='data:image/" in page and not re.search(r"src='(?!data:image/)", page)
    pictures = [
        Image.open(io.BytesIO(base64.b64decode(data))) for data in re.findall(r"base64,([A-Za-z0-9+/=]+)'", page)
    ]
    # Four plots, the cameras, and three pictures of each photo.
    assert len(pictures) == 4 + 1 + 3 * 4 and all(picture.size[0] >= 90 for picture in pictures)
    assert {path.name for path in (scene.root / "report").iterdir()} == {
        "report.html", "psnr.png", "splats.png", "photos.png", "phases.png"
    }  # fmt: skip

    splats, scores = read_splats(scene.splats_path), {}
    for view in read_reconstruction(scene.sparse_dir, scene.images_dir).views:
        rendered = to_uint8(render_view(splats, view.camera, renderer="cpu")[0])
        scores[view.name] = psnr(rendered, read_rgb(view.image_path))
    worst = sorted(scores, key=scores.get)
    assert re.findall(r"<h3>(.*?)</h3>", page) == worst[:4] and done.figures["worst"] == worst[0]
    for name in worst[:4]:
        assert f"{scores[name]:.1f} dB" in page
    kept_out = np.mean([scores[name] for name in HELDOUT])
    assert done.figures["psnr_kept_out"] == pytest.approx(kept_out, abs=0.01)
    assert "3 photos kept out" in page and f"{kept_out:.1f} dB" in page and "9 photos fitted" in page


def test_names_and_warnings_are_text_and_figures_are_the_manifests(reported: tuple[Scene, list[Event]]) -> None:
    page = html(reported[0])
    assert "The &lt;ball&gt;" in page and "&lt;b&gt;dark&lt;/b&gt;.jpg" in page and "Left out &lt;2&gt; of 14" in page
    assert "<b>" not in page and "12 of 14" in page and "0.41 px" in page and "200 sparse points" in page


def test_it_is_made_anew_only_when_something_changed(reported: tuple[Scene, list[Event]], tmp_path: Path) -> None:
    scene = Scene(shutil.copytree(reported[0].root, tmp_path / "ball"))
    assert list(report(scene, CONFIG))[-1].skipped
    write_json(scene.manifest_path("reconstruct"), {**RECONSTRUCTED, "seconds": 10.0})
    assert not list(report(scene, CONFIG))[-1].skipped


def test_the_curves_are_those_of_the_latest_fit(scene: Scene) -> None:
    history = fit_history(scene)
    assert history.psnr == tuple((second + 0.5, 21.0 + second) for second in range(1, 6))
    assert history.splats == tuple((second + 0.5, 100.0 * second) for second in range(1, 6))
    scene.log(Progress("fit", "Fitting splats", 1, 5, "s", 0.0, {"seconds": 0.5, "splats": 7, "psnr": 3.0}))
    scene.log(Failed("fit", "Cancelled", "stopped"))
    assert fit_history(scene) == history, "the splats are still those of the fit before"
    scene.log(Done("fit", 6.0, skipped=True))
    assert fit_history(scene) == history
    scene.events_path.unlink()
    write_json(scene.manifest_path("fit"), {"figures": {"curve": [[1.0, 20.0]]}, "seconds": 2.0})
    assert fit_history(scene).psnr == ((1.0, 20.0),) and fit_history(scene).splats == ()


def test_phases_add_up_to_the_stages_seconds(scene: Scene) -> None:
    for key in ("orbit", "heldout"):
        write_json(scene.manifest_path("render", key), {"figures": {"seconds_per_frame": 0.1}, "seconds": 3.0})
    rows = phases(scene)
    assert rows == [
        ("reconstruct: match", 4.0), ("reconstruct: map", 3.0), ("reconstruct: the rest", 2.5),
        ("render-heldout", 3.0), ("render-orbit", 3.0),
    ]  # fmt: skip


def test_phases_of_finding_cameras_are_in_their_order_and_unknown_ones_last(scene: Scene) -> None:
    """A manifest's keys are in no order that counts."""
    seconds = {"seconds_dream": 1.0, **{f"seconds_{phase}": 1.0 for phase in sorted(PHASES)}}
    write_json(scene.manifest_path("reconstruct"), {**RECONSTRUCTED, "figures": {"registered": 12, **seconds}})
    names = [name.removeprefix("reconstruct: ") for name, _ in phases(scene)]
    assert names == ["extract", "match", "map", "refine", "straighten", "dream", "the rest"]


def test_only_pictures_that_are_shown_are_held(scene: Scene) -> None:
    def held(photos: int) -> int:
        """Bytes in use when every photo has been scored."""
        tracemalloc.start()
        try:
            events = report(scene, ReportConfig(photos=photos, renderer="cpu"))
            next(event for event in events if isinstance(event, Progress) and event.message == "Drawing the plots")
            return tracemalloc.get_traced_memory()[0]
        finally:
            tracemalloc.stop()
            events.close()

    held(1)  # what is loaded once is loaded now
    photo_and_render = 2 * 72 * 96 * 3
    assert held(12) - held(2) > 8 * photo_and_render


def test_residuals_are_black_where_equal_and_saturate(scene: Scene) -> None:
    colours = residual_rgb(np.array([[0.0, RESIDUAL_MAX / 2, RESIDUAL_MAX, 1.0]], np.float32))[0].astype(int)
    assert colours[0].sum() < 10 and (np.diff(colours.sum(axis=1)) >= 0).all()
    assert np.array_equal(colours[2], colours[3])


def test_a_scene_without_history_has_a_report_too(scene: Scene) -> None:
    """A user's own COLMAP model and splats."""
    scene.events_path.unlink()
    shutil.rmtree(scene.root / "stages")
    shutil.rmtree(scene.previews_dir)
    scene.split_path.unlink()
    done = list(report(scene, CONFIG))[-1]
    assert done.figures["psnr_fitted"] is None and done.figures["psnr_kept_out"] is None
    assert len(re.findall("<h3>", html(scene))) == 4


@pytest.mark.parametrize("lacking", ["splats.ply", "sparse", "images"])
def test_what_is_missing_is_said(scene: Scene, lacking: str) -> None:
    path = scene.root / lacking
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(SceneError, match="Fit first: difix3d fit"):
        list(report(scene, CONFIG))
    assert not (scene.root / "report").exists()


@pytest.mark.browser
@pytest.mark.parametrize("width", [1280, 390])
def test_it_fits_a_desk_and_a_phone(
    reported: tuple[Scene, list[Event]], chromium: str, playwright: Playwright, width: int
) -> None:
    scene, _ = reported
    arguments = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    browser = playwright.chromium.launch(executable_path=chromium, args=arguments)
    page = browser.new_page(viewport={"width": width, "height": 800})
    page.goto((scene.root / PAGE).as_uri())
    measured = page.evaluate(
        """() => ({wide: document.documentElement.scrollWidth,
                   pictures: [...document.images].map(i => { i.loading = 'eager'; return i.getBoundingClientRect(); })
                       .map(box => [box.left, box.right])})"""
    )
    browser.close()
    assert measured["wide"] <= width and len(measured["pictures"]) == 17
    assert all(0 <= left < right <= width for left, right in measured["pictures"])

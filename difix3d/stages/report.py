"""Report: how a scene went, as one HTML page: cameras found, fit over time, every photo beside its render, worst first.

report/report.html holds everything it shows, so that it can be mailed; the plots lie beside it as PNG.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

from difix3d.atomic import replacing_folder
from difix3d.errors import SceneError
from difix3d.events import Artifact, Event, Progress, Warned
from difix3d.formats.colmap import read_reconstruction
from difix3d.formats.image import read_rgb, to_uint8
from difix3d.formats.ply import read_splats
from difix3d.scene import Scene
from difix3d.stages.base import option, stage
from difix3d.stages.evaluate import fitted_long_side_px
from difix3d.stages.report_data import FITTED, KEPT_OUT, UNKNOWN, ScoredPhoto, ShownPhoto, fit_history, phases
from difix3d.types import View

FOLDER = "report"
PAGE = f"{FOLDER}/report.html"


@dataclass(frozen=True)
class ReportConfig:
    """What the report shows."""

    photos: int = option(12, "how many photos to show beside their renders, the worst first", minimum=1, maximum=200)
    renderer: str = option("auto", "gsplat needs CUDA; auto takes it where it works", choices=("auto", "gsplat", "cpu"))


def _inputs(scene: Scene, config: ReportConfig) -> tuple[str, ...]:
    manifests = sorted(path for path in scene.root.glob("stages/*.json") if path.stem != "report")
    return ("splats.ply", "sparse", "images", "split.json", *(scene.relative(path) for path in manifests))


@stage("report", inputs=_inputs, outputs=(FOLDER,))
def report(scene: Scene, config: ReportConfig) -> Generator[Event, None, dict[str, Any]]:
    """Write report/report.html; see ReportConfig.

    Every photo's camera is rendered at the size of the fit and compared with the photo. Figures: psnr_fitted and
    psnr_kept_out (means, None without such photos), worst (the name of the worst photo), photos.
    SceneError without splats or without photos and cameras.
    """
    for path, what in ((scene.splats_path, "splats.ply"), (scene.sparse_dir, "sparse/0"), (scene.images_dir, "images")):
        if not path.exists():
            raise SceneError(f"{scene.id} has no {what} to report on. Fit first: difix3d fit --scene {scene.root}")
    from difix3d.splatting import why_cpu

    if reason := why_cpu(config.renderer):
        yield Warned("report", f"{reason} Rendering on the CPU.")
    photos, worst = yield from _scored(scene, config)
    yield Progress("report", "Drawing the plots")
    from difix3d.stages.report_page import page
    from difix3d.stages.report_plots import draw_all

    history = fit_history(scene)
    plots = draw_all(history, photos, phases(scene))
    html = page(scene, history, photos, worst, plots)
    # The old manifest goes first: it vouches for the page that is about to be replaced.
    scene.manifest_path("report").unlink(missing_ok=True)
    with replacing_folder(scene.root / FOLDER) as folder:
        (folder / "report.html").write_text(html, encoding="utf-8")
        for name, png in plots.items():
            (folder / f"{name}.png").write_bytes(png)
    yield Artifact("report", "report", PAGE, f"{len(photos)} photos, worst first")
    return {**_means(photos), "worst": worst[0].scored.name, "photos": len(photos)}


def _scored(scene: Scene, config: ReportConfig) -> Generator[Event, None, tuple[list[ScoredPhoto], list[ShownPhoto]]]:
    """Every photo's scores in the order of their names; and the worst ones with their pictures, the worst first. Of
    the others no picture is held."""
    yield Progress("report", "Loading splats and cameras")
    splats = read_splats(scene.splats_path)
    views = sorted(read_reconstruction(scene.sparse_dir, scene.images_dir).views, key=lambda view: view.name)
    if not views:
        raise SceneError(f"{scene.id} has no cameras to report on. Reconstruct and fit it first.")
    split = scene.split()
    role = {**dict.fromkeys(split["train"], FITTED), **dict.fromkeys(split["heldout"], KEPT_OUT)}
    long_side_px = fitted_long_side_px(scene)
    photos, worst = list[ScoredPhoto](), list[ShownPhoto]()
    for index, view in enumerate(views):
        yield Progress("report", "Comparing photos with their renders", index, len(views), "photos")
        photo = _score(view, splats, long_side_px, role.get(view.name, UNKNOWN), config.renderer)
        photos.append(photo.scored)
        worst = sorted([*worst, photo], key=lambda each: each.scored.psnr)[: config.photos]
    yield Progress("report", "Comparing photos with their renders", len(views), len(views), "photos")
    return photos, worst


def _score(view: View, splats: Any, long_side_px: int, role: str, renderer: str) -> ShownPhoto:
    from difix3d.metrics import psnr, ssim
    from difix3d.splatting import render_view

    assert view.image_path is not None, "read_reconstruction was given images_dir"
    camera = view.camera.resized(min(long_side_px, max(view.camera.width, view.camera.height)))
    photo = read_rgb(view.image_path, (camera.width, camera.height))
    rendered = to_uint8(render_view(splats, camera, renderer=renderer)[0])
    scored = ScoredPhoto(view.name, role, psnr(rendered, photo), ssim(rendered, photo))
    return ShownPhoto(scored, photo, rendered)


def _means(photos: list[ScoredPhoto]) -> dict[str, float | None]:
    means: dict[str, float | None] = {}
    for key, role in (("psnr_fitted", FITTED), ("psnr_kept_out", KEPT_OUT)):
        values = [photo.psnr for photo in photos if photo.role == role]
        means[key] = round(sum(values) / len(values), 3) if values else None
    return means

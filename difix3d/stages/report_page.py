"""The report's page: HTML with its style and pictures inside, for a desk and a phone."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np
from numpy.typing import NDArray

from difix3d.scene import Scene
from difix3d.stages.report_data import FITTED, KEPT_OUT, FitHistory, ScoredPhoto, ShownPhoto, warnings
from difix3d.stages.report_plots import RESIDUAL_MAX, residual_rgb

_PICTURE_LONG_SIDE_PX = 480
_NAMES_TOLD = 12
_CAPTIONS = {
    "psnr": "The fit's quality on photos it did not see",
    "splats": "How many splats there were",
    "photos": "Quality at each photo",
    "phases": "Time by stage",
}

_STYLE = """
:root { --ink: #1d2430; --soft: #5d6778; --line: #e3e7ee; --page: #f5f6f9; --accent: #e07b39; }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink); font: 16px/1.5 system-ui, sans-serif; }
main { max-width: 1120px; margin: 0 auto; padding: 24px 16px 64px; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 8px 0 4px; overflow-wrap: anywhere; }
h2 { font-size: 1.2rem; margin: 40px 0 12px; }
p { margin: 0 0 12px; color: var(--soft); max-width: 70ch; }
.facts { display: grid; grid-template-columns: repeat(auto-fit, minmax(148px, 1fr)); gap: 12px; margin: 20px 0 0; }
.facts div, .plots figure, .photo { background: #fff; border: 1px solid var(--line); border-radius: 10px; }
.facts div { padding: 12px 14px; }
.facts dt { color: var(--soft); font-size: .85rem; }
.facts dd { margin: 0; font-size: 1.3rem; font-weight: 600; overflow-wrap: anywhere; }
.facts small { display: block; font-size: .85rem; font-weight: 400; color: var(--soft); }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 420px), 1fr)); gap: 16px; }
.plots { align-items: start; }
.cameras { max-width: 720px; }
figure { margin: 0; padding: 12px; }
img { display: block; width: 100%; height: auto; }
.photo { display: grid; grid-template-columns: 9.5rem 1fr 1fr 1fr; gap: 12px; padding: 12px; margin: 0 0 12px; }
.photo h3 { font-size: 1rem; margin: 0 0 4px; overflow-wrap: anywhere; }
.photo p { margin: 0; font-size: .9rem; }
.photo figure { padding: 0; min-width: 0; }
.photo img { border-radius: 6px; }
.photo figcaption { font-size: .8rem; color: var(--soft); margin-top: 4px; }
.tag { display: inline-block; border: 1px solid currentColor; border-radius: 99px; padding: 0 .6em; }
.tag { font-size: .8rem; color: var(--soft); }
.tag.kept { color: #a8521a; }
.scale { height: 12px; border-radius: 6px; margin: 0 0 4px; max-width: 320px; }
.ends { display: flex; justify-content: space-between; max-width: 320px; margin: 0 0 16px; }
.ends { font-size: .8rem; color: var(--soft); }
ul { margin: 0; padding: 0 0 0 1.2em; color: var(--soft); }
@media (max-width: 720px) { .photo { grid-template-columns: 1fr 1fr; } .facts dd { font-size: 1.15rem; } }
"""


def page(
    scene: Scene,
    history: FitHistory,
    photos: Sequence[ScoredPhoto],
    worst: Sequence[ShownPhoto],
    plots: Mapping[str, bytes],
) -> str:
    """The whole page. worst: the photos to show; plots: PNG files by name."""
    name = escape(str(scene.info["name"]))
    made = escape(str(scene.info.get("created", ""))[:10])
    body = [
        f"<h1>{name}</h1><p>Scene report{f', scene made {made}' if made else ''}</p>",
        _facts(scene, photos),
        _warnings(scene),
        "<h2>How the fit went</h2><div class='plots'>",
        *(_plot(key, plots[key]) for key in ("psnr", "splats", "photos", "phases") if key in plots),
        "</div>",
        _cameras(scene),
        f"<h2>Photos, the worst first</h2><p>{_about(photos, worst)}</p>{_scale()}",
        *(_photo(photo) for photo in worst),
    ]
    return (
        "<!doctype html><html lang='en'><head><meta charset='utf-8'>"
        "<meta name='viewport' content='width=device-width, initial-scale=1'>"
        f"<title>{name}: scene report</title><style>{_STYLE}</style></head>"
        f"<body><main>{''.join(body)}</main></body></html>"
    )


def _facts(scene: Scene, photos: Sequence[ScoredPhoto]) -> str:
    rows: list[tuple[str, str, str]] = []
    if found := _figures(scene, "reconstruct"):
        rows.append(("cameras found", f"{found['registered']} of {found['photos']}", "photos"))
        rows.append(("reprojection error", f"{found['reprojection_px']:.2f} px", f"{found['points']:,} sparse points"))
    for role in (KEPT_OUT, FITTED):
        if own := [photo for photo in photos if photo.role == role]:
            psnr, ssim = (float(np.mean([getattr(photo, key) for photo in own])) for key in ("psnr", "ssim"))
            rows.append((f"{len(own)} photos {role}", f"{psnr:.1f} dB", f"SSIM {ssim:.3f}"))
    if fitted := _figures(scene, "fit"):
        rows.append(("splats", f"{fitted['splats']:,}", f"{fitted['steps']:,} steps in {fitted['seconds']:.0f} s"))
    if judged := _figures(scene, "evaluate"):
        raw, fixed = judged["raw"], judged["fixed"]
        strength = judged.get("strength", 1.0)
        better = f"{raw['psnr']:.1f} dB before, {judged['fixer']}" + (f" at {strength:.0%}" if strength < 1 else "")
        rows.append(("kept-out photos, fixed", f"{fixed['psnr']:.1f} dB", better))
    cells = "".join(
        f"<div><dt>{escape(what)}</dt><dd>{escape(value)}<small>{escape(note)}</small></dd></div>"
        for what, value, note in rows
    )
    return f"<dl class='facts'>{cells}</dl>"


def _figures(scene: Scene, stage: str) -> dict[str, Any]:
    return (scene.manifest(stage) or {}).get("figures", {})


def _warnings(scene: Scene) -> str:
    told = warnings(scene)
    if not told:
        return ""
    return "<h2>Notes</h2><ul>" + "".join(f"<li>{escape(stage)}: {escape(text)}</li>" for stage, text in told) + "</ul>"


def _plot(key: str, png: bytes) -> str:
    return f"<figure><img src='{_data('png', png)}' alt='{escape(_CAPTIONS[key])}'></figure>"


def _cameras(scene: Scene) -> str:
    found = _figures(scene, "reconstruct")
    picture = scene.previews_dir / "sparse.jpg"
    if not found and not picture.is_file():
        return ""
    parts = ["<h2>Cameras</h2>"]
    if found:
        left_out = [str(name) for name in found.get("left_out", [])]
        more = f" and {len(left_out) - _NAMES_TOLD} more" if len(left_out) > _NAMES_TOLD else ""
        text = (
            f"{found['registered']} of {found['photos']} photos found their place; {found['points']:,} points lie "
            f"{found['reprojection_px']:.2f} pixels from where the photos show them, seen from directions "
            f"{found['median_triangulation_deg']:.1f}° apart (median)."
        )
        if left_out:
            text += f" Left out: {', '.join(left_out[:_NAMES_TOLD])}{more}."
        parts.append(f"<p>{escape(text)}</p>")
    if picture.is_file():
        alt = "The cameras and the sparse points"
        parts.append(f"<img class='cameras' src='{_data('jpeg', picture.read_bytes())}' alt='{alt}'>")
    return "".join(parts)


def _about(photos: Sequence[ScoredPhoto], worst: Sequence[ShownPhoto]) -> str:
    shown = (
        f"All {len(photos)} photos" if len(worst) == len(photos) else f"The {len(worst)} worst of {len(photos)} photos"
    )
    return (
        f"{shown}: the photo, what the splats show from its place, and how far apart the two are. A photo that was "
        "kept out is the honest test; one that was fitted and is bad all the same may be blurred or in a wrong place."
    )


def _scale() -> str:
    """The colours of the residuals."""
    ramp = residual_rgb(np.linspace(0, RESIDUAL_MAX, 9, dtype=np.float32)[None])[0]
    stops = ", ".join(f"rgb({r} {g} {b})" for r, g, b in ramp.tolist())
    return (
        f"<div class='scale' style='background: linear-gradient(90deg, {stops})'></div>"
        f"<div class='ends'><span>same</span><span>off by {RESIDUAL_MAX:.0%} of the range or more</span></div>"
    )


def _photo(shown: ShownPhoto) -> str:
    photo = shown.scored
    tag = f"<span class='tag{' kept' if photo.role == KEPT_OUT else ''}'>{escape(photo.role)}</span>"
    pictures = (("photo", shown.rgb), ("splats", shown.rendered), ("difference", residual_rgb(shown.residual)))
    name = escape(photo.name)
    figures = "".join(
        f"<figure><img loading='lazy' src='{_data('jpeg', _jpeg(rgb))}' alt='{what} of {name}'>"
        f"<figcaption>{what}</figcaption></figure>"
        for what, rgb in pictures
    )
    scores = f"{photo.psnr:.1f} dB<br>SSIM {photo.ssim:.3f}"
    return f"<section class='photo'><div><h3>{name}</h3><p>{scores}</p>{tag}</div>{figures}</section>"


def _jpeg(rgb: NDArray[np.uint8]) -> bytes:
    from PIL import Image

    picture = Image.fromarray(rgb)
    picture.thumbnail((_PICTURE_LONG_SIDE_PX, _PICTURE_LONG_SIDE_PX))
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=85)
    return buffer.getvalue()


def _data(kind: str, content: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"

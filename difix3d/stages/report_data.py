"""What a scene's report tells, read from its events and manifests."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from difix3d.events import Done, Progress
from difix3d.scene import Scene
from difix3d.sfm.base import PHASES
from difix3d.stages import SCENE_STAGES

FITTED, KEPT_OUT, UNKNOWN = "fitted", "kept out", "photo"
"""What a photo was to the fit: seen, only scored, or (a user's own splats) nobody knows."""


@dataclass(frozen=True)
class ScoredPhoto:
    """How near the splats come to a photo at its camera."""

    name: str
    role: str
    psnr: float
    ssim: float


@dataclass(frozen=True)
class ShownPhoto:
    """A photo to show and what the splats show at its camera. rgb, rendered: [H, W, 3] uint8."""

    scored: ScoredPhoto
    rgb: NDArray[np.uint8] = field(repr=False)
    rendered: NDArray[np.uint8] = field(repr=False)

    @property
    def residual(self) -> NDArray[np.float32]:
        """[H, W] mean absolute difference over the channels, 0 to 1."""
        return np.abs(self.rgb.astype(np.float32) - self.rendered).mean(axis=2) / 255


@dataclass(frozen=True)
class FitHistory:
    """The latest fit that came to its end as it went: (seconds, dB on a few kept-out photos) and (seconds, splats)."""

    psnr: tuple[tuple[float, float], ...]
    splats: tuple[tuple[float, float], ...]


def fit_history(scene: Scene) -> FitHistory:
    """From the events; where they are gone (a copied scene), the curve in the fit's manifest. A later fit that was
    stopped left the splats of the one before."""
    told: list[dict[str, float]] = []
    finished: list[dict[str, float]] = []
    for _, _, _, event in scene.events():
        if isinstance(event, Done) and event.stage == "fit" and not event.skipped:
            finished, told = told, []
        if isinstance(event, Progress) and event.stage == "fit" and "seconds" in event.figures:
            if told and event.figures["seconds"] < told[-1]["seconds"]:
                told.clear()  # another fit began
            told.append(event.figures)
    shown = finished or told
    psnr, splats = ([(row["seconds"], row[name]) for row in shown if name in row] for name in ("psnr", "splats"))
    if not psnr and (manifest := scene.manifest("fit")):
        psnr = [(seconds, value) for seconds, value in manifest["figures"].get("curve", [])]
    return FitHistory(tuple(psnr), tuple(splats))


def phases(scene: Scene) -> list[tuple[str, float]]:
    """(name, seconds) of each finished stage in their order, reconstruct by its own phases where it tells them."""
    rows: list[tuple[str, float]] = []
    for stage in SCENE_STAGES:
        for path in sorted(scene.root.glob(f"stages/{stage}.json")) + sorted(scene.root.glob(f"stages/{stage}-*.json")):
            manifest = scene.manifest(stage, path.stem.removeprefix(stage).removeprefix("-"))
            if manifest is None or stage == "report":
                continue
            parts = {
                name.removeprefix("seconds_"): float(seconds)
                for name, seconds in manifest["figures"].items()
                if stage == "reconstruct" and name.startswith("seconds_") and isinstance(seconds, int | float)
            }
            ordered = sorted(parts, key=lambda part: PHASES.index(part) if part in PHASES else len(PHASES))
            rows += [(f"{path.stem}: {part}", parts[part]) for part in ordered]
            rest = float(manifest["seconds"]) - sum(parts.values())
            if rest > 0 or not parts:
                rows.append((f"{path.stem}: the rest" if parts else path.stem, max(rest, 0.0)))
    return rows


def warnings(scene: Scene) -> list[tuple[str, str]]:
    """(stage, sentence) of every warning that the manifests keep."""
    found = []
    for path in sorted(scene.root.glob("stages/*.json")):
        stage, _, key = path.stem.partition("-")
        manifest = scene.manifest(stage, key)
        found += [(path.stem, text) for text in (manifest or {}).get("warnings", []) if stage != "report"]
    return found

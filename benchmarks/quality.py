"""How much fixers improve renders at photos that neither the fit nor the fixer saw.

    python benchmarks/quality.py SCENE... [--protocols every3 every5 half] [--json] [--sheets FOLDER] [--worst N]

SCENE: folders of reconstructed scenes (difix3d run CAPTURE --scene SCENE --until reconstruct). Each is fitted by each
protocol (see sparse_fits.py), or taken as it was fitted (protocol "own"). Renders at held-out photos are compared with
the photos: as they are (raw), fixed by `reproject` and by `lite` with the photos that are chosen where nobody names
any, and by `lite` with the first 0, 1, 2 and 4 by rank: each at the strength that the scene's other kept-out photos
say, as the app shows it (difix3d/stages/strengths.py).

A view's distance is that to its nearest fitted photo, camera distance over median depth plus the angle between them in
radians; near: less than 0.25. cc_psnr: after the gain and offset of each channel that fit best. Shares and intervals
(95 %, from 1,000 resamplings of the frames) are against raw. A metric whose weights or package are not here is left
out, with a warning (pip install -e '.[benchmarks]' brings those of DISTS and FLIP).

Where no photo shows anything `lite` leaves the render. So LPIPS is told once more of raw and of `lite` with the chosen
photos, from the same sums over pixels, apart for what is shown and for the rest.

--worst N writes N sheets photo | raw | fixed at full size to look at, by lite with the chosen photos: half of them
where LPIPS got worst against raw (or least better), the others drawn from the rest.
"""

from __future__ import annotations

import argparse
import functools
import json
import shutil
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np
from benchmark_scene import CACHE
from numpy.typing import NDArray
from sparse_fits import photo_of, sparse_fit

from difix3d import metrics
from difix3d.fixers.base import Fixer
from difix3d.fixers.lite.fixer import LiteFixer, run
from difix3d.fixers.lite.planes import PHOTO_CHANNELS, planes_of
from difix3d.fixers.reproject import ReprojectFixer
from difix3d.fixers.strength import shown
from difix3d.formats.image import write_rgb
from difix3d.losses import LPIPS
from difix3d.perceptual_weights import find_weights, how_to_get
from difix3d.scene import Scene
from difix3d.stages.fixing import FixSession
from difix3d.training.lite_errors import MOST, errors_of
from difix3d.trajectories import HELDOUT
from difix3d.types import Frame, Reference

NEAR = 0.25
OWN, CHOSEN = "own", "lite"
POOLED = ("sparse", "near", "far", "dense")
_SHOWN = 0.02
"""Of lite's trust, which fades to 0 where no photo shows anything."""
PROTOCOLS = ("every3", "every5", "half")
METRICS = ("psnr", "cc_psnr", "ssim", "lpips", "lpips_alex", "dists", "flip")
LOWER_IS_BETTER = ("lpips", "lpips_alex", "dists", "flip")
_RESAMPLINGS = 1000

Picture = NDArray[np.uint8]


@dataclass(frozen=True)
class Scored:
    """One held-out view: scores[method][metric]. dense: fitted to more than two thirds of the photos. shown: share of
    the picture that a photo shows something of, by lite with the chosen photos; parts: LPIPS of (raw there, raw
    elsewhere, lite there, lite elsewhere), each as what it adds to that of the picture; None without weights."""

    scene: str
    protocol: str
    dense: bool
    view: str
    distance: float
    scores: dict[str, dict[str, float]]
    shown: float
    parts: tuple[float, float, float, float] | None


class Pictures:
    """photo | raw | fixed of every judged view, kept in a folder until it is known which ones to look at."""

    def __init__(self, folder: Path):
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def keep(self, view: Scored, photo: Picture, raw: Picture, fixed: Picture) -> None:
        write_rgb(self._waiting(view), np.hstack([photo, raw, fixed]))

    def choose(self, judged: list[Scored], method: str, count: int) -> list[Path]:
        """The `count` sheets to look at, worst first, named by rank and change of LPIPS; the others are deleted, and so
        are those of an earlier run."""
        for label in ("worst", "drawn"):
            for path in self.folder.glob(f"{label}[0-9][0-9]_*.png"):
                path.unlink()
        ranked = sorted(judged, key=lambda one: -lpips_change(one, method))
        half = min(len(ranked), (count + 1) // 2)
        rest = ranked[half:]
        drawn = np.random.default_rng(0).choice(len(rest), min(count - half, len(rest)), replace=False) if rest else []
        chosen = [(f"worst{place + 1:02d}", one) for place, one in enumerate(ranked[:half])]
        chosen += [(f"drawn{place + 1:02d}", rest[index]) for place, index in enumerate(drawn)]
        paths = []
        for label, one in chosen:
            change = f"{lpips_change(one, method):+.0%}".replace("%", "pc")
            path = self.folder / f"{label}_{change}_{self._waiting(one).name.removeprefix('.')}"
            paths.append(self._waiting(one).rename(path))
        for path in self.folder.glob(".*.png"):
            path.unlink()
        return paths

    def _waiting(self, view: Scored) -> Path:
        return self.folder / f".{view.scene}-{view.protocol}-{Path(view.view).stem}.png"


def lpips_change(view: Scored, method: str) -> float:
    """As a share of the render's LPIPS; below 0: better."""
    return view.scores[method]["lpips"] / max(view.scores["raw"]["lpips"], 1e-6) - 1


class Fixers:
    """The ways to fix a frame that are compared."""

    def __init__(self, counts: list[int]):
        self._reproject, self._lite, self.counts = ReprojectFixer(), LiteFixer(), counts
        self._lite.load()

    @property
    def names(self) -> list[str]:
        return ["raw", "reproject", CHOSEN, *(f"lite {count}" for count in self.counts)]

    def fix(
        self, session: FixSession, frame: Frame, chosen: list[Reference], ranked: list[Reference]
    ) -> tuple[dict[str, Picture], NDArray[np.bool_]]:
        """(name -> picture, of the frame's size, as the app shows them: at the strength that the scene's other kept-out
        photos say; [H, W] where the chosen photos show something)."""
        assert self._lite.network is not None
        best, trust = run(self._lite.network, *planes_of(frame, chosen))
        own, photos = planes_of(frame, ranked)  # once: photos are aligned one by one, whatever their number
        lite = (run(self._lite.network, own, photos[:count])[0] for count in self.counts)

        def strength(fixer: Fixer) -> float:
            session.fixer = fixer
            return session.strengths.of(frame.camera)

        of_lite, of_reproject = strength(self._lite), strength(self._reproject)
        reprojected = shown(frame.rgb, self._reproject.fix(frame, chosen), of_reproject)
        lite_shown = (shown(frame.rgb, one, of_lite) for one in (best, *lite))
        return dict(zip(self.names, (frame.rgb, reprojected, *lite_shown))), trust > _SHOWN


def judge(
    source: Path,
    protocol: str,
    steps: int,
    most: int,
    fixers: Fixers,
    sheets: Path | None = None,
    pictures: Pictures | None = None,
) -> list[Scored]:
    """The held-out views of one fit, at most `most` of them, spread evenly."""
    scene = Scene(source) if protocol == OWN else sparse_fit(source, protocol, steps)
    if protocol != OWN:  # fits are kept here however fixers change
        shutil.rmtree(scene.strengths_dir, ignore_errors=True)
    session = FixSession(scene, ReprojectFixer())
    reconstruction = session.reconstruction()
    assert reconstruction is not None
    names = scene.split()["heldout"]
    dense = len(scene.split()["train"]) > 2 * len(names)
    judged = []
    for index in sorted({round(at) for at in np.linspace(0, len(names) - 1, min(most, len(names)))}):
        photo = photo_of(reconstruction.view(names[index]))
        frame = session.render(HELDOUT, index, photo.camera)
        ranked = session.ranked(frame)
        chosen = [session.reference(one.name, photo.camera) for one in session.chosen(frame)]
        first = [session.reference(one.name, photo.camera) for one in ranked[: max(fixers.counts, default=0)]]
        depth = float(np.median(frame.depth[frame.depth > 0])) if (frame.depth > 0).any() else 1.0
        distance = min(one.distance / depth + np.radians(one.angle_deg) for one in ranked)
        fixed, seen = fixers.fix(session, frame, chosen, first)
        scores = {name: score(picture, photo.rgb) for name, picture in fixed.items()}
        view = Scored(
            source.name,
            protocol,
            dense,
            photo.name,
            round(float(distance), 4),
            scores,
            round(float(seen.mean()), 4),
            parts(fixed["raw"], fixed[CHOSEN], photo.rgb, seen),
        )
        judged.append(view)
        if sheets is not None:
            row = [photo.rgb, *(fixed[name] for name in ("raw", "reproject", CHOSEN))]
            write_rgb(sheets / f"{source.name}-{protocol}-{Path(photo.name).stem}.png", np.hstack(row))
        if pictures is not None:
            pictures.keep(judged[-1], photo.rgb, frame.rgb, fixed[CHOSEN])
        print(f"{source.name} {protocol} {photo.name}: {len(chosen)} photos", file=sys.stderr, flush=True)
    return judged


def score(picture: Picture, photo: Picture) -> dict[str, float]:
    found = {
        "psnr": metrics.psnr(picture, photo),
        "cc_psnr": metrics.psnr(colour_corrected(picture, photo), photo),
        "ssim": metrics.ssim(picture, photo),
        "lpips": metrics.lpips(picture, photo),
        "lpips_alex": metrics.lpips(picture, photo, net="alex"),
        "dists": metrics.dists(picture, photo),
        "flip": metrics.flip(picture, photo),
    }
    return {name: value for name, value in found.items() if value is not None}


def parts(
    raw: Picture, fixed: Picture, photo: Picture, seen: NDArray[np.bool_]
) -> tuple[float, float, float, float] | None:
    """As Scored has them."""
    if find_weights("vgg") is None:
        return None
    lpips = _vgg()
    none = np.empty((0, *photo.shape[:2], len(PHOTO_CHANNELS)), np.uint8)
    found: list[float] = []
    for picture in (raw, fixed):
        errors = errors_of(photo, picture, none, lpips)[..., 0] * (MOST / 255)
        found += [round(float((errors * part).mean()), 4) for part in (seen, ~seen)]
    return found[0], found[1], found[2], found[3]


@functools.cache
def _vgg() -> LPIPS:
    return LPIPS.load("vgg")


def colour_corrected(picture: Picture, photo: Picture) -> Picture:
    corrected = np.empty(picture.shape, np.float64)
    for channel in range(3):
        x, y = picture[..., channel].ravel() / 255.0, photo[..., channel].ravel() / 255.0
        gain, offset = np.polyfit(x, y, 1) if np.ptp(x) > 0 else (0.0, y.mean())
        corrected[..., channel] = gain * picture[..., channel] / 255.0 + offset
    return (np.clip(corrected, 0, 1) * 255 + 0.5).astype(np.uint8)


def summary(judged: list[Scored], method: str) -> dict[str, float | list[float]]:
    """Means of a method, how it changes raw, with intervals, and the share of frames that it improves."""
    found: dict[str, float | list[float]] = {}
    rng = np.random.default_rng(0)
    picks = rng.integers(len(judged), size=(_RESAMPLINGS, len(judged)))
    for metric in judged[0].scores["raw"]:
        ours, raw = (np.array([one.scores[name][metric] for one in judged]) for name in (method, "raw"))
        found[metric] = round(float(ours.mean()), 4)
        if method == "raw":
            continue
        lower_is_better = metric in LOWER_IS_BETTER
        change = ours[picks].mean(1) / raw[picks].mean(1) - 1 if lower_is_better else (ours - raw)[picks].mean(1)
        found[f"{metric}_change"] = [round(float(q), 4) for q in np.quantile(change, (0.025, 0.5, 0.975))]
        found[f"{metric}_improved"] = round(float(np.mean(ours < raw if lower_is_better else ours > raw)), 3)
    return found


def groups(judged: list[Scored]) -> dict[str, list[Scored]]:
    """Sparse fits pooled, those near and far, dense fits pooled; each scene near and far; each scene and protocol."""
    sparse = [one for one in judged if not one.dense]
    found = {
        "sparse": sparse,
        "near": [one for one in sparse if one.distance < NEAR],
        "far": [one for one in sparse if one.distance >= NEAR],
        "dense": [one for one in judged if one.dense],
    }
    for one in sparse:
        found.setdefault(f"{one.scene} {'near' if one.distance < NEAR else 'far'}", []).append(one)
    for one in judged:
        found.setdefault(f"{one.scene} {one.protocol}", []).append(one)
    return {name: members for name, members in found.items() if members}


def told_of_parts(judged: list[Scored]) -> str:
    """A line for each group of views: LPIPS where photos show something, and elsewhere."""
    lines = ["| views | shown | LPIPS there: raw, lite | change | elsewhere: raw, lite |"]
    lines.append("| --- | ---: | ---: | ---: | ---: |")
    for group, members in groups(judged).items():
        known = [one.parts for one in members if one.parts is not None]
        if not known or group not in POOLED:
            continue
        raw, raw_rest, lite, lite_rest = np.mean(known, axis=0)
        shown_share = np.mean([one.shown for one in members])
        change = f"{lite / max(raw, 1e-6) - 1:+.1%}"
        there, rest = f"{raw:.3f}, {lite:.3f}", f"{raw_rest:.3f}, {lite_rest:.3f}"
        lines.append(f"| {group} | {shown_share:.0%} | {there} | {change} | {rest} |")
    return "\n".join(lines)


def table(figures: dict[str, dict[str, dict]]) -> str:
    lines = [
        "| views | method | n | PSNR | cc-PSNR | SSIM | LPIPS | LPIPS-Alex | DISTS | FLIP | LPIPS, 95 % | better |"
    ]
    lines.append("| --- | --- " + "| ---: " * (len(METRICS) + 3) + "|")
    for group, by_method in figures.items():
        for method, found in by_method.items():
            columns = [f"{found[name]:.3f}" if name in found else "" for name in METRICS]
            low, _, high = found.get("lpips_change", (0.0, 0.0, 0.0))
            change = "" if method == "raw" else f"{low:+.1%} to {high:+.1%}"
            better = f"{found['lpips_improved']:.0%}" if "lpips_improved" in found else ""
            lines.append(f"| {group} | {method} | {found['n']} | {' | '.join(columns)} | {change} | {better} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("scenes", nargs="+", type=Path, metavar="SCENE")
    parser.add_argument("--protocols", nargs="+", default=PROTOCOLS, metavar="NAME")
    parser.add_argument("--steps", type=int, default=2000, help="of each fit; the quick preset makes about 2,000")
    parser.add_argument("--views", type=int, default=12, help="at most so many of each fit")
    parser.add_argument("--references", nargs="*", type=int, default=[0, 1, 2, 4], help="lite is tried with so many")
    parser.add_argument("--sheets", type=Path, help="write photo | raw | fixes of each view here")
    parser.add_argument("--worst", type=int, default=0, metavar="N", help="write N sheets to look at, half the worst")
    parser.add_argument("--json", action="store_true", help="the last line is all scores as JSON")
    arguments = parser.parse_args()
    if arguments.worst and find_weights("vgg") is None:
        parser.error(f"--worst ranks by LPIPS, whose weights are not here. {how_to_get('vgg')}")
    cv2.setNumThreads(2)
    if arguments.sheets:
        arguments.sheets.mkdir(parents=True, exist_ok=True)
    fixers = Fixers(arguments.references)
    pictures = Pictures((arguments.sheets or CACHE / "quality") / "worst") if arguments.worst else None
    judged = [
        one
        for source in arguments.scenes
        for protocol in arguments.protocols
        for one in judge(
            source.resolve(), protocol, arguments.steps, arguments.views, fixers, arguments.sheets, pictures
        )
    ]
    figures = {
        group: {method: {"n": len(members), **summary(members, method)} for method in fixers.names}
        for group, members in groups(judged).items()
    }
    print(table(figures))
    print()
    print(told_of_parts(judged))
    if pictures is not None:
        chosen = pictures.choose(judged, CHOSEN, arguments.worst)
        print(f"{len(chosen)} sheets to look at are in {pictures.folder}", file=sys.stderr)
    if arguments.json:
        print(json.dumps({"figures": figures, "views": [asdict(one) for one in judged]}))


if __name__ == "__main__":
    main()

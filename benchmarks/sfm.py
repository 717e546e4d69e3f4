"""Seconds from photos to cameras, ours against COLMAP's defaults on the same photos, one after the other.

    python benchmarks/sfm.py [--scenes NAME ...] [--photos N] [--fit STEPS [--fits N]] [--out FILE] [--json]

COLMAP's defaults: every option of pycolmap's extract_features, match_exhaustive and incremental_mapping as it comes
(8,192 SIFT features from the doubled picture, all pairs), given the same photos, lenses and EXIF focal lengths as ours.
Seconds end when the cameras are found; straightening the photos is in neither. Ours includes its retries. Processor
seconds, of all threads together, hardly depend on what else the machine does.

--fit also fits splats to both, for the same number of steps (so that a busy machine decides nothing) and with every
eighth photo kept out, and compares their PSNR: of N fits that differ in their seed alone, the mean and their standard
deviation, which says what a difference is worth (on captures with a white background fits differ by more than most
cameras do). --out keeps one JSON line per scene; scenes in it are not run again.
Prints a table; with --json the last line is one JSON object. Measure on an idle machine.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import cv2  # noqa: F401  before pycolmap: opencv 5 loaded after it aborts at the first picture read
import numpy as np
import pycolmap
from benchmark_scene import CACHE, ROOT

from difix3d.errors import Difix3DError
from difix3d.events import Progress
from difix3d.formats.colmap import read_reconstruction
from difix3d.geometry import normalising_similarity
from difix3d.metrics import psnr
from difix3d.scene import Scene
from difix3d.sfm import features, load_backend
from difix3d.sfm.base import PhotoSet, SfmSettings
from difix3d.sfm.undistort import transform_model, undistort
from difix3d.splatting.trainer import Trainer, TrainSettings
from difix3d.stages.fit import PRESETS, photo_of, split_names
from difix3d.stages.ingest import IngestConfig, ingest
from difix3d.stages.reconstruct import read_photos

SHARED = Path(os.environ.get("DIFIX3D_SHARED", ROOT.parent / "shared"))
MOST_PHOTOS = 40
"""Of a longer capture the first so many: all pairs of 97 photos take COLMAP's defaults a quarter of an hour."""


@dataclass(frozen=True)
class Found:
    """What one way made of a capture. cpu_seconds: of all threads; phases: wall seconds of each; error_px: mean
    reprojection error; error: why there is nothing."""

    seconds: float
    cpu_seconds: float
    phases: dict[str, float]
    registered: int
    points: int = 0
    error_px: float = 0.0
    focal_px: float = 0.0
    error: str = ""


def capture(name: str, most: int) -> PhotoSet:
    """The first `most` photos of ../shared/scenes/<name> as the app stores them."""
    folder = SHARED / "scenes" / name
    scene = Scene.create(CACHE / "sfm" / name.replace("/", "-"))
    video = folder / "video.mp4"
    for _ in ingest(scene, IngestConfig((str(video if video.is_file() else folder / "images"),))):
        pass
    photos = read_photos(scene)
    return replace(photos, photos=photos.photos[:most])


class Watch:
    """Wall and processor seconds since it was made."""

    def __init__(self) -> None:
        self._started = time.monotonic(), time.process_time()

    def spent(self) -> tuple[float, float]:
        return round(time.monotonic() - self._started[0], 1), round(time.process_time() - self._started[1], 1)


def ours(photos: PhotoSet, workspace: Path) -> Found:
    """The backend that the reconstruct stage uses. Leaves workspace/undistorted and workspace/sparse."""
    watch = Watch()
    spent: tuple[float, float] | None = None
    work = load_backend("colmap").reconstruct(photos, workspace, SfmSettings())
    try:
        while True:
            said = next(work)
            if spent is None and isinstance(said, Progress) and said.message == "Straightening photos":
                spent = watch.spent()
    except StopIteration as end:
        figures = end.value.figures
    except Difix3DError as error:
        return Found(*watch.spent(), {}, 0, error=error.message)
    phases = {key.removeprefix("seconds_"): value for key, value in figures.items() if key.startswith("seconds_")}
    spent = spent or watch.spent()
    return Found(*spent, phases, *(figures[key] for key in ("registered", "points", "reprojection_px", "focal_px")))


def defaults(photos: PhotoSet, workspace: Path) -> Found:
    """COLMAP as it comes. Leaves workspace/undistorted and workspace/sparse."""
    database = workspace / "database.db"
    watch, marks = Watch(), [0.0]
    features.create_database(database, photos)
    names = [photo.name for photo in photos.photos]
    pycolmap.set_random_seed(0)
    pycolmap.extract_features(database, photos.folder, names, device=pycolmap.Device.cpu)
    marks.append(watch.spent()[0])
    pycolmap.match_exhaustive(database, device=pycolmap.Device.cpu)
    marks.append(watch.spent()[0])
    models = pycolmap.incremental_mapping(database, photos.folder, workspace)
    spent = watch.spent()
    phases = dict(zip(("extract", "match", "map"), np.diff([*marks, spent[0]]).round(1).tolist()))
    if not models:
        return Found(*spent, phases, 0, error="no model")
    best = max(models.values(), key=lambda model: model.num_reg_images())
    error_px = round(best.compute_mean_reprojection_error(), 3)
    focal_px = float(np.median([camera.mean_focal_length() for camera in best.cameras.values()]))
    found = Found(*spent, phases, best.num_reg_images(), best.num_points3D(), error_px, round(focal_px, 1))
    for _ in undistort(best, photos.folder, workspace / "undistorted", workspace / "sparse"):
        pass
    return found


def heldout_psnr(workspace: Path, names: set[str], steps: int, fits: int) -> list[float]:
    """Mean PSNR in dB of each of `fits` fits to `names` of the model in `workspace`, on those that were kept out."""
    images_dir, straight = workspace / "undistorted", workspace / "straight"
    similarity = normalising_similarity(read_reconstruction(workspace / "sparse", images_dir))
    transform_model(workspace / "sparse", straight, similarity)
    reconstruction = read_reconstruction(straight, images_dir)
    preset = PRESETS["quick"]
    photos = {view.name: photo_of(view, preset.long_side_px) for view in reconstruction.views if view.name in names}
    train, heldout = ([photos[name] for name in part] for part in split_names(sorted(names), 8, 1))
    found = []
    for seed in range(fits):
        settings = TrainSettings(seconds=0, max_steps=steps, max_splats=preset.max_splats, seed=seed)
        trainer = Trainer(settings, train, [], reconstruction.points, reconstruction.colors)
        for _ in trainer.run():
            pass
        scores = [psnr(trainer.render(photo.camera), photo.rgb / np.float32(255)) for photo in heldout]
        found.append(float(np.mean(scores)))
    return found


def registered_names(workspace: Path) -> set[str]:
    sparse = workspace / "sparse"
    return {view.name for view in read_reconstruction(sparse).views} if sparse.is_dir() else set()


def compare(name: str, most: int, steps: int, fits: int) -> dict[str, Any]:
    """One row: what both ways made of one capture."""
    photos = capture(name, most)
    scratch = Path(tempfile.mkdtemp(prefix="difix3d-sfm-"))
    row: dict[str, Any] = {"scene": name, "photos": len(photos.photos)}
    try:
        for label, way in (("ours", ours), ("defaults", defaults)):
            (scratch / label).mkdir()
            row[label] = asdict(way(photos, scratch / label))
        for ratio, of in (("ratio", "seconds"), ("cpu_ratio", "cpu_seconds")):
            row[ratio] = round(row["ours"][of] / row["defaults"][of], 3)
        both = registered_names(scratch / "ours") & registered_names(scratch / "defaults")
        if steps and len(both) >= 8:
            for label in ("ours", "defaults"):
                found = heldout_psnr(scratch / label, both, steps, fits)
                row[label]["psnr"] = round(float(np.mean(found)), 2)
                if fits > 1:
                    row[label]["psnr_deviation"] = round(float(np.std(found, ddof=1)), 2)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return row


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Markdown; every pair of figures is ours / COLMAP's defaults."""
    lines = [
        "| scene (photos) | s | ratio | processor s, ratio | registered | reprojection, px | points | PSNR, dB "
        "| ours by phase, s |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | --- |",
    ]
    for row in rows:
        a, b = row["ours"], row["defaults"]
        fit = f"{_with_deviation(a)} / {_with_deviation(b)}" if "psnr" in a else ""
        phases = ", ".join(f"{phase} {seconds}" for phase, seconds in a["phases"].items())
        lines.append(
            f"| {row['scene']} ({row['photos']}) | {a['seconds']} / {b['seconds']} | {row['ratio']:.2f} "
            f"| {a['cpu_seconds']} / {b['cpu_seconds']}, {row['cpu_ratio']:.2f} "
            f"| {a['registered']} / {b['registered']} | {a['error_px']} / {b['error_px']} "
            f"| {a['points']:,} / {b['points']:,} | {fit} | {phases} |"
        )
    if rows:
        ratios = [row["ratio"] for row in rows]
        lines.append(f"\nmedian ratio {np.median(ratios):.2f}, largest {max(ratios):.2f}")
    return "\n".join(lines)


def _with_deviation(one: dict[str, Any]) -> str:
    return f"{one['psnr']}" + (f" ± {one['psnr_deviation']}" if "psnr_deviation" in one else "")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", nargs="*", help="such as dev/saharov; left out: all of dev and train")
    parser.add_argument("--photos", type=int, default=MOST_PHOTOS, help="at most the first so many (default 40)")
    parser.add_argument("--fit", type=int, default=0, metavar="STEPS", help="also fit both for so many steps")
    parser.add_argument("--fits", type=int, default=1, metavar="N", help="so many fits to each, of other seeds")
    parser.add_argument("--out", type=Path, help="JSON lines to add to")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()

    folders = sorted(
        path.parent for part in ("dev", "train") for path in (SHARED / "scenes" / part).glob("*/info.json")
    )
    names = options.scenes or [f"{folder.parent.name}/{folder.name}" for folder in folders]
    known = options.out.read_text().splitlines() if options.out and options.out.is_file() else []
    done = {row["scene"]: row for row in map(json.loads, known)}
    for name in names:
        if name in done:
            continue
        print(f"{name} ...", file=sys.stderr, flush=True)
        done[name] = compare(name, options.photos, options.fit, options.fits)
        if options.out:
            with options.out.open("a") as out:
                out.write(json.dumps(done[name]) + "\n")
    rows = [done[name] for name in names]
    print(table(rows))
    if options.json:
        print(json.dumps({"scenes": rows}))


if __name__ == "__main__":
    main()

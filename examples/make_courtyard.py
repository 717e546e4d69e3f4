"""Make examples/courtyard: a path-traced courtyard, photographed by a hand-held camera, with true novel views.

    python -m venv blender && blender/bin/pip install bpy==5.0.0 pillow     (Python 3.11)
    blender/bin/python examples/make_courtyard.py

Everything is drawn by seeded code (no downloaded assets), so a second run gives the same scene. Frames that are already
there are skipped, so an interrupted run goes on where it stopped. 36 photos and 8 novel views take some 25 minutes
on one CPU core.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import bpy
import numpy as np
from mathutils import Matrix

sys.path.insert(0, str(Path(__file__).resolve().parent))
from courtyard_blender import layout
from courtyard_blender.photographer import Lens, aimed, around, camera_of, describe, empty, photograph

LENS = Lens(640, 360, 30, "Courtyard")
VIDEO_FPS = 6


def captured(seed: int) -> list[Matrix]:
    """36 photos: 200 degrees around the fountain at eye height, then back again with the arms up."""
    rng = np.random.default_rng(seed)
    walk = [(azimuth, 3.75, 1.5, 0.95) for azimuth in np.linspace(-190, 10, 20)]
    walk += [(azimuth, 3.3, 2.3, 0.85) for azimuth in np.linspace(4, -184, 16)]
    return [
        aimed(
            around(azimuth + rng.normal(0, 1.2), radius + rng.normal(0, 0.12), height + rng.normal(0, 0.05)),
            (rng.normal(0, 0.1), 0.25 + rng.normal(0, 0.1), aim + rng.normal(0, 0.05)),
            rng.normal(0, 1.2),
        )
        for azimuth, radius, height, aim in walk
    ]


def novel() -> list[Matrix]:
    """8 cameras nobody stood at: past both ends, above, below, between, close to the cone, the table, the basin."""
    centre = (0.0, 0.25, 0.95)
    return [
        aimed(around(-208, 3.6, 1.7), centre, 0),
        aimed(around(28, 3.6, 1.8), centre, 0),
        aimed(around(-120, 3.3, 3.2), (0.0, 0.2, 0.6), 0),
        aimed(around(-65, 3.8, 0.75), (0.0, 0.3, 1.0), 0),
        aimed(around(-93, 3.5, 1.9), (0.2, 0.4, 0.9), 0),
        aimed(around(-60, 2.1, 1.75), (0.0, 0.0, 1.3), 0),
        aimed(around(-15, 2.6, 1.6), (1.5, 1.6, 0.8), 0),
        aimed(around(-150, 2.3, 1.35), (-0.2, 0.2, 0.6), 0),
    ]


def film(photos: list[Path], path: Path) -> None:
    """The photos one after another as H.264, by Blender's own encoder."""
    empty()
    scene = bpy.context.scene
    scene.render.resolution_x, scene.render.resolution_y = LENS.width, LENS.height
    scene.render.fps = VIDEO_FPS
    scene.view_settings.view_transform = "Standard"
    strips = scene.sequence_editor_create().strips
    strip = strips.new_image("walk", str(photos[0]), 1, 1)
    for photo in photos[1:]:
        strip.elements.append(photo.name)
    scene.frame_start, scene.frame_end = 1, len(photos)
    scene.render.image_settings.media_type = "VIDEO"
    scene.render.ffmpeg.format, scene.render.ffmpeg.codec = "MPEG4", "H264"
    scene.render.ffmpeg.constant_rate_factor, scene.render.ffmpeg.gopsize = "MEDIUM", 12
    scene.render.filepath = str(path)
    bpy.ops.render.render(animation=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).resolve().parent / "courtyard")
    parser.add_argument("--samples", type=int, default=12)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--only", type=int, nargs="*", help="indices of photos (0..35) and novel views (36..43)")
    options = parser.parse_args()

    walk, unseen = captured(options.seed), novel()
    photos = [options.out / "images" / f"{index:05d}.jpg" for index in range(1, len(walk) + 1)]
    truths = [options.out / "truth" / f"{index:05d}.jpg" for index in range(1, len(unseen) + 1)]
    for folder in (photos[0].parent, truths[0].parent):
        folder.mkdir(parents=True, exist_ok=True)
    jobs = list(zip([*walk, *unseen], [*photos, *truths]))
    chosen = options.only if options.only is not None else range(len(jobs))
    missing = [index for index in chosen if not jobs[index][1].exists()]
    if missing:
        empty()
        layout.build(options.seed)
        camera = camera_of(LENS, options.samples)
        for index in missing:
            photograph(camera, LENS, *jobs[index], noise_seed=index)
            print(f"{jobs[index][1].name}: {missing.index(index) + 1} of {len(missing)}", flush=True)
    describe(options.out, LENS, walk, photos)
    describe(truths[0].parent, LENS, unseen, truths)
    if all(photo.exists() for photo in photos):
        film(photos, options.out / "courtyard.mp4")


if __name__ == "__main__":
    main()

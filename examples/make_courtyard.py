"""Make examples/courtyard: a path-traced courtyard, photographed by a hand-held camera, with true novel views.

    python -m venv blender && blender/bin/pip install bpy==5.0.0 pillow     (Python 3.11)
    blender/bin/python examples/make_courtyard.py

Everything is drawn by seeded code (no downloaded assets), so a second run gives the same scene. Frames that are already
there are skipped, so an interrupted run goes on where it stopped. 36 photos and 8 novel views take some 25 minutes
on one CPU core.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

import bpy
import numpy as np
from mathutils import Matrix, Vector
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parent))
from courtyard_blender import layout

WIDTH, HEIGHT = 640, 360
# Exif's 35 mm equivalent compares diagonals (CIPA DCG-001), and 24 x 36 mm film has one of 43.27 mm.
FOCAL_35MM = 30
FOCAL_PX = FOCAL_35MM * float(np.hypot(WIDTH, HEIGHT)) / 43.2666
VIDEO_FPS = 6
EXIF_FOCAL_35MM, EXIF_IFD, EXIF_MAKE, EXIF_MODEL = 0xA405, 0x8769, 0x010F, 0x0110


def aimed(
    azimuth_deg: float, radius: float, height: float, target: tuple[float, float, float], roll_deg: float
) -> Matrix:
    """Blender camera-to-world: OpenGL axes (x right, y up, looking along -z), at that place, looking at target."""
    azimuth = np.radians(azimuth_deg)
    position = Vector((radius * np.cos(azimuth), radius * np.sin(azimuth), height))
    rotation = (Vector(target) - position).to_track_quat("-Z", "Y").to_matrix()
    return Matrix.Translation(position) @ (rotation @ Matrix.Rotation(np.radians(roll_deg), 3, "Z")).to_4x4()


def captured(seed: int) -> list[Matrix]:
    """36 photos: 200 degrees around the fountain at eye height, then back again with the arms up."""
    rng = np.random.default_rng(seed)
    walk = [(azimuth, 3.75, 1.5, 0.95) for azimuth in np.linspace(-190, 10, 20)]
    walk += [(azimuth, 3.3, 2.3, 0.85) for azimuth in np.linspace(4, -184, 16)]
    return [
        aimed(
            azimuth + rng.normal(0, 1.2),
            radius + rng.normal(0, 0.12),
            height + rng.normal(0, 0.05),
            (rng.normal(0, 0.1), 0.25 + rng.normal(0, 0.1), aim + rng.normal(0, 0.05)),
            rng.normal(0, 1.2),
        )
        for azimuth, radius, height, aim in walk
    ]


def novel() -> list[Matrix]:
    """8 cameras nobody stood at: past both ends, above, below, between, close to the cone, the table, the basin."""
    centre = (0.0, 0.25, 0.95)
    return [
        aimed(-208, 3.6, 1.7, centre, 0),
        aimed(28, 3.6, 1.8, centre, 0),
        aimed(-120, 3.3, 3.2, (0.0, 0.2, 0.6), 0),
        aimed(-65, 3.8, 0.75, (0.0, 0.3, 1.0), 0),
        aimed(-93, 3.5, 1.9, (0.2, 0.4, 0.9), 0),
        aimed(-60, 2.1, 1.75, (0.0, 0.0, 1.3), 0),
        aimed(-15, 2.6, 1.6, (1.5, 1.6, 0.8), 0),
        aimed(-150, 2.3, 1.35, (-0.2, 0.2, 0.6), 0),
    ]


def set_up(samples: int, seed: int) -> bpy.types.Object:
    """An empty scene with the courtyard, Cycles on one CPU thread, and a camera."""
    bpy.ops.wm.read_factory_settings(use_empty=True)
    scene = bpy.context.scene
    layout.build(seed)
    scene.render.engine = "CYCLES"
    scene.cycles.device, scene.cycles.samples = "CPU", samples
    scene.cycles.use_adaptive_sampling, scene.cycles.adaptive_threshold = True, 0.03
    scene.cycles.use_denoising, scene.cycles.denoiser = True, "OPENIMAGEDENOISE"
    scene.cycles.max_bounces, scene.cycles.diffuse_bounces, scene.cycles.glossy_bounces = 4, 3, 2
    scene.cycles.caustics_reflective = scene.cycles.caustics_refractive = False
    scene.render.threads_mode, scene.render.threads = "FIXED", 1
    scene.render.use_persistent_data = True
    scene.render.resolution_x, scene.render.resolution_y = WIDTH, HEIGHT
    scene.view_settings.view_transform, scene.view_settings.look = "AgX", "AgX - Medium High Contrast"
    scene.view_settings.exposure = 0.15
    scene.render.image_settings.file_format = "PNG"
    lens = bpy.data.cameras.new("camera")
    lens.sensor_width, lens.lens, lens.clip_start = 36.0, FOCAL_PX * 36.0 / WIDTH, 0.05
    camera = bpy.data.objects.new("camera", lens)
    scene.collection.objects.link(camera)
    scene.camera = camera
    return camera


def render(camera: bpy.types.Object, pose: Matrix, path: Path, noise_seed: int) -> None:
    """Write one photo as JPEG, with the lens in its Exif. Each has its own noise, as real photos do."""
    scene = bpy.context.scene
    camera.matrix_world = pose
    scene.cycles.seed = noise_seed
    with tempfile.TemporaryDirectory() as folder:
        scene.render.filepath = str(Path(folder) / "frame.png")
        bpy.ops.render.render(write_still=True)
        picture = Image.open(scene.render.filepath).convert("RGB")
    exif = Image.Exif()
    exif[EXIF_MAKE], exif[EXIF_MODEL] = "Difix3D Studio", "Courtyard"
    exif.get_ifd(EXIF_IFD)[EXIF_FOCAL_35MM] = FOCAL_35MM
    partial = path.with_suffix(".partial")
    picture.save(partial, "JPEG", quality=90, exif=exif)
    partial.replace(path)


def describe(folder: Path, poses: list[Matrix], paths: list[Path]) -> None:
    """transforms.json as nerfstudio reads it: one lens, OpenGL camera-to-world."""
    lens = {"camera_model": "OPENCV", "w": WIDTH, "h": HEIGHT, "fl_x": FOCAL_PX, "fl_y": FOCAL_PX}
    lens |= {"cx": WIDTH / 2, "cy": HEIGHT / 2, "k1": 0.0, "k2": 0.0, "p1": 0.0, "p2": 0.0}
    frames = [
        {"file_path": path.relative_to(folder).as_posix(), "transform_matrix": [list(row) for row in pose]}
        for pose, path in zip(poses, paths)
    ]
    (folder / "transforms.json").write_text(json.dumps({**lens, "frames": frames}, indent=1) + "\n")


def film(photos: list[Path], path: Path) -> None:
    """The photos one after another as H.264, by Blender's own encoder."""
    bpy.ops.wm.read_factory_settings(use_empty=True)
    scene = bpy.context.scene
    scene.render.resolution_x, scene.render.resolution_y, scene.render.fps = WIDTH, HEIGHT, VIDEO_FPS
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
        camera = set_up(options.samples, options.seed)
        for index in missing:
            render(camera, *jobs[index], noise_seed=index)
            print(f"{jobs[index][1].name}: {missing.index(index) + 1} of {len(missing)}", flush=True)
    describe(options.out, walk, photos)
    describe(truths[0].parent, unseen, truths)
    if all(photo.exists() for photo in photos):
        film(photos, options.out / "courtyard.mp4")


if __name__ == "__main__":
    main()

"""Photographs whatever stands in Blender's scene: the engine, the camera, JPEGs with Exif, transforms.json."""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path

import bpy
import numpy as np
from mathutils import Matrix, Vector
from PIL import Image

# Exif's 35 mm equivalent compares diagonals (CIPA DCG-001), and 24 x 36 mm film has one of 43.27 mm.
_FILM_DIAGONAL_MM = 43.2666
_EXIF_FOCAL_35MM, _EXIF_IFD, _EXIF_MAKE, _EXIF_MODEL = 0xA405, 0x8769, 0x010F, 0x0110


@dataclass(frozen=True)
class Lens:
    """A pinhole camera; `model` is what its Exif says."""

    width: int
    height: int
    focal_35mm: int
    model: str

    @property
    def focal_px(self) -> float:
        return self.focal_35mm * float(np.hypot(self.width, self.height)) / _FILM_DIAGONAL_MM


def aimed(position: tuple[float, float, float], target: tuple[float, float, float], roll_deg: float) -> Matrix:
    """Blender camera-to-world: OpenGL axes (x right, y up, looking along -z), at that place, looking at target."""
    rotation = (Vector(target) - Vector(position)).to_track_quat("-Z", "Y").to_matrix()
    return Matrix.Translation(position) @ (rotation @ Matrix.Rotation(np.radians(roll_deg), 3, "Z")).to_4x4()


def around(azimuth_deg: float, radius: float, height: float) -> tuple[float, float, float]:
    azimuth = np.radians(azimuth_deg)
    return radius * float(np.cos(azimuth)), radius * float(np.sin(azimuth)), height


def empty() -> None:
    """Take everything away."""
    bpy.ops.wm.read_factory_settings(use_empty=True)


def camera_of(lens: Lens, samples: int, threads: int = 1, exposure: float = 0.15) -> bpy.types.Object:
    """Cycles on the CPU, and a camera in the current scene."""
    scene = bpy.context.scene
    scene.render.engine = "CYCLES"
    scene.cycles.device, scene.cycles.samples = "CPU", samples
    scene.cycles.use_adaptive_sampling, scene.cycles.adaptive_threshold = True, 0.03
    scene.cycles.use_denoising, scene.cycles.denoiser = True, "OPENIMAGEDENOISE"
    scene.cycles.max_bounces, scene.cycles.diffuse_bounces, scene.cycles.glossy_bounces = 4, 3, 2
    scene.cycles.caustics_reflective = scene.cycles.caustics_refractive = False
    scene.render.threads_mode, scene.render.threads = "FIXED", threads
    scene.render.use_persistent_data = True
    scene.render.resolution_x, scene.render.resolution_y = lens.width, lens.height
    scene.view_settings.view_transform, scene.view_settings.look = "AgX", "AgX - Medium High Contrast"
    scene.view_settings.exposure = exposure
    scene.render.image_settings.file_format = "PNG"
    optics = bpy.data.cameras.new("camera")
    optics.sensor_width, optics.lens, optics.clip_start = 36.0, lens.focal_px * 36.0 / lens.width, 0.05
    camera = bpy.data.objects.new("camera", optics)
    scene.collection.objects.link(camera)
    scene.camera = camera
    return camera


def photograph(camera: bpy.types.Object, lens: Lens, pose: Matrix, path: Path, noise_seed: int) -> None:
    """Write one photo as JPEG, with the lens in its Exif. Each has its own noise, as real photos do."""
    scene = bpy.context.scene
    camera.matrix_world = pose
    scene.cycles.seed = noise_seed
    with tempfile.TemporaryDirectory() as folder:
        scene.render.filepath = str(Path(folder) / "frame.png")
        bpy.ops.render.render(write_still=True)
        picture = Image.open(scene.render.filepath).convert("RGB")
    exif = Image.Exif()
    exif[_EXIF_MAKE], exif[_EXIF_MODEL] = "Difix3D Studio", lens.model
    exif.get_ifd(_EXIF_IFD)[_EXIF_FOCAL_35MM] = lens.focal_35mm
    partial = path.with_suffix(".partial")
    picture.save(partial, "JPEG", quality=90, exif=exif)
    partial.replace(path)


def describe(folder: Path, lens: Lens, poses: list[Matrix], paths: list[Path]) -> None:
    """transforms.json as nerfstudio reads it: one lens, OpenGL camera-to-world. Replaces the one that is there."""
    described = {"camera_model": "OPENCV", "w": lens.width, "h": lens.height}
    described |= {"fl_x": lens.focal_px, "fl_y": lens.focal_px, "cx": lens.width / 2, "cy": lens.height / 2}
    described |= dict.fromkeys(("k1", "k2", "p1", "p2"), 0.0)
    frames = [
        {"file_path": path.relative_to(folder).as_posix(), "transform_matrix": [list(row) for row in pose]}
        for pose, path in zip(poses, paths)
    ]
    (folder / "transforms.json").write_text(json.dumps({**described, "frames": frames}, indent=1) + "\n")

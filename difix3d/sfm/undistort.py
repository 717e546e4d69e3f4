"""Straighten photos and their model to PINHOLE, and move a model into another world, observations included."""

from __future__ import annotations

import functools
import shutil
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import cv2  # before pycolmap: opencv 5 loaded after it aborts at the first picture read
import numpy as np
import pycolmap
from numpy.typing import NDArray
from PIL import Image

from difix3d.events import Progress
from difix3d.sfm.background import Countdown
from difix3d.sfm.base import STAGE

Warp = tuple[NDArray[np.float32], NDArray[np.float32]]
"""[H, W] columns and rows to read from, in OpenCV's pixels."""


def undistort(
    model: pycolmap.Reconstruction, photos_dir: Path, images_dir: Path, sparse_dir: Path, threads: int = 1
) -> Generator[Progress, None, None]:
    """Write the registered photos without lens distortion, cropped to their valid part, and their PINHOLE model.

    `model` is changed. Photos keep their names; JPEG at quality 95 without chroma subsampling, or PNG as it came.
    threads: photos straightened at a time.
    """
    images_dir.mkdir(parents=True)
    sparse_dir.mkdir(parents=True)
    images = [model.image(image_id) for image_id in model.reg_image_ids()]
    images.sort(key=lambda image: image.camera_id)
    lenses = {camera_id: pycolmap.Camera(camera.todict()) for camera_id, camera in model.cameras.items()}
    straight = {camera_id: _straight(camera) for camera_id, camera in lenses.items()}

    @functools.lru_cache(threads + 1)  # each is as large as a photo, and there may be as many lenses as photos
    def warp(camera_id: int) -> Warp | None:
        lens, flat = lenses[camera_id], straight[camera_id]
        return None if _same(lens, flat) else _warp(lens, flat)

    def save(name: str, camera_id: int) -> None:
        _save(photos_dir / name, images_dir / name, warp(camera_id))

    pace = Countdown(len(images))
    pool = ThreadPoolExecutor(threads)
    try:
        saving = [pool.submit(save, image.name, image.camera_id) for image in images]
        for done, saved in enumerate(as_completed(saving), start=1):
            saved.result()
            yield Progress(STAGE, "Straightening photos", done, len(images), "photos", pace.left(done))
    finally:
        pool.shutdown(cancel_futures=True)

    for image in model.images.values():
        points = image.points2D
        if len(points):
            flat = straight[image.camera_id].img_from_cam(
                np.column_stack([model.camera(image.camera_id).cam_from_img(points), np.ones(len(points))])
            )
            for point, xy in zip(points, flat):
                point.xy = xy
    for camera_id, camera in straight.items():
        target = model.camera(camera_id)
        target.model = camera.model
        target.width, target.height = camera.width, camera.height
        target.params = camera.params.tolist()
    model.update_point_3d_errors()
    model.write(sparse_dir)


def transform_model(sparse_dir: Path, out: Path, similarity: NDArray[np.float64]) -> None:
    """Write the model in `sparse_dir` into the folder `out`, moved by a [4, 4] similarity."""
    model = pycolmap.Reconstruction(sparse_dir)
    model.transform(pycolmap.Sim3d(np.ascontiguousarray(similarity[:3])))
    out.mkdir(parents=True, exist_ok=True)
    model.write(out)


def _straight(camera: pycolmap.Camera) -> pycolmap.Camera:
    if camera.model == pycolmap.CameraModelId.PINHOLE:
        return pycolmap.Camera(camera.todict())
    return pycolmap.undistort_camera(pycolmap.UndistortCameraOptions(), camera)


def _same(camera: pycolmap.Camera, straight: pycolmap.Camera) -> bool:
    return camera.model == straight.model and (camera.width, camera.height) == (straight.width, straight.height)


def _warp(camera: pycolmap.Camera, straight: pycolmap.Camera) -> Warp:
    """Where each straight pixel comes from, in OpenCV's pixels (first centre at 0)."""
    x, y = np.meshgrid(np.arange(straight.width) + 0.5, np.arange(straight.height) + 0.5)
    rays = straight.cam_from_img(np.column_stack([x.ravel(), y.ravel()]))
    source = camera.img_from_cam(np.column_stack([rays, np.ones(len(rays))])).reshape(
        straight.height, straight.width, 2
    )
    return (source[..., 0] - 0.5).astype(np.float32), (source[..., 1] - 0.5).astype(np.float32)


def _save(source: Path, target: Path, warp: Warp | None) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if warp is None:
        shutil.copyfile(source, target)
        return
    with Image.open(source) as opened:
        photo = np.asarray(opened.convert("RGB"))
    flat = cv2.remap(photo, *warp, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    options: dict[str, Any] = {"quality": 95, "subsampling": 0} if target.suffix.lower() in (".jpg", ".jpeg") else {}
    Image.fromarray(flat).save(target, **options)

"""From matches to cameras: run a mapper, keep the largest model, and judge whether it is a scene at all."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path

import cv2  # noqa: F401  before pycolmap: opencv 5 loaded after it aborts at the first picture read
import numpy as np
import pycolmap

from difix3d.events import Progress
from difix3d.sfm.background import Countdown, in_background
from difix3d.sfm.base import STAGE, PhotoSet, SfmSettings, Snapshot
from difix3d.sfm.snapshot import Snapshots

MIN_SEEN = 12
"""Points that a registered photo sees, at least. The poorest photo that was placed right saw 14; those that the global
mapper placed on 1 and 3 points lay far from where they were taken."""
_SNAPSHOTS = 8
WIDE_DEG, NARROW_DEG = 16.0, 4.0
"""COLMAP's own angle for the first pair; and what a few seconds of hand-held video hold. Nothing grows from less."""


@dataclass(frozen=True)
class Model:
    """One mapper's largest model. others: numbers of photos of the smaller ones."""

    reconstruction: pycolmap.Reconstruction
    mapper: str
    held_focal: bool
    others: tuple[int, ...] = ()

    @property
    def registered(self) -> int:
        return self.reconstruction.num_reg_images()

    @property
    def error_px(self) -> float:
        """Mean reprojection error."""
        return self.reconstruction.compute_mean_reprojection_error()

    @property
    def names(self) -> set[str]:
        ids = self.reconstruction.reg_image_ids()
        return {self.reconstruction.image(image_id).name for image_id in ids}


def map_cameras(
    database: Path,
    photos: PhotoSet,
    out: Path,
    mapper: str,
    settings: SfmSettings,
    hold_focal: bool = False,
    first_angle_deg: float = WIDE_DEG,
) -> Generator[Progress | Snapshot, None, Model | None]:
    """The largest model that `mapper` ("incremental" or "global") finds, or None. `out`: a scratch folder.

    hold_focal: keep the focal lengths of the database (EXIF's, else COLMAP's guess of 1.2 times the longer side)
    instead of refining them. first_angle_deg: between the rays of the incremental mapper's first pair, at least.
    """
    out.mkdir(parents=True, exist_ok=True)
    total = len(photos.photos)
    placed = [0]
    token = pycolmap.CancellationToken()
    snapshots = Snapshots(out / "snapshots")
    pace = Countdown(total)

    def incremental() -> dict[int, pycolmap.Reconstruction]:
        options = pycolmap.IncrementalPipelineOptions()
        options.num_threads = settings.thread_count
        options.random_seed = settings.seed
        options.min_model_size = 3
        options.max_num_models = 3
        options.init_num_trials = 20
        options.mapper.init_min_tri_angle = first_angle_deg
        options.snapshot_path = snapshots.folder
        options.snapshot_frames_freq = max(3, total // _SNAPSHOTS)
        _settle_sooner(options)
        options.ba_refine_focal_length = not hold_focal
        options.mapper.abs_pose_refine_focal_length = not hold_focal

        def started() -> None:
            placed[0] = 2

        def another() -> None:
            placed[0] = min(placed[0] + 1, total)

        return pycolmap.incremental_mapping(
            database,
            photos.folder,
            out,
            options,
            initial_image_pair_callback=started,
            next_image_callback=another,
            cancellation_token=token,
        )

    def globally() -> dict[int, pycolmap.Reconstruction]:
        options = pycolmap.GlobalPipelineOptions()
        options.num_threads = settings.thread_count
        options.random_seed = settings.seed
        options.mapper.bundle_adjustment.refine_focal_length = not hold_focal
        return pycolmap.global_mapping(database, photos.folder, out, options)

    pycolmap.set_random_seed(settings.seed)
    steps = in_background(incremental if mapper == "incremental" else globally, lambda: placed[0], token.cancel)
    models: dict[int, pycolmap.Reconstruction] = {}
    while True:
        try:
            count = next(steps)
        except StopIteration as end:
            models = end.value
            break
        yield Progress(STAGE, "Placing cameras", count, total, "cameras", pace.left(count))
        if (seen := snapshots.newest()) is not None:
            yield Snapshot(seen)
    for model in models.values():
        drop_starved(model)
    ranked = sorted(models.values(), key=lambda model: (-model.num_reg_images(), -model.num_points3D()))
    if not ranked or ranked[0].num_reg_images() < 2:
        return None
    others = tuple(model.num_reg_images() for model in ranked[1:])
    return Model(ranked[0], mapper, hold_focal, others)


def _settle_sooner(options: pycolmap.IncrementalPipelineOptions) -> None:
    """Adjust less often and stop at what can be seen: COLMAP iterates every adjustment to 50 steps or numerical rest,
    after every tenth more photos, five times over. Half of mapping's time on four captures; the same photos, error
    within 2 % and focal length within 0.2 %."""
    options.ba_global_frames_ratio = options.ba_global_points_ratio = 1.3
    options.ba_local_function_tolerance, options.ba_global_function_tolerance = 1e-4, 1e-5
    options.ba_local_max_num_iterations, options.ba_global_max_num_iterations = 15, 20
    options.ba_local_max_refinements, options.ba_global_max_refinements = 1, 2


def drop_starved(model: pycolmap.Reconstruction) -> None:
    """Take out the photos that see fewer than MIN_SEEN points: the global mapper places them on next to nothing."""
    while True:
        images = [model.image(image_id) for image_id in model.reg_image_ids()]
        starved = [image.frame_id for image in images if image.num_points3D < MIN_SEEN]
        if not starved:
            return
        for frame_id in starved:
            model.deregister_frame(frame_id)


def better(first: Model | None, second: Model | None) -> Model | None:
    """More photos wins; the first of equals."""
    if first is None or second is None:
        return first or second
    return second if second.registered > first.registered else first


def closer(first: Model, second: Model | None) -> Model:
    """The second if it has as many photos and a clearly smaller error, at most 0.8 times the first's."""
    if second is None or second.registered < first.registered:
        return first
    return second if second.error_px < 0.8 * first.error_px else first


def focal_px(model: Model) -> float:
    """Median focal length over the registered photos."""
    return float(np.median(list(_focals(model).values())))


def focal_drift(model: Model, photos: PhotoSet) -> float | None:
    """Median over the photos of the ratio (>= 1) between a focal length and its EXIF prior; None where none has one.
    The largest would be that of a single photo that was cropped and kept its EXIF."""
    priors = {photo.name: photo.focal_px for photo in photos.photos if photo.focal_px}
    ratios = [focal / priors[name] for name, focal in _focals(model).items() if name in priors]
    return float(np.median([max(ratio, 1 / ratio) for ratio in ratios])) if ratios else None


def _focals(model: Model) -> dict[str, float]:
    """Name of each registered photo -> its focal length in pixels."""
    images = [model.reconstruction.image(image_id) for image_id in model.reconstruction.reg_image_ids()]
    return {image.name: model.reconstruction.camera(image.camera_id).mean_focal_length() for image in images}

"""Structure from motion on photos alone: SIFT, matching, incremental or global mapping (COLMAP, GLOMAP) on CPU.

What is tried, until four in five photos have a camera:
1. pairs as `pairs.choose_pairs` has them, incremental mapping; again with the focal length held, which a few seconds
   of video need;
2. global mapping of the same matches (a few seconds; joins what the incremental mapper leaves in pieces);
3. for ordered photos, all pairs (they may not have been in order);
4. finer features, unless the photos show two subjects, or nothing in common at all.
"""

from __future__ import annotations

import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

import cv2  # noqa: F401  before pycolmap: opencv 5 loaded after it aborts at the first picture read
import numpy as np

from difix3d.events import Warned
from difix3d.sfm import features, mapping
from difix3d.sfm.base import STAGE, PhotoSet, Said, SfmResult, SfmSettings, require_enough_photos
from difix3d.sfm.checks import require_features, require_parallax, require_scene
from difix3d.sfm.mapping import Model
from difix3d.sfm.pairs import EXHAUSTIVE_UNORDERED, choose_pairs, exhaustive_pairs
from difix3d.sfm.undistort import undistort

GOOD_SHARE = 0.8
"""Below this share of registered photos, something dearer is tried."""
MIN_INLIERS = 15
"""Matches that fit one geometry, at least, for COLMAP to believe a pair."""
DRIFT = 1.25
"""A focal length this far from EXIF's is not believed without a look at what holding EXIF's gives."""

Events = Generator[Said, None, Any]


class ColmapBackend:
    """Cameras from photos, by pycolmap."""

    name = "colmap"

    def reconstruct(self, photos: PhotoSet, workspace: Path, settings: SfmSettings) -> Events:
        """See SfmBackend. figures: registered, photos, points, reprojection_px, median_triangulation_deg, focal_px,
        focal_held, matcher, mapper, first_octave, features, seconds_extract, seconds_match, seconds_map."""
        require_enough_photos(photos)
        run = _Run(photos, workspace, settings)
        yield from run.find_features(features.Detail())
        require_features(features.features_per_photo(run.database))
        yield from run.match()
        best = yield from run.map_best()
        if not run.good(best) and run.matcher == "sequential" and len(photos.photos) <= EXHAUSTIVE_UNORDERED:
            yield from run.match(exhaustive=True)
            best = run.better(best, (yield from run.map_best()))
        if not run.good(best) and run.any_overlap() and not run.two_subjects(best):
            yield Warned(STAGE, _piecemeal(best, photos))
            finer = _Run(photos, workspace / "fine", settings, run.seconds)
            yield from finer.find_features(features.FINE)
            yield from finer.match(exhaustive=run.matcher == "exhaustive")
            best_of_finer = yield from finer.map_best()
            if run.better(best, best_of_finer) is best_of_finer:
                run, best = finer, best_of_finer

        model = require_scene(best, photos)
        require_parallax(run.database, photos, model)
        figures = run.figures(model)
        images_dir, sparse_dir = workspace / "undistorted", workspace / "sparse"
        yield from undistort(model.reconstruction, photos.folder, images_dir, sparse_dir)
        left_out = tuple(photo.name for photo in photos.photos if photo.name not in model.names)
        return SfmResult(images_dir, sparse_dir, left_out, figures)


class _Run:
    """One database: its features, its matches, its models, and the seconds they took."""

    def __init__(
        self, photos: PhotoSet, workspace: Path, settings: SfmSettings, seconds: dict[str, float] | None = None
    ):
        workspace.mkdir(parents=True, exist_ok=True)
        self.photos, self.workspace, self.settings = photos, workspace, settings
        self.database = workspace / "database.db"
        self.detail = features.Detail()
        self.matcher = ""
        self.seconds = seconds if seconds is not None else {"extract": 0.0, "match": 0.0, "map": 0.0}
        self.models = 0

    def find_features(self, detail: features.Detail) -> Events:
        self.detail = detail
        with _timed(self.seconds, "extract"):
            features.create_database(self.database, self.photos)
            yield from features.extract(self.database, self.photos, detail, self.settings)

    def match(self, exhaustive: bool = False) -> Events:
        count = len(self.photos.photos)
        with _timed(self.seconds, "match"):
            if exhaustive:
                self.matcher, pairs = "exhaustive", exhaustive_pairs(count)
            else:
                self.matcher, pairs = choose_pairs(
                    count,
                    self.photos.ordered,
                    self.settings.matching,
                    lambda: features.global_descriptors(self.database, self.photos, self.settings.seed),
                )
            yield from features.match(self.database, self.photos, pairs, self.settings)

    def map_best(self) -> Events:
        """The mapper asked for; or incremental and, where that leaves photos out, incremental from a narrower first
        pair with the focal length held, then global. EXIF's focal is held where a refined one cannot be trusted."""
        mappers = ("incremental", "global") if self.settings.mapper == "auto" else (self.settings.mapper,)
        best: Model | None = None
        with _timed(self.seconds, "map"):
            for mapper in mappers:
                if best is None or not self.good(best):
                    free = yield from self._map(mapper, hold_focal=False)
                    if self._doubtful_focal(free):
                        free = self._trusted(free, (yield from self._map(mapper, hold_focal=True)))
                    best = self.better(best, free)
                if mapper == "incremental" and not self.good(best):
                    # Small steps alone do not fix a focal length, and a wrong one lets nothing grow.
                    narrow = yield from self._map(mapper, hold_focal=True, first_angle_deg=mapping.NARROW_DEG)
                    best = self.better(best, narrow)
        return best

    def _map(self, mapper: str, hold_focal: bool, first_angle_deg: float = mapping.WIDE_DEG) -> Events:
        self.models += 1
        out = self.workspace / f"model{self.models}"
        return (
            yield from mapping.map_cameras(
                self.database, self.photos, out, mapper, self.settings, hold_focal, first_angle_deg
            )
        )

    def _doubtful_focal(self, model: Model | None) -> bool:
        if model is None or (drift := mapping.focal_drift(model, self.photos)) is None:
            return False
        return drift > DRIFT or mapping.is_flat_and_parallel(model)

    @staticmethod
    def _trusted(free: Model, held: Model | None) -> Model:
        """The held model unless EXIF is plainly wrong: fewer photos registered, or half as much error again."""
        if held is None or held.registered < 0.9 * free.registered:
            return free
        worse = (
            held.reconstruction.compute_mean_reprojection_error()
            / free.reconstruction.compute_mean_reprojection_error()
        )
        return held if worse < 1.5 else free

    def good(self, model: Model | None) -> bool:
        return model is not None and model.registered >= GOOD_SHARE * len(self.photos.photos)

    @staticmethod
    def better(first: Model | None, second: Model | None) -> Model | None:
        """More photos wins; the first of equals."""
        if first is None or second is None:
            return first or second
        return second if second.registered > first.registered else first

    def any_overlap(self) -> bool:
        """Whether at least one pair of photos shows the same thing: else finer features find nothing either."""
        return any(inliers >= MIN_INLIERS for inliers in features.verified_pairs(self.database).values())

    def two_subjects(self, model: Model | None) -> bool:
        """Whether the photos left out hang together among themselves but not with the model: no finer feature
        joins two subjects. True where other models hold them and hardly any match leads from one to the other."""
        if model is None or model.registered + sum(model.others) < GOOD_SHARE * len(self.photos.photos):
            return False
        bridges = [
            inliers
            for (first, second), inliers in features.verified_pairs(self.database).items()
            if (first in model.names) != (second in model.names)
        ]
        return sum(bridges) < 30

    def figures(self, model: Model) -> dict[str, Any]:
        reconstruction = model.reconstruction
        return {
            "registered": model.registered,
            "photos": len(self.photos.photos),
            "points": reconstruction.num_points3D(),
            "reprojection_px": round(reconstruction.compute_mean_reprojection_error(), 3),
            "focal_px": round(mapping.focal_px(model), 1),
            "focal_held": model.held_focal,
            "matcher": self.matcher,
            "mapper": model.mapper,
            "first_octave": self.detail.first_octave,
            "features": int(np.median(features.features_per_photo(self.database))),
            **{f"seconds_{phase}": round(seconds, 1) for phase, seconds in self.seconds.items()},
        }


class _timed:
    """Adds the block's wall time to seconds[phase]."""

    def __init__(self, seconds: dict[str, float], phase: str):
        self.seconds, self.phase = seconds, phase

    def __enter__(self) -> None:
        self.started = time.monotonic()

    def __exit__(self, *_: object) -> None:
        self.seconds[self.phase] += time.monotonic() - self.started


def _piecemeal(model: Model | None, photos: PhotoSet) -> str:
    return (
        f"Only {model.registered if model else 0} of {len(photos.photos)} photos found their place; looking again "
        "with finer features, which takes three to five times as long."
    )

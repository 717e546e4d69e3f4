"""Structure from motion on photos alone: SIFT, matching, incremental or global mapping (COLMAP, GLOMAP) on CPU.

What is tried, until four in five photos have a camera:
1. pairs as `pairs.choose_pairs` has them, incremental mapping; again with the focal length held, which a few seconds
   of video need;
2. global mapping of the same matches (a few seconds; joins what the incremental mapper leaves in pieces, and finds
   a focal length that EXIF does not tell, where growing photo by photo strayed); before 1 where photos lie so close
   together that nothing grows;
3. for ordered photos, all pairs (they may not have been in order);
4. finer features, unless the photos show two subjects, or nothing in common at all; also where all have a camera but
   share few points, as small photos do.
Then the cameras are sharpened and points filled in (refine.py).
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2  # noqa: F401  before pycolmap: opencv 5 loaded after it aborts at the first picture read
import numpy as np
import pycolmap

from difix3d.events import Progress, Warned
from difix3d.sfm import features, mapping
from difix3d.sfm.background import Spent
from difix3d.sfm.base import PHASES, STAGE, PhotoSet, Said, SfmResult, SfmSettings, require_enough_photos
from difix3d.sfm.baseline import angle_apart_deg
from difix3d.sfm.checks import SEEN_PER_PHOTO, require_features, require_parallax, require_scene, seen_per_photo
from difix3d.sfm.flat import is_flat_and_parallel, with_focals
from difix3d.sfm.mapping import Model
from difix3d.sfm.matching import match
from difix3d.sfm.pairs import EXHAUSTIVE_UNORDERED, choose_pairs, exhaustive_pairs
from difix3d.sfm.refine import refine
from difix3d.sfm.undistort import undistort

GOOD_SHARE = 0.8
"""Below this share of registered photos, something dearer is tried."""
MIN_INLIERS = 15
"""Matches that fit one geometry, at least, for COLMAP to believe a pair."""
STRAYED_PX = 0.9
"""Reprojection error of cameras whose focal length nobody knew, above which it is looked for another way."""
DRIFT = 1.25
"""A focal length this far from EXIF's is not believed without a look at what holding EXIF's gives."""

Events = Generator[Said, None, Any]


class ColmapBackend:
    """Cameras from photos, by pycolmap."""

    name = "colmap"

    def reconstruct(self, photos: PhotoSet, workspace: Path, settings: SfmSettings) -> Events:
        """See SfmBackend. figures: registered, photos, points, reprojection_px, median_triangulation_deg, focal_px,
        focal_held, matcher, mapper, first_octave, features; seconds_extract, _match, _map, _refine and _straighten."""
        require_enough_photos(photos)
        spent = Spent(*PHASES)
        run = _Run(photos, workspace, settings, spent)
        yield from run.find_features(features.Detail())
        require_features(features.features_per_photo(run.database))
        yield from run.match()
        best = yield from run.map_best()
        if not run.good(best) and run.matcher == "sequential" and len(photos.photos) <= EXHAUSTIVE_UNORDERED:
            yield from run.match(exhaustive=True)
            best = mapping.better(best, (yield from run.map_best()))
        thin = run.good(best) and _is_thin(best)
        if thin or (not run.good(best) and run.any_overlap() and not run.two_subjects(best)):
            yield Warned(STAGE, _piecemeal(best, photos, thin))
            finer = _Run(photos, workspace / "fine", settings, spent)
            yield from finer.find_features(features.FINE)
            yield from finer.match(exhaustive=run.matcher == "exhaustive")
            best_of_finer = yield from finer.map_best()
            if (thin and finer.good(best_of_finer)) or mapping.better(best, best_of_finer) is best_of_finer:
                run, best = finer, best_of_finer

        model = require_scene(best, photos)
        with spent("map"):
            require_parallax(run.database, photos, model)
        model = yield from self._refined(model, photos, workspace / "unrefined", settings, spent)
        figures = run.figures(model)
        images_dir, sparse_dir = workspace / "undistorted", workspace / "sparse"
        with spent("straighten"):
            yield from undistort(model.reconstruction, photos.folder, images_dir, sparse_dir, settings.thread_count)
        left_out = tuple(photo.name for photo in photos.photos if photo.name not in model.names)
        return SfmResult(images_dir, sparse_dir, left_out, figures | spent.figures)

    def _refined(self, model: Model, photos: PhotoSet, scratch: Path, settings: SfmSettings, spent: Spent) -> Events:
        """The model with sharper cameras and more points, where that can be had; else as it was. The photos that it
        takes are straightened by the lens as it is known before, and so again afterwards, by the better one."""
        images_dir, threads = scratch / "images", settings.thread_count
        straight = pycolmap.Reconstruction(model.reconstruction)
        with spent("refine"):
            for _ in undistort(straight, photos.folder, images_dir, scratch / "sparse", threads):
                yield Progress(STAGE, "Refining cameras", 0, 0)
            refined = yield from refine(model.reconstruction, straight, images_dir, model.held_focal, threads)
        return model if refined is None else replace(model, reconstruction=refined)


class _Run:
    """One database: its features, its matches, its models, and the seconds they took."""

    def __init__(self, photos: PhotoSet, workspace: Path, settings: SfmSettings, spent: Spent):
        workspace.mkdir(parents=True, exist_ok=True)
        self.photos, self.workspace, self.settings = photos, workspace, settings
        self.database = workspace / "database.db"
        self.detail = features.Detail()
        self.matcher = ""
        self.spent = spent
        self.models = 0

    def find_features(self, detail: features.Detail) -> Events:
        self.detail = detail
        with self.spent("extract"):
            features.create_database(self.database, self.photos)
            yield from features.extract(self.database, self.photos, detail, self.settings)

    def match(self, exhaustive: bool = False) -> Events:
        count = len(self.photos.photos)
        with self.spent("match"):
            if exhaustive:
                self.matcher, pairs = "exhaustive", exhaustive_pairs(count)
            else:
                self.matcher, pairs = choose_pairs(
                    count,
                    self.photos.ordered,
                    self.settings.matching,
                    lambda: features.global_descriptors(self.database, self.photos, self.settings.seed),
                )
            yield from match(self.database, self.photos, pairs, self.settings)

    def map_best(self) -> Events:
        """The mapper asked for; or incremental and, where that leaves photos out, global: the other way round for
        photos so close together that nothing grows from two of them. EXIF's focal length is held where a refined one
        cannot be trusted."""
        best: Model | None = None
        mapper = self.settings.mapper
        with self.spent("map"):
            if mapper == "global":
                return (yield from self._trusted("global"))
            apart_deg = angle_apart_deg(self.database, mapping.WIDE_DEG)
            ways = [lambda: self._grown(apart_deg), lambda: self._trusted("global")]
            if mapper == "incremental":
                del ways[1]
            elif 0 < apart_deg < mapping.NARROW_DEG:
                ways.reverse()
            for way in ways:
                if best is None or not self.good(best):
                    best = mapping.better(best, (yield from way()))
                elif self._strayed(best):
                    best = mapping.closer(best, (yield from way()))
        return best

    def _grown(self, apart_deg: float) -> Events:
        """Incremental, from a first pair as wide as there is; where that leaves photos out, from a narrower one with
        the focal length held: small steps alone do not fix it, and a wrong one lets nothing grow."""
        first_deg = mapping.WIDE_DEG if apart_deg >= mapping.WIDE_DEG else mapping.NARROW_DEG
        best = yield from self._trusted("incremental", first_deg)
        if not self.good(best):
            best = mapping.better(best, (yield from self._map("incremental", True, mapping.NARROW_DEG)))
        return best

    def _map(self, mapper: str, hold_focal: bool, first_angle_deg: float = mapping.WIDE_DEG) -> Events:
        self.models += 1
        out = self.workspace / f"model{self.models}"
        return (
            yield from mapping.map_cameras(
                self.database, self.photos, out, mapper, self.settings, hold_focal, first_angle_deg
            )
        )

    def _trusted(self, mapper: str, first_angle_deg: float = mapping.WIDE_DEG) -> Events:
        """The model with the focal length refined; with EXIF's where the refined one is doubtful, unless EXIF is
        plainly wrong: fewer photos registered, or half as much error again. Of flat ground the model itself is drawn
        out to EXIF's first, and mapped anew only where that fits badly."""
        free = yield from self._map(mapper, False, first_angle_deg)
        if free is None or (drift := mapping.focal_drift(free, self.photos)) is None:
            return free
        if is_flat_and_parallel(free):
            held = yield from with_focals(free, features.exif_focals_px(self.database))
            if held.error_px < 1.5 * free.error_px:
                return held
        elif drift <= DRIFT:
            return free
        held = yield from self._map(mapper, True, first_angle_deg)
        if held is None or held.registered < 0.9 * free.registered:
            return free
        return held if held.error_px < 1.5 * free.error_px else free

    def _strayed(self, model: Model) -> bool:
        """Whether a focal length that EXIF does not know was found, and badly: growing photo by photo has then
        settled on a wrong one (210 px for 370), which placing all photos at once does not."""
        return not any(photo.focal_px for photo in self.photos.photos) and model.error_px > STRAYED_PX

    def good(self, model: Model | None) -> bool:
        return model is not None and model.registered >= GOOD_SHARE * len(self.photos.photos)

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
            "reprojection_px": round(model.error_px, 3),
            "focal_px": round(mapping.focal_px(model), 1),
            "focal_held": model.held_focal,
            "matcher": self.matcher,
            "mapper": model.mapper,
            "first_octave": self.detail.first_octave,
            "features": int(np.median(features.features_per_photo(self.database))),
        }


def _is_thin(model: Model | None) -> bool:
    """Whether the photos share too few points for the cameras to be trusted: those of a small picture, mostly."""
    return model is not None and seen_per_photo(model.reconstruction) < SEEN_PER_PHOTO


def _piecemeal(model: Model | None, photos: PhotoSet, thin: bool) -> str:
    found = f"Only {model.registered if model else 0} of {len(photos.photos)} photos found their place"
    if thin:
        found = "The photos share few points"
    return f"{found}; looking again with finer features, which takes three to five times as long."

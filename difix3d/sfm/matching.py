"""Matches between photos, verified, into a COLMAP database: by several of COLMAP's matchers at once, of a thread each.

With two threads in one matcher, pycolmap 4.2.1 now and then lost a photo's matches on a busy machine, and cameras came
out differently. A matcher of its own for each part of the pairs, with its own copy of the database, shares nothing.
"""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path

import cv2  # noqa: F401  before pycolmap: opencv 5 loaded after it aborts at the first picture read
import pycolmap

from difix3d.events import Progress
from difix3d.sfm.background import Countdown, in_background
from difix3d.sfm.base import STAGE, PhotoSet, SfmSettings
from difix3d.sfm.features import open_database
from difix3d.sfm.pairs import Pairs

NamedPairs = list[tuple[str, str]]

_MOST_AT_ONCE = 8
"""Each has a copy of all features."""
_FEWEST_PAIRS = 40
"""For one more at once: a tenth of a second is about what its copy takes."""


def match(path: Path, photos: PhotoSet, pairs: Pairs, settings: SfmSettings) -> Generator[Progress, None, None]:
    """Match and verify `pairs` (rows of photos.photos); those already in the database are not done again."""
    names = [photo.name for photo in photos.photos]
    named = [(names[first], names[second]) for first, second in pairs]
    count = max(1, min(settings.thread_count, _MOST_AT_ONCE, len(pairs) // _FEWEST_PAIRS))
    # In a row: pairs of one photo stay together, whose descriptors are then indexed once.
    bounds = [round(part * len(named) / count) for part in range(count + 1)]
    parts = [named[start:stop] for start, stop in itertools.pairwise(bounds)]
    paths = [path, *(path.with_name(f"{path.stem}.part{part}.db") for part in range(1, count))]
    try:
        for copy in paths[1:]:
            shutil.copyfile(path, copy)
        yield from _match_all(paths, parts, settings.seed)
    finally:
        for copy in paths[1:]:
            with suppress(OSError):  # some systems keep a file that a matcher which is stopping still has open
                copy.unlink()


def _match_all(paths: list[Path], parts: list[NamedPairs], seed: int) -> Generator[Progress, None, None]:
    """Each part in its database; then all of it in the first."""
    token = pycolmap.CancellationToken()
    total = sum(len(part) for part in parts)
    with ExitStack() as stack:
        first, *others = databases = [stack.enter_context(open_database(path)) for path in paths]
        before = first.num_verified_image_pairs()

        def verified() -> int:
            return sum(database.num_verified_image_pairs() - before for database in databases)

        def match_all() -> None:
            with ThreadPoolExecutor(len(parts)) as pool:
                list(pool.map(lambda path, part: _match(path, part, seed, token), paths, parts))

        pace = Countdown(total - before)
        for count in in_background(match_all, verified, token.cancel):
            yield Progress(STAGE, "Matching pairs", before + count, total, "pairs", pace.left(count))
        for database, part in zip(others, parts[1:]):
            _copy(database, first, part)


def _match(path: Path, pairs: NamedPairs, seed: int, token: pycolmap.CancellationToken) -> None:
    list_path = path.with_suffix(".pairs.txt")
    list_path.write_text("".join(f"{first} {second}\n" for first, second in pairs))
    pairing = pycolmap.ImportedPairingOptions()
    pairing.match_list_path = list_path
    pairing.block_size = 50
    options = pycolmap.FeatureMatchingOptions()
    options.num_threads = 1
    geometry = pycolmap.TwoViewGeometryOptions()
    geometry.ransac.random_seed = seed
    pycolmap.match_image_pairs(path, options, pairing, geometry, device=pycolmap.Device.cpu, cancellation_token=token)


def _copy(source: pycolmap.Database, target: pycolmap.Database, pairs: NamedPairs) -> None:
    """What `source` knows of the pairs and `target` does not."""
    ids = {image.name: image.image_id for image in target.read_all_images()}
    with pycolmap.DatabaseTransaction(target):
        for first, second in pairs:
            pair = ids[first], ids[second]
            if source.exists_matches(*pair) and not target.exists_matches(*pair):
                target.write_matches(*pair, source.read_matches(*pair))
            if source.exists_two_view_geometry(*pair) and not target.exists_two_view_geometry(*pair):
                target.write_two_view_geometry(*pair, source.read_two_view_geometry(*pair))

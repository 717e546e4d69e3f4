"""Upload -> capture/: photos or a video, decoded within bounds, upright, without Exif, the best frames chosen."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Generator, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from difix3d.atomic import replacing_folder, write_json
from difix3d.errors import CaptureError, FormatError
from difix3d.events import Artifact, Event, Progress, Warned
from difix3d.formats import contact_sheet
from difix3d.formats.clip import VIDEO_SUFFIXES, Clip, Sample
from difix3d.formats.image import write_rgb
from difix3d.formats.keyframes import choose
from difix3d.formats.overlap import OverlapCounter, natural_key, numbered_in_sequence
from difix3d.formats.photos import PHOTO_SUFFIXES, Photo, read_photo, sharpness
from difix3d.scene import Scene
from difix3d.splatting.cpu.cache import compile_in_background
from difix3d.stages.base import option, stage

MIN_PHOTOS = 4  # as many as sfm.base.needed_photos asks for at least
MAX_PHOTOS = 600
MAX_FOLDER_ENTRIES = 10_000
BLURRED = 0.02  # median formats.photos.sharpness of a set that is motion-blurred or out of focus
ORDERED_SHARE = 0.9  # of neighbours by name that must overlap to call a set of photos a walk
PREVIEW_PATH = "previews/keyframes.jpg"
PREVIEW_EVERY_S = 1.5
ENOUGH = "20 to 60 with much overlap are good"


@dataclass(frozen=True)
class IngestConfig:
    """What was uploaded, and how much of it to keep."""

    capture: tuple[str, ...] = option((), "a video, photos, or one folder of photos (absolute paths)", positional=True)
    max_frames: int = option(80, "most frames to keep of a video", minimum=MIN_PHOTOS, maximum=500)
    long_side_px: int = option(1600, "longer side of the stored photos, pixels", minimum=320, maximum=4096)


@dataclass(frozen=True)
class StoredPhoto:
    """One row of capture.json. focal_px: of the stored size, from Exif; others: see formats.photos."""

    name: str
    source: str
    width: int
    height: int
    focal_px: float | None
    camera: str
    lens: str
    zoomed_mm: float | None
    sharpness: float
    time_seconds: float | None = None


class Store:
    """capture/ being filled: writes each photo, keeps its row and its thumbnail."""

    def __init__(self, folder: Path, preview_path: Path):
        self.folder, self.preview_path = folder, preview_path
        self.photos: list[StoredPhoto] = []
        self._thumbnails: list[NDArray[np.uint8]] = []
        self._shown = 0.0

    def add(self, photo: Photo, source: str, time_seconds: float | None = None) -> None:
        name = f"{len(self.photos) + 1:05d}.jpg"
        write_rgb(self.folder / name, photo.rgb)
        height, width = photo.rgb.shape[:2]
        sharp = round(sharpness(photo.rgb), 5)
        exif = photo.focal_px, photo.camera, photo.lens, photo.zoomed_mm
        self.photos.append(StoredPhoto(name, source, width, height, *exif, sharp, time_seconds))
        self._thumbnails.append(contact_sheet.thumbnail(photo.rgb))

    def preview(self, final: bool = False) -> Iterator[Event]:
        """The contact sheet so far, not more often than every PREVIEW_EVERY_S."""
        if self.photos and (final or time.monotonic() - self._shown > PREVIEW_EVERY_S):
            write_rgb(self.preview_path, contact_sheet.compose(self._thumbnails))
            self._shown = time.monotonic()
            yield Artifact("ingest", "keyframes", PREVIEW_PATH, f"{len(self.photos)} photos")


@stage("ingest", inputs=lambda scene, config: _sources(config), outputs=("capture",))
def ingest(scene: Scene, config: IngestConfig) -> Generator[Event, None, dict[str, Any]]:
    """Decode config.capture into capture/. CaptureError says what was found, what is needed and what to do."""
    files = [Path(name) for name in _sources(config)]
    videos = [path for path in files if path.suffix.lower() in VIDEO_SUFFIXES]
    if videos and len(files) > 1:
        raise CaptureError(
            f"Found {_count(len(videos), 'video')} and {_count(len(files) - len(videos), 'other file')}; "
            "a scene is made of one video or of photos. Upload one of them, and make another scene of the rest."
        )
    with replacing_folder(scene.capture_dir) as folder:
        store = Store(folder, scene.root / PREVIEW_PATH)
        read = _read_video(videos[0], config, store) if videos else _read_photos(files, config, store)
        facts = yield from read
        yield from store.preview(final=True)
        if median(photo.sharpness for photo in store.photos) < BLURRED:
            yield Warned(
                "ingest",
                "The photos look blurred: hardly any fine detail was found. If no cameras can be found, take them "
                "again in better light, holding still for each.",
            )
        rows = [asdict(photo) for photo in store.photos]
        kind = "video" if videos else "photos"
        write_json(
            folder / "capture.json",
            {"kind": kind, "ordered": facts["ordered"], "photos": rows, "skipped": facts["skipped"]},
        )
    compile_in_background()  # the kernels that the fit will need, while the cameras are looked for
    figures = {**facts, "kind": kind, "photos": len(rows), "skipped": len(facts["skipped"])}
    figures["focal_priors"] = sum(photo.focal_px is not None for photo in store.photos)
    return figures


def _read_photos(files: Sequence[Path], config: IngestConfig, store: Store) -> Generator[Event, None, dict[str, Any]]:
    if len(files) > MAX_PHOTOS:
        raise CaptureError(
            f"Found {len(files)} photos; at most {MAX_PHOTOS} make one scene here. Choose the part you need: "
            "neighbours that overlap, not every n-th."
        )
    skipped: list[dict[str, str]] = []
    first_with: dict[str, str] = {}
    overlap = OverlapCounter()
    started = time.monotonic()
    for done, path in enumerate(files):
        left = (time.monotonic() - started) / done * (len(files) - done) if done else None
        yield Progress("ingest", "Reading photos", done, len(files), "photos", left)
        try:
            photo = read_photo(path, config.long_side_px)
            pixels = hashlib.sha256(photo.rgb.tobytes()).hexdigest()
            if pixels in first_with:
                raise FormatError(f"the same picture as {first_with[pixels]}")
        except FormatError as error:
            skipped.append({"source": path.name, "reason": error.message})
            yield Warned("ingest", f"Skipped {path.name}: {error.message}")
            continue
        first_with[pixels] = path.name
        overlap.add(photo.rgb)
        store.add(photo, path.name)
        yield from store.preview()
    yield Progress("ingest", "Reading photos", len(files), len(files), "photos", 0.0)
    if len(store.photos) < MIN_PHOTOS:
        raise CaptureError(_too_few(len(store.photos), skipped))
    stems = [Path(photo.source).stem for photo in store.photos]
    one_camera = len({photo.camera for photo in store.photos}) == 1
    ordered = one_camera and numbered_in_sequence(stems) and overlap.share >= ORDERED_SHARE
    return {"ordered": ordered, "skipped": skipped, "neighbours_overlapping": round(overlap.share, 3)}


def _too_few(usable: int, skipped: Sequence[dict[str, str]]) -> str:
    reasons = "; ".join(f"{row['source']}: {row['reason']}" for row in skipped[:6])
    more = f"; and {len(skipped) - 6} more" if len(skipped) > 6 else ""
    left_out = f" Skipped {_count(len(skipped), 'file')} ({reasons}{more})." if skipped else ""
    found = _count(usable, "usable photo") if usable else "no usable photo"
    return (
        f"Found {found}; at least {MIN_PHOTOS} different ones are needed, {ENOUGH}.{left_out} "
        "Add photos taken from other places around the subject."
    )


def _read_video(path: Path, config: IngestConfig, store: Store) -> Generator[Event, None, dict[str, Any]]:
    samples: list[Sample] = []
    with Clip(path) as clip:
        started = time.monotonic()
        for sample in clip.samples():
            samples.append(sample)
            if len(samples) % 10 == 1:
                share = (sample.index + 1) / max(clip.frames, sample.index + 1)
                left = (time.monotonic() - started) * (1 / share - 1)
                yield Progress("ingest", "Watching the video", sample.index + 1, clip.frames, "frames", left)
        fps, cut = clip.fps, clip.cut
    total = samples[-1].index + 1 if samples else 0
    yield Progress("ingest", "Choosing frames", 0, 0, "frames")
    chosen = choose([s.grey for s in samples], [s.sharpness for s in samples], config.max_frames)
    if len(chosen.kept) < MIN_PHOTOS:
        raise CaptureError(_no_motion(path, samples, len(chosen.kept)))
    if cut:
        yield Warned("ingest", f"Only the first {total / fps:.0f} s of the video were used: longer ones are cut there.")
    if chosen.last < len(samples) - 1:
        yield Warned(
            "ingest",
            f"{config.max_frames} frames, the most to keep, end {samples[chosen.last].seconds:.0f} s into the video; "
            "the rest was left out, because frames farther apart would not overlap. Raise --max-frames, or film less.",
        )
    seconds = {samples[position].index: samples[position].seconds for position in chosen.kept}
    with Clip(path) as clip:
        for index, rgb in clip.pictures(sorted(seconds)):
            yield Progress("ingest", "Keeping frames", len(store.photos), len(seconds), "frames")
            store.add(Photo(_within(rgb, config.long_side_px)), f"{path.name}#{index}", round(seconds[index], 3))
            yield from store.preview()
    kept = len(store.photos)
    yield Progress("ingest", f"Kept {kept} of {total} frames", kept, kept, "frames", 0.0)
    return {"ordered": True, "skipped": [], "frames": total, "step": round(chosen.step, 4)}


def _no_motion(path: Path, samples: Sequence[Sample], kept: int) -> str:
    """Why a video gave fewer than MIN_PHOTOS frames."""
    need = "Film 20 to 60 seconds while you walk slowly around the subject."
    if len(samples) < MIN_PHOTOS:
        return f"{path.name} has {_count(len(samples), 'readable frame')}; at least {MIN_PHOTOS} are needed. {need}"
    if max(int(sample.grey.max()) for sample in samples) < 24:
        return f"{path.name} is black from start to end: nothing can be seen in its pictures. {need}"
    if max(int(np.ptp(sample.grey)) for sample in samples) < 24:
        return f"{path.name} shows one plain colour from start to end. {need}"
    return (
        f"{path.name}: the camera hardly moves. Only {_count(kept, 'different frame')} in "
        f"{samples[-1].seconds:.1f} s; at least {MIN_PHOTOS} are needed. Turning or zooming does not help. {need}"
    )


def _within(rgb: NDArray[np.uint8], long_side_px: int) -> NDArray[np.uint8]:
    import cv2

    scale = long_side_px / max(rgb.shape[:2])
    if scale >= 1:
        return rgb
    return np.asarray(cv2.resize(rgb, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA), dtype=np.uint8)


def _sources(config: IngestConfig) -> tuple[str, ...]:
    """The files to read, in natural order of their names: those given, or the photos (else the video) in the folder."""
    given = [Path(name) for name in config.capture]
    if not given:
        raise CaptureError("Nothing was uploaded. Give a video, photos, or a folder of photos.")
    if missing := [path.name for path in given if not path.exists()]:
        raise CaptureError(f"{', '.join(missing[:5])}: no such file. Check the name, or upload it again.")
    if folders := [path for path in given if path.is_dir()]:
        if len(given) > 1:
            raise CaptureError(
                f"Found the folder {folders[0].name!r} among {len(given)} names. Give one folder, or only files."
            )
        return files_in_folder(folders[0])
    if odd := [path.name for path in given if not path.is_file()]:
        raise CaptureError(f"{odd[0]} is no regular file. Give a video, photos, or a folder of photos.")
    return tuple(str(path) for path in sorted(given, key=lambda path: natural_key(path.name)))


def files_in_folder(folder: Path) -> tuple[str, ...]:
    """The photos of a folder, else its videos, in natural order of their names. CaptureError where it has neither."""
    entries: list[Path] = []
    for entry in folder.iterdir():
        if not entry.name.startswith("."):
            entries.append(entry)
        if len(entries) > MAX_FOLDER_ENTRIES:
            raise CaptureError(f"{folder.name!r} holds more than {MAX_FOLDER_ENTRIES} files. Give a folder of photos.")
    entries.sort(key=lambda path: natural_key(path.name))
    files = [entry for entry in entries if entry.is_file()]
    photos = [path for path in files if path.suffix.lower() in PHOTO_SUFFIXES]
    videos = [path for path in files if path.suffix.lower() in VIDEO_SUFFIXES]
    if photos or videos:
        return tuple(str(path) for path in photos or videos)
    inside = [entry.name for entry in entries if entry.is_dir()]
    hint = f" Did you mean the folder {inside[0]!r} in it?" if inside else ""
    raise CaptureError(
        f"The folder {folder.name!r} holds {_count(len(files), 'file')}, none of them a photo or video.{hint} "
        f"Give at least {MIN_PHOTOS} photos (JPEG, PNG, HEIC, WebP, TIFF, BMP, AVIF); {ENOUGH}."
    )


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"

"""Questions whose answer is known, to learn of a rater and not of a fixer.

photo       a held-out camera: the true photo against the raw render of that camera     the photo
corrupted   a picture against the same one with blur, ghosts and floaters added         the clean one
identical   a picture against itself                                                    a tie

Their pictures are kept in the scene's folder gold/, all under names that tell nothing, with gold.json that lists them.
"""

from __future__ import annotations

import hashlib
import json
import random
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from difix3d.atomic import replacing_file, write_json
from difix3d.errors import Difix3DError
from difix3d.formats.camera_path import read_camera_path
from difix3d.formats.image import read_rgb, write_rgb
from difix3d.ratings.candidates import FrameKey, Frames
from difix3d.ratings.identity import candidate_key
from difix3d.scene import Scene, hash_file
from difix3d.types import Candidate

PHOTO, CORRUPTED, IDENTICAL = "photo", "corrupted", "identical"
KINDS = (PHOTO, CORRUPTED, IDENTICAL)
MOST = 48
"""Of one scene: a rater who answers 480 questions about it sees none twice."""
_HELDOUT = "heldout"
_TOO_LIKE_DB = 30.0
"""A render this near to its photo looks the same to most people: no fair question."""
_LISTING = "gold.json"


@dataclass(frozen=True)
class GoldPair:
    """a, b: in canonical order; expected: a | b | tie."""

    kind: str
    a: Candidate
    b: Candidate
    expected: str


def read_gold(scene: Scene) -> list[GoldPair]:
    """What was made before and is whole; [] where there is none."""
    listing = _folder(scene) / _LISTING
    try:
        entries = json.loads(listing.read_text())
        found = [
            GoldPair(each["kind"], _candidate(each["a"]), _candidate(each["b"]), each["expected"]) for each in entries
        ]
    except (OSError, ValueError, TypeError, KeyError):
        return []  # it is made again
    return [pair for pair in found if all(scene.inside(each.image_path).is_file() for each in (pair.a, pair.b))]


def make_gold(
    scene: Scene, frames: Frames, most: int = MOST, stop: Callable[[], bool] = lambda: False
) -> list[GoldPair]:
    """Up to `most` gold pairs of this scene's frames: those there were, and new ones. Takes some tenths of a second
    for each new one; `stop` ends it early.

    The same frames make the same pairs.
    """
    now = {candidate.sha256 for candidates in frames.values() for candidate in candidates}
    kept = [pair for pair in read_gold(scene) if pair.b.extra.get("made_from", pair.a.extra.get("made_from")) in now]
    made = {_origin(pair): pair for pair in kept}
    for kind, frame, candidate in _plan(scene, frames):
        # Of a scene that was deleted meanwhile no part comes back.
        if len(made) >= most or stop() or not (scene.root / "scene.json").is_file():
            break
        if (kind, candidate.sha256) in made:
            continue
        try:
            pair = _make(scene, kind, frame, candidate)
        except (Difix3DError, OSError):
            continue  # a picture that cannot be read is no gold
        if pair is not None:
            made[kind, candidate.sha256] = pair
            _save(scene, list(made.values()))
    return list(made.values())


def _plan(scene: Scene, frames: Frames) -> list[tuple[str, FrameKey, Candidate]]:
    """What could be made, the kinds in turn, frames in an order that looks drawn at random."""
    photos = _photos(scene)
    order = sorted(frames, key=lambda frame: hashlib.sha256(repr((scene.id, frame)).encode()).digest())
    by_kind: dict[str, list[tuple[FrameKey, Candidate]]] = {kind: [] for kind in KINDS}
    for frame in order:
        candidates = frames[frame]
        if frame[0] == _HELDOUT and frame[1] in photos:
            # The photos that a fix was made from are shown beside this pair, too.
            beside = next((each.references for each in candidates if each.references), ())
            by_kind[PHOTO].append((frame, replace(candidates[0], references=beside)))
        by_kind[CORRUPTED].append((frame, candidates[-1]))
        by_kind[IDENTICAL].append((frame, candidates[-1]))
    # Two of corrupted and of photos for one identical pair: ties are told apart less surely.
    by_kind[IDENTICAL] = by_kind[IDENTICAL][1::2] or by_kind[IDENTICAL][:1]
    rounds = max(map(len, by_kind.values()), default=0)
    return [(kind, *by_kind[kind][number]) for number in range(rounds) for kind in KINDS if number < len(by_kind[kind])]


def _make(scene: Scene, kind: str, frame: FrameKey, candidate: Candidate) -> GoldPair | None:
    source = scene.inside(candidate.image_path)
    if hash_file(source) != candidate.sha256:
        return None
    base = replace(candidate, extra={"gold": kind, "made_from": candidate.sha256, "role": "as it is"})
    if kind == IDENTICAL:
        twin = replace(base, image_path=_copy(scene, source, "twin"), extra={**base.extra, "role": "twin"})
        return _pair(kind, replace(base, image_path=_copy(scene, source, "first")), twin, expected_first=None)
    rgb = read_rgb(source)
    if kind == CORRUPTED:
        seed = int(candidate.sha256[:8], 16)
        worse = _write(scene, corrupt(rgb, seed), kind, candidate)
        return _pair(kind, base, replace(worse, extra={**base.extra, "role": kind}), expected_first=True)
    name = _photos(scene)[frame[1]]
    photo = read_rgb(scene.images_dir / name, (rgb.shape[1], rgb.shape[0]))
    if psnr(photo, rgb) > _TOO_LIKE_DB:
        return None
    true = _write(scene, photo, kind, candidate)
    return _pair(kind, replace(true, extra={**base.extra, "role": kind, "photo": name}), base, expected_first=True)


def corrupt(rgb: NDArray[np.uint8], seed: int) -> NDArray[np.uint8]:
    """[H, W, 3] with what bad reconstructions show: a ghost beside each edge, blur, and dark and pale floaters."""
    from PIL import Image, ImageDraw, ImageFilter

    rng = random.Random(seed)
    height, width = rgb.shape[:2]
    side = max(width, height)
    picture = Image.fromarray(rgb).filter(ImageFilter.GaussianBlur(side / 150))
    ghost = Image.fromarray(np.roll(rgb, (side // 60, side // 30), axis=(0, 1)))
    picture = Image.blend(picture, ghost, 0.4)
    floaters = Image.new("L", (width, height), 0)
    draw = ImageDraw.Draw(floaters)
    for _ in range(6):
        x, y = rng.random() * width, rng.random() * height
        rx, ry = (side * rng.uniform(0.04, 0.12) for _ in range(2))
        draw.ellipse((x - rx, y - ry, x + rx, y + ry), fill=rng.randint(120, 220))
    floaters = floaters.filter(ImageFilter.GaussianBlur(side / 100))
    shade = rng.choice((40, 210))
    return np.asarray(Image.composite(Image.new("RGB", (width, height), (shade,) * 3), picture, floaters))


def psnr(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> float:
    """dB of two pictures of one size; infinite for the same pixels."""
    error = np.mean((one.astype(np.float32) - other.astype(np.float32)) ** 2)
    return float("inf") if error == 0 else float(10 * np.log10(255**2 / error))


def _pair(kind: str, first: Candidate, second: Candidate, expected_first: bool | None) -> GoldPair:
    in_order = candidate_key(first) <= candidate_key(second)
    a, b = (first, second) if in_order else (second, first)
    expected = "tie" if expected_first is None else "a" if in_order == expected_first else "b"
    return GoldPair(kind, a, b, expected)


def _write(scene: Scene, rgb: NDArray[np.uint8], kind: str, of: Candidate) -> Candidate:
    """A made picture as a candidate of the frame: its fixer is the kind, so that it is told from real fixes."""
    path = _folder(scene) / f"{_name(kind, of.sha256)}.png"
    write_rgb(path, rgb)
    return replace(
        of, fixer=kind, image_path=scene.relative(path), sha256=hash_file(path), references=of.references, timestep=None
    )


def _copy(scene: Scene, source: Path, role: str) -> str:
    path = _folder(scene) / f"{_name(role, str(source))}.png"
    if not path.is_file():
        with replacing_file(path) as temporary:
            shutil.copyfile(source, temporary)
    return scene.relative(path)


def _name(*facts: str) -> str:
    return hashlib.sha256("\0".join(facts).encode()).hexdigest()[:24]


def _origin(pair: GoldPair) -> tuple[str, str]:
    return pair.kind, str(pair.a.extra.get("made_from"))


def _save(scene: Scene, pairs: Sequence[GoldPair]) -> None:
    write_json(_folder(scene) / _LISTING, [asdict(pair) for pair in pairs])


def _folder(scene: Scene) -> Path:
    return scene.root / "gold"


def _photos(scene: Scene) -> Mapping[int, str]:
    """Frame of the trajectory `heldout` -> name of the photo taken there; {} where there is none."""
    try:
        names = read_camera_path(scene.trajectory_path(_HELDOUT)).view_names
    except (Difix3DError, OSError):
        return {}
    return {number: name for number, name in enumerate(names) if (scene.images_dir / name).is_file()}


def _candidate(entry: dict) -> Candidate:
    return Candidate(**{**entry, "references": tuple(entry.get("references", ()))})

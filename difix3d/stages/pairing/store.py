"""The folder of all pairs: what it holds, what it will need, and its index.

What is in it stays: further scenes join, a unit made with other settings is made anew.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from difix3d.atomic import recover_folder, replacing_file, write_json
from difix3d.errors import ConfigError
from difix3d.machine import free_disk_bytes
from difix3d.pairs.read import SIDECAR, read_rows
from difix3d.pairs.rows import PairRow
from difix3d.ratings.export_scenes import split_scenes
from difix3d.stages.pairing.unit import MANIFEST, Unit

MARK = "pairs.json"
DIFIX = "difix.json"
RENDER_BYTES, PHOTO_BYTES, DEPTH_BYTES = 6, 3, 2
"""Of a pixel, at most: a render with alpha and depth, a photo, a depth. PNG takes half to all of that."""
_SPARE_BYTES = 2**28
"""Left free on the disk, for everybody else."""


@contextmanager
def opened(out: Path) -> Iterator[None]:
    """Claim `out` for one run, without what a killed one left half-written. ConfigError where it holds something else,
    or another run works in it."""
    if out.exists() and not (out / MARK).is_file() and (out.is_file() or any(out.iterdir())):
        raise ConfigError(f"{out} exists and holds no pairs: name a new folder with --out")
    out.mkdir(parents=True, exist_ok=True)
    if not (out / MARK).is_file():
        sign(out, {}, {})
    lock = FileLock(out / ".lock", thread_local=False)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        raise ConfigError(
            f"Another run makes pairs in {out}. Wait for it, or name another folder with --out."
        ) from None
    try:
        _sweep(out)
        yield
    finally:
        _sweep(out)
        lock.release()


def sign(out: Path, settings: dict[str, Any], figures: dict[str, Any]) -> None:
    """Mark `out` as a folder of pairs, with what the last run was asked and what it found."""
    write_json(out / MARK, {"made_by": "difix3d pairs", "settings": settings, "figures": figures})


def _sweep(out: Path) -> None:
    for old in (out / "pairs").glob("*/.*.old"):
        recover_folder(old.with_name(old.name[1 : -len(".old")]))
    for partial in list((out / "pairs").rglob(".*.partial*")):
        shutil.rmtree(partial, ignore_errors=True) if partial.is_dir() else partial.unlink(missing_ok=True)


def key_of(unit: Unit, inputs: Mapping[str, str]) -> str:
    """A hash of everything that decides a unit's files. inputs: hashes of the scene's photos and cameras."""
    how = "references chosen together"  # once they were the first ones by rank
    decided = [how, asdict(unit.plan), asdict(unit.settings), unit.references, unit.licence, dict(inputs)]
    return hashlib.sha256(json.dumps(decided, sort_keys=True).encode()).hexdigest()


def is_made(unit: Unit) -> bool:
    """Whether the unit is there as it would be made now."""
    manifest = unit.folder / MANIFEST
    return manifest.is_file() and json.loads(manifest.read_text())["key"] == unit.key


def estimated_bytes(units: Sequence[Unit], pixels: Mapping[str, int], photos: Mapping[str, int]) -> int:
    """What the files of these units take at most. pixels, photos: scene -> of one picture; how many there are."""
    total = 0
    for unit in units:
        stops = Counter(shot.stop for shot in unit.plan.shots)
        seen = sum(min(len(unit.plan.fitted), count * unit.references) for count in stops.values())
        size = pixels[unit.scene.name]
        total += size * (RENDER_BYTES * len(unit.plan.shots) + DEPTH_BYTES * seen)
    return total + sum(PHOTO_BYTES * pixels[scene] * photos[scene] for scene in {unit.scene.name for unit in units})


def require_space(out: Path, needed: int) -> None:
    """ConfigError where the disk of `out` has not so many bytes to spare."""
    free = free_disk_bytes(out) - _SPARE_BYTES
    if needed > free:
        raise ConfigError(
            f"The pairs need up to {needed / 2**20:,.0f} MB, and the disk of {out} has {max(0, free) / 2**20:,.0f} MB "
            "to spare. Ask for fewer with --max-pairs, for smaller ones with --long-side-px, or name another --out."
        )


def manifests(out: Path) -> list[dict[str, Any]]:
    """Those of all units in `out`, rows as PairRow, by scene and fit."""
    found = []
    for path in sorted((out / "pairs").glob(f"*/*/{MANIFEST}")):
        manifest = json.loads(path.read_text())
        rows = [PairRow.from_json(row) for row in manifest["rows"]]
        found.append({**manifest, "rows": rows, "scene": path.parent.parent.name, "fit": path.parent.name})
    return found


def splits_in(out: Path) -> dict[str, str]:
    """Scene -> its split, as the last run wrote it."""
    return {row.scene: row.split for row in read_rows(out)} if (out / SIDECAR).is_file() else {}


def write_index(
    out: Path, units: Iterable[dict[str, Any]], test_share: float, known: Mapping[str, str] | None = None
) -> list[PairRow]:
    """difix.json and pairs.jsonl of all units, split by scene; the rows, those left out too. known: scene -> the split
    that it stays in."""
    rows = [row for unit in units for row in unit["rows"]]
    splits = split_scenes({row.scene for row in rows if not row.left_out}, test_share, known)
    rows = [replace(row, split=splits.get(row.scene, "")) for row in rows]
    difix: dict[str, dict[str, Any]] = {"train": {}, "test": {}}
    for row in rows:
        if not row.left_out:
            difix[row.split][row.id] = row.difix()
    with replacing_file(out / SIDECAR) as temporary:
        temporary.write_text("".join(json.dumps(row.to_json()) + "\n" for row in rows))
    write_json(out / DIFIX, difix)
    return rows


def bytes_in(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())

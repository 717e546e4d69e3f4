"""One fit of a scene, the renders made of it, and their files in one folder: done whole or not at all."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from difix3d.atomic import replacing_folder, write_json
from difix3d.formats.colmap import read_reconstruction
from difix3d.formats.image import to_uint8
from difix3d.pairs.plan import FitPlan, Shot
from difix3d.pairs.rows import PairRow, ReferenceRow
from difix3d.references import choose_references
from difix3d.scene import Scene
from difix3d.stages.pairing.fits import FitSettings, State, states
from difix3d.stages.pairing.photos import Photos, file_stem
from difix3d.types import Camera, Reconstruction

MANIFEST = "unit.json"
_FITTING = 0.8
"""Share of a unit's time that goes into fitting, about; the rest into renders and files."""


_PSNR_OF_EQUALS = 100.0
"""Stands for infinity, which JSON has not."""


@dataclass(frozen=True)
class Unit:
    """A unit to make. scene: the scene's folder; out: the folder of all pairs; references: for each pair, at most;
    key: of everything that decides the result; licence: what is known of the photos'."""

    scene: Path
    out: Path
    plan: FitPlan
    settings: FitSettings
    references: int
    key: str
    licence: dict[str, Any]

    @property
    def label(self) -> str:
        return f"{self.scene.name}, {self.plan.name}"

    @property
    def scene_dir(self) -> Path:
        """Of all that `out` holds of the scene."""
        return self.out / "pairs" / self.scene.name

    @property
    def folder(self) -> Path:
        return self.scene_dir / self.plan.name


def make_unit(unit: Unit) -> Iterator[float]:
    """Make the unit's folder; yields the share that is done, several times a second."""
    scene = Scene(unit.scene)
    reconstruction = read_reconstruction(scene.sparse_dir, scene.images_dir)
    long_side_px = unit.settings.long_side_px
    photos = Photos(reconstruction, long_side_px, unit.scene_dir / f"photos-{long_side_px}")
    started = time.monotonic()
    rows: list[PairRow] = []
    fitted = 0.0
    stops_missed = {shot.stop for shot in unit.plan.shots}
    with replacing_folder(unit.folder) as folder:
        for said in states(unit.plan, unit.settings, reconstruction, photos):
            if not isinstance(said, State):
                fitted = said
                yield _share(fitted, rows, unit)
                continue
            stops_missed.discard(said.stop)
            renders = _Renders(unit, folder, reconstruction, photos, said)
            for shot in unit.plan.shots:
                if shot.stop == said.stop:
                    rows.append(renders.row(shot))
                    yield _share(fitted, rows, unit)
        seconds = round(time.monotonic() - started, 2)
        facts = {"key": unit.key, "seconds": seconds, "stops_missed": sorted(stops_missed)}
        write_json(folder / MANIFEST, {**facts, "rows": [row.to_json() for row in rows]})


def _share(fitted: float, rows: list[PairRow], unit: Unit) -> float:
    return _FITTING * fitted + (1 - _FITTING) * len(rows) / len(unit.plan.shots)


class _Renders:
    """Renders of one state of the fit, as rows with files. folder: where the unit's files are being put."""

    def __init__(self, unit: Unit, folder: Path, reconstruction: Reconstruction, photos: Photos, state: State):
        self._unit, self._reconstruction, self._photos, self._state = unit, reconstruction, photos, state
        self._renderer = unit.settings.renderer
        self._stop = f"{100 * state.stop:03.0f}"
        self._folder = folder / self._stop
        (self._folder / "seen").mkdir(parents=True)
        self._depths: dict[str, str] = {}

    def row(self, shot: Shot) -> PairRow:
        """Render the shot; its files are written if it makes a pair."""
        from difix3d.metrics import psnr
        from difix3d.pairs.alignment import align
        from difix3d.splatting import render_view

        camera, target, stem = self._photos.camera(shot.photo), self._photos.rgb(shot.photo), file_stem(shot.photo)
        rgb, alpha, _ = render_view(self._state.splats, camera, renderer=self._renderer)
        render = to_uint8(rgb)
        alignment = align(render, alpha, target)
        facts: dict[str, Any] = {
            "id": f"{self._unit.scene.name}-{self._unit.plan.name}-{self._stop}-{stem}",
            "scene": self._unit.scene.name,
            "strategy": shot.strategy,
            "photo": shot.photo,
            "camera": camera,
            "left_out": alignment.problem,
            "alignment": asdict(alignment),
            "psnr": round(min(psnr(render, target), _PSNR_OF_EQUALS), 3),
            "provenance": self._provenance(),
        }
        if alignment.problem:
            return PairRow(**facts)
        depth = self._depth(camera)
        return PairRow(
            **facts,
            image=self._save(f"{stem}.png", render),
            alpha=self._save(f"{stem}_alpha.png", to_uint8(alpha)),
            depth=self._save(f"{stem}_depth.npy", depth),
            target=self._photo_file(shot.photo),
            references=tuple(self._references(shot, camera, depth)),
        )

    def _references(self, shot: Shot, camera: Camera, depth: NDArray[np.float32]) -> Iterator[ReferenceRow]:
        """Of the photos that the fit saw those that a fixer is given where nobody names any; never the target."""
        names = [name for name in self._unit.plan.fitted if name != shot.photo]
        most = self._unit.references
        for one in choose_references(camera, self._reconstruction, names, most=most, depth=depth):
            at = self._photos.camera(one.name)
            if one.name not in self._depths:
                self._depths[one.name] = self._save(f"seen/{file_stem(one.name)}_depth.npy", self._depth(at))
            files = {"image": self._photo_file(one.name), "depth": self._depths[one.name]}
            yield ReferenceRow(
                one.name,
                at,
                **files,
                score=round(one.score, 4),
                distance=round(one.distance, 5),
                angle_deg=round(one.angle_deg, 3),
            )

    def _provenance(self) -> dict[str, Any]:
        plan, state = self._unit.plan, self._state
        made = {"fit": plan.name, "fitted": len(plan.fitted), "stop": state.stop, "step": state.step}
        cost = {"seconds": state.seconds, "splats": len(state.splats)}
        return {**made, **cost, **asdict(self._unit.settings), "licence": self._unit.licence}

    def _depth(self, camera: Camera) -> NDArray[np.float32]:
        from difix3d.splatting.surface import surface_depth

        return surface_depth(self._state.splats, camera, renderer=self._renderer)

    def _photo_file(self, name: str) -> str:
        return self._photos.file(name).relative_to(self._unit.out).as_posix()

    def _save(self, name: str, array: NDArray) -> str:
        """Pictures (uint8) as PNG, depth (float32) as half floats. The path is that in the finished `out`.

        A half float is at most 0.05 % off, which moves a photo that is warped over half the viewing distance by 0.12 px
        at 480 px: a tenth of what depth from such fits is off.
        """
        path = self._folder / name
        if array.dtype == np.uint8:
            Image.fromarray(array).save(path)
        else:
            half = np.minimum(array, np.finfo(np.float16).max).astype(np.float16)
            np.save(path, half, allow_pickle=False)
        return (self._unit.folder.relative_to(self._unit.out) / self._stop / name).as_posix()

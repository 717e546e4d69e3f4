"""Pairs: captures in, flawed renders with the photos that were truly taken there out, to train fixers on."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from difix3d.errors import ConfigError, Difix3DError
from difix3d.events import Done, Event, Progress, Warned
from difix3d.formats.colmap import read_reconstruction
from difix3d.pairs.plan import STRATEGIES, Plan, plan_fits, thinned
from difix3d.pairs.rows import PairRow
from difix3d.ratings.export_scenes import keep_splits, known_splits, what_to_know
from difix3d.scene import Scene
from difix3d.stages.base import option
from difix3d.stages.fit import PRESETS
from difix3d.stages.pairing import store
from difix3d.stages.pairing.fits import FitSettings
from difix3d.stages.pairing.photos import fitted_size
from difix3d.stages.pairing.sources import Source, captured_photos, find_sources, licence_of, open_scene
from difix3d.stages.pairing.unit import Unit
from difix3d.stages.pairing.workers import run_units, worker_count

_QUICK = PRESETS["quick"]
_FORETELLING = 0.1
"""Fits that must be done before the time left is told: processes take some seconds to start."""
_PLACES = ("out", "scenes")
"""Settings that name folders of this machine: they stay here."""


@dataclass(frozen=True)
class PairsConfig:
    """Which captures, which of the paper's strategies, and how much of each."""

    out: str = field(metadata={"help": "folder of the pairs; what it holds already stays, and is not made again"})
    scenes: tuple[str, ...] = option((), "scenes, folders of photos, videos, or folders of these")
    strategies: tuple[str, ...] = option(STRATEGIES, f"of {', '.join(STRATEGIES)}")
    every: tuple[int, ...] = option((2, 3, 5), "sparse: fit only every K-th photo, for each K")
    stops: tuple[float, ...] = option((0.25, 0.5, 0.75), "underfit: shares of the schedule to stop at")
    shift: float = option(0.2, "cycle: how far aside, as a share of the viewing distance", minimum=0.01, maximum=1)
    max_pairs: int = option(200, "at most so many of a scene, spread over all of its fits", minimum=1)
    references: int = option(4, "photos with each pair, at most, that together show the most", minimum=1, maximum=16)
    steps: int = option(2000, "of each fit; about what the quick preset does on two cores", minimum=50)
    max_splats: int = option(_QUICK.max_splats, "of each fit, at most", minimum=100, maximum=5_000_000)
    long_side_px: int = option(_QUICK.long_side_px, "longer side of renders and photos", minimum=64, maximum=4096)
    test_share: float = option(
        0.2, "share of the scenes that goes to test; a scene stays in its split", minimum=0.0, maximum=0.9
    )
    renderer: str = option("auto", "gsplat needs CUDA; auto takes it where it works", choices=("auto", "gsplat", "cpu"))
    workers: int = option(0, "fits at once; 0: as many as there are cores and memory for", minimum=0, maximum=256)
    seed: int = option(0, "of the random choices", minimum=0)


@dataclass
class _Planned:
    """A scene with its units. pixels: of its largest photo at the size that is fitted."""

    scene: Scene
    plan: Plan
    units: list[Unit]
    photos: int
    pixels: int

    @property
    def name(self) -> str:
        return self.scene.id


def pairs(config: PairsConfig) -> Iterator[Event]:
    """Yields Progress, Warned for what cannot be used, and at last Done with figures: pairs, train, test, left_out
    (kind -> number), fits, reused, bytes, and scenes: name -> {split, licence, pairs (strategy -> number), left_out,
    skipped (strategy or fit -> why), seconds}; failed (scene or fit -> why).

    Closing this, or killing it, keeps every fit that is done: the same call goes on. Raises ConfigError for settings
    that cannot be, for an `out` that holds something else and for a disk that is too full.
    """
    _check(config)
    sources = find_sources(config.scenes)
    out, started = Path(config.out).resolve(), time.monotonic()
    failed: dict[str, str] = {}
    with store.opened(out):
        planned: list[_Planned] = []
        settings = _fit_settings(config)
        for number, source in enumerate(sources):
            yield Progress("pairs", f"Looking at {source.name}", number, len(sources), "scenes")
            try:
                planned.append((yield from _planned(source, config, settings, out)))
            except Difix3DError as error:
                failed[source.name] = error.message
                yield Warned("pairs", f"{source.name} is left out: {error.message}")
        if not planned:
            raise ConfigError(f"None of the {len(sources)} scenes can be used: {next(iter(failed.values()))}")
        todo = [unit for one in planned for unit in one.units if not store.is_made(unit)]
        reused = sum(len(one.units) for one in planned) - len(todo)
        pixels, photos = ({one.name: getattr(one, what) for one in planned} for what in ("pixels", "photos"))
        needed = store.estimated_bytes(todo, pixels, photos)
        yield Progress("pairs", f"{len(todo)} fits to make, which take up to {needed / 2**20:,.0f} MB", 0, len(todo))
        store.require_space(out, needed)
        failed |= yield from _make(todo, settings, config.workers)
        yield Progress("pairs", "Writing the index", len(todo), len(todo), "fits")
        made = store.manifests(out)
        scenes = [one.scene for one in planned]
        known = known_splits(scenes, store.splits_in(out).items())
        rows = store.write_index(out, made, config.test_share, known)
        splits = {row.scene: row.split for row in rows if row.split}
        keep_splits(scenes, splits)  # where a scene cannot be written to, `out` says it still
        for sentence in what_to_know(splits, known, config.test_share):
            yield Warned("pairs", f"{sentence}.")
        if all(row.left_out for row in rows):
            yield Warned("pairs", f"{out} holds no pairs: {len(rows)} renders were made, and all of them left out.")
        figures = _figures(rows, made, {one.name: one.plan for one in planned})
        figures |= {"fits": len(made), "reused": reused, "failed": failed, "bytes": store.bytes_in(out / "pairs")}
        seconds = round(time.monotonic() - started, 2)
        figures["seconds"] = seconds
        store.sign(out, {name: value for name, value in asdict(config).items() if name not in _PLACES}, figures)
    yield Done("pairs", seconds, figures, (str(out),))


def _check(config: PairsConfig) -> None:
    if unknown := set(config.strategies) - set(STRATEGIES):
        raise ConfigError(f"There is no strategy {sorted(unknown)[0]!r}. Choose of {', '.join(STRATEGIES)}.")
    if bad := [step for step in config.every if step < 2]:
        raise ConfigError(f"every is {bad[0]}; at least 2 is needed, so that photos are left to render")
    percents = [round(100 * stop) for stop in config.stops]
    if not percents or not 0 < min(percents) <= max(percents) < 100 or len(set(percents)) < len(percents):
        raise ConfigError(f"stops is {config.stops}; expected shares between 0 and 1, each at least 0.01 from the next")


def _fit_settings(config: PairsConfig) -> FitSettings:
    from difix3d.splatting.dispatch import default_device

    renderer = "gsplat" if default_device(config.renderer) == "cuda" else "cpu"
    return FitSettings(config.steps, config.max_splats, config.long_side_px, config.shift, renderer, config.seed)


def _planned(source: Source, config: PairsConfig, settings: FitSettings, out: Path) -> Generator[Event, None, _Planned]:
    """The scene and the units to make of it. Difix3DError where it cannot be used."""
    scene = yield from open_scene(source, out / "scenes", config.seed)
    reconstruction = read_reconstruction(scene.sparse_dir)
    captured = captured_photos(scene, reconstruction)
    plan = plan_fits(captured, config.strategies, every=config.every, stops=config.stops)
    plan = thinned(plan, config.max_pairs)
    for name, why in plan.skipped.items():
        yield Warned("pairs", f"{source.name}: no {name}: {why}")
    licence, inputs = licence_of(source, scene), scene.hash_inputs(["images", "sparse"])
    units = []
    for fit in plan.fits:
        unit = Unit(scene.root, out, fit, settings, config.references, "", licence)
        units.append(replace(unit, key=store.key_of(unit, inputs)))
    sized = [fitted_size(view.camera, config.long_side_px) for view in reconstruction.views]
    return _Planned(scene, plan, units, len(captured), max((one.width * one.height for one in sized), default=0))


def _make(todo: Sequence[Unit], settings: FitSettings, asked: int) -> Generator[Event, None, dict[str, str]]:
    """Make the units; those that could not be, with why."""
    failed: dict[str, str] = {}
    if not todo:
        return failed
    workers = worker_count(len(todo), settings.renderer, asked)
    told = Progress("pairs", "Preparing the renderer (its first use compiles for half a minute)", 0, len(todo), "fits")
    yield told
    if settings.renderer == "cpu":
        from difix3d.splatting import warm_up

        warm_up()  # here, so that the workers find the kernels on disk
    shares = dict.fromkeys((unit.label for unit in todo), 0.0)
    started = time.monotonic()
    with contextlib.closing(run_units(todo, workers)) as words:  # type: ignore[type-var]
        for said in words:
            if said is not None:
                shares[said.unit.label] = 1.0 if said.ended else said.share
                done = sum(shares.values())
                left = (time.monotonic() - started) / done * (len(todo) - done) if done > _FORETELLING else None
                told = Progress("pairs", "Fitting and rendering", round(done, 2), len(todo), "fits", left)
                if said.problem:
                    failed[said.unit.label] = said.problem
                    yield Warned("pairs", f"{said.unit.label} is left out: {said.problem}")
            yield told
    return failed


def _figures(rows: Sequence[PairRow], units: Sequence[dict[str, Any]], plans: dict[str, Plan]) -> dict[str, Any]:
    """Counts of all that the folder holds; what was skipped, of the scenes of this run."""
    kept = [row for row in rows if not row.left_out]
    scenes = {}
    for name in sorted({row.scene for row in rows} | set(plans)):
        of_scene = [row for row in rows if row.scene == name]
        made = [unit for unit in units if unit["scene"] == name]
        licences = sorted({row.provenance["licence"].get("licence", "not stated") for row in of_scene})
        scenes[name] = {
            "split": next((row.split for row in of_scene), ""),
            "licence": " · ".join(licences),
            "pairs": dict(Counter(row.strategy for row in of_scene if not row.left_out)),
            "left_out": dict(Counter(_kind(row) for row in of_scene if row.left_out)),
            "stops_missed": {unit["fit"]: unit["stops_missed"] for unit in made if unit["stops_missed"]},
            "skipped": dict(plans[name].skipped) if name in plans else {},
            "seconds": round(sum(unit["seconds"] for unit in made), 1),
        }
    return {
        "pairs": len(kept),
        "train": sum(row.split == "train" for row in kept),
        "test": sum(row.split == "test" for row in kept),
        "strategies": dict(Counter(row.strategy for row in kept)),
        "left_out": dict(Counter(_kind(row) for row in rows if row.left_out)),
        "scenes": scenes,
    }


def _kind(row: PairRow) -> str:
    return row.left_out.split(":")[0]

"""Fits in processes of their own: a killed one costs its unit and no other, and closing leaves none running."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import psutil
from synthetic_scene import make_synthetic_scene, write_synthetic_scene

from difix3d.pairs.plan import FitPlan, Shot
from difix3d.stages.pairing.fits import FitSettings
from difix3d.stages.pairing.unit import Unit
from difix3d.stages.pairing.workers import run_units, worker_count

ENDLESS = 10_000_000


def units(root: Path, steps: list[int]) -> list[Unit]:
    synthetic = make_synthetic_scene(views=6)
    scene = write_synthetic_scene(root / "scene", synthetic)
    names = tuple(view.name for view in synthetic.reconstruction.views)
    shots = (Shot(names[-1], 1.0, "sparse"),)
    return [
        Unit(
            scene.root,
            root / "out",
            FitPlan(f"fit{index}", names[:-1], shots),
            FitSettings(count, 500, 64, 0.2, "cpu", 0),
            2,
            f"key{index}",
            {},
        )
        for index, count in enumerate(steps)
    ]


def test_a_killed_process_costs_its_unit_and_closing_ends_the_others(tmp_path: Path) -> None:
    endless, short, after, beside = units(tmp_path, [ENDLESS, 20, 20, ENDLESS])
    words = run_units([endless, short, after, beside], workers=2)
    ended = []
    for said in words:
        if said is None or said.unit is beside:
            continue
        if said.unit is endless and not said.ended and said.share > 0 and len(ended) == 2:
            # The other process has made both short units and is at the last, which has no end either.
            processes = sorted(multiprocessing.active_children(), key=lambda process: process.pid or 0)
            assert len(processes) == 2
            processes[0].kill()
        if said.ended:
            ended.append(said)
        if len(ended) == 3:
            break
    problems = {said.unit.plan.name: said.problem for said in ended}
    assert problems["fit1"] == problems["fit2"] == "" and "killed" in problems["fit0"]
    assert {path.parent.name for path in (tmp_path / "out").rglob("unit.json")} == {"fit1", "fit2"}
    words.close()
    assert not multiprocessing.active_children()


def test_no_more_workers_than_units_and_one_for_a_gpu() -> None:
    assert worker_count(3, "cpu", asked=8) == 3
    assert worker_count(100, "gsplat") == 1
    assert 1 <= worker_count(100, "cpu") <= psutil.cpu_count()

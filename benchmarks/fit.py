"""Held-out PSNR, SSIM and LPIPS of fits of real captures, by time budget (or by steps).

    python benchmarks/fit.py [--scenes dev/saharov ...] [--seconds 15 30 60 120] [--steps N ...] [--work DIR] [--json]

Captures are read from ../shared/scenes (or $DIFIX3D_SHARED). Each is ingested and reconstructed once, in DIR. Each
fit is `difix3d fit` in a process of its own, scored at the size it was fitted at, without any correction of exposure.
Every finished fit is a line of DIR/fit.jsonl: run the command again after an interruption and it goes on there; a fit
by other code is made anew. What seconds give depends on what else the machine does; with --steps the same code gives
the same splats.
Prints a table; with --json the last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from benchmark_scene import code_digest

from difix3d import metrics
from difix3d.formats.colmap import read_reconstruction
from difix3d.formats.image import read_rgb, to_uint8
from difix3d.formats.ply import read_splats
from difix3d.scene import Scene
from difix3d.splatting import render_view
from difix3d.stages.fit import PRESETS

ROOT = Path(__file__).resolve().parent.parent
SHARED = Path(os.environ.get("DIFIX3D_SHARED", ROOT.parent / "shared"))
SCENES = ("dev/brighton", "dev/panel17", "dev/saharov", "dev/v_street", "train/conch", "train/plush")
SECONDS = (15.0, 30.0, 60.0, 120.0)
SCORES = {"psnr": "PSNR, dB", "ssim": "SSIM", "lpips": "LPIPS (VGG)"}
WORK = ROOT / "benchmarks" / ".cache" / "fit"
_CHILD_LIMIT_S = 3600


@dataclass(frozen=True)
class Run:
    """One fit to make. One of seconds and steps is 0. code: digest of what fits."""

    scene: str
    seconds: float
    steps: int
    preset: str
    max_splats: int
    code: str

    @property
    def budget(self) -> str:
        return f"{self.steps:,} steps" if self.steps else f"{self.seconds:g} s"


def reconstructed(name: str, work: Path) -> Scene:
    """The scene of a capture, ingested and reconstructed with the default settings unless DIR has it."""
    folder = work / "scenes" / name.replace("/", "-")
    if (folder / "stages" / "reconstruct.json").is_file():
        return Scene(folder)
    source = SHARED / "scenes" / name
    capture = next((path for path in (source / "images", source / "video.mp4") if path.exists()), None)
    if capture is None:
        sys.exit(f"{source} holds neither images nor video.mp4: set DIFIX3D_SHARED, or choose other --scenes")
    _difix3d("run", str(capture), "--scene", str(folder), "--until", "reconstruct")
    return Scene(folder)


def measured(run: Run, scene: Scene) -> dict[str, Any]:
    """Fit, then score the held-out photos: means, and how much work it was."""
    flags = ["--preset", run.preset, "--max-splats", str(run.max_splats)]
    flags += ["--steps", str(run.steps)] if run.steps else ["--seconds", str(run.seconds)]
    # A fit of the same settings by other code would be kept as it is.
    scene.manifest_path("fit").unlink(missing_ok=True)
    figures = _difix3d("fit", "--scene", str(scene.root), *flags)["figures"]
    scores = heldout_scores(scene, PRESETS[run.preset].long_side_px)
    work = {name: figures[name] for name in ("splats", "steps", "curve")}
    pace = round(figures["steps"] / figures["seconds"], 1)
    return {**scores, **work, "fit_seconds": figures["seconds"], "steps_per_second": pace}


def heldout_scores(scene: Scene, long_side_px: int) -> dict[str, float | None]:
    """Means of SCORES over the held-out photos; LPIPS is None without its weights."""
    splats, heldout = read_splats(scene.splats_path), set(scene.split()["heldout"])
    values: dict[str, list[float | None]] = {name: [] for name in SCORES}
    for view in read_reconstruction(scene.sparse_dir, scene.images_dir).views:
        if view.name not in heldout or view.image_path is None:
            continue
        camera = view.camera.resized(min(long_side_px, max(view.camera.width, view.camera.height)))
        photo = read_rgb(view.image_path, (camera.width, camera.height))
        drawn = to_uint8(render_view(splats, camera)[0])
        for name, column in values.items():
            column.append(getattr(metrics, name)(drawn, photo))
    return {name: mean(column, 4) for name, column in values.items()}


def mean(values: Sequence[float | None], digits: int) -> float | None:
    """None where any is missing."""
    known = [value for value in values if value is not None]
    return round(float(np.mean(known)), digits) if known and len(known) == len(values) else None


def _difix3d(*arguments: str) -> dict[str, Any]:
    """A command in its own process, and what it answers; its words go to stderr."""
    command = [sys.executable, "-m", "difix3d", *arguments, "--json"]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, timeout=_CHILD_LIMIT_S)
    if done.returncode:
        sys.exit(f"difix3d {' '.join(arguments)} failed with status {done.returncode}")
    return json.loads(done.stdout.splitlines()[-1])


def table(results: list[tuple[Run, dict[str, Any]]]) -> str:
    """Markdown: for each score a row per scene and the mean, a column per budget; then what the fits did."""
    budgets = list(dict.fromkeys(run.budget for run, _ in results))
    scenes = list(dict.fromkeys(run.scene for run, _ in results))
    by_key = {(run.scene, run.budget): result for run, result in results}

    def grid(title: str, rows: dict[str, list[str]]) -> str:
        head = [f"| {title} | {' | '.join(budgets)} |", f"| --- |{' ---: |' * len(budgets)}"]
        return "\n".join([*head, *(f"| {name} | {' | '.join(cells)} |" for name, cells in rows.items()), ""])

    grids = []
    for score, title in SCORES.items():
        digits = 2 if score == "psnr" else 3
        rows = {scene: [by_key[scene, budget][score] for budget in budgets] for scene in scenes}
        rows["**mean**"] = [mean(column, 4) for column in zip(*rows.values())]
        shown = {
            name: ["" if value is None else f"{value:.{digits}f}" for value in values] for name, values in rows.items()
        }
        grids.append(grid(title, shown))
    work = "{splats:,}, {steps:,} ({steps_per_second:.0f})"
    grids.append(
        grid(
            "splats, steps (per s)",
            {scene: [work.format(**by_key[scene, budget]) for budget in budgets] for scene in scenes},
        )
    )
    return "\n".join(grids)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", nargs="+", default=SCENES, help="folders of scenes/ in the shared folder")
    parser.add_argument("--seconds", type=float, nargs="*", help=f"time budgets (default: {SECONDS})")
    parser.add_argument("--steps", type=int, nargs="*", default=[], help="budgets in steps")
    parser.add_argument("--preset", default="quick", choices=tuple(PRESETS), help="size of photos, number of splats")
    parser.add_argument("--max-splats", type=int, default=0, help="default: the preset's")
    parser.add_argument("--work", type=Path, default=WORK, help="kept between runs")
    parser.add_argument("--json", action="store_true", help="also print one JSON object, as the last line")
    arguments = parser.parse_args()

    code = code_digest()
    seconds = arguments.seconds if arguments.seconds is not None else [] if arguments.steps else SECONDS
    budgets = [(each, 0) for each in seconds] + [(0.0, each) for each in arguments.steps]
    arguments.work.mkdir(parents=True, exist_ok=True)
    log = arguments.work.resolve() / "fit.jsonl"
    rows = [json.loads(line) for line in log.read_text().splitlines()] if log.is_file() else []
    known = {Run(**row["run"]): row["result"] for row in rows}
    results = []
    for name in arguments.scenes:
        scene = None
        for limit_s, steps in budgets:
            run = Run(name, limit_s, steps, arguments.preset, arguments.max_splats, code)
            if run not in known:
                scene = scene or reconstructed(name, log.parent)
                known[run] = measured(run, scene)
                with log.open("a") as file:
                    file.write(json.dumps({"run": asdict(run), "result": known[run]}) + "\n")
            results.append((run, known[run]))
    print(table(results))
    if arguments.json:
        print(json.dumps([{**asdict(run), **result} for run, result in results]))


if __name__ == "__main__":
    main()

"""Make captures to train on: path-traced yards drawn by chance, with true cameras.

    python -m venv blender && blender/bin/pip install bpy==5.0.0 pillow     (Python 3.11)
    blender/bin/python examples/make_training_scenes.py --out yards --seeds 1 2 3 4
    difix3d pairs --scenes yards --out pairs

A seed gives one yard and one way to photograph it, by the same drawing code as the courtyard: nothing is downloaded, so
the pictures are yours. Photos that are there are skipped: an interrupted run goes on where it stopped. Some 10 seconds
a photo on one CPU core.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

import bpy
import numpy as np
from mathutils import Matrix

sys.path.insert(0, str(Path(__file__).resolve().parent))
from courtyard_blender import yard
from courtyard_blender.photographer import Lens, aimed, around, camera_of, describe, empty, photograph

WIDTH, HEIGHT = 480, 320
LICENCE = """The pictures in this folder were drawn by examples/make_training_scenes.py of Difix3D Studio.

CC0 1.0 Universal: https://creativecommons.org/publicdomain/zero/1.0/
"""


def captured(rng: np.random.Generator, count: int) -> list[Matrix]:
    """A walk around, a walk past, or a flight over, by an unsteady hand."""
    way = rng.choice(["around", "past", "above"], p=[0.5, 0.25, 0.25])
    share = np.linspace(0, 1, count)
    if way == "past":
        places = [(6.0 * (s - 0.5), -rng.uniform(3.6, 4.0), 1.5 + 0.5 * np.sin(3 * np.pi * s)) for s in share]
    elif way == "above":
        rows = 4
        places = [
            (4.4 * ((i % rows) / (rows - 1) - 0.5), 4.4 * ((i // rows) / (count / rows) - 0.5), rng.uniform(3.6, 4.2))
            for i in range(count)
        ]
    else:
        start, arc = rng.uniform(0, 360), rng.uniform(160, 360)
        places = [
            around(start + arc * 2 * min(s, 1 - s), rng.uniform(3.5, 4.0), 1.5 if s < 0.5 else 2.4) for s in share
        ]
    aim = (0.0, 0.0, 0.0 if way == "above" else 0.6)
    drift = 0.3 if way == "past" else 0.6 if way == "above" else 0.0
    return [
        aimed(
            tuple(float(at + rng.normal(0, 0.06)) for at in place),
            tuple(goal + drift * at + rng.normal(0, 0.08) for goal, at in zip(aim, (*place[:2], 0.0))),
            rng.normal(0, 1.5),
        )
        for place in places
    ]


def exposures(rng: np.random.Generator, count: int) -> np.ndarray:
    """[count] stops: steady, drifting as a phone's does, or each photo's own."""
    kind = rng.choice(["steady", "drifting", "own"], p=[0.5, 0.3, 0.2])
    start = rng.uniform(-0.3, 0.4)
    if kind == "steady":
        return np.full(count, start)
    if kind == "own":
        return start + rng.normal(0, 0.08, count)
    return start + np.cumsum(rng.normal(0, 0.06, count))


def make(folder: Path, seed: int, photos: int, samples: int, threads: int) -> None:
    rng = np.random.default_rng([seed, 1])
    lens = Lens(WIDTH, HEIGHT, int(rng.integers(24, 36)), "Yard")
    poses, stops = captured(rng, photos), exposures(rng, photos)
    paths = [folder / "images" / f"{index:05d}.jpg" for index in range(1, photos + 1)]
    paths[0].parent.mkdir(parents=True, exist_ok=True)
    (folder / "LICENSE").write_text(LICENCE)
    (folder / "info.json").write_text(json.dumps({"licence": "CC0 1.0", "permissive": True}, indent=1) + "\n")
    described = folder / "transforms.json"
    if described.exists() and len(json.loads(described.read_text())["frames"]) != photos:
        sys.exit(
            f"{folder} was begun with another number of photos, whose cameras differ. Give that, or another --out."
        )
    describe(folder, lens, poses, paths)
    missing = [index for index, path in enumerate(paths) if not path.exists()]
    if not missing:
        return
    empty()
    yard.build(seed)
    camera = camera_of(lens, samples, threads)
    began = time.monotonic()
    for done, index in enumerate(missing, 1):
        bpy.context.scene.view_settings.exposure = float(stops[index])
        photograph(camera, lens, poses[index], paths[index], noise_seed=index)
        print(f"{folder.name}: {done} of {len(missing)}, {(time.monotonic() - began) / done:.1f} s each", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", required=True, help="one yard each")
    parser.add_argument("--photos", type=int, default=28)
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    for seed in options.seeds:
        make(options.out / f"yard{seed:03d}", seed, options.photos, options.samples, options.threads)


if __name__ == "__main__":
    main()

"""How long the fixer `lite` takes for a 640x360 frame with two references, photos aligned, and what it weighs.

    python benchmarks/lite.py [--json]

On the bundled courtyard (see benchmark_scene.py). The depths are rendered before the clock starts: a session keeps
those of the references. Measure on an idle machine.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from collections.abc import Callable

import numpy as np
from benchmark_scene import fitted_scene

from difix3d.fixers.lite.fixer import WEIGHTS, LiteFixer, run
from difix3d.fixers.lite.planes import planes_of
from difix3d.fixers.reproject import ReprojectFixer
from difix3d.formats.image import to_uint8
from difix3d.splatting import render_view
from difix3d.splatting.surface import surface_depth
from difix3d.splatting.trainer import Photo
from difix3d.types import Frame, Reference, Splats

WIDTH, HEIGHT = 640, 360
SPLATS = 20_000
REPETITIONS = 15


def median_ms(call: Callable[[], object]) -> float:
    times = []
    for _ in range(REPETITIONS + 1):
        began = time.perf_counter()
        call()
        times.append(time.perf_counter() - began)
    return round(1000 * float(np.median(times[1:])), 1)


def frame_at(splats: Splats, photo: Photo) -> Frame:
    camera = photo.camera.sized(WIDTH, HEIGHT)
    rgb, alpha, _ = render_view(splats, camera)
    return Frame("benchmark", 0, camera, to_uint8(rgb), alpha, surface_depth(splats, camera))


def reference_at(splats: Splats, photo: Photo) -> Reference:
    return Reference(photo.name, photo.camera, photo.rgb, surface_depth(splats, photo.camera))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--json", action="store_true", help="the last line is all figures as JSON")
    arguments = parser.parse_args()
    scene = fitted_scene(None, [SPLATS])
    splats, photos = scene.splats[SPLATS], scene.photos
    frame = frame_at(splats, photos[1])
    references = [reference_at(splats, photos[index]) for index in (0, 2, 3, 4)]

    lite, reproject = LiteFixer(), ReprojectFixer()
    began = time.perf_counter()
    lite.load()
    figures: dict[str, float] = {"load_ms": round(1000 * (time.perf_counter() - began), 1)}
    assert lite.network is not None
    for count in (0, 1, 2, 4):
        some = references[:count]
        planes = planes_of(frame, some)
        figures[f"align_{count}_ms"] = median_ms(lambda some=some: planes_of(frame, some))  # type: ignore[misc]
        figures[f"network_{count}_ms"] = median_ms(lambda planes=planes: run(lite.network, *planes))  # type: ignore[misc]
        figures[f"lite_{count}_ms"] = median_ms(lambda some=some: lite.fix(frame, some))  # type: ignore[misc]
        figures[f"reproject_{count}_ms"] = median_ms(lambda some=some: reproject.fix(frame, some))  # type: ignore[misc]
    figures["weights_mb"] = round(WEIGHTS.stat().st_size / 1e6, 2)
    figures["peak_memory_mb"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    for name, value in figures.items():
        print(f"{name:20} {value}")
    if arguments.json:
        print(json.dumps(figures))


if __name__ == "__main__":
    main()

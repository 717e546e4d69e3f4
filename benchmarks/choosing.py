"""How soon the picture follows when somebody chooses photos on the Fix page: seconds per press, by fixer.

    python benchmarks/choosing.py SCENE [--frames N] [--json]

SCENE: a scene with a rendered path (difix3d run CAPTURE --scene SCENE). At frames spread over the path, seen at no more
than 640 pixels: the photos are offered with what each covers, two are chosen, a third is added, the first is taken out.
Medians over the frames. A first frame is left out: it loads splats, kernels and weights. Measure on an idle machine.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np

from difix3d.scene import Scene
from difix3d.stages.choosing import Chooser
from difix3d.stages.fixing import FixSession
from difix3d.ui.fix import MOST_OFFERED, frames_of

FIXERS = ("reproject", "lite")
STEPS = ("offered", "two chosen", "a third added", "one taken out")


def seconds_at(chooser: Chooser, trajectory: str, index: int) -> list[float]:
    """Of each of STEPS."""
    at = [time.perf_counter()]
    names = [one.name for one in chooser.offered(trajectory, index, MOST_OFFERED)]
    at.append(time.perf_counter())
    for chosen in (names[:2], names[:3], names[1:3]):
        chooser.preview(trajectory, index, chosen)
        at.append(time.perf_counter())
    return list(np.diff(at))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("scene", type=Path, metavar="SCENE")
    parser.add_argument("--frames", type=int, default=7)
    parser.add_argument("--json", action="store_true", help="the last line is all figures as JSON")
    arguments = parser.parse_args()
    scene = Scene(arguments.scene)
    trajectory, numbers = next(iter(frames_of(scene).items()))
    spread = [numbers[round(at)] for at in np.linspace(0, len(numbers) - 1, arguments.frames + 1)]
    figures = {}
    print(f"| seconds, {trajectory} | {' | '.join(STEPS)} |\n| --- {'| ---: ' * len(STEPS)}|")
    for fixer in FIXERS:
        chooser = Chooser(FixSession(scene, fixer))
        rows = [seconds_at(chooser, trajectory, index) for index in dict.fromkeys(spread)]
        medians = [round(float(value), 3) for value in np.median(rows[1:], axis=0)]
        figures[fixer] = dict(zip(STEPS, medians))
        print(f"| {fixer} | {' | '.join(f'{value:.2f}' for value in medians)} |")
    if arguments.json:
        print(json.dumps({"scene": scene.id, "trajectory": trajectory, "seconds": figures}))


if __name__ == "__main__":
    main()

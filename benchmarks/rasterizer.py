"""Milliseconds of the CPU rasterizer on a fitted scene, phase by phase, and its gradients against float64.

    python benchmarks/rasterizer.py [--json] [--scene DIR] [--counts N ...] [--repetitions N]

Prints a table; with --json the last line is one JSON object. Measure on an idle machine.
"""

# ruff: noqa: E402  the tests hold the reference, and have to be on the path first
from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path += [str(ROOT), str(ROOT / "tests")]

import difix3d  # noqa: F401  first: it says how torch's threads wait, and torch reads that once

# isort: split
import numpy as np
import torch
from benchmark_scene import HEIGHT, WIDTH, FittedScene, fitted_scene, photos_at
from floor import FLOP_PER_PAIR, peak_gflops, useful_pairs
from reference_rasterizer import reference_rasterize
from splat_scenes import leaves, relative_error

from difix3d.splatting import ScreenSpace, l1_ssim, rasterize, warm_up
from difix3d.splatting.cpu import image_loss, rasterizer
from difix3d.splatting.parameters import SplatParameters
from difix3d.splatting.trainer import Photo
from difix3d.types import Camera, Splats

COUNTS = (20_000, 50_000, 100_000)
LARGE = (640, 360)
"""The most splats are drawn at this size, too."""
NAMES = ("means", "quats", "log_scales", "opacity_logits", "sh")
PHASES = ("project", "sort and bin", "blend", "loss", "blend back", "project back", "Adam", "rest")
WORKERS = {
    "project": "project",
    "blend": "blend",
    "blend_backward": "blend back",
    "project_backward": "project back",
}
VIEWS = 8
CROP = (64, 36)


@contextmanager
def phase_clock() -> Iterator[dict[str, float]]:
    """Seconds by phase while inside, read where the rasterizer and the loss hand their kernels to threads."""
    spent: dict[str, float] = defaultdict(float)

    def timed(name_of: Callable[..., str], function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            started = time.perf_counter()
            result = function(*args)
            spent[name_of(*args)] += time.perf_counter() - started
            return result

        return call

    before = rasterizer.run, rasterizer.bin_splats, image_loss.run
    rasterizer.run = timed(lambda worker, *_: WORKERS[worker.__name__], before[0])
    rasterizer.bin_splats = timed(lambda *_: "sort and bin", before[1])
    image_loss.run = timed(lambda *_: "loss", before[2])
    try:
        yield spent
    finally:
        rasterizer.run, rasterizer.bin_splats, image_loss.run = before


def measure(splats: Splats, photos: list[Photo], repetitions: int) -> dict[str, Any]:
    """Median milliseconds of training steps over all photos, `repetitions` times: whole, and by phase.

    forward_backward is `rasterize` and its backward pass, given dL/d(rgb); step adds the loss and Adam.
    Learning rates are 0, so that every step sees the same splats.
    """
    parameters = SplatParameters(splats, "cpu", 1.0)
    targets = [torch.tensor(photo.rgb).float() / 255.0 for photo in photos]
    rows: list[dict[str, float]] = []
    for repetition in range(repetitions + 1):  # the first one warms caches up
        for photo, target in zip(photos, targets):
            with phase_clock() as spent:
                clock = [time.perf_counter()]
                rgb, _, _ = rasterize(*parameters.inputs(3), photo.camera, renderer="cpu", screen=ScreenSpace())
                clock.append(time.perf_counter())
                seen = rgb.detach().requires_grad_()
                l1_ssim(seen, target).backward()
                clock.append(time.perf_counter())
                rgb.backward(seen.grad)
                clock.append(time.perf_counter())
                parameters.step()
                clock.append(time.perf_counter())
            forward, loss, backward, adam = np.diff(clock)
            row = {**spent, "loss": loss, "Adam": adam}
            row["rest"] = forward + backward - sum(row[name] for name in ("sort and bin", *WORKERS.values()))
            row |= {"forward_backward": forward + backward, "step": forward + loss + backward + adam}
            if repetition:
                rows.append(row)
    spread = np.percentile([row["forward_backward"] for row in rows], [10, 90]) * 1e3
    return {
        name: round(float(np.median([row[name] for row in rows])) * 1e3, 2)
        for name in ("forward_backward", "step", *PHASES)
    } | {"p10": round(spread[0], 2), "p90": round(spread[1], 2)}


def forward_backward_ms(splats: Splats, photos: list[Photo], threads: int, repetitions: int, everything: bool) -> float:
    """Median over photos, on so many threads; everything: with gradients of alpha and depth, not rgb alone."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    parameters = SplatParameters(splats, "cpu", 1.0)
    times = []
    try:
        for repetition in range(repetitions + 1):
            for photo in photos:
                started = time.perf_counter()
                outputs = rasterize(*parameters.inputs(3), photo.camera, renderer="cpu")
                outputs = outputs if everything else outputs[:1]
                torch.autograd.backward(outputs, [torch.ones_like(output) for output in outputs])
                if repetition:
                    times.append(time.perf_counter() - started)
                parameters.optimiser.zero_grad()
    finally:
        torch.set_num_threads(before)
    return round(float(np.median(times)) * 1e3, 2)


def gradient_errors(splats: Splats, camera: Camera) -> dict[str, float]:
    """Relative L2 against tests/reference_rasterizer.py on a crop in the middle of a view: every splat in it counts.

    Pixels where float32 and float64 may decide differently (undecided, see the reference) have no weight.
    """
    width, height = CROP
    K = camera.K.copy()
    K[:2, 2] -= ((camera.width - width) // 2, (camera.height - height) // 2)
    crop = Camera(K, width, height, camera.cam_from_world)
    everything = {name: torch.tensor(getattr(splats, name)) for name in NAMES}
    screen = ScreenSpace()
    rasterize(**everything, camera=crop, renderer="cpu", screen=screen)
    drawn = torch.nonzero(screen.radii).squeeze(1)
    chosen = {name: tensor[drawn] for name, tensor in everything.items()}
    ours, theirs = leaves(chosen), leaves(chosen, torch.float64)
    shift = torch.zeros(len(drawn), 2, height, width, dtype=torch.float64, requires_grad=True)
    pictures = rasterize(**ours, camera=crop, renderer="cpu", screen=screen)
    undecided = torch.zeros(height, width, dtype=torch.bool)
    truth = reference_rasterize(**theirs, camera=crop, centre_shift=shift, undecided=undecided)
    generator, decided = torch.Generator().manual_seed(0), (~undecided).float()
    masks = (decided[..., None], decided, decided)
    weights = [mask * torch.randn(picture.shape, generator=generator) for picture, mask in zip(pictures, masks)]
    torch.autograd.backward(pictures, weights)
    torch.autograd.backward(truth, [weight.double() for weight in weights])
    errors = {name: relative_error(ours[name].grad, theirs[name].grad) for name in NAMES}
    errors["screen"] = relative_error(screen.abs_gradients, shift.grad.abs().sum((2, 3)))
    return {
        "splats": len(drawn),
        "undecided": int(undecided.sum()),
        **{name: float(f"{error:.2g}") for name, error in errors.items()},
    }


def pairs_in(splats: Splats, camera: Camera) -> int:
    """Useful (pixel, splat) pairs of a view."""
    kept: list[Any] = []
    before = rasterizer.bin_splats
    rasterizer.bin_splats = lambda *args: kept.append(before(*args)) or kept[-1]
    try:
        rasterize(*(torch.tensor(getattr(splats, name)) for name in NAMES), camera, renderer="cpu")
    finally:
        rasterizer.bin_splats = before
    return useful_pairs(kept[0].rows, camera.width, camera.height)


def measured(scene: FittedScene, repetitions: int) -> dict[str, Any]:
    """Everything, for each number of splats, and for the largest at LARGE."""
    warm_up()
    large = photos_at(scene.reconstruction, *LARGE)
    cases = [(str(asked), splats, scene.photos) for asked, splats in scene.splats.items()]
    cases.append((f"{max(scene.splats)} at {LARGE[0]}x{LARGE[1]}", scene.splats[max(scene.splats)], large))
    peak = peak_gflops()
    results = {}
    for name, splats, all_photos in cases:
        photos = [all_photos[i] for i in np.linspace(0, len(all_photos) - 1, VIEWS).astype(int)]
        size = [photos[0].camera.width, photos[0].camera.height]
        row = {"splats": len(splats), "size": size, **measure(splats, photos, repetitions)}
        one, two = (forward_backward_ms(splats, photos, threads, 3, False) for threads in (1, 2))
        pairs = pairs_in(splats, photos[0].camera)
        row |= {
            "one_thread": one,
            "two_threads": two,
            "with_alpha_and_depth": forward_backward_ms(splats, photos, 2, 3, True),
            "useful_pairs": pairs,
            "floor_ms": round(pairs * FLOP_PER_PAIR / peak / 1e6, 2),
            "gradient_errors": gradient_errors(splats, photos[0].camera),
        }
        row["floor_share"] = round(row["floor_ms"] / (row["blend"] + row["blend back"]), 3)
        results[name] = row
    return {
        "machine": {
            "cpu": _cpu_model(),
            "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
            "threads": torch.get_num_threads(),
            "sgemm_gflops": round(peak),
        },
        "scene": scene.name,
        "size": [WIDTH, HEIGHT],
        "views": VIEWS,
        "repetitions": repetitions,
        "ms": results,
    }


def _cpu_model() -> str:
    info = Path("/proc/cpuinfo")
    names = [line for line in info.read_text().splitlines() if "model name" in line] if info.is_file() else []
    return names[0].split(":", 1)[1].strip() if names else platform.processor() or platform.machine()


def table(result: dict[str, Any]) -> str:
    """The result as Markdown."""
    rows = list(result["ms"].values())

    def line(label: str, cells: list[str]) -> str:
        return f"| {label} | {' | '.join(cells)} |"

    lines = [
        "{cpu}, {cores} cores, {threads} threads, {sgemm_gflops} GFLOP/s in sgemm".format(**result["machine"]),
        f"{result['scene']}, SH degree 3; median over {result['views']} views, {result['repetitions']} repetitions",
        "",
        line("ms", ["{:,} splats, {}x{}".format(row["splats"], *row["size"]) for row in rows]),
        line("---", ["---:"] * len(rows)),
        line("**forward + backward**", [f"**{row['forward_backward']:.1f}**" for row in rows]),
        line("10th to 90th percentile", [f"{row['p10']:.1f} to {row['p90']:.1f}" for row in rows]),
        *(line(name, [f"{row[name]:.2f}" for row in rows]) for name in PHASES),
        line("whole training step", [f"{row['step']:.1f}" for row in rows]),
        line("with alpha's and depth's gradients", [f"{row['with_alpha_and_depth']:.1f}" for row in rows]),
        line("one thread", [f"{row['one_thread']:.1f}" for row in rows]),
        line("two threads are faster by", [f"{row['one_thread'] / row['two_threads']:.2f}x" for row in rows]),
        line("useful pairs of pixel and splat", [f"{row['useful_pairs'] / 1e6:.2f} M" for row in rows]),
        line("arithmetic floor of blending", [f"{row['floor_ms']:.2f}" for row in rows]),
        line("its share of both blends", [f"{row['floor_share']:.0%}" for row in rows]),
        "",
        "Gradients against the float64 reference, relative L2 (64x36 pixels of a view, all outputs):",
        "",
        line("group", [f"{row['gradient_errors']['splats']:,} splats" for row in rows]),
        line("---", ["---:"] * len(rows)),
        *(line(name, [f"{row['gradient_errors'][name]:.1e}" for row in rows]) for name in (*NAMES, "screen")),
        line("undecided pixels, left out", [f"{row['gradient_errors']['undecided']}" for row in rows]),
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="also print one JSON object, as the last line")
    parser.add_argument("--scene", type=Path, help="a reconstructed scene; default: the bundled courtyard")
    parser.add_argument("--counts", type=int, nargs="+", default=COUNTS, help="how many splats to fit")
    parser.add_argument("--repetitions", type=int, default=5)
    arguments = parser.parse_args()
    result = measured(fitted_scene(arguments.scene, arguments.counts), arguments.repetitions)
    print(table(result))
    if arguments.json:
        print(json.dumps(result))
    worst = max(row["gradient_errors"][name] for row in result["ms"].values() for name in (*NAMES, "screen"))
    if worst >= 1e-3:
        sys.exit(f"gradients: expected relative L2 below 1e-3, got {worst:.1e}")


if __name__ == "__main__":
    main()

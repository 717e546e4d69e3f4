"""Milliseconds of a frame through Difix, against what the released code does and against the machine's arithmetic.

    python benchmarks/difix.py [--json] [--device cpu|cuda] [--width W] [--sizes 512x512,1024x576]
                               [--dtype float32,bfloat16] [--compile] [--repeats N] [--checkpoint FOLDER]

Weights are random (benchmarks/random_checkpoint.py): of the published size on a GPU, with a quarter of its channels on
a CPU. Ours runs in the dtype that the app takes on the device, and in float32; the released code in float32. Three
calls are timed: a frame without reference; with a reference not seen before; with the same reference as the frame
before, as most frames of a trajectory have. Variants take turns, so that a busy moment hits all.
Prints a table; with --json the last line is one JSON object, whose topmost figures are of the first dtype, the last
size and a new reference. Measure on an idle machine. Fails where float32 is not what the released code computes, or
where the counted work is not that of the published networks.
"""

# ruff: noqa: E402  the package has to be on the path first, where it is not installed
from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
from collections import defaultdict
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT))

import numpy as np
import torch
from difix_floor import Work, count_work, disagreement, specified_tflops
from difix_variants import RELEASED, Call, Variant
from random_checkpoint import write_random_checkpoint

from difix3d.fixers.difix.precision import fast_dtype

CACHE = ROOT / "benchmarks" / ".cache"
ALONE, NEW, SAME = "no reference", "new reference", "same reference"
COUNTS_MAY_DIFFER = 0.01
FLOAT32_MAY_DIFFER = 1e-3
"""Of pixels from 0 to 1: sums in another order, with LoRA merged, differ by about 1e-4 with random weights."""

Size = tuple[int, int]


@dataclass
class Timing:
    """Of one variant in one case. difference, psnr: of its picture to the released code's, pixels from 0 to 1."""

    seconds: list[float] = field(default_factory=list)
    peak_bytes: int = 0
    difference: float | None = None
    psnr: float | None = None

    @property
    def ms(self) -> float:
        return statistics.median(self.seconds) * 1e3


Timings = dict[tuple[str, Size, str], Timing]
"""By variant, size and kind of call. The released code treats the same reference like a new one: it has no SAME."""


def measure(variants: list[Variant], sizes: list[Size], repeats: int) -> tuple[Timings, dict[str, float]]:
    """Timings, and the most TFLOP/s seen in each dtype. variants: the released code first, then ours.

    The first turn of each size warms up, and compares pictures.
    """
    timings: Timings = defaultdict(Timing)
    peaks: dict[str, float] = defaultdict(float)
    numbers = count(1)
    for size in sizes:
        for turn in range(repeats + 1):
            print(f"{_name(size)}: turn {turn} of {repeats}", file=sys.stderr, flush=True)
            for variant in variants[1:]:  # all but the released code
                peaks[variant.name] = max(peaks[variant.name], variant.peak_tflops())
            for kind in (ALONE, NEW, SAME):
                number = next(numbers)  # pixels that no call has seen
                call = Call(
                    size, int(kind != ALONE), frame=number, reference=0 if kind == SAME else number, sampled=turn > 0
                )
                answers = {v.name: v.run(call) for v in variants if (v.name, kind) != (RELEASED, SAME)}
                for name, answer in answers.items():
                    timing = timings[name, size, kind]
                    timing.peak_bytes = max(timing.peak_bytes, answer.peak_bytes)
                    if turn:
                        timing.seconds.append(answer.seconds)
                    elif RELEASED in answers:
                        error = answer.picture - answers[RELEASED].picture
                        timing.difference = float(np.abs(error).max())
                        timing.psnr = float(-10 * np.log10(np.square(error).mean() + 1e-12))
    return timings, peaks


def cases(timings: Timings, works: dict[Size, Work], peaks: dict[str, float]) -> list[dict[str, Any]]:
    """One row for each dtype, size and kind of call. peaks: TFLOP/s by dtype."""
    rows = []
    for (name, size, kind), timing in timings.items():
        if name == RELEASED:
            continue
        released = timings[RELEASED, size, NEW if kind == SAME else kind]
        tflop = works[size].frame(views=1 if kind == ALONE else 2, encoded=2 if kind == NEW else 1)
        floor_ms = tflop / peaks[name] * 1e3
        rows.append(
            {
                "size": _name(size),
                "kind": kind,
                "dtype": name,
                "ms": round(timing.ms, 1),
                "released_ms": round(released.ms, 1),
                "speedup_over_released": round(released.ms / timing.ms, 2),
                "tflop": round(tflop, 3),
                "tflops": round(tflop / timing.ms * 1e3, 3),
                "floor_ms": round(floor_ms, 1),
                "over_floor": round(timing.ms / floor_ms, 2),
                "peak_bytes": timing.peak_bytes,
                "released_peak_bytes": released.peak_bytes,
                "difference": timing.difference,
                "psnr": timing.psnr,
            }
        )
    return rows


def measured(arguments: argparse.Namespace) -> dict[str, Any]:
    device = torch.device(arguments.device)
    on_gpu = device.type == "cuda"
    width = arguments.width or (1.0 if on_gpu else 0.25)
    fast = str(fast_dtype(device)).removeprefix("torch.")
    dtypes = arguments.dtype or list(dict.fromkeys([fast, "float32"]))
    repeats = arguments.repeats or (20 if on_gpu else 2)
    folder = arguments.checkpoint or CACHE / f"difix-{width:g}"
    if not folder.is_dir():
        write_random_checkpoint(folder, width)
    variants = [Variant(RELEASED, folder, arguments.device)]
    variants += [Variant(dtype, folder, arguments.device, arguments.compile) for dtype in dtypes]
    timings, peaks = measure(variants, arguments.sizes, repeats)
    rows = cases(timings, {size: count_work(width, size) for size in arguments.sizes}, peaks)
    top = next(r for r in rows if (r["dtype"], r["size"], r["kind"]) == (dtypes[0], _name(arguments.sizes[-1]), NEW))
    return {
        **top,
        "width": width,
        "repeats": repeats,
        "compiled": arguments.compile,
        "machine": {
            "device": torch.cuda.get_device_name(device) if on_gpu else _cpu_model(),
            "threads": torch.get_num_threads(),
            "cores": os.cpu_count(),
            "torch": torch.__version__,
            "peak_tflops": {dtype: round(peak, 3) for dtype, peak in peaks.items()},
            "specified_tflops": specified_tflops(device),
        },
        "weights_bytes": {variant.name: variant.weights_bytes for variant in variants},
        "counts_differ": round(disagreement(), 4),
        "cases": rows,
    }


def table(result: dict[str, Any]) -> str:
    """The result as Markdown."""
    machine = result["machine"]
    lines = [
        f"{machine['device']}, {machine['cores']} cores, {machine['threads']} threads, torch {machine['torch']}; "
        + ", ".join(f"{peak:.2f} TFLOP/s in {dtype}" for dtype, peak in machine["peak_tflops"].items())
        + (f" (data sheet: {machine['specified_tflops']:.0f})" if machine["specified_tflops"] else ""),
        f"width {result['width']:g}, median of {result['repeats']}{', compiled' if result['compiled'] else ''}; "
        + "weights "
        + ", ".join(f"{name} {size / 1e9:.2f} GB" for name, size in result["weights_bytes"].items())
        + f"; counted work at width 1 within {result['counts_differ']:.1%} of the published networks'",
        "",
        "| call | dtype | ms | released, ms | faster | TFLOP | TFLOP/s | floor, ms | over it | GB (released) | PSNR |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for row in result["cases"]:
        peak = f"{row['peak_bytes'] / 1e9:.2f} ({row['released_peak_bytes'] / 1e9:.2f})"
        psnr = f"{row['psnr']:.0f} dB" if row["psnr"] is not None else ""
        cells = [
            f"{row['size']}, {row['kind']}", row["dtype"], f"{row['ms']:.0f}", f"{row['released_ms']:.0f}",
            f"**{row['speedup_over_released']:.2f}x**", f"{row['tflop']:.2f}", f"{row['tflops']:.2f}",
            f"{row['floor_ms']:.0f}", f"{row['over_floor']:.2f}x", peak, psnr,
        ]  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def complaints(result: dict[str, Any]) -> list[str]:
    """What makes the figures worthless."""
    found = []
    if result["counts_differ"] > COUNTS_MAY_DIFFER:
        found.append(f"counted work: expected within {COUNTS_MAY_DIFFER:.0%}, found {result['counts_differ']:.1%}")
    for row in result["cases"]:
        if row["dtype"] == "float32" and (row["difference"] or 0) > FLOAT32_MAY_DIFFER:
            found.append(f"{row['size']}, {row['kind']}: differs from the released code by {row['difference']:.1e}")
    return found


def _name(size: Size) -> str:
    return f"{size[0]}x{size[1]}"


def _sizes(text: str) -> list[Size]:
    pairs = [tuple(int(side) for side in size.split("x")) for size in text.split(",")]
    if any(len(pair) != 2 or pair[0] % 8 or pair[1] % 8 for pair in pairs):
        raise argparse.ArgumentTypeError(f"expected WIDTHxHEIGHT in multiples of 8, with commas between, got {text!r}")
    return [(pair[0], pair[1]) for pair in pairs]


def _dtypes(text: str) -> list[str]:
    names = text.split(",")
    if unknown := [name for name in names if name not in ("float32", "float16", "bfloat16")]:
        raise argparse.ArgumentTypeError(f"expected float32, float16 or bfloat16, got {', '.join(unknown)}")
    return names


def _cpu_model() -> str:
    info = Path("/proc/cpuinfo")
    names = [line for line in info.read_text().splitlines() if "model name" in line] if info.is_file() else []
    return names[0].split(":", 1)[1].strip() if names else platform.processor() or platform.machine()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="also print one JSON object, as the last line")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="cpu or cuda")
    parser.add_argument(
        "--width", type=float, help="fraction of the published channels; default: 1 on cuda, 1/4 on cpu"
    )
    parser.add_argument("--sizes", type=_sizes, default=_sizes("512x512,1024x576"), help="WIDTHxHEIGHT, smallest first")
    parser.add_argument("--dtype", type=_dtypes, help="of ours, with commas between; the released code runs in float32")
    parser.add_argument("--compile", action="store_true", help="ours through torch.compile")
    parser.add_argument("--repeats", type=int, help="default: 20 on cuda, 2 on cpu")
    parser.add_argument("--checkpoint", type=Path, help="instead of a random one that is kept in benchmarks/.cache")
    arguments = parser.parse_args()
    result = measured(arguments)
    print(table(result))
    if arguments.json:
        print(json.dumps(result))
    if problems := complaints(result):
        sys.exit("\n".join(problems))


if __name__ == "__main__":
    main()

"""Fine-tuning on pairs of one real capture: what it does to pictures kept apart, and that a kill changes nothing.

    python benchmarks/finetune.py [--capture DIR] [--steps 60] [--work DIR] [--json]

The capture (../shared/scenes/dev/saharov, or under $DIFIX3D_SHARED) is fitted to every third of its photos; renders at
the others and the photos taken there are the pairs, of which every fifth is kept apart. A small Difix with random
weights (random_checkpoint.py, width 0.1) is trained on the rest twice: once without a break, and once killed with
SIGKILL half-way and started again. Its weights are random, so the figures say that training works, not how well Difix
fixes. The pairs are kept in DIR for the next time. Prints a table; with --json the last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
from random_checkpoint import write_random_checkpoint
from safetensors.torch import load_file

ROOT = Path(__file__).resolve().parent.parent
SHARED = Path(os.environ.get("DIFIX3D_SHARED", ROOT.parent / "shared"))
DIFIX3D = [sys.executable, "-m", "difix3d"]
RECIPE = ["--width", "208", "--height", "312", "--crop", "128", "--learning-rate", "1e-3", "--gram-warmup-steps", "40",
          "--save-every", "10", "--lora-rank", "0", "--validation-pairs", "4", "--tracker", "none"]  # fmt: skip
WIDTH, KEPT_APART = 0.1, 5


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--capture", type=Path, default=SHARED / "scenes" / "dev" / "saharov" / "images")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--work", type=Path, default=ROOT / "benchmarks" / ".cache" / "finetune")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    work = options.work
    data, start = pairs(options.capture, work), work / "start"
    write_random_checkpoint(start, WIDTH)

    command = [*DIFIX3D, "finetune", "--data", data, "--from", start, "--steps", options.steps, *RECIPE, "--restart"]
    whole = finished([*command, "--out", work / "whole"])
    killed_after = killed([*command, "--out", work / "killed"], work / "killed.training", options.steps // 2)
    resumed = finished([*command[:-1], "--out", work / "killed"])

    found = {
        "steps": options.steps,
        "pairs": whole["pairs"],
        "seconds": whole["seconds"],
        **{f"{metric}_{when}": whole["validation"][when][metric] for metric in ("lpips", "psnr", "ssim")
           for when in ("input", "before", "after")},
        "validation_pairs": whole["validation"]["pairs"],
        "killed_after_step": killed_after,
        "max_difference": largest_difference(work / "whole", work / "killed"),
        "same_validation": resumed["validation"] == whole["validation"],
    }  # fmt: skip
    print(
        f"{found['pairs']} pairs, {found['steps']} steps in {found['seconds']:.0f} s; {torch.get_num_threads()} threads"
    )
    print(f"\n| {found['validation_pairs']} pairs kept apart | LPIPS (VGG) | PSNR, dB | SSIM |")
    print("| --- | ---: | ---: | ---: |")
    for label, when in (("renders", "input"), ("fixed, before training", "before"), ("fixed, after", "after")):
        print(f"| {label} | {found[f'lpips_{when}']:.4f} | {found[f'psnr_{when}']:.2f} | {found[f'ssim_{when}']:.4f} |")
    print(f"\nKilled after step {killed_after} and started again: largest difference {found['max_difference']:g}")
    if options.json:
        print(json.dumps(found))


def pairs(capture: Path, work: Path) -> Path:
    """Renders at photos that the fit did not see, those photos, and the nearest seen photo: exported, and split."""
    scene, data = work / "scene", work / "pairs"
    quietly([*DIFIX3D, "run", capture, "--scene", scene, "--preset", "quick", "--train-every", "3",
             "--trajectory", "heldout", "--until", "render"])  # fmt: skip
    shutil.rmtree(data, ignore_errors=True)
    quietly([*DIFIX3D, "export", "--out", data, "--scenes", scene, "--ratings-db", f"sqlite:///{work / 'none.sqlite'}"])
    path = data / "difix.json"
    rows = {name: row for split in json.loads(path.read_text()).values() for name, row in split.items()}
    apart = sorted(rows)[KEPT_APART // 2 :: KEPT_APART]
    train = {name: row for name, row in rows.items() if name not in apart}
    path.write_text(json.dumps({"train": train, "test": {name: rows[name] for name in apart}}))
    return data


def quietly(command: list[Any]) -> None:
    subprocess.run([*map(str, command)], check=True, cwd=ROOT, stdout=subprocess.DEVNULL)


def finished(command: list[Any]) -> dict[str, Any]:
    """The figures of a command that runs to its end."""
    ended = subprocess.run([*map(str, command), "--json"], check=True, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    return json.loads(ended.stdout.splitlines()[-1])["figures"]


def killed(command: list[Any], training: Path, step: int) -> int:
    """Kill it at once when a state of at least this step is saved; the step of that state."""
    record = training / "state" / "record.json"
    shutil.rmtree(training, ignore_errors=True)
    child = subprocess.Popen([*map(str, command)], cwd=ROOT, stdout=subprocess.DEVNULL)
    while saved_steps(record) < step:
        if child.poll() is not None:
            sys.exit(f"It ended (status {child.returncode}) before it could be killed")
        time.sleep(0.02)
    child.send_signal(signal.SIGKILL)
    child.wait()
    return saved_steps(record)


def saved_steps(record: Path) -> int:
    try:
        return len(json.loads(record.read_text())["losses"])
    except FileNotFoundError:  # none yet, or just being replaced
        return 0


def largest_difference(one: Path, other: Path) -> float:
    """Of any weight of two checkpoints."""
    differences = []
    for part in ("unet", "vae"):
        ours, theirs = (load_file(folder / part / "diffusion_pytorch_model.safetensors") for folder in (one, other))
        assert ours.keys() == theirs.keys()
        differences += [float((ours[name] - theirs[name]).abs().max()) for name in ours]
    return max(differences)


if __name__ == "__main__":
    main()

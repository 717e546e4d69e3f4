"""A tiny export in Difix's format, made from the golden images, and settings of a short training on it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from difix_goldens import Goldens

from difix3d.stages.finetune import FinetuneConfig


def tiny_export(shared: Path, folder: Path, *, references: bool = True) -> Path:
    """Two training rows (image_0 to ref_0's pixels, image_1 to ref_1's) and one test row; paths relative."""
    (folder / "images").mkdir(parents=True)
    for name in ("image_0", "image_1", "ref_0", "ref_1"):
        shutil.copyfile(shared / "golden" / "inputs" / f"{name}.png", folder / "images" / f"{name}.png")

    def row(number: int) -> dict[str, str]:
        images = {"image": f"images/image_{number}.png", "target_image": f"images/ref_{number}.png"}
        if references:
            images["ref_image"] = f"images/ref_{number}.png"
        return {**images, "prompt": "remove degradation"}

    rows = {"train": {"a": row(0), "b": row(1)}, "test": {"c": row(0)}}
    (folder / "difix.json").write_text(json.dumps(rows))
    return folder


def config(goldens: Goldens, shared, tmp_path, **changes) -> FinetuneConfig:
    if not (tmp_path / "export").exists():
        tiny_export(shared, tmp_path / "export")
    settings = {
        "data": str(tmp_path / "export"),
        "start": str(goldens.checkpoint("difix_ref")),
        "out": str(tmp_path / "checkpoints" / "mine"),
        "steps": 10,
        "learning_rate": 2e-3,
        "crop": 32,
        "tracker": "none",
        "lora_rank": 0,
        "max_psnr_drop": 99.0,
    }
    return FinetuneConfig(**{**settings, **changes})

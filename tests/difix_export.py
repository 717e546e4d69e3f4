"""A tiny export in Difix's format, made from the golden images."""

from __future__ import annotations

import json
import shutil
from pathlib import Path


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

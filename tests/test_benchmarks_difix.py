"""What benchmarks/difix.py measures is the published model: its files' sizes, and the released code's picture."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from difix3d.fixers.difix import DifixPipeline

sys.path.append(str(Path(__file__).resolve().parent.parent / "benchmarks"))

import random_checkpoint as checkpoints
from released import LayerWithLora, ReleasedDifix

PUBLISHED_BYTES = {"unet": 3_463_726_504, "vae": 338_717_612, "text": 1_361_596_304}
"""Of nvidia/difix. They hold every key's name and shape: a file with others has another size."""


@pytest.mark.parametrize("part", PUBLISHED_BYTES)
def test_full_width_has_the_published_files_sizes(part: str) -> None:
    shapes = getattr(checkpoints, f"{part}_shapes")(getattr(checkpoints, f"{part}_config")(1.0))
    numbers = sum(torch.Size(shape).numel() for shape in shapes.values())
    assert len(checkpoints.header(shapes)) + 4 * numbers == PUBLISHED_BYTES[part]


def test_released_code_and_pipeline_agree_on_a_random_checkpoint(tmp_path: Path) -> None:
    folder = tmp_path / "random"
    checkpoints.write_random_checkpoint(folder, width=1 / 16)
    pipe, released = DifixPipeline.from_pretrained(folder), ReleasedDifix.from_pretrained(folder)
    adapted = [name for name, module in released.vae.named_modules() if isinstance(module, LayerWithLora)]
    assert "decoder.skip_conv_4" in adapted and "decoder.mid_block.attentions.0.to_out.0" in adapted
    assert pipe.tokenizer("remove degradation").input_ids[::3] == [49406, 49407]  # two words, two tokens
    pixels = torch.rand(2, 3, 32, 40, generator=torch.Generator().manual_seed(0)) * 2 - 1
    for views in (1, 2):
        with torch.no_grad():
            ours = pipe.forward(pixels[None, :views])[0].clamp(-1, 1)
        assert ours.std() > 0.1
        torch.testing.assert_close(released(pixels[:views], posterior="mean"), ours, rtol=0, atol=1e-4)


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        checkpoints.write_random_checkpoint(tmp_path / name, width=1 / 16, seed=seed)
    first, again, other = (
        (tmp_path / name / "vae" / "diffusion_pytorch_model.safetensors").read_bytes() for name in ("a", "b", "c")
    )
    assert first == again != other

"""The recorded pictures on a GPU: float32 as exact as on the CPU, half precision close, memory as planned."""

from __future__ import annotations

import pytest
import torch

from difix3d.fixers.difix import DifixPipeline, memory

pytestmark = [
    pytest.mark.shared,
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


@pytest.mark.parametrize(
    ("dtype", "atol"), [(torch.float32, 1e-4), (torch.float16, 0.03), (torch.bfloat16, 0.15)], ids=str
)
@pytest.mark.parametrize(("model", "ref"), [("difix", None), ("difix_ref", "ref_0")])
def test_a_picture(goldens, model, ref, dtype, atol) -> None:
    pipe = DifixPipeline.from_pretrained(goldens.checkpoint(model), dtype=dtype, device="cuda")
    image, reference = goldens.image("image_0"), goldens.image(ref) if ref else None
    wanted = goldens.pipeline(model)(image, reference, output_type="pt").images[0]
    found = pipe([image] * 3, [reference] * 3 if reference else None, output_type="pt").images
    for picture in found:
        torch.testing.assert_close(picture, wanted, rtol=0, atol=atol)
    again = pipe(image, reference, output_type="pt").images[0]
    assert torch.equal(again, pipe(image, reference, output_type="pt").images[0])


def test_the_peak_is_what_was_planned(goldens) -> None:
    pipe = DifixPipeline.from_pretrained(goldens.checkpoint("difix_ref"), device="cuda")
    image = goldens.image("image_0").resize((1024, 768))
    pipe(image.resize((64, 64)))  # libraries' own workspaces
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    pipe(image)
    channels = pipe.vae.config["block_out_channels"][0]
    planned = memory.plan(*image.size, views=1, channels=channels, itemsize=4, device=pipe.device)
    assert torch.cuda.max_memory_allocated() - before <= planned.bytes_per_frame

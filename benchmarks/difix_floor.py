"""How fast Difix could be at best on a machine: the arithmetic that a frame needs, over what the machine can do.

The networks are counted on meta tensors, which have shapes and no numbers, so that any width costs seconds.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from accelerate import init_empty_weights
from diffusers import UNet2DConditionModel
from random_checkpoint import CONTEXT, text_config, unet_config, vae_config
from torch.utils.flop_counter import FlopCounterMode
from transformers import CLIPTextConfig, CLIPTextModel

from difix3d.fixers.difix.attention import install_view_attention
from difix3d.fixers.difix.vae import DifixVAE

SPECIFIED_TFLOPS = {"A100": 312, "H100 PCIe": 756, "H100": 989, "H200": 989, "L40S": 362, "RTX 4090": 165}
"""Dense half precision, of the data sheets; the first name that the device's own holds counts."""
WIDTH_1 = {
    (512, 512): {"encode": 1.117, "unet": 0.804, "unet, 2 views": 1.854, "decode": 2.547, "text": 0.045},
    (1024, 576): {"encode": 2.609, "unet": 2.149, "unet, 2 views": 5.538, "decode": 5.827, "text": 0.045},
}
"""TFLOP by (width, height), counted before and apart from this code, for the published networks; decode with skips."""


@dataclass(frozen=True)
class Work:
    """TFLOP of the parts, LoRA merged (1 FLOP is half a multiply-add); unet by number of views; decode of one view."""

    encode: float
    unet: dict[int, float]
    decode: float
    text: float

    def frame(self, views: int, encoded: int) -> float:
        """A frame of so many views, of which `encoded` pass the encoder: the others' encodings are kept."""
        return encoded * self.encode + self.unet[views] + self.decode


def count_work(width: float, size: tuple[int, int]) -> Work:
    """Of networks scaled by `width`, at (width, height) pixels."""
    with init_empty_weights():
        vae = DifixVAE(vae_config(width))
        unet = UNet2DConditionModel.from_config(unet_config(width))
        text = CLIPTextModel(CLIPTextConfig.from_dict(text_config(width)))
    install_view_attention(unet)
    w, h = size
    context = unet.config.cross_attention_dim
    pixels = torch.empty(1, 3, h, w, device="meta")
    with torch.no_grad():
        _, _, skips = vae.encode(pixels)

    def run_unet(views: int) -> Any:
        z = torch.empty(views, 4, h // 8, w // 8, device="meta")
        embeds = torch.empty(views, CONTEXT, context, device="meta")
        return unet(z, torch.empty(1, device="meta"), embeds, cross_attention_kwargs={"views": views})

    return Work(
        encode=teraflop(lambda: vae.encode(pixels)),
        unet={views: teraflop(partial(run_unet, views)) for views in (1, 2)},
        decode=teraflop(lambda: vae.decode(torch.empty(1, 4, h // 8, w // 8, device="meta"), skips)),
        text=teraflop(lambda: text(torch.zeros(1, CONTEXT, dtype=torch.long, device="meta"))),
    )


def teraflop(call: Callable[[], Any]) -> float:
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops() / 1e12


def disagreement() -> float:
    """The largest relative difference of what is counted here for the published networks and WIDTH_1."""
    worst = 0.0
    for size, known in WIDTH_1.items():
        work = count_work(1.0, size)
        found = {"encode": work.encode, "unet": work.unet[1], "unet, 2 views": work.unet[2], "decode": work.decode}
        found["text"] = work.text
        worst = max(worst, *(abs(found[name] / known[name] - 1) for name in known))
    return worst


def peak_tflops(device: torch.device, dtype: torch.dtype) -> float:
    """Of a large matrix product: the most this machine is seen to do in that precision."""
    side = 8192 if device.type == "cuda" else 2048
    a, b = (torch.rand(side, side, device=device).to(dtype) for _ in range(2))
    best = float("inf")
    for _ in range(6):
        synchronize(device)
        started = time.perf_counter()
        a @ b
        synchronize(device)
        best = min(best, time.perf_counter() - started)
    return 2 * side**3 / best / 1e12


def specified_tflops(device: torch.device) -> float | None:
    """What the data sheet of a known GPU says."""
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    return next((float(tflops) for known, tflops in SPECIFIED_TFLOPS.items() if known in name), None)


def synchronize(device: torch.device) -> None:
    """Wait for what a GPU still has to do."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)

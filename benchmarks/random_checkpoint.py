"""A checkpoint with random weights in the layout of nvidia/difix_ref, to measure and test what needs its size.

    python benchmarks/random_checkpoint.py FOLDER [--width 1.0] [--seed 0]

Width 1 has the published shapes, key names and file sizes: 5.2 GB, written tensor by tensor. A smaller width scales
the channels of U-Net, autoencoder and text encoder, and keeps their depth, groups of 32 and head width of 64. The same
width and seed give the same bytes. Nothing published is contained: the tokenizer knows one prompt's words as whole
tokens and spells all others in letters.
"""

# ruff: noqa: E402  the package has to be on the path first, where it is not installed
from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT))

import torch
from accelerate import init_empty_weights
from diffusers import UNet2DConditionModel
from tokenizers.pre_tokenizers import ByteLevel
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel

from difix3d.atomic import replacing_folder, write_json
from difix3d.fixers.difix.pipeline import PROMPT
from difix3d.fixers.difix.vae import DifixVAE, lora_targets

GROUPS, HEAD_WIDTH, LORA_RANK = 32, 64, 4
VOCABULARY, CONTEXT = 49408, 77
START, END, PAD = "<|startoftext|>", "<|endoftext|>", "!"

Shapes = dict[str, tuple[int, ...]]


def write_random_checkpoint(folder: Path, width: float = 1.0, seed: int = 0) -> None:
    """Write the folder, whole or not at all."""
    unet, vae, text = unet_config(width), vae_config(width), text_config(width)
    with replacing_folder(folder) as target:
        write_json(target / "model_index.json", MODEL_INDEX)
        for part, name, config in (
            ("scheduler", "scheduler_config.json", SCHEDULER),
            ("tokenizer", "tokenizer_config.json", TOKENIZER),
            ("unet", "config.json", unet),
            ("vae", "config.json", vae),
            ("text_encoder", "config.json", text),
        ):
            (target / part).mkdir()
            write_json(target / part / name, config)
        write_tokenizer(target / "tokenizer")
        generator = torch.Generator().manual_seed(seed)
        for path, shapes in (
            ("unet/diffusion_pytorch_model.safetensors", unet_shapes(unet)),
            ("vae/diffusion_pytorch_model.safetensors", vae_shapes(vae)),
            ("text_encoder/model.safetensors", text_shapes(text)),
        ):
            write_tensors(target / path, shapes, (random_weight(*item, generator) for item in sorted(shapes.items())))


def scaled(channels: int, width: float, multiple: int) -> int:
    """channels * width, as a multiple that is not zero."""
    return max(1, round(channels * width / multiple)) * multiple


def unet_config(width: float) -> dict[str, Any]:
    """Stable Diffusion 2.1's U-Net; attention_head_dim holds numbers of heads, as it does there."""
    channels = [scaled(c, width, HEAD_WIDTH) for c in (320, 640, 1280, 1280)]
    return {
        "_class_name": "UNet2DConditionModel",
        "act_fn": "silu",
        "attention_head_dim": [c // HEAD_WIDTH for c in channels],
        "block_out_channels": channels,
        "center_input_sample": False,
        "cross_attention_dim": scaled(1024, width, HEAD_WIDTH),
        "down_block_types": ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"],
        "downsample_padding": 1,
        "flip_sin_to_cos": True,
        "freq_shift": 0,
        "in_channels": 4,
        "layers_per_block": 2,
        "norm_eps": 1e-05,
        "norm_num_groups": GROUPS,
        "out_channels": 4,
        "sample_size": 64,
        "up_block_types": ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3,
        "use_linear_projection": True,
    }


def vae_config(width: float) -> dict[str, Any]:
    return {
        "_class_name": "AutoencoderKL",
        "act_fn": "silu",
        "block_out_channels": [scaled(c, width, GROUPS) for c in (128, 256, 512, 512)],
        "down_block_types": ["DownEncoderBlock2D"] * 4,
        "force_upcast": True,
        "gamma": 1.0,
        "ignore_skip": False,
        "in_channels": 3,
        "latent_channels": 4,
        "layers_per_block": 2,
        "lora_rank": LORA_RANK,
        "norm_num_groups": GROUPS,
        "out_channels": 3,
        "sample_size": 768,
        "scaling_factor": 0.18215,
        "up_block_types": ["UpDecoderBlock2D"] * 4,
    }


def text_config(width: float) -> dict[str, Any]:
    """The text tower of OpenCLIP ViT-H without its last layer."""
    hidden = scaled(1024, width, HEAD_WIDTH)
    return {
        "architectures": ["CLIPTextModel"],
        "attention_dropout": 0.0,
        "bos_token_id": 0,
        "eos_token_id": 2,
        "hidden_act": "gelu",
        "hidden_size": hidden,
        "intermediate_size": 4 * hidden,
        "layer_norm_eps": 1e-05,
        "max_position_embeddings": CONTEXT,
        "model_type": "clip_text_model",
        "num_attention_heads": hidden // HEAD_WIDTH,
        "num_hidden_layers": 23,
        "pad_token_id": 1,
        "projection_dim": 512,
        "torch_dtype": "float32",
        "vocab_size": VOCABULARY,
    }


SCHEDULER = {
    "_class_name": "DDPMScheduler",
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "clip_sample": False,
    "num_train_timesteps": 1000,
    "prediction_type": "epsilon",
    "steps_offset": 1,
    "timestep_spacing": "trailing",
    "variance_type": "fixed_small",
}
TOKENIZER = {
    "bos_token": START,
    "eos_token": END,
    "model_max_length": CONTEXT,
    "pad_token": PAD,
    "tokenizer_class": "CLIPTokenizer",
    "unk_token": END,
}
MODEL_INDEX = {
    "_class_name": "DifixPipeline",
    "_diffusers_version": "0.25.1",
    "_name_or_path": "random/difix_ref",
    "feature_extractor": [None, None],
    "image_encoder": [None, None],
    "requires_safety_checker": True,
    "safety_checker": [None, None],
    "scheduler": ["diffusers", "DDPMScheduler"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "unet": ["unet_2d_condition", "UNet2DConditionModel"],
    "vae": ["autoencoder_kl", "AutoencoderKL"],
}


def write_tokenizer(folder: Path) -> None:
    """CLIP's byte-pair encoding with the merges of one prompt. Special tokens keep their published ids."""
    letters = sorted(ByteLevel.alphabet())  # "!", the padding, comes first: id 0
    tokens = [*letters, *(f"{letter}</w>" for letter in letters)]
    merges = []
    for word in PROMPT.split():
        left, *rest = [*word[:-1], f"{word[-1]}</w>"]
        for right in rest:
            if (left, right) not in merges:
                merges.append((left, right))
                tokens.append(left + right)
            left += right
    ids = {token: number for number, token in enumerate(tokens)} | {START: VOCABULARY - 2, END: VOCABULARY - 1}
    (folder / "vocab.json").write_text(json.dumps(ids, ensure_ascii=False), encoding="utf-8")
    lines = ["#version: 0.2", *(f"{left} {right}" for left, right in merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    special = {"bos_token": START, "eos_token": END, "pad_token": PAD, "unk_token": END}
    write_json(folder / "special_tokens_map.json", special)


def unet_shapes(config: dict[str, Any]) -> Shapes:
    with init_empty_weights():
        unet = UNet2DConditionModel.from_config(config)
    return {name: tuple(tensor.shape) for name, tensor in unet.state_dict().items()}


def vae_shapes(config: dict[str, Any]) -> Shapes:
    """With the decoder's LoRA apart: X.base_layer.* and X.lora_A|B.vae_skip.weight, as peft names them."""
    with init_empty_weights():
        vae = DifixVAE(config)
    adapted = set(lora_targets(vae))
    shapes: Shapes = {}
    for name, tensor in vae.state_dict().items():
        module, _, kind = name.rpartition(".")
        if module not in adapted:
            shapes[name] = tuple(tensor.shape)
            continue
        shapes[f"{module}.base_layer.{kind}"] = tuple(tensor.shape)
        if kind == "weight":
            out, *inner = tensor.shape
            shapes[f"{module}.lora_A.vae_skip.weight"] = (LORA_RANK, *inner)
            shapes[f"{module}.lora_B.vae_skip.weight"] = (out, LORA_RANK, *(1 for _ in inner[1:]))
    return shapes


def text_shapes(config: dict[str, Any]) -> Shapes:
    with init_empty_weights():
        model = CLIPTextModel(CLIPTextConfig.from_dict(config))
    prefix = "text_model."  # left out by new versions of transformers, present in what is published
    return {prefix + name.removeprefix(prefix): tuple(tensor.shape) for name, tensor in model.state_dict().items()}


def random_weight(name: str, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """float32. A layer gives out what it takes in, in size: normal with variance 1 / fan-in; norms near identity.

    Every branch of these networks starts at a norm, so the sums of branches stay in the tens, far from half
    precision's end. LoRA changes its layer's output by about a tenth: a wrong scale shows, the sizes stay.
    """
    normal = torch.randn(shape, generator=generator)
    if len(shape) == 1:
        return normal.mul_(0.05).add_(1.0 if name.endswith("weight") else 0.0)
    spread = math.sqrt(shape[0] / normal.numel())
    return normal.mul_(0.05 * spread if ".lora_B." in name else spread)


def write_tensors(path: Path, shapes: Shapes, tensors: Iterable[Tensor]) -> None:
    """A safetensors file, holding one tensor at a time in memory. tensors: float32, in the order of sorted names."""
    with path.open("wb") as file:
        file.write(header(shapes))
        for tensor in tensors:
            tensor.numpy().tofile(file)


def header(shapes: Shapes) -> bytes:
    """What a safetensors file of float32 begins with: its length, then names, shapes and places as JSON."""
    entries: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, shape in sorted(shapes.items()):
        start, end = end, end + 4 * math.prod(shape)
        entries[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [start, end]}
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--width", type=float, default=1.0, help="fraction of the published number of channels")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    write_random_checkpoint(arguments.folder, arguments.width, arguments.seed)
    for path in sorted(arguments.folder.glob("*/*.safetensors")):
        print(f"{path.relative_to(arguments.folder)}: {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()

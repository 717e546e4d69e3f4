"""Tensors of a checkpoint, as its files have them, to those of our modules: strictly, every key accounted for."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from difix3d.errors import CheckpointError
from difix3d.fixers.difix.vae import SKIP_CONVS, DifixVAE, LoraWeights, low_rank_update

Tensors = dict[str, Tensor]

_LORA_KEY = re.compile(r"(?P<module>.+)\.lora_(?P<factor>[AB])\.[^.]+\.weight")
_SKIP_START = 1e-5
"""What the published training set every weight of a new skip convolution to."""
# diffusers' names of an attention's layers before version 0.15, which some Stable Diffusion VAEs still have.
_OLD_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}


def read_tensors(path: Path, where: str) -> Tensors:
    """The tensors of a safetensors file; CheckpointError, naming it `where`, for one that is broken."""
    try:
        return load_file(path)
    except SafetensorError as error:
        raise CheckpointError(
            f"{where}: expected safetensors, could not read it ({error}). If it was downloaded, fetch it again."
        ) from error


def load_strictly(module: nn.Module, state: Tensors, where: str) -> None:
    """Load float32 weights; CheckpointError names keys that are missing, unknown or of another shape."""
    wanted = module.state_dict()
    missing, unknown = sorted(wanted.keys() - state.keys()), sorted(state.keys() - wanted.keys())
    misshaped = [
        f"{name} (expected {list(wanted[name].shape)}, found {list(state[name].shape)})"
        for name in sorted(wanted.keys() & state.keys())
        if wanted[name].shape != state[name].shape
    ]
    problems = [
        f"{len(names)} {what}: {', '.join(names[:5])}{', ...' if len(names) > 5 else ''}"
        for what, names in (("missing", missing), ("unknown", unknown), ("of another shape", misshaped))
        if names
    ]
    if problems:
        raise CheckpointError(f"{where} does not fit the model of its config.json. Keys {'; '.join(problems)}")
    module.load_state_dict({name: value.float() for name, value in state.items()}, strict=True, assign=True)


def split_lora(state: Tensors, where: str) -> tuple[Tensors, LoraWeights]:
    """A VAE's tensors as plain base weights and LoRA factors; a merged one has no factors.

    Raises CheckpointError for a factor without its partner or without a weight that it fits.
    """
    base: Tensors = {}
    factors: dict[str, Tensors] = {}
    for key, value in state.items():
        if match := _LORA_KEY.fullmatch(key):
            factors.setdefault(match["module"], {})[match["factor"]] = value.float()
        else:
            base[key.replace(".base_layer.", ".")] = value
    for module, pair in factors.items():
        weight = base.get(f"{module}.weight")
        if pair.keys() != {"A", "B"} or weight is None:
            raise CheckpointError(f"{where}: {module} has LoRA tensors without lora_A, lora_B or base_layer.weight")
        a, b = pair["A"], pair["B"]
        if a.shape[0] != b.shape[1] or b.shape[0] != weight.shape[0] or a[0].numel() != weight[0].numel():
            raise CheckpointError(
                f"{where}: {module}: LoRA of shapes {list(a.shape)} and {list(b.shape)} does not fit a weight of "
                f"{list(weight.shape)}"
            )
    return base, {module: (pair["A"], pair["B"]) for module, pair in factors.items()}


def merged(base: Tensors, lora: LoraWeights) -> Tensors:
    """Base weights with the LoRA added, computed in float32."""
    result = dict(base)
    for module, (a, b) in lora.items():
        weight = base[f"{module}.weight"].float()
        result[f"{module}.weight"] = weight + low_rank_update(a, b).view_as(weight)
    return result


def has_skips(vae_state: Tensors) -> bool:
    """Whether these are weights of Difix's VAE rather than of Stable Diffusion's."""
    return any(f".{name}." in key for key in vae_state for name in SKIP_CONVS)


def with_new_skips(vae_state: Tensors, vae: DifixVAE) -> Tensors:
    """Stable Diffusion's VAE weights as a start of training: today's names, and skips that hardly act yet."""
    renamed = {}
    for key, value in vae_state.items():
        for old, new in _OLD_ATTENTION.items():
            key = re.sub(rf"(\.attentions\.\d+)\.{old}\.", rf"\1.{new}.", key)
        renamed[key] = value
    skips = {
        f"decoder.{name}.weight": torch.full(conv.weight.shape, _SKIP_START)
        for name, conv in zip(SKIP_CONVS, vae.skip_convs)
    }
    return renamed | skips


def text_keys(state: Tensors, model: nn.Module) -> Tensors:
    """Keys as this version of transformers has them: with or without "text_model.", never with position_ids."""
    prefix = "text_model."
    wants_prefix = any(name.startswith(prefix) for name in model.state_dict())
    found = {}
    for name, value in state.items():
        if not name.endswith("position_ids"):  # a constant that old versions stored
            found[(prefix if wants_prefix else "") + name.removeprefix(prefix)] = value
    return found


def read_training_pickle(path: Path) -> tuple[Tensors, Tensors]:
    """(U-Net state, partial VAE state) of the `model_N.pkl` that the published training script writes.

    The VAE's part holds only what was trained: keys with "lora" or "skip". The file is read without running anything
    in it: CheckpointError for one that would run code, or that holds something else.
    """
    try:
        found: Any = torch.load(path, map_location="cpu", weights_only=True, mmap=False)
    except Exception as error:  # torch raises whatever the broken bytes lead to: UnpicklingError, EOFError, KeyError...
        raise CheckpointError(
            f"{path.name}: expected the tensors that Difix's training saves (model_N.pkl), and could not read it "
            f"safely: it is damaged, or holds code, which is never run ({type(error).__name__})"
        ) from error
    wanted = ("state_dict_unet", "state_dict_vae")
    if not isinstance(found, dict) or not all(_is_state(found.get(name)) for name in wanted):
        there = sorted(map(str, found)) if isinstance(found, dict) else type(found).__name__
        raise CheckpointError(f"{path.name}: expected entries {' and '.join(wanted)} with tensors, found {there}")
    unet, vae = ({key.removeprefix("module."): value for key, value in found[name].items()} for name in wanted)
    return unet, vae


def _is_state(value: Any) -> bool:
    return isinstance(value, dict) and all(
        isinstance(key, str) and isinstance(entry, Tensor) for key, entry in value.items()
    )

"""Which weights of a checkpoint training moves, and how it saves memory on them.

As published: the whole U-Net; low-rank updates (LoRA, rank 4) of the decoder; the base weights of its four skip
convolutions. Frozen: encoder, quant convolutions, the decoder's own weights, text encoder. The decoder's LoRA goes on
from the checkpoint's where it is kept apart, and starts anew on merged weights. Or, to move less: low-rank updates of
the U-Net in place of all of it.
"""

from __future__ import annotations

import functools
from typing import Any

from torch import nn
from torch.nn.utils import parametrize
from torch.utils.checkpoint import checkpoint

from difix3d.fixers.difix.pipeline import DifixPipeline
from difix3d.fixers.difix.vae import attach_lora, lora_targets, new_lora
from difix3d.training.draws import Purpose, generator_of

_DECODER_RANK = 4
_UNET_LAYERS = ("to_q", "to_k", "to_v", "to_out.0", "proj_in", "proj_out", "ff.net.0.proj", "ff.net.2")
"""What diffusers' own LoRA training adapts in a U-Net, and the feed-forward layers beside it."""


def make_trainable(pipeline: DifixPipeline, *, unet_rank: int = 0, seed: int = 0) -> list[nn.Parameter]:
    """Attach the low-rank updates and free what is trained; returns those parameters, each once.

    unet_rank: of the U-Net's updates; 0 trains all of it. seed: of new updates, which change nothing yet. The pipeline
    must come from `from_pretrained(..., keep_lora=True)`, in float32: AdamW loses small updates in less.
    """
    generator = generator_of(seed, Purpose.NEW_LORA)
    unet, vae = pipeline.unet, pipeline.vae
    decoder_lora = pipeline.checkpoint.lora or new_lora(vae, lora_targets(vae), _DECODER_RANK, generator)
    parameters = attach_lora(vae, decoder_lora)
    parameters += [_base_weight(conv) for conv in vae.skip_convs]
    if unet_rank:
        names = [name for name, _ in unet.named_modules() if name.endswith(_UNET_LAYERS)]
        parameters += attach_lora(unet, new_lora(unet, names, unet_rank, generator))
    else:
        parameters += list(unet.parameters())
    for parameter in parameters:
        parameter.requires_grad_(True)
    return parameters


def checkpoint_activations(pipeline: DifixPipeline) -> None:
    """Compute the activations of U-Net and decoder blocks again for the gradients instead of keeping them: about a
    third more work for a fraction of the memory, and the same gradients."""
    pipeline.unet.enable_gradient_checkpointing()  # type: ignore[operator]
    decoder: Any = pipeline.vae.decoder
    for block in (decoder.mid_block, *decoder.up_blocks):  # DifixVAE calls blocks, past diffusers' own switch
        block.forward = functools.partial(checkpoint, block.forward, use_reentrant=False)


def _base_weight(layer: nn.Module) -> nn.Parameter:
    if parametrize.is_parametrized(layer, "weight"):
        return layer.parametrizations.weight.original  # type: ignore[union-attr, return-value]
    return layer.weight  # type: ignore[return-value]

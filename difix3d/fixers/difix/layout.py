"""The files of a checkpoint folder. Weights are safetensors and settings text: never code (.py), never pickles."""

from __future__ import annotations

UNET = "unet/diffusion_pytorch_model.safetensors"
VAE = "vae/diffusion_pytorch_model.safetensors"
TEXT_ENCODER = "text_encoder/model.safetensors"
WEIGHTS = (TEXT_ENCODER, UNET, VAE)

MODEL_INDEX = "model_index.json"
UNET_CONFIG, VAE_CONFIG, TEXT_ENCODER_CONFIG = "unet/config.json", "vae/config.json", "text_encoder/config.json"
SCHEDULER_CONFIG = "scheduler/scheduler_config.json"
NEEDED = (
    MODEL_INDEX,
    SCHEDULER_CONFIG,
    TEXT_ENCODER_CONFIG,
    "tokenizer/vocab.json",
    "tokenizer/merges.txt",
    UNET_CONFIG,
    VAE_CONFIG,
    *WEIGHTS,
)
ABOUT = "difix3d.json"
"""What checkpoints trained here say of themselves."""
EVERYTHING = (*NEEDED, ABOUT, "tokenizer/*.json", "tokenizer/*.txt")
"""Patterns of all that is read."""

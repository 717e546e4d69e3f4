"""What a training run started from, as hashes: the same hash means the same data, the same weights."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from difix3d.fixers.difix.pipeline import DifixPipeline
from difix3d.types import TrainingPair


def hash_of_pairs(source: Path, pairs: Mapping[str, Sequence[TrainingPair]]) -> str:
    """sha256 over the JSON and every picture that its rows name, in their order."""
    total = hashlib.sha256(source.read_bytes())
    digests: dict[Path, bytes] = {}
    for pair in (pair for rows in pairs.values() for pair in rows):
        compared = [path for path in (pair.worse_image, pair.mask_image) if path is not None]
        if compared:
            total.update(f"{pair.weight} {pair.prompt}".encode())  # of a row that is not in `source`
        for path in (pair.image, pair.target_image, *pair.references, *compared):
            if path not in digests:
                with path.open("rb") as file:
                    digests[path] = hashlib.file_digest(file, "sha256").digest()
            total.update(digests[path])
    return total.hexdigest()


def hash_of_weights(pipeline: DifixPipeline) -> str:
    """sha256 over U-Net and autoencoder as loaded, before anything is attached to them."""
    total = hashlib.sha256()
    lora = {
        f"{name}.{side}": factor for name, pair in pipeline.checkpoint.lora.items() for side, factor in enumerate(pair)
    }
    for tensors in (pipeline.unet.state_dict(), pipeline.vae.state_dict(), lora):
        for name, tensor in sorted(tensors.items()):
            total.update(name.encode())
            total.update(tensor.detach().float().cpu().contiguous().numpy())
    return total.hexdigest()

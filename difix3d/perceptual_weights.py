"""Where the weights of the perceptual networks (LPIPS, Gram, DISTS) are, and how a person gets VGG-16's.

They are not part of this project. A folder named by the user comes first; else VGG-16's are put together once from two
public repositories, of which only the needed 59 MB are read, and kept in the user's cache. Their content is checked
against digests taken from the weights that this project's figures were computed with. Nothing is fetched unasked.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
from collections.abc import Generator, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from difix3d.atomic import replacing_file
from difix3d.errors import CheckpointError, ConfigError
from difix3d.events import Event, Warned
from difix3d.hub.files import gigabytes, own_cache, require_space
from difix3d.hub.tensors import Source, Tensors, fetch_tensors

FILES = {
    "vgg": "lpips_vgg16_backbone_lin.safetensors",
    "alex": "lpips_alexnet_backbone_lin.safetensors",
    "dists": "dists_alpha_beta.pt",
}
VGG_BYTES = 58_860_000

_BACKBONE = Source("timm/vgg16.tv_in1k", "b8d8aa2dd860af9233c8c67385a8097fd6c35d3f", "model.safetensors")
"""ImageNet weights of VGG-16 as torchvision published them (BSD-3-Clause); the rest of its 553 MB is the classifier."""
_HEADS = Source("vivym/lpips", "270571f1fb2a2c4c5f920cec96cd87838c345982", "vgg_lpips_linear.safetensors")
"""LPIPS v0.1's linear heads (Zhang et al. 2018; BSD-2-Clause)."""
_CONVOLUTIONS = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)
_CHANNELS = (64, 128, 256, 512, 512)
_BACKBONE_SHA256 = "40acdda7c6b05249f81637b2571671ce938507c5f986db17af374cf62a2f42a6"
_HEADS_SHA256 = "9153a2043dccf3b525d4f13db916e93ef040548ea923b6f2100de5ebac141a78"
"""Of the tensors' float32 bytes, in the order of _backbone_names() and of the levels."""


def find_weights(net: str = "vgg") -> Path | None:
    """The file of `net` ("vgg", "alex", or "dists": alpha and beta), or None where nobody has put it.

    Looked for in $DIFIX3D_LPIPS_WEIGHTS, $DIFIX3D_SHARED/weights, ../shared/weights beside the checkout, and where
    `fetch_vgg` puts it; DISTS's also in the installed package dists-pytorch.
    """
    if net not in FILES:
        raise ConfigError(f"No perceptual network {net!r}: choose one of {', '.join(FILES)}")
    folders = [Path(__file__).resolve().parents[2] / "shared" / "weights", _own_folder()]
    if shared := os.environ.get("DIFIX3D_SHARED"):
        folders.insert(0, Path(shared) / "weights")
    if own := os.environ.get("DIFIX3D_LPIPS_WEIGHTS"):
        folders.insert(0, Path(own))
    places = [folder / FILES[net] for folder in folders]
    if net == "dists":
        places += _in_dists_pytorch()
    return next((place for place in places if place.is_file()), None)


def how_to_get(net: str = "vgg") -> str:
    """One line for a person who lacks them."""
    if net == "vgg":
        return f"Get them with: difix3d weights ({gigabytes(VGG_BYTES)}); or {_by_hand(net)}."
    if net == "dists":
        return f"Get them with: pip install -e '.[benchmarks]'; or {_by_hand(net)}."
    return f"AlexNet's come from no repository that is known to us: {_by_hand(net)}."


def fetch_vgg(stage: str = "weights") -> Generator[Event, None, Path]:
    """Get VGG-16's weights from the Hub into the user's cache, telling how far it is; returns the file.

    Raises CheckpointError where they cannot be had, or are not what they should be; then nothing is kept.
    """
    target = _own_folder() / FILES["vgg"]
    if target.is_file():
        return target
    require_space("LPIPS", target.parent, VGG_BYTES)
    yield Warned(
        stage,
        f"{gigabytes(VGG_BYTES)} of weights come from the Hub ({_BACKBONE.repo} and {_HEADS.repo}) to {target.parent}.",
    )
    backbone = yield from fetch_tensors(_BACKBONE, _backbone_names(), stage)
    _require_digest(backbone, _BACKBONE_SHA256, _BACKBONE)
    heads = _as_heads((yield from fetch_tensors(_HEADS, None, stage)))
    _require_digest(heads, _HEADS_SHA256, _HEADS)

    from safetensors.numpy import save_file

    with replacing_file(target) as temporary:
        about = {"source": f"{_BACKBONE}; {_HEADS}", "layout": "torchvision"}
        save_file(backbone | heads, temporary, metadata=about)
        temporary.chmod(0o644)  # safetensors makes it the writer's alone, and caches are shared
    return target


def digest(tensors: Mapping[str, NDArray[np.float32]]) -> str:
    """SHA-256 over the float32 bytes of all tensors, in the mapping's order."""
    total = hashlib.sha256()
    for tensor in tensors.values():
        total.update(np.ascontiguousarray(tensor, "<f4").tobytes())
    return total.hexdigest()


def _backbone_names() -> list[str]:
    return [f"features.{index}.{part}" for index in _CONVOLUTIONS for part in ("weight", "bias")]


def _as_heads(tensors: Tensors) -> Tensors:
    """The five heads under our names: whatever they are called there, in that order they are the levels'."""
    found = [tensors[name] for name in sorted(tensors)]
    if [head.size for head in found] != list(_CHANNELS):
        raise CheckpointError(f"{_HEADS}: expected five heads of {_CHANNELS} values, found {[h.size for h in found]}")
    return {f"lin{level}.model.1.weight": head.reshape(1, -1, 1, 1) for level, head in enumerate(found)}


def _require_digest(tensors: Tensors, wanted: str, source: Source) -> None:
    if (found := digest(tensors)) != wanted:
        raise CheckpointError(
            f"{source} does not hold the expected numbers (SHA-256 {found[:12]}..., expected {wanted[:12]}...). "
            f"Nothing was kept. Try again; if it stays so, {_by_hand('vgg')}."
        )


def _by_hand(net: str) -> str:
    return f"put {FILES[net]} into a folder and name it in DIFIX3D_LPIPS_WEIGHTS"


def _in_dists_pytorch() -> list[Path]:
    """Where the authors' package keeps its weights (MIT). It is not imported: its code wants torchvision, which this
    project does without."""
    found = importlib.util.find_spec("DISTS_pytorch")
    return [Path(folder) / "weights.pt" for folder in (found.submodule_search_locations or [])] if found else []


def _own_folder() -> Path:
    return own_cache() / "weights"

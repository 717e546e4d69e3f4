"""The fixer `lite`: photos aligned as for `reproject`, blended by a small network that ships with the project."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from difix3d.errors import CheckpointError
from difix3d.fixers.base import Weightless
from difix3d.fixers.lite.planes import Bytes, planes_of
from difix3d.fixers.stepwise import Fixed
from difix3d.types import Frame, Reference

if TYPE_CHECKING:
    import torch

    from difix3d.fixers.lite.network import LiteNetwork

WEIGHTS = Path(__file__).parent / "lite.safetensors"
_TILE_PX, _OVERLAP_PX = 1024, 96
"""Larger frames are fixed in tiles, so that a frame of any size takes 1 GB at most. The overlap is more than the
network's finest three levels see; what the coarsest sees beyond it changes colours by less than one in 255. Both are
multiples of network.MULTIPLE, so that tiles are halved where the whole would be."""


class LiteFixer(Weightless):
    """Follows fixers.base.Fixer, on the CPU. Repeats exactly on one machine; `seed` changes nothing. Threads may share
    it. Its weights are in the package, so that there is nothing to fetch."""

    name = "lite"
    licence = "Apache-2.0"
    max_references = 4
    needs_depth = True

    def __init__(self, weights: Path = WEIGHTS) -> None:
        self.settings: dict[str, Any] = {"weights": digest_of(weights), "max_references": self.max_references}
        self.weights = weights
        self.network: LiteNetwork | None = None
        self._loading = threading.Lock()

    def load(self) -> None:
        """CheckpointError where the weights are missing or are not of this network."""
        with self._loading:
            if self.network is None:
                self.network = load_network(self.weights)

    def fix(self, frame: Frame, references: Sequence[Reference], *, seed: int = 0) -> NDArray[np.uint8]:
        """[H, W, 3] uint8. Without depth or without photos that show the same, only what the render alone allows."""
        return self.fix_with_trust(frame, references)[0]

    def fix_with_trust(
        self, frame: Frame, references: Sequence[Reference]
    ) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """(fixed [H, W, 3] uint8, trust [H, W] float32 in [0, 1]): how far the fix replaced the render there."""
        return self._run(*planes_of(frame, references[: self.max_references]))

    def carry(self, frame: Frame, reference: Reference) -> Bytes:
        """See fixers.stepwise.Stepwise. [0 or 1, H, W, 10]: none where the photo shows nothing of the frame."""
        return planes_of(frame, [reference])[1]

    def finish(self, frame: Frame, carried: Sequence[Bytes]) -> Fixed:
        """See fixers.stepwise.Stepwise."""
        own, none = planes_of(frame, [])
        return self._run(own, np.concatenate([none, *carried[: self.max_references]]))

    def _run(self, own: Bytes, photos: Bytes) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        self.load()
        assert self.network is not None
        return run(self.network, own, photos)


def digest_of(weights: Path) -> str:
    """What a Candidate says of the weights, so that those of before and after an update are told apart; their name
    where they are not there, of which `load` tells."""
    if not weights.is_file():
        return weights.name
    with weights.open("rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()[:16]}"


def run(network: LiteNetwork, own: Bytes, photos: Bytes) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """(fixed [H, W, 3] uint8, trust [H, W]) of planes as `planes_of` gives them, tile by tile. Without photos nothing
    supports a change: the render, trusted nowhere."""
    if not len(photos):
        return own[..., :3].copy(), np.zeros(own.shape[:2], np.float32)
    height, width = own.shape[:2]
    fixed = np.empty((height, width, 3), np.uint8)
    trust = np.empty((height, width), np.float32)
    for rows, inner_rows in _spans(height):
        for columns, inner_columns in _spans(width):
            picture, believed = _run_tile(network, own[rows, columns], photos[:, rows, columns])
            inside = (
                slice(inner_rows.start - rows.start, inner_rows.stop - rows.start),
                slice(inner_columns.start - columns.start, inner_columns.stop - columns.start),
            )
            fixed[inner_rows, inner_columns] = picture[inside]
            trust[inner_rows, inner_columns] = believed[inside]
    return fixed, trust


def _spans(length: int) -> list[tuple[slice, slice]]:
    """(what a tile reads, what of it is kept), which together cover `length`."""
    if length <= _TILE_PX:
        return [(slice(0, length), slice(0, length))]
    step = _TILE_PX - 2 * _OVERLAP_PX
    kept = [slice(start, min(start + step, length)) for start in range(0, length, step)]
    return [(slice(max(0, one.start - _OVERLAP_PX), min(length, one.stop + _OVERLAP_PX)), one) for one in kept]


def _run_tile(network: LiteNetwork, own: Bytes, photos: Bytes) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    import torch

    from difix3d.fixers.difix.precision import fast_dtype
    from difix3d.fixers.lite.guards import guarded
    from difix3d.fixers.lite.network import MULTIPLE

    height, width = own.shape[:2]
    missing = [(0, -side % MULTIPLE) for side in (height, width)]
    own = np.pad(own, [*missing, (0, 0)], mode="symmetric")
    photos = np.pad(photos, [(0, 0), *missing, (0, 0)], mode="symmetric")
    bfloat16 = fast_dtype(torch.device("cpu")) == torch.bfloat16
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
        fixed, trust = guarded(network, _tensor(own)[None], _tensor(photos)[None], torch.ones(1, len(photos)))
        picture = fixed[0].permute(1, 2, 0).clamp(0.0, 1.0).mul_(255.0).add_(0.5).to(torch.uint8)
    return picture.numpy()[:height, :width], trust[0, 0].numpy()[:height, :width]


def _tensor(planes: Bytes) -> torch.Tensor:
    """[..., H, W, C] bytes -> [..., C, H, W] float32 in [0, 1]; torch sees that the channels lie together."""
    import torch

    return torch.from_numpy(planes).to(torch.float32).div_(255.0).movedim(-1, -3)


def load_network(weights: Path) -> LiteNetwork:
    """The network with these weights, to be used and not trained. CheckpointError where they are not its own."""
    import torch
    from safetensors.torch import load_file

    from difix3d.fixers.lite.network import LiteNetwork

    if not weights.is_file():
        raise CheckpointError(
            f"The weights of lite are not at {weights}. Install the project again, or choose the fixer reproject."
        )
    network = LiteNetwork()
    try:
        network.load_state_dict({name: value.float() for name, value in load_file(weights).items()})
    except RuntimeError as error:
        raise CheckpointError(
            f"{weights} does not hold the weights of lite's network as it is in this version. If it was fine-tuned "
            f"with an earlier one, do that again (difix3d finetune --from lite). What does not fit: {error}"
        ) from error
    return network.eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]

"""Every random choice of training, from (seed, purpose, number) alone.

Nothing depends on what was drawn before: a resumed run draws what the interrupted one would have drawn, and how many
processes share the work makes no difference. numpy's SeedSequence mixes the three, so that neighbours (seed 0, sample
1 and seed 1, sample 0) have nothing in common; its output is the same on every platform and version.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np
import torch


class Purpose(IntEnum):
    """Numbers are part of what a seed means: never change one."""

    ROW_ORDER = 0
    BUCKET_ORDER = 1
    CROP = 2
    POSTERIOR = 3
    GRAM_CROP = 4
    NEW_LORA = 5
    LITE_CROP = 6
    LITE_COMPARED = 7


def generator_of(seed: int, purpose: Purpose, *numbers: int) -> torch.Generator:
    """A CPU generator. seed and numbers: at least 0."""
    state = np.random.SeedSequence((seed, purpose, *numbers)).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(state[0] >> np.uint64(1)))  # torch takes 63 bits without wrapping

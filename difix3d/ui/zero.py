"""ZeroGPU lends a GPU to one decorated call at a time, in a process of its own; elsewhere nothing here is used.

Long jobs run on the Space's CPU as everywhere; what needs the GPU there is Difix on one frame.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from difix3d.stages.fixing import FixedFrame

GPU_SECONDS = 120
"""Loading 5 GB of weights takes most of it."""


def present() -> bool:
    """Whether this is a ZeroGPU Space."""
    return bool(os.environ.get("SPACES_ZERO_GPU"))


def gpu(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function`, run where ZeroGPU lends a GPU; unchanged elsewhere. Arguments and result must be picklable."""
    if not present():
        return function
    import spaces

    return spaces.GPU(function, duration=GPU_SECONDS)


@gpu
def fix_frame(scene_root: str, fixer: str, trajectory: str, index: int, references: Sequence[str] | None) -> FixedFrame:
    """FixSession.fix of one frame, with everything loaded inside the call."""
    from difix3d.fixers import load_fixer
    from difix3d.scene import Scene
    from difix3d.stages.fixing import FixSession

    session = FixSession(Scene(scene_root), load_fixer(fixer))
    return session.fix(session.frame(trajectory, index), references)

"""Where the novel cameras go: paths through and beyond a capture, chosen from the capture's own geometry.

Every path is made of what the captured cameras say: where they look, from how far, from which directions, and how
close to the sparse points they dare to go. A capture that walks around its subject gets closed circles; one that
looks from one side (a relief, a street, a drone that looks down) gets arcs and ellipses around its middle direction.
World z is up. Nothing depends on the world's origin, scale, or rotation about z: a moved scene has a moved path.

rig.py says what the captured cameras have in common; novel.py holds the paths around the subject, captured.py those
through the captured cameras.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from difix3d.errors import ConfigError, ReconstructionError
from difix3d.trajectories import captured, novel
from difix3d.trajectories.rig import Rig
from difix3d.types import Camera, Reconstruction, Trajectory

NAMES = ("orbit", "spiral", "shift", "interpolate", "extrapolate")
TURNTABLE = "turntable"
"""A full turn whatever was photographed: to show a scene around, not to judge its renders by."""
HELDOUT = "heldout"
"""The cameras of the photos that the fit did not see: no path is made, they are there already."""
MAX_FRAMES = 10_000


def make_trajectory(
    name: str,
    reconstruction: Reconstruction,
    *,
    frames: int = 48,
    fps: float = 24.0,
    factor: float = 1.5,
    shift: float = 0.2,
) -> Trajectory:
    """`frames` cameras along the path called `name`, with the lens and picture size of the median view.

    orbit: around the point looked at, at the median height and distance of the cameras that see it. A full circle
        only where the capture itself goes around; a forward-facing capture gets the arc that its own cameras span.
    spiral: two turns around a mean camera, all looking at the same point (as LLFF's).
    shift: the path of `interpolate` moved sideways by `shift` times the viewing distance (at most a quarter of the
        picture), looking the same way.
    interpolate: through the captured cameras in the order of their names, or, where that order jumps about, along a
        short tour of them.
    turntable: a full circle around the point looked at, from wherever it was photographed, that loops when played.
    extrapolate: around the outside of the captured viewing directions, `factor` times as far from their middle
        (10 to 25 degrees past them, from 3 where the photos were all taken from about one spot): beyond the ends,
        raised and lowered, still looking at the subject. This is where a fit that looked well shows its faults.

    ConfigError for an unknown name or an impossible number; ReconstructionError where there are no views.
    """
    if name not in (*NAMES, TURNTABLE):
        raise ConfigError(f"There is no trajectory {name!r}. Choose one of {', '.join((*NAMES, TURNTABLE))}.")
    if not 1 <= frames <= MAX_FRAMES:
        raise ConfigError(f"frames is {frames}; expected 1 to {MAX_FRAMES:,}")
    if not (np.isfinite(fps) and fps > 0):
        raise ConfigError(f"fps is {fps}; expected a positive number")
    if not (np.isfinite(factor) and factor >= 1):
        raise ConfigError(f"factor is {factor}; expected at least 1 (1.5 goes half as far again as the capture)")
    if not np.isfinite(shift):
        raise ConfigError(f"shift is {shift}; expected a share of the viewing distance, such as 0.2")
    if not reconstruction.views:
        raise ReconstructionError("The reconstruction has no cameras: expected at least 1 registered photo.")
    rig = Rig(reconstruction)
    if name == "orbit":
        poses = novel.orbit(rig, frames)
    elif name == TURNTABLE:
        poses = novel.turntable(rig, frames)
    elif name == "spiral":
        poses = novel.spiral(rig, frames)
    elif name == "extrapolate":
        poses = novel.extrapolate(rig, frames, factor)
    else:
        poses = captured.interpolate(rig, frames, shift if name == "shift" else 0.0)
    lens = median_lens([view.camera for view in reconstruction.views])
    return Trajectory(name, tuple(lens.moved(pose) for pose in poses), float(fps))


def median_lens(cameras: Sequence[Camera]) -> Camera:
    """The camera with the median focal length among those of the commonest picture size."""
    sizes = [(camera.width, camera.height) for camera in cameras]
    commonest = max(sizes, key=lambda size: (sizes.count(size), size))
    same = [camera for camera, size in zip(cameras, sizes) if size == commonest]
    return sorted(same, key=lambda camera: (camera.K[0, 0], camera.K[1, 1]))[(len(same) - 1) // 2]

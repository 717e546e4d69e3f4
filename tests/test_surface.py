"""Surface depth: of a wall that lets some light through, of nothing, and of what is behind the camera."""

from __future__ import annotations

import numpy as np
import pytest
from splat_scenes import camera_at

from difix3d.splatting import render_view
from difix3d.splatting.surface import surface_depth
from difix3d.types import Splats

CAMERA = camera_at(64, 48, distance=3.0)  # at z = -3, looking towards +z


def wall(z: float, spread: float, opacity_logit: float, count: int = 60) -> Splats:
    """A wall of overlapping round splats across the view, its middle at world z."""
    x, y = np.meshgrid(np.linspace(-spread, spread, count), np.linspace(-spread, spread, count))
    means = np.stack([x.ravel(), y.ravel(), np.full(x.size, z)], axis=1)
    scale = np.log(0.7 * 2 * spread / count)
    size = len(means)
    return Splats(
        means,
        np.tile([1.0, 0, 0, 0], (size, 1)),
        np.full((size, 3), [scale, scale, np.log(0.002)]),
        np.full(size, opacity_logit),
        np.zeros((size, 1, 3)),
    )


def joined(*parts: Splats) -> Splats:
    names = ("means", "quats", "log_scales", "opacity_logits", "sh")
    return Splats(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


def test_light_that_passes_a_wall_does_not_move_it() -> None:
    scene = joined(wall(0.0, 2.5, 0.0), wall(60.0, 45.0, 4.0))
    mean_depth = render_view(scene, CAMERA, renderer="cpu")[2]
    surface = surface_depth(scene, CAMERA, renderer="cpu")
    inner = (slice(8, -8), slice(8, -8))
    assert np.median(mean_depth[inner]) > 3.3  # what this is for
    assert np.abs(surface[inner] / 3.0 - 1).max() < 0.02


def test_a_solid_wall_is_where_it_is() -> None:
    surface = surface_depth(wall(0.5, 3.0, 6.0), CAMERA, renderer="cpu")
    assert np.abs(surface[6:-6, 6:-6] / 3.5 - 1).max() < 0.005


def test_where_only_the_backdrop_is_seen_its_depth_is_given() -> None:
    scene = joined(wall(0.0, 0.4, 6.0), wall(60.0, 45.0, 6.0))
    surface = surface_depth(scene, CAMERA, renderer="cpu")
    assert surface[24, 31] == pytest.approx(3.0, rel=0.02)
    assert surface[3, 3] == pytest.approx(63.0, rel=0.05)


def test_nothing_and_what_is_behind_have_no_depth() -> None:
    nothing = Splats(*(np.zeros(shape) for shape in ((0, 3), (0, 4), (0, 3), (0,), (0, 1, 3))))
    assert surface_depth(nothing, CAMERA, renderer="cpu").shape == (48, 64)
    assert not surface_depth(nothing, CAMERA, renderer="cpu").any()
    assert not surface_depth(wall(-10.0, 3.0, 6.0), CAMERA, renderer="cpu").any()

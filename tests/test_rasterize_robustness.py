"""What might crash the rasterizer, or fill memory: it draws the right thing, or says what is wrong."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from splat_scenes import BACKGROUND, NAMES, camera_at, leaves, random_splats

from difix3d.errors import ConfigError, MissingBackendError, ShapeError
from difix3d.splatting import rasterize
from difix3d.splatting.cpu import rasterizer, tiles
from difix3d.types import Camera


def finite(*tensors: torch.Tensor) -> bool:
    return all(bool(torch.isfinite(tensor).all()) for tensor in tensors)


@pytest.mark.parametrize("count", [0, 1, 15, 16, 17])
@pytest.mark.parametrize("size", [(1, 1), (1, 7), (33, 1), (32, 32)])
def test_few_splats_and_odd_sizes(device: str, count: int, size: tuple[int, int]) -> None:
    splats = leaves(random_splats(count), device=device)
    rgb, alpha, depth = rasterize(**splats, camera=camera_at(*size), background=BACKGROUND.to(device))
    assert rgb.shape == (size[1], size[0], 3) and alpha.shape == depth.shape == (size[1], size[0])
    (rgb.sum() + alpha.sum() + depth.sum()).backward()
    assert finite(rgb, alpha, depth, *(tensor.grad for tensor in splats.values()))
    assert all(tensor.grad.shape == tensor.shape for tensor in splats.values())


def test_nothing_in_front_of_the_camera(device: str) -> None:
    splats = random_splats(20)
    splats["means"][:, 2] -= 50
    parameters = leaves(splats, device=device)
    rgb, alpha, depth = rasterize(**parameters, camera=camera_at(), background=BACKGROUND.to(device))
    assert torch.equal(rgb.cpu(), BACKGROUND.expand_as(rgb)) and not alpha.any() and not depth.any()
    rgb.sum().backward()
    assert all(not tensor.grad.any() for tensor in parameters.values())


@pytest.mark.parametrize("z", [-3.0, -3.0 + 1e-9, -3.0 + 0.0101, -3.0 + 0.02, -2.9])
def test_splats_on_the_camera_plane(device: str, z: float) -> None:
    splats = random_splats(64)
    splats["means"][:, 2] = z
    parameters = leaves(splats, device=device)
    pictures = rasterize(**parameters, camera=camera_at())
    sum(picture.sum() for picture in pictures).backward()
    assert finite(*pictures, *(tensor.grad for tensor in parameters.values()))


@pytest.mark.parametrize("log_scale", [-60.0, 3.0, 8.0, 20.0, 60.0, 200.0])
def test_tiny_and_huge_splats(log_scale: float) -> None:
    splats = random_splats(30)
    splats["log_scales"][:] = log_scale
    parameters = leaves(splats)
    pictures = rasterize(**parameters, camera=camera_at())
    sum(picture.sum() for picture in pictures).backward()
    assert finite(*pictures, *(tensor.grad for tensor in parameters.values()))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_broken_splat_is_left_out(name: str, value: float) -> None:
    splats = {key: tensor.float() for key, tensor in random_splats(20).items()}
    without = {key: tensor[1:] for key, tensor in splats.items()}
    broken = {key: tensor.clone() for key, tensor in splats.items()}
    broken[name][0] = value
    parameters = leaves(broken)
    pictures = rasterize(**parameters, camera=camera_at())
    for drawn, expected in zip(pictures, rasterize(**without, camera=camera_at())):
        assert torch.equal(drawn, expected)
    sum(picture.sum() for picture in pictures).backward()
    assert finite(*(tensor.grad for tensor in parameters.values()))


def test_zero_quaternions_are_left_out(device: str) -> None:
    splats = random_splats(20)
    splats["quats"][:] = 0
    assert not rasterize(**leaves(splats, device=device), camera=camera_at())[1].any()


def test_a_picture_of_4000_pixels_full_of_huge_splats() -> None:
    splats = {key: tensor.float() for key, tensor in random_splats(40).items()}
    splats["log_scales"] += 3
    rgb, alpha, _ = rasterize(**splats, camera=camera_at(4000, 300))
    assert finite(rgb) and alpha.mean() > 0.5


EXTREMES = np.array(
    [0, -0.0, 1e-40, 1e-20, 1e-7, -1e-7, 50, -50, 90, -90, 1e5, -1e5, 1e14, 1e15, 1e25, 3e38, -3e38, np.inf, np.nan],
    np.float32,
)


def hostile(seed: int) -> tuple[dict[str, torch.Tensor], Camera]:
    """Splats of which some, or most, have numbers that no fit would make; a camera of any lens, size and place."""
    rng = np.random.default_rng(seed)
    count, share = int(rng.integers(0, 70)), rng.choice([0.02, 0.2, 0.7])
    shapes = ((count, 3), (count, 4), (count, 3), (count,), (count, int(rng.choice([1, 4, 9, 16])), 3))
    splats = {}
    for name, shape in zip(NAMES, shapes):
        values = rng.choice([0.1, 1, 10, 60]) * rng.standard_normal(shape)
        splats[name] = np.where(rng.random(shape) < share, rng.choice(EXTREMES, shape), values)
    splats["means"][:, 2] += 3
    width, height = (int(side) for side in rng.integers(1, 80, 2))
    focal = 10 ** rng.uniform(-3, 5)
    K = np.array([[focal, 0, width * rng.uniform(-2, 3)], [0, focal * 10 ** rng.uniform(-1, 1), height / 2], [0, 0, 1]])
    pose = np.eye(4)
    pose[:3, 3] = rng.choice([0, 1]) * 10 ** rng.uniform(-3, 4) * rng.standard_normal(3)
    tensors = {name: torch.tensor(values, dtype=torch.float32, requires_grad=True) for name, values in splats.items()}
    return tensors, Camera(K, width, height, pose)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_no_numbers_whatever_crash_it_or_leak_into_pictures_and_gradients(seed: int) -> None:
    splats, camera = hostile(seed)
    rgb, alpha, depth = rasterize(**splats, camera=camera, background=BACKGROUND)
    assert finite(rgb, alpha, depth) and (alpha >= 0).all() and (alpha <= 1).all() and (depth >= 0).all()
    generator = torch.Generator().manual_seed(0)
    sum((picture * torch.randn(picture.shape, generator=generator)).sum() for picture in (rgb, alpha, depth)).backward()
    assert finite(*(tensor.grad for tensor in splats.values()))


@pytest.mark.parametrize("size", [(4000, 3000), (4000, 1), (1, 4000)])
def test_one_splat_in_a_large_picture(device: str, size: tuple[int, int]) -> None:
    splats = random_splats(1)
    splats["means"][:] = 0
    rgb, alpha, _ = rasterize(
        **leaves(splats, device=device), camera=camera_at(*size), background=BACKGROUND.to(device)
    )
    assert rgb.shape == (size[1], size[0], 3) and finite(rgb) and alpha.max() > 0


def test_memory_for_entries_and_counts_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Splats that each touch every tile, in a picture of many tiles: bins grow until both bounds hold."""
    monkeypatch.setattr(tiles, "MAX_ENTRIES", 5000)
    monkeypatch.setattr(tiles, "MAX_COUNTS", 40)
    kept: list[tiles.Tiling] = []
    before = rasterizer.bin_splats
    monkeypatch.setattr(rasterizer, "bin_splats", lambda *args: kept.append(before(*args)) or kept[-1])
    splats = {key: tensor.float() for key, tensor in random_splats(5000, 1).items()}
    splats["log_scales"] += 2
    rgb, _, _ = rasterize(**splats, camera=camera_at(700, 500))
    (tiling,) = kept
    assert tiling.split > 2 and len(tiling.entry_splat) <= 5000
    assert -(-len(tiling.ids) // tiles.CHUNK) * (len(tiling.bin_start) - 1) <= 40
    monkeypatch.setattr(tiles, "MAX_ENTRIES", 1 << 23)
    monkeypatch.setattr(tiles, "MAX_COUNTS", 1 << 24)
    assert torch.equal(rgb, rasterize(**splats, camera=camera_at(700, 500))[0]) and kept[1].split == 1


# What is said


@pytest.mark.parametrize(
    "name,shape",
    [("means", (5, 4)), ("quats", (5, 3)), ("log_scales", (4, 3)), ("opacity_logits", (5, 1)), ("sh", (5, 5, 3))],
)
def test_wrong_shapes_are_named(name: str, shape: tuple[int, ...]) -> None:
    splats = {key: tensor.float() for key, tensor in random_splats(5).items()}
    with pytest.raises(ShapeError, match=f"^{name}: expected"):
        rasterize(**{**splats, name: torch.zeros(shape)}, camera=camera_at())


def test_wrong_settings_are_named() -> None:
    splats = {key: tensor.float() for key, tensor in random_splats(5, degree=1).items()}
    with pytest.raises(ShapeError, match=r"background: expected \[3\]"):
        rasterize(**splats, camera=camera_at(), background=torch.zeros(4))
    with pytest.raises(ConfigError, match="sh_degree: expected 0 to 1"):
        rasterize(**splats, camera=camera_at(), sh_degree=2)
    with pytest.raises(ConfigError, match="renderer: expected one of"):
        rasterize(**splats, camera=camera_at(), renderer="opengl")
    with pytest.raises(MissingBackendError, match="choose --renderer cpu"):
        rasterize(**splats, camera=camera_at(), renderer="gsplat")


@pytest.mark.parametrize("spoiled", ["focal", "nan in K", "infinite pose"])
def test_a_camera_that_none_can_be_is_said(spoiled: str) -> None:
    camera = camera_at()
    K, pose = camera.K.copy(), camera.cam_from_world.copy()
    if spoiled == "infinite pose":
        pose[0, 3] = math.inf
    else:
        K[0, 0] = 0.0 if spoiled == "focal" else math.nan
    splats = {key: tensor.float() for key, tensor in random_splats(5).items()}
    with pytest.raises(ConfigError, match="camera: expected a finite pose and K with focal lengths above 0"):
        rasterize(**splats, camera=Camera(K, 20, 10, pose))

"""The fixer lite: what it does with odd input, in tiles, and that it starts from what reproject does."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import walls
from safetensors.torch import save_file

from difix3d.errors import CheckpointError, ShapeError
from difix3d.fixers.lite import fixer as lite
from difix3d.fixers.lite.fixer import LiteFixer
from difix3d.fixers.lite.network import LiteNetwork
from difix3d.fixers.photometric import gaussian
from difix3d.fixers.reproject import ReprojectFixer
from difix3d.metrics import psnr
from difix3d.types import Frame, Reference

WIDTH, HEIGHT = 160, 120


def saved(network: LiteNetwork, path: Path) -> Path:
    save_file({name: value.half() for name, value in network.state_dict().items()}, path)
    return path


@pytest.fixture(scope="module")
def untrained(tmp_path_factory: pytest.TempPathFactory) -> LiteFixer:
    return LiteFixer(saved(LiteNetwork(), tmp_path_factory.mktemp("lite") / "untrained.safetensors"))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> LiteFixer:
    """Not trained, but with heads that do something."""
    torch.manual_seed(0)
    network = LiteNetwork()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.01 * torch.randn_like(parameter)
    return LiteFixer(saved(network, tmp_path_factory.mktemp("lite") / "random.safetensors"))


def blurred_frame(width: int = WIDTH, height: int = HEIGHT) -> tuple[Frame, np.ndarray]:
    """(a render that is blurred, and the truth)"""
    camera = walls.camera_at(0.0, width=width, height=height)
    seen = walls.see(camera)
    soft = (gaussian(seen.rgb, 2.5) * 255 + 0.5).astype(np.uint8)
    return Frame("test", 0, camera, soft, np.ones_like(seen.depth), seen.depth), seen.photo


def reference_at(x: float, size: int = WIDTH) -> Reference:
    camera = walls.camera_at(x, width=WIDTH, height=HEIGHT).resized(size)
    seen = walls.see(camera)
    return Reference(f"{x}.png", camera, seen.photo, seen.depth)


def test_untrained_it_is_reproject(untrained: LiteFixer) -> None:
    frame, truth = blurred_frame()
    references = [reference_at(0.2), reference_at(-0.25)]
    ours, theirs = untrained.fix(frame, references), ReprojectFixer().fix(frame, references)
    assert psnr(ours, theirs) > psnr(frame.rgb, theirs) + 10
    assert psnr(ours, truth) > psnr(frame.rgb, truth) + 2


def test_the_weights_that_ship_bring_detail_back_and_leave_good_renders_alone() -> None:
    shipped = LiteFixer()
    frame, truth = blurred_frame()
    references = [reference_at(0.2), reference_at(-0.25)]
    before = psnr(frame.rgb, truth)
    assert psnr(shipped.fix(frame, references), truth) > before + 2
    assert psnr(shipped.fix(frame, []), truth) > before - 0.3
    sharp = replace(frame, rgb=truth)
    assert psnr(shipped.fix(sharp, references), truth) > 40
    assert lite.WEIGHTS.stat().st_size < 10e6


def test_without_photos_and_without_depth_an_untrained_one_leaves_the_render(untrained: LiteFixer) -> None:
    frame, _ = blurred_frame()
    blind = replace(frame, depth=np.zeros_like(frame.depth))
    away = replace(reference_at(0.2), camera=walls.camera_at(50.0, width=WIDTH, height=HEIGHT))
    for fixed in (untrained.fix(frame, []), untrained.fix(blind, [reference_at(0.2)]), untrained.fix(frame, [away])):
        assert np.abs(fixed.astype(int) - frame.rgb).max() <= 1


@pytest.mark.parametrize("value", [np.nan, np.inf, -1.0])
def test_depth_and_alpha_that_are_no_numbers_count_as_none(trained: LiteFixer, value: float) -> None:
    frame, _ = blurred_frame()
    depth, alpha = frame.depth.copy(), frame.alpha.copy()
    depth[20:60, 30:90] = value
    alpha[:30] = value
    reference = reference_at(0.2)
    assert reference.depth is not None
    reference.depth[50:80] = value
    fixed, trust = trained.fix_with_trust(replace(frame, depth=depth, alpha=alpha), [reference])
    assert fixed.shape == frame.rgb.shape and np.isfinite(trust).all()
    assert trust.min() >= 0 and trust.max() <= 1


def test_a_black_render_is_no_obstacle(trained: LiteFixer) -> None:
    frame, _ = blurred_frame()
    black = replace(frame, rgb=np.zeros_like(frame.rgb), alpha=np.zeros_like(frame.alpha))
    assert trained.fix(black, [reference_at(0.1), reference_at(0.2, 240)]).shape == frame.rgb.shape


def test_tiles_show_no_seam(monkeypatch: pytest.MonkeyPatch) -> None:
    shipped = LiteFixer()
    frame, _ = blurred_frame(420, 96)
    references = [reference_at(0.2)]
    whole = shipped.fix(frame, references).astype(int)
    monkeypatch.setattr(lite, "_TILE_PX", 320)
    tiled = shipped.fix(frame, references).astype(int)
    assert not np.array_equal(whole, frame.rgb)
    assert np.abs(whole - tiled).max() <= 1


def test_maps_of_other_sizes_are_refused(untrained: LiteFixer) -> None:
    frame, _ = blurred_frame()
    with pytest.raises(ShapeError, match="alpha"):
        untrained.fix(replace(frame, alpha=frame.alpha[:-1]), [])


def test_weights_that_are_missing_or_not_its_own_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="reproject"):
        LiteFixer(tmp_path / "nothing.safetensors").load()
    save_file({"a": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(CheckpointError, match="network"):
        LiteFixer(tmp_path / "other.safetensors").load()

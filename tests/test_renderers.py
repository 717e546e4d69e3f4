"""One meaning on every device: the CPU kernels and gsplat draw, and differentiate, what the float64 reference does."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from fitted_scene import write_fitted_scene
from reference_rasterizer import reference_rasterize
from splat_scenes import NAMES, camera_at, leaves, random_splats, relative_error

from difix3d.errors import MissingBackendError
from difix3d.events import Done, Warned
from difix3d.splatting import ScreenSpace, gsplat_cuda, l1_ssim, rasterize, render_view, why_cpu
from difix3d.splatting.gsplat_cuda import require_gsplat, sound_splats
from difix3d.splatting.torch_loss import l1_ssim_torch
from difix3d.stages.render import RenderConfig, render
from difix3d.types import Splats


@pytest.mark.parametrize("degree", [0, 3])
def test_pictures_gradients_and_screen_are_the_references(device: str, degree: int) -> None:
    camera, splats = camera_at(), random_splats(120, 2, degree)
    background = torch.tensor([0.2, 0.5, 0.7])
    ours, theirs = leaves(splats, device=device), leaves(splats, torch.float64)
    screen = ScreenSpace()
    shift = torch.zeros(120, 2, camera.height, camera.width, dtype=torch.float64, requires_grad=True)
    drawn = rasterize(**ours, camera=camera, background=background.to(device), screen=screen)
    expected = reference_rasterize(**theirs, camera=camera, background=background.double(), centre_shift=shift)
    assert all(picture.device.type == device for picture in drawn)
    for mine, true in zip(drawn, expected):
        assert (mine.cpu() - true).abs().mean() < 1e-5
    weights = [torch.randn(picture.shape, generator=torch.Generator().manual_seed(0)) for picture in drawn]
    torch.autograd.backward(drawn, [weight.to(device) for weight in weights])
    torch.autograd.backward(expected, [weight.double() for weight in weights])
    for name in NAMES:
        assert relative_error(ours[name].grad.cpu(), theirs[name].grad) < 1e-3, name
    assert screen.radii is not None and screen.radii.shape == (120,)
    asked = shift.grad.abs().sum((2, 3))
    assert screen.abs_gradients is not None and relative_error(screen.abs_gradients.cpu(), asked) < 1e-3


def test_no_splats_and_none_in_sight_show_the_background(device: str) -> None:
    background = torch.tensor([0.2, 0.5, 0.7], device=device)
    behind = random_splats(20)
    behind["means"][:, 2] -= 50
    for splats in (random_splats(0), behind):
        parameters = leaves(splats, device=device)
        rgb, alpha, depth = rasterize(**parameters, camera=camera_at(), background=background)
        assert torch.equal(rgb, background.expand_as(rgb)) and not alpha.any() and not depth.any()
        rgb.sum().backward()
        assert all(tensor.grad is None or not tensor.grad.any() for tensor in parameters.values())


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_broken_splats_are_left_out_and_poison_nothing(device: str, name: str, value: float) -> None:
    splats = random_splats(20)
    splats[name][3] = value
    parameters = leaves(splats, device=device)
    drawn = rasterize(**parameters, camera=camera_at())
    without = rasterize(**{key: tensor.float().to(device)[torch.arange(20) != 3] for key, tensor in splats.items()},
                        camera=camera_at())  # fmt: skip
    assert all(torch.allclose(one, other, atol=1e-5) for one, other in zip(drawn, without))
    sum(picture.sum() for picture in drawn).backward()
    assert all(torch.isfinite(tensor.grad).all() for tensor in parameters.values())


def noise() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(40, 30, 3, generator=generator), torch.rand(40, 30, 3, generator=generator)


def bright_and_smooth() -> tuple[torch.Tensor, torch.Tensor]:
    """Its variance is a thousandth of its squares and less: what has fewer bits than float32 loses it."""
    ramp = torch.linspace(0.9, 0.99, 64)[None, :, None].expand(48, 64, 3).contiguous()
    return ramp + 0.003 * torch.sin(torch.arange(64) / 5)[:, None], ramp


def loss_and_gradient(loss: Callable[..., torch.Tensor], *pictures: torch.Tensor) -> tuple[float, torch.Tensor]:
    prediction, target = pictures
    prediction = prediction.detach().requires_grad_()
    value = loss(prediction, target, 0.2)
    value.backward()
    assert prediction.grad is not None
    return value.item(), prediction.grad.cpu()


@pytest.mark.parametrize(("pair", "off", "bound"), [(noise, 0.0, 1e-4), (bright_and_smooth, 1e-5, 1e-3)])
def test_the_loss_is_one_on_every_device(
    device: str, pair: Callable[[], tuple[torch.Tensor, torch.Tensor]], off: float, bound: float
) -> None:
    expected, expected_gradient = loss_and_gradient(l1_ssim_torch, *(picture.double() for picture in pair()))
    for loss in (l1_ssim, l1_ssim_torch):
        found, gradient = loss_and_gradient(loss, *(picture.to(device) for picture in pair()))
        assert found == pytest.approx(expected, rel=1e-5, abs=off)
        assert relative_error(gradient, expected_gradient) < bound


def test_the_loss_of_other_devices_uses_nothing_that_cuda_may_round_to_tf32() -> None:
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as seen:
        loss_and_gradient(l1_ssim_torch, *noise())
    names = {event.key for event in seen.key_averages()}
    assert "aten::add_" in names
    assert not [name for name in names if re.search(r"conv|mm|matmul|linear|einsum|dot", name)]


@pytest.fixture
def broken_gsplat(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A machine that seems to have a CUDA device, where gsplat as installed cannot build or load its kernels."""
    if torch.cuda.is_available():
        pytest.skip("gsplat may work here")
    monkeypatch.setattr(gsplat_cuda, "cuda_is_visible", lambda: True)
    gsplat_cuda.why_not_gsplat.cache_clear()
    yield
    gsplat_cuda.why_not_gsplat.cache_clear()


def test_where_gsplat_cannot_load_auto_says_so_and_draws_on_the_cpu(broken_gsplat: None) -> None:
    reason = why_cpu("auto")
    assert "gsplat" in reason and "nvcc" in reason and "--renderer cpu" in reason
    assert why_cpu("cpu") == ""
    tensors = {name: tensor.float() for name, tensor in random_splats(50).items()}
    splats = Splats(*(tensors[name].numpy() for name in NAMES))
    for drawn, expected in zip(render_view(splats, camera_at()), render_view(splats, camera_at(), renderer="cpu")):
        assert np.array_equal(drawn, expected)
    with pytest.raises(MissingBackendError, match="--renderer cpu"):
        render_view(splats, camera_at(), renderer="gsplat")
    with pytest.raises(MissingBackendError, match="--renderer cpu"):
        require_gsplat()


def test_the_render_stage_tells_it(broken_gsplat: None, tmp_path: Path) -> None:
    scene = write_fitted_scene(tmp_path / "ball")
    settings = {"trajectory": "orbit", "frames": 2}
    events = list(render(scene, RenderConfig(**settings)))
    warning = next(event for event in events if isinstance(event, Warned))
    assert "gsplat" in warning.message and "on the CPU" in warning.message and isinstance(events[-1], Done)
    with pytest.raises(MissingBackendError, match="gsplat"):
        list(render(scene, RenderConfig(**settings, renderer="gsplat")))


def test_a_machine_without_cuda_is_told_only_if_it_asks_for_gsplat() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device here")
    assert why_cpu("auto") == ""
    with pytest.raises(MissingBackendError, match="torch sees none"):
        require_gsplat()


def test_what_gsplat_is_given_is_sound() -> None:
    """The filter before gsplat, which itself lets NaN pass; it needs no CUDA to be tested."""
    splats = {name: tensor.float() for name, tensor in random_splats(8).items()}
    splats["means"][0, 1], splats["sh"][1, 2, 0], splats["log_scales"][2, 0] = math.nan, math.inf, -math.inf
    splats["quats"][3] = 0
    splats["opacity_logits"][4] = math.nan
    parameters = leaves(splats)
    drawn, kept = sound_splats(*(parameters[name] for name in NAMES))
    assert drawn.tolist() == [False] * 5 + [True] * 3
    for name, tensor in zip(NAMES, kept):
        assert torch.isfinite(tensor).all()
        assert torch.equal(tensor[5:], splats[name][5:]) and not tensor[:5].any()
    sum(tensor.square().sum() for tensor in kept).backward()
    assert all(not tensor.grad[:5].any() and torch.isfinite(tensor.grad).all() for tensor in parameters.values())

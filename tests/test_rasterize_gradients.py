"""Gradients at the limits of every step, against the float64 reference and finite differences."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
import torch
from reference_rasterizer import UNDECIDED, reference_rasterize
from splat_scenes import BACKGROUND, NAMES, axis_camera, camera_at, leaves, one_splat, random_splats, relative_error

from difix3d.splatting import ScreenSpace, rasterize
from difix3d.types import Camera

LIMITS = (
    "needles", "beyond the margin", "near plane", "clipped alpha", "clipped colours", "faint", "smaller than a pixel"
)  # fmt: skip


def hard_scene(case: str) -> dict[str, torch.Tensor]:
    """Splats, float64, for `camera_at()` where one of the pipeline's branches or limits is at work for most of them."""
    splats = random_splats(80, 19)
    if case == "needles":
        splats["log_scales"][:, 0] = 1.0
        splats["log_scales"][:, 1:] = -9.0
    elif case == "beyond the margin":  # centres outside the picture, where the Jacobian is held, that reach into it
        splats["means"][:, 0] = torch.where(splats["means"][:, 0] > 0, 1.0, -1.0) * (2.8 + splats["means"][:, 0].abs())
        splats["log_scales"] += 1.6
    elif case == "near plane":
        splats["means"][:, 2] = -2.99 + 0.3 * torch.rand(80, generator=torch.Generator().manual_seed(0))
        splats["means"][:, :2] *= 0.05
        splats["log_scales"] -= 2.5
    elif case == "clipped alpha":
        splats["opacity_logits"] += 9.0
        splats["log_scales"] -= 0.7
    elif case == "clipped colours":
        splats["sh"][:, 0] -= 1.8
    elif case == "faint":
        splats["opacity_logits"] = torch.linspace(-5.6, -4.0, 80, dtype=torch.float64)
        splats["log_scales"] += 1.0
    elif case == "smaller than a pixel":
        splats["log_scales"] -= 5.0
    return splats


@pytest.mark.parametrize("case", LIMITS)
def test_limits_have_the_gradients_of_the_reference(case: str) -> None:
    """Every group, and the screen's, to 1e-3 in relative L2; single groups cannot hide in the sum of all."""
    camera, background = camera_at(), BACKGROUND.double()
    # Both get the same numbers: rounding them to float32 is not what is tested
    splats = {name: value.float().double() for name, value in hard_scene(case).items()}
    ours, theirs = leaves(splats), leaves(splats, torch.float64)
    screen = ScreenSpace()
    shift = torch.zeros(80, 2, camera.height, camera.width, dtype=torch.float64, requires_grad=True)
    drawn = rasterize(**ours, camera=camera, background=BACKGROUND, screen=screen)
    expected = reference_rasterize(**theirs, camera=camera, background=background, centre_shift=shift)
    weights = [torch.randn(picture.shape, generator=torch.Generator().manual_seed(3)) for picture in drawn]
    assert screen.radii is not None and (screen.radii > 0).sum() >= 20
    assert (drawn[0] - expected[0]).abs().mean() < 1e-5
    torch.autograd.backward(drawn, weights)
    torch.autograd.backward(expected, [weight.double() for weight in weights])
    for name in NAMES:
        assert theirs[name].grad.norm() > 0, name
        assert relative_error(ours[name].grad, theirs[name].grad) < 1e-3, name
    asked = shift.grad.abs().sum((2, 3))
    assert screen.abs_gradients is not None and relative_error(screen.abs_gradients, asked) < 1e-3


def decided_weights(splats: dict[str, torch.Tensor], camera: Camera, alpha_error: float) -> list[torch.Tensor]:
    """Random weights of rgb, alpha and depth, 0 where a threshold is near: across it no slope exists."""
    undecided = torch.zeros(camera.height, camera.width, dtype=torch.bool)
    with torch.no_grad():
        pictures = reference_rasterize(**splats, camera=camera, undecided=undecided, alpha_error=alpha_error)
    assert (~undecided).float().mean() > 0.4
    generator, kept = torch.Generator().manual_seed(0), (~undecided).double()
    shapes = (kept[..., None], kept, kept)
    return [
        mask * torch.randn(picture.shape, generator=generator, dtype=torch.float64)
        for picture, mask in zip(pictures, shapes)
    ]


def weighted(pictures: tuple[torch.Tensor, ...], weights: list[torch.Tensor]) -> torch.Tensor:
    return sum((picture.double() * weight).sum() for picture, weight in zip(pictures, weights))


@pytest.fixture
def one_thread() -> Iterator[None]:
    """The reference's many small operations are faster without a second one."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("case", ["plain", *LIMITS])
def test_gradients_are_finite_differences_of_the_float64_picture(case: str, one_thread: None) -> None:
    """To 1e-3 of each group's gradient, along it, also where limits are at work."""
    camera = camera_at()
    splats = {name: value.float().double() for name, value in hard_scene(case).items()}
    weights = decided_weights(splats, camera, UNDECIDED)
    parameters = leaves(splats)
    weighted(rasterize(**parameters, camera=camera), weights).backward()
    for name in NAMES:
        gradient = parameters[name].grad.double()
        step = 1e-6 * gradient / gradient.norm()
        with torch.no_grad():
            ahead, behind = (
                weighted(reference_rasterize(**{**splats, name: splats[name] + shift}, camera=camera), weights)
                for shift in (step, -step)
            )
        assert float((ahead - behind) / 2e-6 / gradient.norm()) == pytest.approx(1.0, abs=1e-3), name


@pytest.mark.parametrize("name", NAMES)
def test_gradients_are_finite_differences_of_the_kernels_own_picture(name: str) -> None:
    """The step has to rise above float32's rounding of the pictures, and the margin above the step."""
    camera, step = camera_at(), 3e-3
    splats = {key: value.float() for key, value in random_splats(80, 19).items()}
    weights = decided_weights({key: value.double() for key, value in splats.items()}, camera, 0.05)
    parameters = leaves(splats)
    weighted(rasterize(**parameters, camera=camera), weights).backward()
    gradient = parameters[name].grad
    ahead, behind = (
        weighted(
            rasterize(**{**splats, name: splats[name] + shift * gradient / gradient.norm()}, camera=camera), weights
        )
        for shift in (step, -step)
    )
    assert float((ahead - behind) / (2 * step) / gradient.norm()) == pytest.approx(1.0, abs=1e-3)


@pytest.mark.parametrize("shift", [-3e-7, -1e-7, 0.0, 1e-7, 3e-7])
def test_on_a_threshold_the_gradient_is_that_of_one_side(shift: float) -> None:
    """Whether alpha is 1/255 float32 may decide otherwise than float64: then a pixel more or less belongs to the splat,
    and with it a share of its gradient (9 % was seen, of a splat of 40 pixels)."""
    camera, variance = axis_camera(11), (0.04 * 50 / 2) ** 2 + 0.3
    splats = one_splat(scale=0.04, opacity=(1 + shift) / 255 * math.exp(9 / (2 * variance)))  # 1/255 3 pixels away

    def to_the_right(alpha: torch.Tensor, means: torch.Tensor) -> float:
        alpha[5, 6:].sum().backward()
        return float(means.grad[0, 0])

    ours = leaves(splats)
    found = to_the_right(rasterize(**ours, camera=camera)[1], ours["means"])
    sides = []
    for relative in (-1e-4, 1e-4):
        theirs, undecided = leaves(splats, torch.float64), torch.zeros(11, 11, dtype=torch.bool)
        alpha = reference_rasterize(**theirs, camera=camera, undecided=undecided, min_alpha=(1 + relative) / 255)[1]
        sides.append(to_the_right(alpha, theirs["means"]))
        assert undecided[5, 8]
    assert abs(sides[0] / sides[1] - 1) > 0.02
    assert min(abs(found / side - 1) for side in sides) < 1e-3


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_every_sh_degree_has_the_gradients_of_the_reference(degree: int) -> None:
    camera, splats = camera_at(), random_splats(60, 23, degree)
    ours, theirs = leaves(splats), leaves(splats, torch.float64)
    rasterize(**ours, camera=camera)[0].square().sum().backward()
    reference_rasterize(**theirs, camera=camera)[0].square().sum().backward()
    for name in NAMES:
        assert relative_error(ours[name].grad, theirs[name].grad) < 1e-4, name
    for k in range((degree + 1) ** 2):  # and each coefficient by itself
        assert relative_error(ours["sh"].grad[:, k], theirs["sh"].grad[:, k]) < 1e-4, k

"""The CPU rasterizer against a float64 reference, closed forms, symmetries and everything that might crash it."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference_rasterizer import UNDECIDED, reference_rasterize
from splat_scenes import NAMES, camera_at, leaves, random_splats, relative_error

from difix3d.errors import ConfigError, MissingBackendError, ShapeError
from difix3d.splatting import ScreenSpace, rasterize, render_view
from difix3d.splatting.cpu import rasterizer, tiles
from difix3d.types import Camera, Splats

BACKGROUND = torch.tensor([0.2, 0.5, 0.7])


def one_splat(z: float = 2.0, scale: float = 0.1, opacity: float = 0.8, color: float = 0.9) -> dict[str, torch.Tensor]:
    """An isotropic grey splat on the axis of `axis_camera`."""
    return {
        "means": torch.tensor([[0.0, 0.0, z]]),
        "quats": torch.tensor([[1.0, 0.0, 0.0, 0.0]]),
        "log_scales": torch.full((1, 3), math.log(scale)),
        "opacity_logits": torch.tensor([math.log(opacity / (1 - opacity))]),
        "sh": torch.full((1, 1, 3), (color - 0.5) / 0.28209479177387814),
    }


def axis_camera(size: int = 41) -> Camera:
    """At the origin, looking along z; the axis meets the centre of the middle pixel."""
    return Camera(np.array([[50.0, 0, size / 2], [0, 50.0, size / 2], [0, 0, 1]]), size, size, np.eye(4))


@pytest.mark.parametrize("seed,count,size", [(0, 120, (64, 45)), (1, 40, (33, 70)), (2, 300, (20, 20))])
def test_pictures_and_gradients_match_the_float64_reference(seed: int, count: int, size: tuple[int, int]) -> None:
    camera, splats = camera_at(*size), random_splats(count, seed)
    ours, theirs = leaves(splats), leaves(splats, torch.float64)
    our_background = BACKGROUND.clone().requires_grad_()
    their_background = BACKGROUND.double().requires_grad_()
    drawn = rasterize(**ours, camera=camera, background=our_background)
    expected = reference_rasterize(**theirs, camera=camera, background=their_background)
    generator = torch.Generator().manual_seed(seed)
    weights = [torch.randn(picture.shape, generator=generator) for picture in drawn]
    for mine, true, tolerance in zip(drawn, expected, (1e-5, 1e-5, 2e-4)):  # depth is divided by alphas from 1/255 on
        assert (mine - true).abs().max() < tolerance
    torch.autograd.backward(drawn, weights)
    torch.autograd.backward(expected, [weight.double() for weight in weights])
    for name in NAMES:
        assert relative_error(ours[name].grad, theirs[name].grad) < 1e-4, name
    assert relative_error(our_background.grad, their_background.grad) < 1e-5


@pytest.mark.parametrize("output", [0, 1, 2])
def test_each_output_has_a_gradient_of_its_own(output: int) -> None:
    camera, splats = camera_at(32, 24), random_splats(30, 5)
    ours, theirs = leaves(splats), leaves(splats, torch.float64)
    (rasterize(**ours, camera=camera)[output] ** 2).sum().backward()
    (reference_rasterize(**theirs, camera=camera)[output] ** 2).sum().backward()
    for name in NAMES:
        if theirs[name].grad is None or theirs[name].grad.norm() == 0:
            assert ours[name].grad.norm() == 0, name
        else:
            assert relative_error(ours[name].grad, theirs[name].grad) < 1e-4, name


def test_lower_sh_degree_ignores_higher_coefficients() -> None:
    splats, camera = leaves(random_splats(20)), camera_at(32, 24)
    low, _, _ = rasterize(**splats, camera=camera, sh_degree=1)
    cut, _, _ = rasterize(**{**splats, "sh": splats["sh"][:, :4]}, camera=camera)
    assert torch.equal(low, cut)
    low.sum().backward()
    assert (splats["sh"].grad[:, 4:] == 0).all() and splats["sh"].grad[:, :4].abs().sum() > 0


def test_one_splat_in_closed_form() -> None:
    camera = axis_camera()
    rgb, alpha, depth = rasterize(**one_splat(), camera=camera)
    variance = (0.1 * 50 / 2) ** 2 + 0.3
    steps = torch.arange(41) - 20.0
    squared = steps[:, None] ** 2 + steps[None, :] ** 2
    expected = 0.8 * torch.exp(-0.5 * squared / variance)
    expected[expected < 1 / 255] = 0
    assert torch.allclose(alpha, expected, atol=1e-5)
    assert torch.allclose(rgb, 0.9 * expected[..., None].expand(-1, -1, 3), atol=1e-5)
    assert torch.allclose(depth[expected > 0], torch.tensor(2.0)) and (depth[expected == 0] == 0).all()


def test_front_covers_back_whatever_their_order() -> None:
    near, far = one_splat(2.0, 0.5, 0.6, 1.0), one_splat(4.0, 2.0, 0.999, 0.0)
    camera = axis_camera()
    pictures = [
        rasterize(**{name: torch.cat([a[name], b[name]]) for name in NAMES}, camera=camera)
        for a, b in ((near, far), (far, near))
    ]
    assert all(torch.equal(one, other) for one, other in zip(*pictures))
    assert pictures[0][0][20, 20, 0] == pytest.approx(0.6, abs=1e-5)
    assert pictures[0][2][20, 20] == pytest.approx((0.6 * 2 + 0.4 * 0.999 * 4) / (0.6 + 0.4 * 0.999), rel=1e-4)


def test_background_shows_through_where_alpha_is_not() -> None:
    splats, camera = random_splats(50), camera_at()
    splats = {name: value.float() for name, value in splats.items()}
    black, alpha, _ = rasterize(**splats, camera=camera)
    shaded, same_alpha, _ = rasterize(**splats, camera=camera, background=BACKGROUND)
    assert torch.equal(alpha, same_alpha)
    assert torch.allclose(shaded, black + (1 - alpha)[..., None] * BACKGROUND, atol=1e-6)


def test_invisible_opacities_draw_nothing() -> None:
    splats = {name: value.float() for name, value in random_splats(50).items()}
    splats["opacity_logits"] = torch.full((50,), -20.0)
    screen = ScreenSpace()
    rgb, alpha, depth = rasterize(**splats, camera=camera_at(), background=BACKGROUND, screen=screen)
    assert torch.equal(rgb, BACKGROUND.expand_as(rgb)) and not alpha.any() and not depth.any()
    assert screen.radii is not None and not screen.radii.any()


def test_depth_of_a_wall_is_its_distance() -> None:
    xs, ys = torch.meshgrid(torch.linspace(-2, 2, 41), torch.linspace(-2, 2, 41), indexing="ij")
    count = xs.numel()
    _, alpha, depth = rasterize(
        torch.stack([xs.flatten(), ys.flatten(), torch.full((count,), 3.5)], 1),
        torch.tensor([[1.0, 0, 0, 0]]).expand(count, 4),
        torch.full((count, 3), math.log(0.08)),
        torch.full((count,), 3.0),
        torch.zeros(count, 1, 3),
        axis_camera(),
    )
    assert (alpha > 0.9).all()
    assert torch.allclose(depth, torch.tensor(3.5), atol=1e-4)


def test_turning_world_and_camera_together_changes_nothing() -> None:
    """SH of degree 0: higher degrees would have to be turned too."""
    splats = random_splats(60, 7, degree=0)
    camera = camera_at()
    w, x, y, z = turn = np.array([0.5, -0.1, 0.7, 0.5]) / np.linalg.norm([0.5, -0.1, 0.7, 0.5])
    rotation = np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )
    shift = np.array([0.3, -2.0, 1.0])
    world_move = np.eye(4)
    world_move[:3, :3], world_move[:3, 3] = rotation, shift
    a, b, c, d = splats["quats"].unbind(1)
    p, q, r, s = turn
    turned = {
        **splats,
        "means": splats["means"] @ torch.tensor(rotation.T) + torch.tensor(shift),
        "quats": torch.stack(
            [
                p * a - q * b - r * c - s * d,
                p * b + q * a + r * d - s * c,
                p * c - q * d + r * a + s * b,
                p * d + q * c - r * b + s * a,
            ],
            1,
        ),
    }
    moved = camera.moved(camera.cam_from_world @ np.linalg.inv(world_move))
    for here, there in zip(
        rasterize(**{name: value.float() for name, value in splats.items()}, camera=camera),
        rasterize(**{name: value.float() for name, value in turned.items()}, camera=moved),
    ):
        assert torch.allclose(here, there, atol=1e-4)


def test_length_of_quaternions_does_not_matter() -> None:
    splats = {name: value.float() for name, value in random_splats(40).items()}
    once = rasterize(**splats, camera=camera_at())[0]
    twice = rasterize(**{**splats, "quats": 7 * splats["quats"]}, camera=camera_at())[0]
    assert torch.allclose(once, twice, atol=1e-5)


def test_same_input_gives_the_same_bits_for_any_number_of_threads() -> None:
    def run() -> list[torch.Tensor]:
        splats = leaves(random_splats(3000, 11))
        pictures = rasterize(**splats, camera=camera_at(160, 120))
        (pictures[0].sum() + pictures[1].square().sum() + pictures[2].sum()).backward()
        return [*(picture.detach() for picture in pictures), *(splats[name].grad for name in NAMES)]

    threads = torch.get_num_threads()
    try:
        results = []
        for count in (1, 2, 2):
            torch.set_num_threads(count)
            results.append(run())
    finally:
        torch.set_num_threads(threads)
    for other in results[1:]:
        assert all(torch.equal(one, two) for one, two in zip(results[0], other))


def test_screen_space_tells_radii_and_gradients() -> None:
    splats, camera, screen = leaves(one_splat()), axis_camera(), ScreenSpace()
    rgb, _, _ = rasterize(**splats, camera=camera, screen=screen)
    assert screen.radii is not None and screen.radii.dtype == torch.int32
    reach = math.sqrt(2 * math.log(0.8 * 255) * ((0.1 * 50 / 2) ** 2 + 0.3))
    assert screen.radii.tolist() == [math.ceil(reach)]
    assert screen.gradients is None
    (rgb[:, 21:].sum() - rgb[:, :20].sum()).backward()
    assert screen.gradients is not None and screen.gradients.shape == (1, 2)
    assert screen.gradients[0, 0] > 0 and abs(screen.gradients[0, 1]) < 1e-4 * screen.gradients[0, 0]
    # Moving the centre by one pixel is moving the splat by z / focal
    assert splats["means"].grad[0, 0] * 2 / 50 == pytest.approx(float(screen.gradients[0, 0]), rel=1e-3)


def test_opaque_layers_end_the_walk_like_the_reference() -> None:
    """Many opaque splats behind one another: finished pixels, finished blocks, finished tiles."""
    splats = random_splats(400, 13)
    splats["opacity_logits"] += 5
    splats["log_scales"] += 1.5
    camera = camera_at(48, 40)
    ours, theirs = leaves(splats), leaves(splats, torch.float64)
    drawn = rasterize(**ours, camera=camera)
    expected = reference_rasterize(**theirs, camera=camera)
    assert (drawn[0] - expected[0]).abs().max() < 1e-3  # a splat at the threshold may fall on either side
    drawn[0].square().sum().backward()
    expected[0].square().sum().backward()
    for name in NAMES:
        assert relative_error(ours[name].grad, theirs[name].grad) < 1e-3, name


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
    screen, shift = ScreenSpace(), torch.zeros(80, 2, dtype=torch.float64, requires_grad=True)
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
    assert screen.gradients is not None and relative_error(screen.gradients, shift.grad) < 1e-3


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


def test_bins_of_several_tiles_give_the_same_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    def run() -> list[torch.Tensor]:
        splats = leaves(random_splats(200, 17))
        rgb, alpha, depth = rasterize(**splats, camera=camera_at(150, 100))
        (rgb.sum() + depth.sum()).backward()
        return [rgb.detach(), alpha.detach(), depth.detach(), *(splats[name].grad for name in NAMES)]

    plain = run()
    monkeypatch.setattr(tiles, "MAX_ENTRIES", 300)
    for one, other in zip(plain, run()):
        assert torch.allclose(one, other, rtol=1e-4, atol=1e-4 * float(one.abs().max()))


# What might crash


def finite(*tensors: torch.Tensor) -> bool:
    return all(bool(torch.isfinite(tensor).all()) for tensor in tensors)


@pytest.mark.parametrize("count", [0, 1, 15, 16, 17])
@pytest.mark.parametrize("size", [(1, 1), (1, 7), (33, 1), (32, 32)])
def test_few_splats_and_odd_sizes(count: int, size: tuple[int, int]) -> None:
    splats = leaves(random_splats(count))
    rgb, alpha, depth = rasterize(**splats, camera=camera_at(*size), background=BACKGROUND)
    assert rgb.shape == (size[1], size[0], 3) and alpha.shape == depth.shape == (size[1], size[0])
    (rgb.sum() + alpha.sum() + depth.sum()).backward()
    assert finite(rgb, alpha, depth, *(tensor.grad for tensor in splats.values()))
    assert all(tensor.grad.shape == tensor.shape for tensor in splats.values())


def test_nothing_in_front_of_the_camera() -> None:
    splats = random_splats(20)
    splats["means"][:, 2] -= 50
    parameters = leaves(splats)
    rgb, alpha, depth = rasterize(**parameters, camera=camera_at(), background=BACKGROUND)
    assert torch.equal(rgb, BACKGROUND.expand_as(rgb)) and not alpha.any() and not depth.any()
    rgb.sum().backward()
    assert all(not tensor.grad.any() for tensor in parameters.values())


@pytest.mark.parametrize("z", [-3.0, -3.0 + 1e-9, -3.0 + 0.0101, -3.0 + 0.02, -2.9])
def test_splats_on_the_camera_plane(z: float) -> None:
    splats = random_splats(64)
    splats["means"][:, 2] = z
    parameters = leaves(splats)
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


def test_zero_quaternions_are_left_out() -> None:
    splats = {key: tensor.float() for key, tensor in random_splats(20).items()}
    splats["quats"][:] = 0
    assert not rasterize(**splats, camera=camera_at())[1].any()


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
def test_one_splat_in_a_large_picture(size: tuple[int, int]) -> None:
    splats = {key: tensor.float() for key, tensor in random_splats(1).items()}
    splats["means"][:] = 0
    rgb, alpha, _ = rasterize(**splats, camera=camera_at(*size), background=BACKGROUND)
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


def test_render_view_takes_arrays_that_cannot_be_written() -> None:
    tensors = {key: tensor.float() for key, tensor in random_splats(5).items()}
    splats = Splats(*(tensors[name].numpy() for name in NAMES))
    expected = render_view(splats, camera_at(), renderer="cpu")
    splats.means.flags.writeable = False
    assert all(np.array_equal(*pair) for pair in zip(expected, render_view(splats, camera_at(), renderer="cpu")))


def test_render_view_is_rasterize_in_numpy() -> None:
    parameters = {key: tensor.float() for key, tensor in random_splats(50).items()}
    splats = Splats(*(parameters[name].numpy() for name in NAMES))
    expected = rasterize(**parameters, camera=camera_at(), background=BACKGROUND)
    rgb, alpha, depth = render_view(splats, camera_at(), background=BACKGROUND.numpy(), renderer="cpu")
    assert rgb.dtype == alpha.dtype == depth.dtype == np.float32
    assert np.array_equal(rgb, expected[0].clamp(0, 1).numpy())
    assert np.array_equal(alpha, expected[1].numpy()) and np.array_equal(depth, expected[2].numpy())

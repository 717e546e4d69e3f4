"""The CPU rasterizer against a float64 reference, closed forms and symmetries."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from reference_rasterizer import reference_rasterize
from splat_scenes import BACKGROUND, NAMES, axis_camera, camera_at, leaves, one_splat, random_splats, relative_error

from difix3d.splatting import ScreenSpace, rasterize, render_view
from difix3d.splatting.cpu import tiles
from difix3d.types import Splats


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


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_coefficients_in_two_parts_are_the_same_bits(degree: int) -> None:
    splats, camera = random_splats(200), camera_at(48, 32)
    one = leaves(splats)
    sh = one["sh"].detach()
    parts = [part.contiguous().requires_grad_() for part in (sh[:, :1], sh[:, 1:])]
    two = leaves(splats)
    drawn, _, _ = rasterize(**one, camera=camera, sh_degree=degree)
    again, _, _ = rasterize(**{**two, "sh": tuple(parts)}, camera=camera, sh_degree=degree)
    assert torch.equal(drawn, again)
    (drawn**2).sum().backward()
    (again**2).sum().backward()
    assert torch.equal(one["sh"].grad, torch.cat([part.grad for part in parts], dim=1))
    for name in NAMES[:4]:
        assert torch.equal(one[name].grad, two[name].grad), name


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
    assert screen.abs_gradients is None
    (rgb[:, 21:].sum() - rgb[:, :20].sum()).backward()  # every pixel would have the splat further to the right
    assert screen.abs_gradients is not None and screen.abs_gradients.shape == (1, 2)
    to_the_right = float(screen.abs_gradients[0, 0])
    # Moving the centre by one pixel is moving the splat by z / focal
    assert splats["means"].grad[0, 0] * 2 / 50 == pytest.approx(to_the_right, rel=1e-3)
    assert abs(splats["means"].grad[0, 1]) < 1e-4 * splats["means"].grad[0, 0]

    splats["means"].grad = None
    rgb, _, _ = rasterize(**splats, camera=camera, screen=screen)
    rgb.sum().backward()  # half of them to the right, half to the left
    assert abs(splats["means"].grad[0, 0] * 2 / 50) < 1e-3 * to_the_right
    assert screen.abs_gradients[0, 0] >= to_the_right


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

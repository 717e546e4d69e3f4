"""Small random scenes for the rasterizer's tests and benchmark."""

from __future__ import annotations

import math

import numpy as np
import torch

from difix3d.types import Camera

BACKGROUND = torch.tensor([0.2, 0.5, 0.7])
NAMES = ("means", "quats", "log_scales", "opacity_logits", "sh")


def camera_at(width: int = 64, height: int = 45, distance: float = 3.0) -> Camera:
    """A camera on the z axis that looks at the origin; its principal point is off centre and its pixels not square."""
    pose = np.eye(4)
    pose[2, 3] = distance
    focal = 0.94 * width
    return Camera(
        np.array([[focal, 0, 0.49 * width], [0, 0.97 * focal, 0.48 * height], [0, 0, 1]]), width, height, pose
    )


def random_splats(count: int, seed: int = 0, degree: int = 3) -> dict[str, torch.Tensor]:
    """Parameters by name, float64, around the origin, of all sizes and opacities."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    return {
        "means": normal(count, 3),
        "quats": normal(count, 4),
        "log_scales": 0.6 * normal(count, 3) - 2.0,
        "opacity_logits": 2 * normal(count) + 0.5,
        "sh": 0.3 * normal(count, (degree + 1) ** 2, 3),
    }


def leaves(
    splats: dict[str, torch.Tensor], dtype: torch.dtype = torch.float32, device: str = "cpu"
) -> dict[str, torch.Tensor]:
    """Copies that collect gradients."""
    return {name: tensor.detach().to(device, dtype).clone().requires_grad_() for name, tensor in splats.items()}


def relative_error(value: torch.Tensor, truth: torch.Tensor) -> float:
    """|value - truth| / |truth|, L2."""
    return float((value.double() - truth.double()).norm() / truth.double().norm().clamp_min(1e-30))


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

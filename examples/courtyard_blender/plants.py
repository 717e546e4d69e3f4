"""Pots and what grows in them."""

from __future__ import annotations

from typing import Any

import numpy as np

from courtyard_blender.shapes import Mesh, Point, blob, foliage, lathe, leaf

POTS = {
    "round": [
        (0.0, 0.02),
        (0.55, 0.0),
        (0.62, 0.05),
        (0.95, 0.55),
        (1.0, 0.9),
        (0.93, 1.15),
        (1.06, 1.22),
        (1.08, 1.34),
        (0.98, 1.36),
        (0.93, 1.2),
        (0.0, 1.16),
    ],
    "tall": [
        (0.0, 0.02),
        (0.5, 0.0),
        (0.58, 0.1),
        (0.9, 0.9),
        (1.0, 1.5),
        (0.85, 2.05),
        (0.7, 2.3),
        (0.92, 2.45),
        (0.9, 2.52),
        (0.76, 2.45),
        (0.0, 2.3),
    ],
    "straight": [
        (0.0, 0.02),
        (0.68, 0.0),
        (0.72, 0.03),
        (0.95, 1.25),
        (1.08, 1.27),
        (1.1, 1.52),
        (0.99, 1.53),
        (0.95, 1.35),
        (0.0, 1.32),
    ],
}


def pot(kind: str, radius: float, material: Any, at: Point, turn: float = 0.0) -> float:
    """Stand a pot there; returns the height of its soil."""
    profile = [(r * radius, h * radius) for r, h in POTS[kind]]
    lathe(profile, 48, smooth_steps=3).build("pot", material, smooth=True, at=at, turn_z=turn)
    return at[2] + profile[-1][1]


def bush(rng: np.random.Generator, at: Point, size: Point, leaves: Any, count: int, length: float = 0.07) -> None:
    foliage(rng, (at[0], at[1], at[2] + size[2] * 0.8), size, count, length, length * 0.5).build("bush", leaves)


def flowers(rng: np.random.Generator, at: Point, size: Point, petals: Any, heads: int, head_m: float = 0.045) -> None:
    """Clusters of petals on the surface of a bush of that size."""
    mesh = Mesh()
    for _ in range(heads):
        direction = rng.normal(size=3)
        direction[2] = abs(direction[2]) * 0.9
        direction /= np.linalg.norm(direction)
        centre = np.array(at) + np.array([0, 0, size[2] * 0.8]) + direction * np.array(size) * rng.uniform(0.95, 1.15)
        for _ in range(9):
            heading = direction + rng.normal(size=3) * 0.8
            base = centre + rng.normal(size=3) * head_m * 0.35
            leaf(mesh, base, heading, head_m, head_m * 0.9, 0.1, rng.uniform(-1, 1))
    mesh.build("flowers", petals)


def agave(rng: np.random.Generator, at: Point, length: float, material: Any) -> None:
    mesh = Mesh()
    for index in range(46):
        turn, rise = index * 2.39996, 0.25 + 1.15 * index / 46
        heading = (np.cos(turn) * np.cos(rise), np.sin(turn) * np.cos(rise), np.sin(rise))
        leaf(
            mesh,
            at,
            heading,
            length * rng.uniform(0.8, 1.1),
            length * 0.2,
            rng.uniform(0, 0.15),
            rng.uniform(-0.2, 0.2),
        )
    mesh.build("agave", material)


def citrus(rng: np.random.Generator, at: Point, height: float, bark: Any, leaves: Any, fruit: Any) -> None:
    """A small orange tree: trunk, three boughs, crown, fruit."""
    trunk = [(0.05, 0.0), (0.042, height * 0.3), (0.036, height * 0.6), (0.012, height * 0.95)]
    lathe(trunk, 16, lambda a, h: 1 + 0.12 * np.sin(3 * a + 9 * h), 4).build("trunk", bark, smooth=True, at=at)
    mesh = Mesh()
    for offset, spread in (
        ((0, 0, 0.82), 0.5),
        ((0.27, 0.1, 0.66), 0.36),
        ((-0.25, 0.14, 0.7), 0.36),
        ((0.02, -0.28, 0.68), 0.36),
    ):
        centre = (at[0] + offset[0], at[1] + offset[1], at[2] + height * offset[2])
        size = (spread, spread, spread * 0.85)
        foliage(rng, centre, size, 620, 0.105, 0.05, 0.35).build("crown", leaves)
        for _ in range(9):
            direction = rng.normal(size=3)
            direction /= np.linalg.norm(direction)
            blob(mesh, np.array(centre) + direction * np.array(size) * 0.98, rng.uniform(0.035, 0.045))
    mesh.build("oranges", fruit, smooth=True)


def climber(rng: np.random.Generator, path: np.ndarray, out: np.ndarray, leaves: Any, petals: Any, bark: Any) -> None:
    """Bougainvillea along a path [N, 3] on a wall; out: unit vector away from the wall."""
    green, bloom, wood = Mesh(), Mesh(), Mesh()
    for index, point in enumerate(path):
        share = index / max(1, len(path) - 1)
        blob(wood, point + out * 0.03, 0.025 * (1.2 - share), rings=4, sides=6)
        for _ in range(int(16 + 46 * share)):
            spread = rng.normal(size=3) * (0.08 + 0.22 * share)
            base = point + spread - out * (spread @ out) + out * abs(rng.normal()) * (0.06 + 0.1 * share)
            heading = out * 0.7 + rng.normal(size=3) * 0.7 - np.array([0, 0, 0.2])
            blooming = rng.random() < 0.25 + 0.45 * share
            size = rng.uniform(0.04, 0.075)
            leaf(bloom if blooming else green, base, heading, size, size * 0.75, 0.3, rng.uniform(-1, 1))
    green.build("climber", leaves)
    bloom.build("bougainvillea", petals)
    wood.build("vine", bark)

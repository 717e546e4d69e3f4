"""The larger pieces: fountain, table, arched door, window. Each takes the palette and stands where it is told."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np

from courtyard_blender import plants
from courtyard_blender.shapes import Mesh, blob, lathe, leaf, quad, sheet


def fountain(rng: np.random.Generator, p: dict[str, Any]) -> None:
    """Octagonal tiled basin, fluted column, gadrooned bowl, and a stone pine cone on top."""
    angles = np.linspace(0, 2 * np.pi, 9) + np.pi / 8
    rim = Mesh()
    for a, b in pairwise(angles):
        for radius, material in ((1.0, "tiles"), (0.86, "green glaze")):
            start = (radius * np.cos(a), radius * np.sin(a), 0.0)
            along = (radius * (np.cos(b) - np.cos(a)), radius * (np.sin(b) - np.sin(a)), 0.0)
            quad("basin", start, along, (0, 0, 0.5), p[material])
        middle = (a + b) / 2
        for part in (-0.25, 0.25):
            across = 0.87 * np.cos(np.pi / 8) * 2 * np.tan(np.pi / 8)
            shift = part * across
            centre = (
                0.875 * np.cos(middle) - shift * np.sin(middle),
                0.875 * np.sin(middle) + shift * np.cos(middle),
                0.53,
            )
            rim.box(centre, (0.24, across / 2 - 0.006, 0.085), (0, 0, middle))
    for a in angles[:-1]:
        rim.box((0.955 * np.cos(a), 0.955 * np.sin(a), 0.535), (0.3, 0.26, 0.1), (0, 0, a))
    rim.build("rim", p["stone"])
    lathe([(0.0, 0.36), (0.93, 0.36)], 48, smooth_steps=1).build("pool", p["water"])
    lilies = Mesh()
    for _ in range(26):
        turn, radius = rng.uniform(0, 2 * np.pi), rng.uniform(0.32, 0.76)
        size = rng.uniform(0.04, 0.08)
        blob(lilies, (radius * np.cos(turn), radius * np.sin(turn), 0.365), size, (1, 1, 0.06), 5, 14)
    lilies.build("lilies", p["leaves"])

    column = [
        (0.0, 0.3),
        (0.3, 0.3),
        (0.3, 0.46),
        (0.24, 0.5),
        (0.26, 0.55),
        (0.15, 0.62),
        (0.125, 0.75),
        (0.115, 0.95),
        (0.14, 1.04),
        (0.2, 1.07),
        (0.12, 1.11),
    ]
    fluted = lathe(column, 96, lambda a, h: 1 + (0.075 * np.cos(12 * a + 5 * h) if 0.62 < h < 1.03 else 0), 5)
    fluted.build("column", p["stone"], smooth=True)
    bowl = [
        (0.1, 1.09),
        (0.24, 1.13),
        (0.42, 1.24),
        (0.5, 1.36),
        (0.56, 1.385),
        (0.56, 1.42),
        (0.5, 1.42),
        (0.44, 1.34),
        (0.2, 1.28),
        (0.0, 1.28),
    ]
    lathe(bowl, 144, lambda a, h: 1 + (0.05 * abs(np.sin(12 * a)) if 1.12 < h < 1.37 else 0), 4).build(
        "bowl", p["stone"], smooth=True
    )
    lathe([(0.0, 1.385), (0.49, 1.385)], 48, smooth_steps=1).build("bowl water", p["water"])
    lathe([(0.0, 1.3), (0.13, 1.36), (0.1, 1.46), (0.16, 1.52), (0.17, 1.56), (0.1, 1.58)], 48, smooth_steps=4).build(
        "stem", p["stone"], smooth=True
    )
    cone = Mesh()
    blob(cone, (0, 0, 1.78), 0.16, (1, 1, 1.45), 16, 32)
    count = 130
    for index in range(count):
        t = index / count
        radius = 0.185 * np.sin(np.pi * (0.22 + 0.76 * t)) ** 0.8
        turn = index * 2.39996
        at = (radius * np.cos(turn), radius * np.sin(turn), 1.58 + 0.46 * t)
        heading = (np.cos(turn), np.sin(turn), 0.4 + 1.5 * t)
        start = np.array(at) - 0.05 * np.array(heading) / np.linalg.norm(heading)
        blob(cone, start, 0.052 * (1.05 - 0.4 * t), (1.0, 1.0, 0.62), 6, 9)
        leaf(cone, start, heading, 0.1 * (1.1 - 0.45 * t), 0.085 * (1.1 - 0.45 * t), -0.15, 0.0)
    cone.build("pine cone", p["stone"])


def table(rng: np.random.Generator, p: dict[str, Any]) -> None:
    """A garden table with a woven runner, fruit, bread and a painted jug; two stools."""
    cx, cy, top = 1.75, 1.75, 0.74
    boards, legs = Mesh(), Mesh()
    for index in range(6):
        boards.box((0, (index - 2.5) * 0.15, top - 0.02), (1.55, 0.145, 0.045))
    for x in (-0.66, 0.66):
        for y in (-0.34, 0.34):
            legs.box((x, y, top / 2 - 0.03), (0.085, 0.085, top - 0.06))
        boards.box((x, 0, top - 0.1), (0.05, 0.76, 0.09))
    turn = -0.62
    boards.build("table", p["oak"], at=(cx, cy, 0), turn_z=turn)
    legs.build("legs", p["posts"], at=(cx, cy, 0), turn_z=turn)

    def drape(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        over = np.maximum(np.abs(b) - 0.46, 0)
        return top + 0.008 + 0.004 * np.sin(18 * a + 7 * b) - over * 1.4

    cloth = sheet((0.62, 1.2), drape, 80)
    cloth.build("runner", p["runner"], smooth=True, at=(cx, cy, 0), turn_z=turn)
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])

    def on_table(x: float, y: float, z: float = 0.0) -> tuple[float, float, float]:
        a, b = rotation @ (x, y) + (cx, cy)
        return float(a), float(b), top + 0.014 + z

    dish = [(0.0, 0.0), (0.09, 0.0), (0.07, 0.03), (0.17, 0.07), (0.21, 0.13), (0.2, 0.135), (0.15, 0.08), (0.0, 0.05)]
    lathe(dish, 64, smooth_steps=4).build("dish", p["blue glaze"], smooth=True, at=on_table(0.02, -0.08))
    piles = {"oranges": Mesh(), "lemons": Mesh(), "apples": Mesh()}
    for index in range(15):
        turn_at, ring = index * 2.4, (0.11 if index < 8 else 0.055 if index < 13 else 0.0)
        height = 0.115 + (0.0 if index < 8 else 0.06 if index < 13 else 0.11)
        kind = ("oranges", "apples", "lemons")[index % 3]
        stretch = (1.25, 1, 1) if kind == "lemons" else (1, 1, 0.94)
        centre = on_table(0.02 + ring * np.cos(turn_at), -0.08 + ring * np.sin(turn_at), height)
        blob(piles[kind], centre, 0.042, stretch, 12, 18)
    for kind, x, y in (
        ("lemons", 0.3, -0.26),
        ("oranges", -0.28, -0.3),
        ("apples", 0.36, -0.14),
        ("apples", -0.42, 0.12),
    ):
        blob(piles[kind], on_table(x, y, 0.04), 0.042, (1.2, 1, 1) if kind == "lemons" else (1, 1, 0.95), 12, 18)
    for kind, pile in piles.items():
        pile.build(kind, p[kind], smooth=True)
    jug = [
        (0.0, 0.0),
        (0.075, 0.0),
        (0.12, 0.07),
        (0.137, 0.15),
        (0.11, 0.25),
        (0.065, 0.32),
        (0.07, 0.38),
        (0.085, 0.4),
        (0.07, 0.395),
        (0.05, 0.32),
        (0.0, 0.3),
    ]
    lathe(jug, 64, smooth_steps=5).build("jug", p["jug"], smooth=True, at=on_table(-0.45, -0.12))
    plants.bush(rng, on_table(-0.45, -0.12, 0.36), (0.16, 0.16, 0.16), p["silver leaves"], 130, 0.09)
    plants.flowers(rng, on_table(-0.45, -0.12, 0.4), (0.16, 0.16, 0.16), p["violet petals"], 22)
    loaf = Mesh()
    blob(loaf, on_table(0.5, 0.12, 0.05), 0.075, (1.9, 1.0, 0.8), 14, 24)
    loaf.build("loaf", p["bread"], smooth=True)
    cup = [(0.0, 0.0), (0.035, 0.0), (0.045, 0.09), (0.04, 0.09), (0.03, 0.01)]
    for x, y, glaze in ((0.22, 0.22, "green glaze"), (-0.2, 0.2, "clay")):
        lathe(cup, 32, smooth_steps=2).build("cup", p[glaze], smooth=True, at=on_table(x, y))
    stools = Mesh()
    for x, y in ((0.75, 2.65), (2.75, 2.0)):
        for part in range(3):
            stools.box((x, y + (part - 1) * 0.12, 0.45), (0.36, 0.115, 0.04))
        for a in (-0.14, 0.14):
            for b in (-0.14, 0.14):
                stools.box((x + a, y + b, 0.22), (0.045, 0.045, 0.44))
    stools.build("stools", p["oak"])


def archway(p: dict[str, Any], x: float, y: float, width: float, springing: float, rng: np.random.Generator) -> None:
    """A plank door under an arch of wedge stones, on the wall at y (seen from smaller y)."""
    stones, planks, iron = Mesh(), Mesh(), Mesh()
    half = width / 2
    for height in np.arange(0.16, springing, 0.3):
        for side in (-1, 1):
            size = (0.28 + 0.05 * rng.random(), 0.16, 0.29)
            stones.box((x + side * (half + 0.13), y - 0.06, height), size)
    for turn in np.linspace(0, np.pi, 13):
        radius = half + 0.14
        centre = (x + radius * np.cos(turn), y - 0.06, springing + radius * np.sin(turn))
        stones.box(centre, (0.3, 0.17 + 0.02 * rng.random(), 0.225), (0, -turn, 0))
    count = 9
    for index in range(count):
        offset = (index + 0.5) / count * width - half
        top = springing + np.sqrt(max(0.0, half**2 - offset**2))
        planks.box((x + offset, y - 0.03, top / 2), (width / count - 0.008, 0.05, top))
    for height in (0.45, 1.15, springing):
        planks.box((x, y - 0.065, height), (width - 0.06, 0.03, 0.11))
        for offset in np.linspace(-half + 0.08, half - 0.08, count):
            blob(iron, (x + offset, y - 0.085, height), 0.022, rings=5, sides=8)
    blob(iron, (x + half - 0.16, y - 0.1, 1.0), 0.05, rings=6, sides=10)
    for part, material in ((stones, "stone"), (planks, "door"), (iron, "iron")):
        part.build("arch", p[material])
    steps = Mesh()
    steps.box((x, y - 0.3, 0.07), (width + 0.9, 0.62, 0.14))
    steps.box((x, y - 0.18, 0.2), (width + 0.5, 0.36, 0.13))
    steps.build("steps", p["grey stone"])


def window(p: dict[str, Any], centre: tuple[float, float, float], turn: float) -> None:
    """Dark panes, a stone frame, two louvred shutters; `turn` rotates it from facing -y."""
    frame, louvres, panes = Mesh(), Mesh(), Mesh()
    for x, z, w, h in ((0, 0.62, 1.0, 0.16), (0, -0.62, 1.1, 0.14), (-0.46, 0, 0.14, 1.2), (0.46, 0, 0.14, 1.2)):
        frame.box((x, -0.05, z), (w, 0.14, h))
    panes.box((0, -0.012, 0), (0.8, 0.02, 1.1))
    for side in (-1, 1):
        for x in (side * 0.58, side * 0.96):
            louvres.box((x, -0.05, 0), (0.06, 0.06, 1.22))
        for z in np.linspace(-0.56, 0.56, 15):
            louvres.box((side * 0.77, -0.05, z), (0.36, 0.012, 0.07), (0.6, 0, 0))
    for x, z, w, h in ((0, 0, 0.05, 1.1), (0, 0.2, 0.8, 0.04), (0, -0.2, 0.8, 0.04)):
        louvres.box((x, -0.03, z), (w, 0.04, h))
    for part, material in ((frame, "stone"), (louvres, "shutter"), (panes, "iron")):
        part.build("window", p[material], at=centre, turn_z=turn)

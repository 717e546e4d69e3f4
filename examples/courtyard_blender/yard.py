"""A yard drawn by chance: every seed another floor, other walls, other things in it, another light.

For pairs to train on: what fits of few photos get wrong should all be there, so thin rods stand beside closed bodies,
leaves beside bare walls, gloss beside chalk, and a few things stand near the camera.
"""

from __future__ import annotations

import colorsys
from collections.abc import Callable
from typing import Any

import bpy
import numpy as np

from courtyard_blender import materials as m
from courtyard_blender import patterns, plants
from courtyard_blender.shapes import Mesh, blob, lathe, quad, sheet

REACH = 2.3
"""Things stand within so many metres of the origin; photographers outside of it."""
_HALF = 5.6


class Palette:
    """Materials in colours drawn by chance, each made when it is first asked for."""

    def __init__(self, rng: np.random.Generator):
        self._rng = rng
        self._hue = rng.random()
        self._made: dict[str, Any] = {}

    def tone(self, light: tuple[float, float] = (0.35, 0.8)) -> str:
        """ "#rrggbb": two thirds of all near the yard's own hue, so that it looks like one place."""
        rng = self._rng
        hue = rng.normal(self._hue, 0.07) % 1.0 if rng.random() < 0.67 else rng.random()
        red, green, blue = colorsys.hls_to_rgb(hue, rng.uniform(*light), 0.8 * rng.beta(1.3, 2.6))
        return "#" + "".join(f"{round(255 * value):02x}" for value in (red, green, blue))

    def shades(self, count: int) -> list[str]:
        base = np.array(m.srgb(self.tone()))
        out = []
        for _ in range(count):
            linear = np.clip(base * self._rng.uniform(0.45, 1.5) + self._rng.normal(0, 0.02, 3), 0.01, 0.95)
            out.append("#" + "".join(f"{round(255 * value ** (1 / 2.2)):02x}" for value in linear))
        return out

    def any_of(self, *kinds: str) -> Any:
        """A material of one of these kinds; up to three of each kind in a yard."""
        name = f"{self._rng.choice(kinds)} {self._rng.integers(3)}"
        if name not in self._made:
            self._made[name] = self._make(name)
        return self._made[name]

    def _make(self, name: str) -> Any:
        rng, kind = self._rng, name.split()[0]
        one, two, three = self.shades(3)
        if kind == "paving":
            return m.paving(name, (rng.uniform(0.15, 0.9), rng.uniform(0.12, 0.6)), (one, two, three))
        if kind == "plaster":
            return m.plaster(name, self.tone((0.5, 0.9)), self.tone((0.3, 0.6)), rng.uniform(0, 0.9), (one, two))
        if kind == "rubble":
            return m.rubble(name)
        if kind == "stone":
            return m.limestone(name, self.tone((0.55, 0.85)), self.tone((0.25, 0.5)))
        if kind == "clay":
            return m.earthenware(name, one, two, three, rng.uniform(0.15, 0.95))
        if kind == "wood":
            axis = [(0.06, 1.0, 1.0), (1.0, 1.0, 0.06)][rng.integers(2)]
            return m.wood(name, one, two, axis, three if rng.random() < 0.4 else "")
        if kind == "cloth":
            return m.painted(name, patterns.kilim(rng), (rng.uniform(0.6, 1.4), rng.uniform(0.8, 2.0)), 0.95)
        if kind == "tiles":
            return m.painted(name, patterns.azulejos(rng, 6, 6), (rng.uniform(0.6, 1.2),) * 2)
        if kind == "iron":
            return m.speckled(name, ["#2a2725", "#3c3633", one], 50.0, rng.uniform(0.25, 0.7))
        if kind == "leaves":
            greens = [["#2f4f1f", "#6f9a3a", "#86a648"], ["#1f3d22", "#47733a"], ["#6f8468", "#a9b596"], [one, two]]
            return m.speckled(name, greens[rng.integers(len(greens))], 30.0, rng.uniform(0.4, 0.7))
        return m.speckled(name, [one, two, three], float(rng.uniform(8, 80)), rng.uniform(0.3, 0.95), 0.008)


def build(seed: int) -> None:
    """Fill the current scene; the same seed gives the same yard."""
    rng = np.random.default_rng([seed, 0])
    palette = Palette(rng)
    _surroundings(rng, palette)
    for at in _places(rng, int(rng.integers(9, 20))):
        thing = _THINGS[int(rng.choice(len(_THINGS), p=_SHARES))]
        thing(rng, palette, at)
    _light(rng)


def _places(rng: np.random.Generator, count: int) -> list[tuple[float, float]]:
    """Spots that keep off each other where there is room."""
    spots: list[tuple[float, float]] = []
    for _ in range(count * 20):
        radius, turn = REACH * np.sqrt(rng.random()), rng.uniform(0, 2 * np.pi)
        spot = (float(radius * np.cos(turn)), float(radius * np.sin(turn)))
        if len(spots) < count and all(np.hypot(spot[0] - x, spot[1] - y) > 0.62 for x, y in spots):
            spots.append(spot)
    return spots


def _surroundings(rng: np.random.Generator, palette: Palette) -> None:
    """The floor, and walls on four sides, on two, or none but hedges and blocks in the distance."""
    half = _HALF
    floor = palette.any_of("paving", "plaster", "tiles", "speckles", "wood", "stone")
    sides = int(rng.choice([0, 2, 4], p=[0.35, 0.3, 0.35]))
    wide = half if sides == 4 else 40.0
    quad("floor", (-wide, -wide, 0), (2 * wide, 0, 0), (0, 2 * wide, 0), floor)
    corners = [(-half, half), (-half, -half), (half, -half), (half, half)]
    first = int(rng.integers(4))
    for side in range(sides):
        (x, y), (to_x, to_y) = corners[(first + side) % 4], corners[(first + side + 1) % 4]
        wall = palette.any_of("plaster", "rubble", "wood", "stone", "tiles")
        quad("wall", (x, y, 0), (to_x - x, to_y - y, 0), (0, 0, rng.uniform(2.2, 4.0)), wall)
        _rail(rng, palette, (0.93 * (x + to_x) / 2, 0.93 * (y + to_y) / 2))
    for _ in range(14 if sides < 4 else 0):
        turn, distance = rng.uniform(0, 2 * np.pi), rng.uniform(7.0, 16.0)
        at = (distance * np.cos(turn), distance * np.sin(turn))
        size = rng.uniform(0.8, 3.5, 3)
        if rng.random() < 0.5:
            block = Mesh()
            block.box((*at, size[2] / 2), tuple(size), (0, 0, rng.uniform(0, np.pi)))
            block.build("block", palette.any_of("plaster", "rubble", "stone", "wood"))
        else:
            plants.bush(rng, (*at, 0.0), tuple(size / 2), palette.any_of("leaves"), 900, 0.3)


def _turned(rng: np.random.Generator, palette: Palette, at: tuple[float, float]) -> None:
    """Something from a lathe, fluted now and then."""
    knots = int(rng.integers(4, 9))
    heights = np.concatenate([[0.0], np.cumsum(rng.uniform(0.05, 0.25, knots))])
    radii = rng.uniform(0.05, 0.32, knots + 1)
    profile = [(0.0, 0.0), *((float(r), float(h)) for r, h in zip(radii, heights)), (0.0, float(heights[-1]))]
    lobes, deep = int(rng.integers(5, 16)), rng.uniform(0.03, 0.1)
    fluted = (lambda angle, height: 1 + deep * np.cos(lobes * angle + 3 * height)) if rng.random() < 0.35 else None
    body = lathe(profile, 64, fluted, int(rng.choice([1, 4])))
    body.build("turned", palette.any_of("stone", "clay", "wood", "speckles", "tiles"), smooth=True, at=(*at, 0.0))


def _stack(rng: np.random.Generator, palette: Palette, at: tuple[float, float]) -> None:
    """Boxes on one another, with a ball on top now and then."""
    z = 0.0
    for _ in range(int(rng.integers(1, 6))):
        size = rng.uniform(0.1, 0.5, 3)
        box = Mesh()
        box.box((0, 0, z + size[2] / 2), tuple(size), (0, 0, rng.uniform(0, np.pi)))
        box.build("box", palette.any_of("wood", "stone", "tiles", "cloth", "speckles", "clay"), at=(*at, 0.0))
        z += size[2]
    if rng.random() < 0.5:
        ball, radius = Mesh(), float(rng.uniform(0.06, 0.18))
        blob(ball, (*at, z + radius), radius, rings=16, sides=24)
        ball.build("ball", palette.any_of("clay", "speckles", "stone"), smooth=True)


def _rods(rng: np.random.Generator, palette: Palette, at: tuple[float, float]) -> None:
    """A trellis, a rack, or canes: thin, and most of it air."""
    mesh, thick = Mesh(), float(rng.uniform(0.012, 0.04))
    wide, high = rng.uniform(0.4, 1.1), rng.uniform(0.5, 1.6)
    slanted = rng.random() < 0.4
    for x in np.linspace(-wide / 2, wide / 2, int(rng.integers(3, 9))):
        lean = rng.normal(0, 0.15) if slanted else 0.0
        mesh.box((x, 0, high / 2), (thick, thick, high), (rng.normal(0, 0.1) if slanted else 0.0, lean, 0))
    for z in np.linspace(0.1, high, int(rng.integers(1, 6))):
        mesh.box((0, 0, z), (wide, thick, thick))
    mesh.build("rods", palette.any_of("iron", "wood"), at=(*at, 0.0), turn_z=float(rng.uniform(0, np.pi)))


def _table(rng: np.random.Generator, palette: Palette, at: tuple[float, float]) -> None:
    wide, deep, high = rng.uniform(0.4, 0.9), rng.uniform(0.35, 0.6), rng.uniform(0.35, 0.8)
    turn = float(rng.uniform(0, np.pi))
    frame, top, fruit = Mesh(), Mesh(), Mesh()
    for x in (-1, 1):
        for y in (-1, 1):
            frame.box((x * wide * 0.45, y * deep * 0.45, high / 2), (0.035, 0.035, high))
    top.box((0, 0, high), (wide, deep, 0.035))
    for _ in range(int(rng.integers(3, 12))):
        radius = float(rng.uniform(0.03, 0.08))
        middle = (rng.uniform(-0.4, 0.4) * wide, rng.uniform(-0.4, 0.4) * deep, high + 0.017 + radius)
        blob(fruit, middle, radius, (1, 1, 1), 10, 16)
    frame.build("legs", palette.any_of("wood", "iron"), at=(*at, 0.0), turn_z=turn)
    top.build("top", palette.any_of("wood", "cloth", "tiles", "stone"), at=(*at, 0.0), turn_z=turn)
    fruit.build("fruit", palette.any_of("speckles", "clay"), smooth=True, at=(*at, 0.0), turn_z=turn)


def _plant(rng: np.random.Generator, palette: Palette, at: tuple[float, float]) -> None:
    radius = float(rng.uniform(0.12, 0.32))
    kind = str(rng.choice(list(plants.POTS)))
    soil = plants.pot(kind, radius, palette.any_of("clay", "stone", "tiles"), (*at, 0.0))
    grown, green = float(rng.uniform(1.0, 2.2)) * radius, palette.any_of("leaves")
    if rng.random() < 0.25:
        plants.agave(rng, (*at, soil), 1.6 * radius, green)
        return
    plants.bush(rng, (*at, soil), (grown, grown, grown * 0.9), green, int(900 * grown), float(rng.uniform(0.05, 0.12)))
    if rng.random() < 0.6:
        plants.flowers(rng, (*at, soil), (grown, grown, grown), palette.any_of("speckles"), int(60 * grown))


def _rail(rng: np.random.Generator, palette: Palette, at: tuple[float, float]) -> None:
    """A cloth that hangs from a rail on two posts."""
    wide, high, wave = rng.uniform(0.7, 1.5), rng.uniform(0.8, 1.9), rng.uniform(2, 9)
    turn = float(np.arctan2(at[1], at[0]) + np.pi / 2 + rng.normal(0, 0.3))
    cloth = sheet((wide, high * 0.8), lambda x, y: 0.05 * np.sin(wave * x + 1.0) + 0.02 * np.sin(3 * y))
    hung = cloth.build("cloth", palette.any_of("cloth", "speckles"), smooth=True, at=(*at, high * 0.58))
    hung.rotation_euler = (np.pi / 2, 0, turn)
    posts = Mesh()
    for x in (-wide / 2, wide / 2):
        posts.box((x, 0, high / 2), (0.03, 0.03, high))
    posts.box((0, 0, high), (wide, 0.03, 0.03))
    posts.build("posts", palette.any_of("wood", "iron"), at=(*at, 0.0), turn_z=turn)


_Thing = Callable[[np.random.Generator, Palette, tuple[float, float]], None]
_THINGS: list[_Thing] = [_turned, _stack, _rods, _table, _plant, _rail]
_SHARES = (0.22, 0.22, 0.14, 0.12, 0.22, 0.08)


def _light(rng: np.random.Generator) -> None:
    """A sun at any height, hard, or behind clouds; the sky's own colour fills the shade."""
    clouded = rng.random() < 0.35
    height, turn = rng.uniform(25, 75), rng.uniform(0, 360)
    lamp = bpy.data.lights.new("sun", "SUN")
    lamp.energy = rng.uniform(0.3, 1.2) if clouded else rng.uniform(2.5, 5.0)
    lamp.angle = np.radians(rng.uniform(20, 60) if clouded else rng.uniform(0.5, 3.0))
    lamp.color = (1.0, rng.uniform(0.82, 1.0), rng.uniform(0.62, 1.0))
    sun = bpy.data.objects.new("sun", lamp)
    sun.rotation_euler = (np.radians(90 - height), 0, np.radians(turn))
    bpy.context.scene.collection.objects.link(sun)
    world = bpy.data.worlds.new("sky")
    world.use_nodes = True
    background = world.node_tree.nodes["Background"]
    background.inputs["Strength"].default_value = float(rng.uniform(1.1, 1.9) if clouded else rng.uniform(0.7, 1.3))
    if clouded:
        grey = float(rng.uniform(0.6, 0.8))
        background.inputs["Color"].default_value = (grey, grey * rng.uniform(0.97, 1.03), grey * 1.05, 1.0)
    else:
        sky = world.node_tree.nodes.new("ShaderNodeTexSky")
        sky.sky_type, sky.turbidity = "PREETHAM", float(rng.uniform(2.2, 5.0))
        sky.sun_direction = (-0.4, -0.6, 0.7)
        world.node_tree.links.new(sky.outputs["Color"], background.inputs["Color"])
    bpy.context.scene.world = world

"""Where everything in the courtyard stands. The fountain is the origin, z is up, the court is 10.4 m wide."""

from __future__ import annotations

from typing import Any

import bpy
import numpy as np

from courtyard_blender import plants
from courtyard_blender.palette import palette
from courtyard_blender.pieces import archway, fountain, table, window
from courtyard_blender.shapes import Mesh, blob, half_pipe, lathe, leaf, quad, sheet

HALF = 5.2
WALL = 3.3


def build(seed: int) -> None:
    """Fill the current scene; the same seed gives the same courtyard."""
    rng = np.random.default_rng(seed)
    p = palette(rng)
    ground(p)
    walls(rng, p)
    fountain(rng, p)
    back_wall(rng, p)
    left_wall(rng, p)
    right_wall(rng, p)
    front_wall(rng, p)
    table(rng, p)
    garden(rng, p)
    daylight()


def ground(p: dict[str, Any]) -> None:
    quad("floor", (-HALF, -HALF, 0), (2 * HALF, 0, 0), (0, 2 * HALF, 0), p["slabs"])
    angles = np.linspace(0, 2 * np.pi, 129)
    radii = np.array([1.0, 1.3, 1.6, 1.95])
    points = np.stack([np.outer(radii, np.cos(angles)), np.outer(radii, np.sin(angles)), np.full((4, 129), 0.006)], -1)
    uvs = np.stack([np.broadcast_to(angles * 1.5, (4, 129)), np.repeat(radii[:, None], 129, 1)], -1)
    ring = Mesh()
    ring.grid(points, uvs)
    ring.build("setts", p["setts"])
    lathe([(1.93, 0.0), (1.94, 0.022), (2.04, 0.022), (2.05, 0.0)], 96, smooth_steps=1).build("kerb", p["grey stone"])


def walls(rng: np.random.Generator, p: dict[str, Any]) -> None:
    """Four walls, a stone plinth and a tiled coping on each."""
    sides = [
        ("back", (-HALF, HALF, 0), (2 * HALF, 0, 0), "ochre"),
        ("left", (-HALF, -HALF, 0), (0, 2 * HALF, 0), "rubble"),
        ("right", (HALF, -HALF, 0), (0, 2 * HALF, 0), "white"),
        ("front", (-HALF, -HALF, 0), (2 * HALF, 0, 0), "rose"),
    ]
    roof, plinth = Mesh(), Mesh()
    for _, corner, along, kind in sides:
        quad("wall", corner, along, (0, 0, WALL), p[kind])
        start, step = np.array(corner), np.array(along) / (2 * HALF)
        inwards = np.array([-step[1], step[0], 0.0])
        inwards *= -np.sign(inwards @ start)
        for at in np.arange(0.1, 2 * HALF, 0.2):
            ridge = start + step * at + np.array([0, 0, WALL + 0.2 + rng.uniform(-0.01, 0.01)])
            eave = ridge + inwards * (0.32 + rng.uniform(-0.02, 0.02)) - np.array([0, 0, 0.16])
            half_pipe(roof, ridge - inwards * 0.1, eave, 0.1)
        at = 0.0
        while at < 2 * HALF:
            width = min(rng.uniform(0.45, 0.85), 2 * HALF - at)
            middle = start + step * (at + width / 2) + inwards * 0.04
            size = np.abs(step) * (width - 0.012) + np.abs(inwards) * (0.1 + rng.uniform(0, 0.02))
            plinth.box((*middle[:2], 0.16), (size[0], size[1], 0.32 + rng.uniform(-0.012, 0.012)))
            at += width
    roof.build("coping", p["roof"])
    plinth.build("plinth", p["grey stone"])


def back_wall(rng: np.random.Generator, p: dict[str, Any]) -> None:
    archway(p, -1.3, HALF, 1.25, 1.75, rng)
    window(p, (2.1, HALF, 1.75), 0.0)
    quad("panel", (-4.4, HALF - 0.03, 0.55), (1.4, 0, 0), (0, 0, 1.8), p["tile panel"])
    border = Mesh()
    for x, z, w, h in ((-3.7, 0.5, 1.6, 0.1), (-3.7, 2.4, 1.6, 0.1), (-4.45, 1.45, 0.1, 1.8), (-2.95, 1.45, 0.1, 1.8)):
        border.box((x, HALF - 0.04, z), (w, 0.09, h))
    border.build("border", p["stone"])
    t = np.linspace(0, 1, 40)
    x = 4.7 - 5.2 * t**1.2
    path = np.stack([x, np.full(40, HALF), 0.3 + 2.75 * t**0.4 + 0.12 * np.sin(9 * t)], -1)
    plants.climber(rng, path, np.array([0.0, -1.0, 0.0]), p["leaves"], p["pink petals"], p["bark"])
    box = Mesh()
    box.box((2.1, HALF - 0.22, 1.02), (1.1, 0.26, 0.2))
    box.build("window box", p["clay"])
    plants.bush(rng, (2.1, HALF - 0.22, 1.05), (0.55, 0.14, 0.12), p["leaves"], 260)
    plants.flowers(rng, (2.1, HALF - 0.22, 1.05), (0.55, 0.14, 0.14), p["red petals"], 34)


def left_wall(rng: np.random.Generator, p: dict[str, Any]) -> None:
    x = -HALF + 0.05
    rug = sheet((1.15, 2.0), lambda a, b: 0.03 * np.sin(5 * a + 1.0) + 0.02 * np.sin(3 * b))
    hung = rug.build("kilim", p["kilim"], smooth=True, at=(x + 0.1, 0.6, 1.75))
    hung.rotation_euler = (np.pi / 2, 0, np.pi / 2)
    rail = Mesh()
    rail.box((x + 0.1, 0.6, 2.77), (0.06, 1.5, 0.06))
    rail.build("rail", p["posts"])
    shelf = Mesh()
    for z in (0.5, 1.0, 1.5):
        for part in (-0.09, 0.09):
            shelf.box((x + 0.22 + part, 3.0, z), (0.16, 1.9, 0.045))
    for y in (2.1, 3.9):
        shelf.box((x + 0.2, y, 0.8), (0.34, 0.06, 1.6))
    shelf.build("shelf", p["posts"])
    for z in (0.52, 1.02, 1.52):
        for y in np.linspace(2.35, 3.65, 4):
            at = (x + 0.22, y + rng.uniform(-0.06, 0.06), z)
            glaze = str(rng.choice(["blue glaze", "green glaze", "clay", "pale clay"]))
            top = plants.pot(str(rng.choice(list(plants.POTS))), rng.uniform(0.085, 0.115), p[glaze], at)
            if rng.random() < 0.65:
                green = str(rng.choice(["leaves", "dark leaves", "silver leaves"]))
                plants.bush(rng, (at[0], at[1], top), (0.13, 0.13, 0.11), p[green], 90, 0.06)
    for y, radius, kind, glaze in (
        (-1.2, 0.3, "tall", "clay"),
        (-2.1, 0.26, "round", "pale clay"),
        (-3.4, 0.34, "round", "clay"),
    ):
        top = plants.pot(kind, radius, p[glaze], (x + 0.45, y, 0))
        plants.bush(rng, (x + 0.45, y, top), (0.42, 0.42, 0.36), p["dark leaves"], 420, 0.1)
        plants.flowers(rng, (x + 0.45, y, top), (0.42, 0.42, 0.36), p["white petals"], 22)


def right_wall(rng: np.random.Generator, p: dict[str, Any]) -> None:
    """Blue pots of geraniums on a white wall, as in the patios of Cordoba."""
    x = HALF
    window(p, (x, 2.2, 1.8), -np.pi / 2)
    hooks = Mesh()
    places = [(y, z) for z in (1.0, 1.6, 2.2, 2.75) for y in np.arange(-4.2, 4.6, 0.95)]
    for y, z in places:
        y, z = y + rng.uniform(-0.2, 0.2), z + rng.uniform(-0.12, 0.12)
        if 1.0 < y < 3.4 and 1.0 < z < 2.7:
            continue
        glaze = "blue glaze" if rng.random() < 0.7 else "clay"
        top = plants.pot("straight", 0.1, p[glaze], (x - 0.15, y, z))
        hooks.box((x - 0.03, y, z + 0.1), (0.06, 0.02, 0.02))
        plants.bush(rng, (x - 0.17, y, top), (0.16, 0.19, 0.13), p["leaves"], 110, 0.06)
        petals = str(rng.choice(["red petals", "pink petals", "white petals", "red petals"]))
        plants.flowers(rng, (x - 0.17, y, top), (0.17, 0.2, 0.15), p[petals], 13)
    hooks.build("hooks", p["iron"])
    bench = Mesh()
    for offset in (-0.15, 0.0, 0.15):
        bench.box((x - 0.45 + offset, -1.4, 0.46), (0.13, 1.7, 0.045))
    for y in (-2.1, -0.7):
        bench.box((x - 0.45, y, 0.22), (0.4, 0.07, 0.44))
    bench.build("bench", p["grey wood"])
    for y, radius, kind in ((-3.1, 0.3, "round"), (0.35, 0.26, "tall"), (4.3, 0.36, "round")):
        top = plants.pot(kind, radius, p["clay"], (x - 0.5, y, 0))
        plants.bush(rng, (x - 0.5, y, top), (0.4, 0.4, 0.34), p["silver leaves"], 420, 0.09)
        plants.flowers(rng, (x - 0.5, y, top), (0.4, 0.4, 0.36), p["violet petals"], 26)


def front_wall(rng: np.random.Generator, p: dict[str, Any]) -> None:
    for x, radius, kind, glaze in (
        (-3.6, 0.36, "tall", "clay"),
        (-1.2, 0.3, "round", "blue glaze"),
        (1.4, 0.34, "round", "clay"),
        (3.7, 0.36, "tall", "pale clay"),
    ):
        top = plants.pot(kind, radius, p[glaze], (x, -HALF + 0.5, 0))
        plants.bush(rng, (x, -HALF + 0.5, top), (0.4, 0.36, 0.4), p["dark leaves"], 400, 0.1)
        plants.flowers(rng, (x, -HALF + 0.5, top), (0.42, 0.36, 0.4), p["red petals"], 18)


def garden(rng: np.random.Generator, p: dict[str, Any]) -> None:
    """The pots, the orange tree, the agave and the crates that stand free."""
    soil = plants.pot("round", 0.4, p["clay"], (-2.3, 2.7, 0))
    plants.citrus(rng, (-2.3, 2.7, soil), 1.75, p["bark"], p["dark leaves"], p["oranges"])
    soil = plants.pot("straight", 0.3, p["pale clay"], (-2.15, 0.75, 0))
    plants.agave(rng, (-2.15, 0.75, soil), 0.5, p["silver leaves"])
    for x, y, radius, kind, glaze, green, petal in (
        (-1.75, 1.75, 0.22, "round", "blue glaze", "leaves", "red petals"),
        (0.35, 2.35, 0.2, "straight", "clay", "leaves", "pink petals"),
        (-0.55, 2.7, 0.26, "tall", "pale clay", "dark leaves", "white petals"),
        (3.4, 3.3, 0.4, "round", "clay", "leaves", "pink petals"),
        (-3.6, 3.9, 0.34, "tall", "clay", "silver leaves", "violet petals"),
        (-1.5, -0.95, 0.15, "straight", "green glaze", "leaves", "pink petals"),
        (1.45, -0.9, 0.16, "round", "clay", "leaves", "red petals"),
    ):
        top = plants.pot(kind, radius, p[glaze], (x, y, 0))
        spread = radius * 1.25
        plants.bush(rng, (x, y, top), (spread, spread, spread * 0.9), p[green], int(1400 * spread), 0.08)
        plants.flowers(rng, (x, y, top), (spread, spread, spread), p[petal], int(90 * spread))
    crate, fruit = Mesh(), Mesh()
    for level in range(3):
        z = 0.06 + level * 0.1
        for side in (-1, 1):
            crate.box((-2.9 + side * 0.21, 1.75, z), (0.02, 0.6, 0.085))
            crate.box((-2.9, 1.75 + side * 0.3, z), (0.44, 0.02, 0.085))
    crate.box((-2.9, 1.75, 0.015), (0.42, 0.6, 0.02))
    crate.build("crate", p["grey wood"])
    for _ in range(60):
        at = (-2.9 + rng.uniform(-0.16, 0.16), 1.75 + rng.uniform(-0.25, 0.25), rng.uniform(0.18, 0.33))
        blob(fruit, at, rng.uniform(0.036, 0.046), (1.0, 1.25, 1.0), 8, 12)
    fruit.build("lemons", p["lemons"], smooth=True)
    petals = Mesh()
    for _ in range(420):
        radius, turn = abs(rng.normal(3.0, 1.4)), rng.uniform(0, 2 * np.pi)
        at = (radius * np.cos(turn), radius * np.sin(turn), 0.012)
        if max(abs(at[0]), abs(at[1])) < HALF - 0.1 and radius > 1.1:
            heading = (np.cos(5 * turn), np.sin(7 * turn), rng.uniform(0, 0.3))
            leaf(petals, at, heading, rng.uniform(0.03, 0.06), 0.03, 0.0, rng.uniform(-0.5, 0.5))
    petals.build("fallen", p["pink petals"])


def daylight() -> None:
    """A low warm sun over the front-left corner, a blue sky for the shade."""
    sun = bpy.data.lights.new("sun", "SUN")
    sun.energy, sun.color, sun.angle = 4.6, (1.0, 0.87, 0.68), np.radians(0.8)
    lamp = bpy.data.objects.new("sun", sun)
    lamp.rotation_euler = (np.radians(42), 0, np.radians(-24))
    bpy.context.scene.collection.objects.link(lamp)
    world = bpy.data.worlds.new("sky")
    world.use_nodes = True
    sky = world.node_tree.nodes.new("ShaderNodeTexSky")
    sky.sky_type, sky.turbidity = "PREETHAM", 2.6
    sky.sun_direction = (-0.4, -0.6, 0.7)
    background = world.node_tree.nodes["Background"]
    background.inputs["Strength"].default_value = 1.2
    world.node_tree.links.new(sky.outputs["Color"], background.inputs["Color"])
    bpy.context.scene.world = world

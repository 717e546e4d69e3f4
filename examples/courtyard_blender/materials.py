"""Procedural materials. Lengths in metres; UVs are metres on the surface, so one texture scale serves all sizes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import bpy
import numpy as np

Colour = tuple[float, float, float]


def srgb(hexadecimal: str) -> Colour:
    """Linear RGB of "#rrggbb"."""
    values = [int(hexadecimal[start : start + 2], 16) / 255 for start in (1, 3, 5)]
    red, green, blue = (v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in values)
    return red, green, blue


class Nodes:
    """A material being wired: each method adds one node and returns the socket that it computes."""

    def __init__(self, name: str):
        self.material = bpy.data.materials.new(name)
        self.material.use_nodes = True
        self.tree = self.material.node_tree
        self.surface = self.tree.nodes["Principled BSDF"]
        coordinates = self.tree.nodes.new("ShaderNodeTexCoord")
        self.uv, self.object = coordinates.outputs["UV"], coordinates.outputs["Object"]
        self.island = self.tree.nodes.new("ShaderNodeNewGeometry").outputs["Random Per Island"]

    def add(self, kind: str, inputs: dict[str, Any], output: str | int = 0, **settings: Any) -> Any:
        node = self.tree.nodes.new(f"ShaderNode{kind}")
        for name, value in settings.items():
            setattr(node, name, value)
        for name, value in inputs.items():
            self.link(node.inputs[name], value)
        return node.outputs[output]

    def link(self, socket: Any, value: Any) -> None:
        if isinstance(value, bpy.types.NodeSocket):
            self.tree.links.new(value, socket)
        elif isinstance(value, tuple) and socket.type == "RGBA":
            socket.default_value = (*value, 1.0)
        else:
            socket.default_value = value

    def noise(self, scale: float, detail: float = 5.0, vector: Any = None, roughness: float = 0.6) -> Any:
        where = self.object if vector is None else vector
        return self.add("TexNoise", {"Vector": where, "Scale": scale, "Detail": detail, "Roughness": roughness})

    def voronoi(self, scale: float, feature: str = "F1", output: str = "Distance", vector: Any = None) -> Any:
        where = self.object if vector is None else vector
        return self.add("TexVoronoi", {"Vector": where, "Scale": scale}, output, feature=feature)

    def ramp(self, factor: Any, stops: Sequence[tuple[float, Colour | float]]) -> Any:
        """Colours or grey values between positions 0..1."""
        node = self.tree.nodes.new("ShaderNodeValToRGB")
        elements = node.color_ramp.elements
        while len(elements) < len(stops):
            elements.new(0.5)
        for element, (position, colour) in zip(elements, stops):
            element.position = position
            element.color = (*(colour if isinstance(colour, tuple) else (colour,) * 3), 1.0)
        self.link(node.inputs[0], factor)
        return node.outputs["Color"]

    def mix(self, factor: Any, a: Any, b: Any, blend: str = "MIX") -> Any:
        node = self.tree.nodes.new("ShaderNodeMix")
        node.data_type, node.blend_type = "RGBA", blend
        self.link(node.inputs[0], factor)
        self.link(node.inputs[6], a)
        self.link(node.inputs[7], b)
        return node.outputs[2]

    def math(self, operation: str, a: Any, b: Any = 0.0) -> Any:
        node = self.tree.nodes.new("ShaderNodeMath")
        node.operation = operation
        self.link(node.inputs[0], a)
        self.link(node.inputs[1], b)
        return node.outputs[0]

    def scaled(self, vector: Any, by: tuple[float, float, float], rotate_z: float = 0.0) -> Any:
        return self.add("Mapping", {"Vector": vector, "Scale": by, "Rotation": (0.0, 0.0, rotate_z)})

    def wobbled(self, vector: Any, scale: float, amount: float) -> Any:
        """`vector` shaken by noise, so that joints are not ruled lines."""
        shake = self.add("TexNoise", {"Vector": self.object, "Scale": scale, "Detail": 2.0}, "Color")
        return self.mix(amount, vector, shake, "LINEAR_LIGHT")

    def finish(self, colour: Any, height: Any, bounce: str, roughness: Any = 0.8, depth_m: float = 0.01) -> Any:
        """Wire colour, bump and roughness; returns the material.

        Every colour gets fine grain: real surfaces are never flat. Light that bounces off sees the plain colour
        `bounce` instead, which makes a frame three times faster: Cycles skips the branch of a mix that it does not use.
        """
        grain = self.ramp(self.noise(95.0, 1.0), [(0.3, 0.72), (0.7, 1.22)])
        self.link(self.surface.inputs["Base Color"], self.mix(1.0, colour, grain, "MULTIPLY"))
        self.link(self.surface.inputs["Roughness"], roughness)
        if height is not None:
            bump = self.add("Bump", {"Height": height, "Strength": 1.0, "Distance": depth_m})
            self.link(self.surface.inputs["Normal"], bump)
        seen = self.add("LightPath", {}, "Is Camera Ray")
        plain = self.add("BsdfDiffuse", {"Color": srgb(bounce)})
        shader = self.add("MixShader", {0: seen, 1: plain, 2: self.surface.outputs[0]})
        self.link(self.tree.nodes["Material Output"].inputs["Surface"], shader)
        return self.material


def image(name: str, pixels: np.ndarray) -> Any:
    """A Blender image of [H, W, 3] sRGB floats, first row at the top."""
    height, width = pixels.shape[:2]
    made = bpy.data.images.new(name, width, height)
    rgba = np.ones((height, width, 4), dtype=np.float32)
    rgba[..., :3] = np.clip(pixels[::-1], 0, 1)
    made.pixels.foreach_set(rgba.ravel())
    made.pack()
    return made


def bricks(
    nodes: Nodes, brick_m: tuple[float, float], colours: tuple[Colour, Colour], mortar: Colour
) -> tuple[Any, Any]:
    """(colour, height) of a bond of bricks with hand-made edges and weathering."""
    where = nodes.wobbled(nodes.uv, 9.0, 0.012)
    inputs = {
        "Vector": where,
        "Color1": colours[0],
        "Color2": colours[1],
        "Mortar": mortar,
        "Scale": 1.0,
        "Mortar Size": 0.009,
        "Mortar Smooth": 0.35,
        "Bias": -0.1,
        "Brick Width": brick_m[0],
        "Row Height": brick_m[1],
    }
    node = nodes.tree.nodes.new("ShaderNodeTexBrick")
    for name, value in inputs.items():
        nodes.link(node.inputs[name], value)
    weather = nodes.ramp(nodes.noise(3.1, 5.0), [(0.32, 0.5), (0.68, 1.35)])
    spots = nodes.ramp(nodes.noise(24.0, 4.0), [(0.38, 0.62), (0.62, 1.25)])
    colour = nodes.mix(1.0, nodes.mix(1.0, node.outputs["Color"], weather, "MULTIPLY"), spots, "MULTIPLY")
    height = nodes.math("SUBTRACT", nodes.math("MULTIPLY", nodes.noise(30.0, 2.0), 0.5), node.outputs["Factor"])
    return colour, height


def plaster(name: str, light: str, dark: str, bare: float, brick: tuple[str, str] = ("#a4573a", "#7d3f2b")) -> Any:
    """Limewashed plaster, stained, with patches fallen off the bricks; bare: 0 (none) to 1 (bricks only)."""
    nodes = Nodes(name)
    stains = nodes.noise(1.1, 5.0, nodes.scaled(nodes.object, (1.0, 1.0, 0.45)), 0.68)
    coat = nodes.ramp(stains, [(0.3, srgb(dark)), (0.5, srgb(light)), (0.72, srgb(light))])
    blotches = nodes.ramp(nodes.noise(6.5, 5.0, roughness=0.72), [(0.34, 0.66), (0.6, 1.12)])
    coat = nodes.mix(0.85, coat, blotches, "MULTIPLY")
    cracks = nodes.voronoi(1.7, "DISTANCE_TO_EDGE", vector=nodes.wobbled(nodes.object, 5.0, 0.16))
    coat = nodes.mix(1.0, coat, nodes.ramp(cracks, [(0.0, 0.35), (0.012, 1.0)]), "MULTIPLY")
    wall, wall_height = bricks(nodes, (0.30, 0.092), (srgb(brick[0]), srgb(brick[1])), srgb("#b9aa92"))
    fallen = nodes.noise(0.62, 5.0, roughness=0.62)
    edge = 0.66 - 0.34 * bare
    mask = nodes.ramp(fallen, [(edge, 0.0), (edge + 0.012, 1.0)])
    rim = nodes.ramp(fallen, [(edge - 0.02, 1.0), (edge, 0.55), (edge + 0.014, 1.0)])
    colour = nodes.mix(1.0, nodes.mix(mask, coat, wall), rim, "MULTIPLY")
    coat_height = nodes.math("ADD", nodes.math("MULTIPLY", nodes.noise(14.0, 3.0), 0.6), 1.6)
    height = nodes.mix(mask, coat_height, wall_height)
    return nodes.finish(colour, height, light, 0.9, 0.014)


def rubble(name: str) -> Any:
    """A dry wall of mixed stones with moss in the joints."""
    nodes = Nodes(name)
    where = nodes.wobbled(nodes.scaled(nodes.object, (1.0, 1.0, 1.75)), 4.0, 0.09)
    edge = nodes.voronoi(3.6, "DISTANCE_TO_EDGE", vector=where)
    cell = nodes.voronoi(3.6, "F1", "Color", where)
    palette = [(0.1, "#6d6257"), (0.35, "#a08f76"), (0.55, "#8b6f52"), (0.75, "#b9a88b"), (0.95, "#7a7468")]
    stone = nodes.ramp(cell, [(position, srgb(tone)) for position, tone in palette])
    stone = nodes.mix(0.9, stone, nodes.ramp(nodes.noise(11.0, 5.0), [(0.3, 0.45), (0.7, 1.4)]), "MULTIPLY")
    lichen = nodes.ramp(nodes.noise(17.0, 6.0), [(0.60, 0.0), (0.64, 1.0)])
    stone = nodes.mix(nodes.math("MULTIPLY", lichen, 0.7), stone, srgb("#c9b65c"))
    joint = nodes.ramp(nodes.noise(4.0), [(0.4, srgb("#4b4033")), (0.6, srgb("#4d5a2c"))])
    colour = nodes.mix(nodes.ramp(edge, [(0.02, 0.0), (0.06, 1.0)]), joint, stone)
    bulge = nodes.ramp(edge, [(0.0, 0.0), (0.18, 1.0)])
    return nodes.finish(colour, nodes.mix(0.3, bulge, nodes.noise(18.0, 2.0)), "#857560", 0.92, 0.06)


def paving(name: str, slab_m: tuple[float, float], tones: tuple[str, str, str]) -> Any:
    """Worn flagstones: every slab its own tone, moss in the joints."""
    nodes = Nodes(name)
    black, white = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    where = nodes.wobbled(nodes.uv, 3.0, 0.03)
    node = nodes.tree.nodes.new("ShaderNodeTexBrick")
    node.offset = 0.37
    sizes = {
        "Scale": 1.0,
        "Mortar Size": 0.016,
        "Mortar Smooth": 0.3,
        "Brick Width": slab_m[0],
        "Row Height": slab_m[1],
    }
    for key, value in {
        "Vector": where,
        "Color1": black,
        "Color2": white,
        "Mortar": black,
        "Bias": 0.0,
        **sizes,
    }.items():
        nodes.link(node.inputs[key], value)
    slab = nodes.ramp(node.outputs["Color"], [(p, srgb(tone)) for p, tone in zip((0.1, 0.5, 0.9), tones)])
    wear = nodes.ramp(nodes.noise(5.2, 5.0, roughness=0.7), [(0.3, 0.48), (0.52, 1.0), (0.7, 1.32)])
    slab = nodes.mix(1.0, slab, wear, "MULTIPLY")
    pits = nodes.ramp(nodes.voronoi(38.0), [(0.06, 0.45), (0.22, 1.0)])
    slab = nodes.mix(0.75, slab, pits, "MULTIPLY")
    veins = nodes.voronoi(2.4, "DISTANCE_TO_EDGE", vector=nodes.wobbled(nodes.object, 2.2, 0.3))
    slab = nodes.mix(1.0, slab, nodes.ramp(veins, [(0.0, 0.45), (0.014, 1.0)]), "MULTIPLY")
    joint = nodes.ramp(nodes.noise(2.6, 6.0), [(0.42, srgb("#5a4b3a")), (0.58, srgb("#51632c"))])
    colour = nodes.mix(node.outputs["Factor"], slab, joint)
    height = nodes.math("SUBTRACT", nodes.math("MULTIPLY", nodes.noise(12.0, 3.0), 0.9), node.outputs["Factor"])
    return nodes.finish(colour, height, tones[0], 0.75, 0.018)


def limestone(name: str, light: str = "#d8c9a8", dark: str = "#8f8068") -> Any:
    """Carved stone, weathered: pits, drips, lichen."""
    nodes = Nodes(name)
    tone = nodes.noise(4.4, 5.0, roughness=0.7)
    colour = nodes.ramp(tone, [(0.3, srgb(dark)), (0.5, srgb(light)), (0.75, srgb("#ece2cb"))])
    drips = nodes.ramp(
        nodes.noise(7.0, 6.0, nodes.scaled(nodes.object, (1.0, 1.0, 0.16))), [(0.40, 0.34), (0.55, 1.05)]
    )
    colour = nodes.mix(0.8, colour, drips, "MULTIPLY")
    pits = nodes.voronoi(46.0)
    colour = nodes.mix(0.8, colour, nodes.ramp(pits, [(0.08, 0.4), (0.25, 1.0)]), "MULTIPLY")
    lichen = nodes.ramp(nodes.noise(13.0, 5.0), [(0.58, 0.0), (0.63, 1.0)])
    colour = nodes.mix(nodes.math("MULTIPLY", lichen, 0.75), colour, srgb("#a98f3c"))
    moss = nodes.ramp(nodes.noise(8.0, 5.0), [(0.62, 0.0), (0.67, 1.0)])
    colour = nodes.mix(nodes.math("MULTIPLY", moss, 0.8), colour, srgb("#5b6531"))
    return nodes.finish(colour, nodes.mix(0.5, tone, pits), light, 0.85, 0.012)


def earthenware(name: str, base: str, light: str, dark: str, gloss: float = 0.85) -> Any:
    """Fired clay or glaze: throwing rings, lime bloom, chips."""
    nodes = Nodes(name)
    colour = nodes.ramp(nodes.noise(9.0, 5.0), [(0.3, srgb(dark)), (0.5, srgb(base)), (0.72, srgb(light))])
    rings = nodes.noise(20.0, 3.0, nodes.scaled(nodes.object, (0.15, 0.15, 3.0)))
    colour = nodes.mix(0.8, colour, nodes.ramp(rings, [(0.35, 0.6), (0.65, 1.2)]), "MULTIPLY")
    bloom = nodes.ramp(nodes.noise(5.5, 5.0, roughness=0.74), [(0.53, 0.0), (0.62, 0.75)])
    colour = nodes.mix(bloom, colour, srgb(light))
    chips = nodes.ramp(nodes.noise(31.0, 3.0), [(0.66, 0.0), (0.69, 1.0)])
    colour = nodes.mix(nodes.math("MULTIPLY", chips, 0.6), colour, srgb("#e8d8bd"))
    return nodes.finish(colour, nodes.mix(0.5, rings, nodes.noise(40.0, 1.0)), base, gloss, 0.006)


def wood(name: str, light: str, dark: str, along: tuple[float, float, float], peel: str = "") -> Any:
    """Weathered boards: each island its own tone, grain along the axis with the small factor; peel: paint colour."""
    nodes = Nodes(name)
    shifted = nodes.math("MULTIPLY", nodes.island, 37.0)
    where = nodes.add("VectorMath", {0: nodes.object, 1: nodes.add("CombineXYZ", dict.fromkeys("XYZ", shifted))})
    grain = nodes.noise(30.0, 5.0, nodes.scaled(where, along), 0.7)
    colour = nodes.ramp(grain, [(0.32, srgb(dark)), (0.5, srgb(light)), (0.7, srgb(light))])
    streaks = nodes.ramp(nodes.noise(9.0, 4.0, nodes.scaled(where, along)), [(0.36, 0.45), (0.62, 1.25)])
    colour = nodes.mix(0.9, colour, streaks, "MULTIPLY")
    if peel:
        paint = nodes.mix(0.8, srgb(peel), nodes.ramp(nodes.noise(18.0, 6.0), [(0.3, 0.5), (0.7, 1.3)]), "MULTIPLY")
        colour = nodes.mix(nodes.ramp(nodes.noise(8.0, 5.0, where, 0.75), [(0.42, 0.0), (0.47, 1.0)]), colour, paint)
    tone = nodes.ramp(nodes.island, [(0.0, 0.62), (0.5, 1.0), (1.0, 1.28)])
    return nodes.finish(nodes.mix(1.0, colour, tone, "MULTIPLY"), grain, light, 0.75, 0.008)


def speckled(name: str, tones: Sequence[str], scale: float, roughness: float = 0.6, bump_m: float = 0.004) -> Any:
    """Leaves, petals, fruit, roof tiles: each island its own tone of the list, with noise on it."""
    nodes = Nodes(name)
    steps = np.linspace(0.0, 1.0, len(tones))
    colour = nodes.ramp(nodes.island, [(float(p), srgb(tone)) for p, tone in zip(steps, tones)])
    mottle = nodes.noise(scale, 5.0)
    colour = nodes.mix(0.9, colour, nodes.ramp(mottle, [(0.3, 0.5), (0.7, 1.4)]), "MULTIPLY")
    return nodes.finish(colour, mottle, tones[0], roughness, bump_m)


def water(name: str) -> Any:
    """Green pool water: dark, rippled, mirrors the sky."""
    nodes = Nodes(name)
    colour = nodes.ramp(nodes.noise(5.0, 6.0), [(0.35, srgb("#1d3a35")), (0.65, srgb("#3f6b57"))])
    return nodes.finish(colour, nodes.noise(16.0, 2.0), "#2c5044", 0.12, 0.006)


def painted(name: str, pixels: np.ndarray, size_m: tuple[float, float], roughness: float = 0.35) -> Any:
    """An image of our own making, repeated every size_m, chipped and stained."""
    nodes = Nodes(name)
    where = nodes.scaled(nodes.uv, (1 / size_m[0], 1 / size_m[1], 1.0))
    texture = nodes.add("TexImage", {"Vector": where}, "Color", image=image(name, pixels))
    stains = nodes.ramp(nodes.noise(6.0, 5.0, roughness=0.7), [(0.3, 0.6), (0.58, 1.08)])
    colour = nodes.mix(0.9, texture, stains, "MULTIPLY")
    chips = nodes.ramp(nodes.noise(21.0, 5.0), [(0.655, 0.0), (0.67, 1.0)])
    colour = nodes.mix(chips, colour, srgb("#b98a63"))
    return nodes.finish(colour, nodes.noise(30.0, 1.0), "#a89a88", roughness, 0.003)

"""Meshes from numbers: boxes, turned profiles, leaves, cloth, roof tiles. Metres, z up; UVs in metres too."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import bpy
import numpy as np
from mathutils import Euler, Vector

Point = tuple[float, float, float]


class Mesh:
    """Faces gathered one by one, with their UVs; `build` makes one Blender object of them."""

    def __init__(self) -> None:
        self.points: list[Any] = []
        self.faces: list[list[int]] = []
        self.uvs: list[tuple[float, float]] = []

    def face(self, corners: Sequence[Any], uvs: Sequence[tuple[float, float]]) -> None:
        start = len(self.points)
        self.points += [tuple(corner) for corner in corners]
        self.faces.append(list(range(start, start + len(corners))))
        self.uvs += list(uvs)

    def grid(self, points: np.ndarray, uvs: np.ndarray, wrap: bool = False) -> None:
        """points: [R, C, 3], uvs: [R, C, 2]; wrap: join the last column to the first (uvs then need C + 1 columns)."""
        rows, columns = points.shape[:2]
        start = len(self.points)
        self.points += [tuple(point) for point in points.reshape(-1, 3)]
        for row in range(rows - 1):
            for column in range(columns if wrap else columns - 1):
                ring = [(row, column), (row, column + 1), (row + 1, column + 1), (row + 1, column)]
                self.faces.append([start + r * columns + c % columns for r, c in ring])
                self.uvs += [tuple(uvs[r, c]) for r, c in ring]

    def box(self, centre: Point, size: Point, turn: Point = (0, 0, 0)) -> None:
        """A closed box, one island: corners are shared, so that Random Per Island sees one board."""
        half, where, rotation = np.array(size) / 2, Vector(centre), Euler(turn).to_matrix()
        signs = [(x, y, z) for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)]
        start = len(self.points)
        self.points += [tuple(where + rotation @ Vector(half * np.array(sign))) for sign in signs]
        for corners, (u, v) in zip(
            ([0, 1, 3, 2], [4, 6, 7, 5], [0, 4, 5, 1], [2, 3, 7, 6], [0, 2, 6, 4], [1, 5, 7, 3]),
            ((1, 2), (1, 2), (0, 2), (0, 2), (0, 1), (0, 1)),
        ):
            self.faces.append([start + corner for corner in corners])
            local = [half * np.array(signs[corner]) for corner in corners]
            self.uvs += [(float(p[u]), float(p[v])) for p in local]

    def build(self, name: str, material: Any, smooth: bool = False, at: Point = (0, 0, 0), turn_z: float = 0.0) -> Any:
        data = bpy.data.meshes.new(name)
        data.from_pydata(self.points, [], self.faces)
        layer = data.uv_layers.new(name="uv")
        layer.data.foreach_set("uv", np.array(self.uvs, dtype=np.float32).ravel())
        data.polygons.foreach_set("use_smooth", [smooth] * len(data.polygons))
        data.materials.append(material)
        made = bpy.data.objects.new(name, data)
        made.location, made.rotation_euler = at, (0, 0, turn_z)
        bpy.context.scene.collection.objects.link(made)
        return made


def quad(name: str, corner: Point, along: Point, up: Point, material: Any, cells: int = 1) -> Any:
    """A flat rectangle from `corner`, spanned by `along` and `up`."""
    mesh = Mesh()
    a, b, origin = Vector(along), Vector(up), Vector(corner)
    w, h = a.length, b.length
    mesh.face([origin, origin + a, origin + a + b, origin + b], [(0, 0), (w, 0), (w, h), (0, h)])
    return mesh.build(name, material)


def lathe(
    profile: Sequence[tuple[float, float]],
    sides: int = 64,
    flutes: Callable[[float, float], float] | None = None,
    smooth_steps: int = 6,
) -> Mesh:
    """A turned body. profile: (radius, height) from bottom to top; flutes(angle, height) scales the radius."""
    knots = np.array(profile, dtype=float)
    if smooth_steps > 1:
        knots = _rounded(knots, smooth_steps)
    angles = np.linspace(0, 2 * np.pi, sides, endpoint=False)
    length = np.concatenate([[0], np.cumsum(np.hypot(*np.diff(knots, axis=0).T))])
    points = np.empty((len(knots), sides, 3))
    for row, (radius, height) in enumerate(knots):
        scale = np.array([flutes(a, height) for a in angles]) if flutes else np.ones(sides)
        points[row] = np.stack(
            [radius * scale * np.cos(angles), radius * scale * np.sin(angles), np.full(sides, height)], -1
        )
    around = np.linspace(0, 2 * np.pi * knots[:, 0].max(), sides + 1)
    uvs = np.stack(np.broadcast_arrays(around[None, :], length[:, None]), -1)
    mesh = Mesh()
    mesh.grid(points, uvs, wrap=True)
    return mesh


def _rounded(knots: np.ndarray, steps: int) -> np.ndarray:
    """Catmull-Rom through the knots."""
    padded = np.concatenate([knots[:1], knots, knots[-1:]])
    out = []
    for a, b, c, d in zip(padded, padded[1:], padded[2:], padded[3:]):
        for t in np.arange(steps) / steps:
            out.append(
                0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3)
            )
    out.append(knots[-1])
    curve = np.array(out)
    curve[:, 0] = np.maximum(curve[:, 0], 0.001)
    return curve


def leaf(mesh: Mesh, base: Any, direction: Any, length: float, width: float, bend: float, roll: float) -> None:
    """One pointed leaf of four faces, folded along its rib and bent down towards its tip; one island."""
    forward = Vector(direction).normalized()
    side = forward.cross(Vector((0, 0, 1)))
    side = (side if side.length > 1e-3 else Vector((1, 0, 0))).normalized()
    normal = side.cross(forward)
    side, normal = side * np.cos(roll) + normal * np.sin(roll), normal * np.cos(roll) - side * np.sin(roll)
    start = len(mesh.points)
    for t, wide in ((0.0, 0.12), (0.4, 1.0), (0.78, 0.6)):
        rib = Vector(base) + forward * (length * t) - Vector((0, 0, 1)) * (bend * length * t * t)
        for across, lift in ((-1, 0.25), (0, 0), (1, 0.25)):
            mesh.points.append(tuple(rib + side * (across * wide * width / 2) + normal * (lift * wide * width / 2)))
    mesh.points.append(tuple(Vector(base) + forward * length - Vector((0, 0, 1)) * (bend * length)))
    quads = [[0, 1, 4, 3], [1, 2, 5, 4], [3, 4, 7, 6], [4, 5, 8, 7]]
    for corners in [*quads, [6, 7, 9], [7, 8, 9]]:
        mesh.faces.append([start + corner for corner in corners])
        mesh.uvs += [(0.0, 0.0)] * len(corners)


def foliage(
    rng: np.random.Generator, centre: Point, radii: Point, count: int, length: float, width: float, inner: float = 0.45
) -> Mesh:
    """A cloud of leaves in an ellipsoid, pointing outwards; inner: how hollow it is (0 full, 1 shell)."""
    mesh = Mesh()
    for _ in range(count):
        direction = rng.normal(size=3)
        direction /= np.linalg.norm(direction)
        depth = (inner**3 + (1 - inner**3) * rng.random()) ** (1 / 3)
        base = np.array(centre) + direction * np.array(radii) * depth * rng.uniform(0.85, 1.1)
        heading = direction + rng.normal(size=3) * 0.55 + np.array([0, 0, 0.25])
        size = length * rng.uniform(0.6, 1.25)
        leaf(mesh, base, heading, size, width * size / length, rng.uniform(0.0, 0.4), rng.uniform(-0.7, 0.7))
    return mesh


def blob(mesh: Mesh, centre: Any, radius: float, stretch: Point = (1, 1, 1), rings: int = 7, sides: int = 12) -> None:
    """A small closed ball or egg (fruit, petals, pebbles); one island."""
    start = len(mesh.points)
    polar = np.linspace(0.02, np.pi - 0.02, rings)
    angles = np.linspace(0, 2 * np.pi, sides, endpoint=False)
    for theta in polar:
        for phi in angles:
            unit = np.array([np.sin(theta) * np.cos(phi), np.sin(theta) * np.sin(phi), np.cos(theta)])
            mesh.points.append(tuple(np.array(centre) + radius * unit * np.array(stretch)))
    for row in range(rings - 1):
        for column in range(sides):
            right = (column + 1) % sides
            upper, lower = start + row * sides, start + (row + 1) * sides
            mesh.faces.append([upper + column, lower + column, lower + right, upper + right])
            mesh.uvs += [(0.0, 0.0)] * 4


def half_pipe(mesh: Mesh, start: Any, end: Any, radius: float, lift: Any = (0, 0, 1), sides: int = 7) -> None:
    """One roof tile: a half cylinder that narrows to its end; one island."""
    a, b = Vector(start), Vector(end)
    up = Vector(lift).normalized()
    across = (b - a).cross(up).normalized()
    first = len(mesh.points)
    for point, size in ((a, radius), (b, radius * 0.8)):
        for turn in np.linspace(0, np.pi, sides):
            mesh.points.append(tuple(point + across * (size * np.cos(turn)) + up * (size * np.sin(turn))))
    for side in range(sides - 1):
        mesh.faces.append([first + side, first + side + 1, first + sides + side + 1, first + sides + side])
        mesh.uvs += [(0.0, 0.0)] * 4


def sheet(size: tuple[float, float], height: Callable[[np.ndarray, np.ndarray], np.ndarray], cells: int = 60) -> Mesh:
    """A cloth over (x, y) in +-size/2; height(x, y) gives z. UVs run from 0 in metres."""
    x, y = np.meshgrid(np.linspace(-0.5, 0.5, cells) * size[0], np.linspace(-0.5, 0.5, cells) * size[1])
    points = np.stack([x, y, height(x, y)], -1)
    mesh = Mesh()
    mesh.grid(points, np.stack([x + size[0] / 2, y + size[1] / 2], -1))
    return mesh

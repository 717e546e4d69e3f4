"""Make the pictures of the rating guide: what each artifact tag looks like, in the bundled courtyard.

    difix3d run examples/courtyard/images --scene scenes/courtyard
    python examples/make_tag_examples.py scenes/courtyard

Each picture is one cut-out twice: the photo above, and below what went wrong. Floaters, blur, ghosting and lost detail
are splats of that scene rendered by this program after they were damaged; colour shift and invented detail are the
photo, changed.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from difix3d.formats.colmap import read_reconstruction
from difix3d.formats.image import read_rgb
from difix3d.formats.ply import read_splats
from difix3d.geometry import transform_points
from difix3d.scene import Scene
from difix3d.splatting import render_view
from difix3d.types import SH_C0, Camera, Splats

CUT = (160, 92)
"""(width, height) of a cut-out in pixels of the photo; it is shown twice as large."""
QUALITY = 82

Picture = NDArray[np.uint8]


class Courtyard:
    """A photo of the scene by its name, its camera, and the splats rendered there."""

    def __init__(self, scene: Scene, name: str):
        self.camera = read_reconstruction(scene.sparse_dir).view(name).camera
        self.photo = read_rgb(scene.images_dir / name)
        self.splats = read_splats(scene.splats_path)

    def render(self, splats: Splats, camera: Camera | None = None) -> Picture:
        rgb, _, _ = render_view(splats, camera or self.camera, renderer="cpu")
        return (rgb * 255).round().astype(np.uint8)

    def point(self, pixel: tuple[int, int]) -> NDArray[np.float64]:
        """[3] where the splats are hit at a pixel, in the world."""
        _, _, depth = render_view(self.splats, self.camera, renderer="cpu")
        return self.at(pixel, float(np.median(depth[pixel[1] - 2 : pixel[1] + 3, pixel[0] - 2 : pixel[0] + 3])))

    def at(self, pixel: tuple[int, int], depth: float) -> NDArray[np.float64]:
        ray = np.linalg.inv(self.camera.K) @ np.array([*pixel, 1.0])
        return transform_points(self.camera.world_from_cam, (ray * depth)[None])[0]


def floaters(yard: Courtyard, pixel: tuple[int, int]) -> Picture:
    """Large thin splats between the camera and what it sees, as too few photos leave them."""
    rng = np.random.default_rng(4)
    count = 18
    far = float(np.linalg.norm(yard.point(pixel) - yard.camera.position))
    places = [
        yard.at(tuple(np.add(pixel, rng.normal(0, (40, 30)))), far * rng.uniform(0.35, 0.7)) for _ in range(count)
    ]
    colours = rng.choice([0.08, 0.3, 0.7], (count, 1)) * np.array([1.0, 0.94, 0.84])
    sh = np.zeros((count, yard.splats.sh.shape[1], 3), np.float32)
    sh[:, 0] = (colours - 0.5) / SH_C0
    scales = np.log(far * rng.uniform(0.002, 0.016, (count, 3)))
    quats = rng.normal(size=(count, 4))
    new = Splats(np.array(places), quats, scales, rng.uniform(1.5, 4, count), sh)
    names = ("means", "quats", "log_scales", "opacity_logits", "sh")
    return yard.render(Splats(*(np.concatenate([getattr(yard.splats, name), getattr(new, name)]) for name in names)))


def blur(yard: Courtyard, pixel: tuple[int, int]) -> Picture:
    """Every splat half as large again."""
    return yard.render(replace(yard.splats, log_scales=yard.splats.log_scales + np.log(1.5).astype(np.float32)))


def ghosting(yard: Courtyard, pixel: tuple[int, int]) -> Picture:
    """Two renders a small step apart, laid over each other, as photos with a wrong pose leave them."""
    far = float(np.linalg.norm(yard.point(pixel) - yard.camera.position))
    step = np.eye(4)
    step[0, 3] = 9 * far / yard.camera.K[0, 0]  # nine pixels at that distance
    other = yard.render(yard.splats, yard.camera.moved(step @ yard.camera.cam_from_world))
    return cv2.addWeighted(yard.render(yard.splats), 0.55, other, 0.45, 0)


def colour_shift(yard: Courtyard, pixel: tuple[int, int]) -> Picture:
    """The photo with another white balance and less light."""
    return (yard.photo * np.array([0.72, 0.86, 1.08])).clip(0, 255).astype(np.uint8)


def invented_detail(yard: Courtyard, pixel: tuple[int, int]) -> Picture:
    """Tiles of the fountain where there is a plain pavement."""
    left, top, width, height = TILES
    tiles = cv2.resize(yard.photo[top : top + height, left : left + width], (96, 56), interpolation=cv2.INTER_CUBIC)
    soft = np.zeros(tiles.shape[:2], np.uint8)
    cv2.ellipse(soft, (48, 28), (45, 25), 0, 0, 360, 255, -1)
    return cv2.seamlessClone(tiles, yard.photo, soft, pixel, cv2.NORMAL_CLONE)


def lost_detail(yard: Courtyard, pixel: tuple[int, int]) -> Picture:
    """Without the splats of one thing, which stands on the ground: z is up."""
    away = yard.splats.means - yard.point(pixel)
    near = (np.linalg.norm(away[:, :2], axis=1) < LOST_RADIUS) & (away[:, 2] > -LOST_RADIUS / 2)
    kept = {
        name: getattr(yard.splats, name)[~near] for name in ("means", "quats", "log_scales", "opacity_logits", "sh")
    }
    return yard.render(Splats(**kept))


TILES = (190, 285, 90, 50)
LOST_RADIUS = 0.2
SHOWN = {
    floaters: ("00010.jpg", (250, 110)),
    blur: ("00008.jpg", (360, 285)),
    ghosting: ("00013.jpg", (300, 80)),
    colour_shift: ("00028.jpg", (570, 130)),
    invented_detail: ("00013.jpg", (500, 268)),
    lost_detail: ("00013.jpg", (50, 282)),
}
"""Tag's function -> (photo, middle of the cut-out)."""


def cut_out(picture: Picture, middle: tuple[int, int]) -> Picture:
    left = min(max(0, middle[0] - CUT[0] // 2), picture.shape[1] - CUT[0])
    top = min(max(0, middle[1] - CUT[1] // 2), picture.shape[0] - CUT[1])
    return cv2.resize(
        picture[top : top + CUT[1], left : left + CUT[0]], None, fx=2, fy=2, interpolation=cv2.INTER_CUBIC
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("scene", help="a scene of the courtyard, fitted")
    default = Path(__file__).resolve().parent.parent / "difix3d" / "ui" / "rating" / "guide"
    parser.add_argument("--out", type=Path, default=default)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    scene = Scene(options.scene)
    for damage, (name, middle) in SHOWN.items():
        yard = Courtyard(scene, name)
        line = np.full((4, 2 * CUT[0], 3), 255, np.uint8)
        shown = np.concatenate([cut_out(yard.photo, middle), line, cut_out(damage(yard, middle), middle)])
        path = options.out / f"{damage.__name__}.jpg"
        cv2.imwrite(str(path), cv2.cvtColor(shown, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
        print(f"{path}: {path.stat().st_size / 1024:.0f} kB")


if __name__ == "__main__":
    main()

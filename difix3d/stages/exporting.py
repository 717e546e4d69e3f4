"""What a fixer that carries photos was given for each frame of an export: frames.jsonl and inputs/.

A render alone is enough for Difix. `lite` is trained on photos carried into the frame, which takes depth and cameras:
those lie in the scene and its splats, and an export has to stand alone. Rows are as in pairs.jsonl (pairs/rows.py) and
are found by their picture: `image` is what difix.json and comparisons.json call it too.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from difix3d.errors import Difix3DError
from difix3d.events import Event, Progress
from difix3d.fixers.reproject import ReprojectFixer
from difix3d.formats.image import to_uint8
from difix3d.pairs.read import FRAMES
from difix3d.pairs.rows import PairRow, ReferenceRow
from difix3d.ratings.export_pictures import ExportedPictures
from difix3d.scene import Scene, hash_file
from difix3d.stages.fixing import FixSession
from difix3d.types import Camera, Reference, View

_INPUTS = "inputs"


class FrameInputs:
    """scenes: folder of scenes. Called once, with the export's folder, its pictures, and name of a render in it ->
    (scene, trajectory, frame); figures: "frames" that could be written, "frames_without_inputs"."""

    def __init__(self, scenes: Path):
        self.scenes = scenes
        self.figures = {"frames": 0, "frames_without_inputs": 0}

    def __call__(
        self, folder: Path, pictures: ExportedPictures, frames: Mapping[str, tuple[str, str, int]]
    ) -> Iterator[Event]:
        rows: list[PairRow] = []
        scene_id, writer = "", None
        for number, (image, frame) in enumerate(sorted(frames.items(), key=lambda item: item[1])):
            yield Progress("export", f"what fixers see of {frame[0]}", number, len(frames), "frames")
            try:
                if writer is None or frame[0] != scene_id:
                    scene_id, writer = frame[0], _Writer(Scene(self.scenes / frame[0]), folder, pictures)
                rows.append(writer.row(image, *frame[1:]))
            except (Difix3DError, OSError):  # no cameras, say: other fixers need none
                self.figures["frames_without_inputs"] += 1
        self.figures["frames"] = len(rows)
        (folder / FRAMES).write_text("".join(json.dumps(row.to_json()) + "\n" for row in rows))


class _Writer:
    """Of the frames of one scene."""

    def __init__(self, scene: Scene, folder: Path, pictures: ExportedPictures):
        self._session = FixSession(scene, ReprojectFixer())
        self._scene, self._folder, self._pictures = scene, folder, pictures
        self._seen: dict[tuple[str, int, int], str] = {}
        (folder / _INPUTS / scene.id).mkdir(parents=True, exist_ok=True)

    def row(self, image: str, trajectory: str, index: int) -> PairRow:
        """SceneError or FormatError where the frame is not there as it was rated."""
        session, name = self._session, f"{trajectory}-{index:05d}"
        render = self._scene.renders_dir(trajectory) / f"{index:05d}.png"
        frame = session.frame(trajectory, index)
        if hash_file(render) != Path(image).stem and not np.array_equal(_pixels(self._folder / image), frame.rgb):
            raise Difix3DError(f"the render of frame {index} of {trajectory} was made again since")
        alpha = self._named(f"{name}_alpha.png")
        Image.fromarray(to_uint8(frame.alpha)).save(self._folder / alpha)
        reconstruction = session.reconstruction()
        references = []
        for ranked in session.chosen(frame):
            assert reconstruction is not None, "nothing is chosen without cameras"
            photo = session.reference(ranked.name, frame.camera)
            references.append(
                ReferenceRow(
                    ranked.name,
                    photo.camera,
                    image=self._photo(reconstruction.view(ranked.name), photo.camera),
                    depth=self._depth_of(photo),
                    score=round(ranked.score, 4),
                    distance=round(ranked.distance, 5),
                    angle_deg=round(ranked.angle_deg, 3),
                )
            )
        return PairRow(
            f"{self._scene.id}-{name}",
            self._scene.id,
            trajectory,
            "",
            frame.camera,
            image=image,
            alpha=alpha,
            depth=self._saved(f"{name}_depth.npy", frame.depth),
            references=tuple(references),
        )

    def _photo(self, view: View, camera: Camera) -> str:
        assert view.image_path is not None, "read_reconstruction was given images_dir"
        return self._pictures.photo(view.image_path, (camera.width, camera.height))

    def _depth_of(self, photo: Reference) -> str:
        """ "" where the scene has no splats to render it from."""
        if photo.depth is None:
            return ""
        key = (photo.name, photo.camera.width, photo.camera.height)
        if key not in self._seen:
            stem = Path(photo.name).as_posix().replace("/", "-")
            self._seen[key] = self._saved(f"photo-{stem}-{photo.camera.width}_depth.npy", photo.depth)
        return self._seen[key]

    def _saved(self, name: str, depth: NDArray[np.float32]) -> str:
        """Half floats, as pairs have them: stages/pairing/unit.py says what that costs."""
        half = np.minimum(depth, np.finfo(np.float16).max).astype(np.float16)
        np.save(self._folder / self._named(name), half, allow_pickle=False)
        return self._named(name)

    def _named(self, name: str) -> str:
        return f"{_INPUTS}/{self._scene.id}/{name}"


def _pixels(path: Path) -> NDArray[np.uint8]:
    """Of a render that is in the export as another file: one that came as JPEG, or with alpha."""
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))

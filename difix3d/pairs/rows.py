"""One line of pairs.jsonl: everything there is to know of one pair. Paths are relative to the folder of the file."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from difix3d.types import Camera

PROMPT = "remove degradation"
"""As in the published training: the text that the released checkpoints know."""


@dataclass(frozen=True)
class ReferenceRow:
    """A photo that the fit saw, ranked for this render. image, depth: files; depth as rendered at its camera.

    score, distance, angle_deg: as in difix3d.references.RankedReference.
    """

    name: str
    camera: Camera
    image: str
    depth: str
    score: float
    distance: float
    angle_deg: float


@dataclass(frozen=True)
class PairRow:
    """A render and its photo. references: the best first.

    image: RGB PNG; alpha: grey PNG; depth: float16 .npy, world units along z, 0 where nothing was hit; target: the
    photo at the render's size. left_out: why this is no pair, then without files. alignment, psnr: how far the render
    is from the photo. provenance: how it was made, and under which licence the photos are.
    """

    id: str
    scene: str
    strategy: str
    photo: str
    camera: Camera
    image: str = ""
    alpha: str = ""
    depth: str = ""
    target: str = ""
    references: tuple[ReferenceRow, ...] = ()
    left_out: str = ""
    alignment: dict[str, Any] = field(default_factory=dict)
    psnr: float | None = None
    provenance: dict[str, Any] = field(default_factory=dict)
    split: str = ""

    def to_json(self) -> dict[str, Any]:
        """JSON-ready."""
        shallow = {name: value for name, value in vars(self).items() if name not in ("camera", "references")}
        references = [{**vars(one), "camera": _camera_to_json(one.camera)} for one in self.references]
        return {**shallow, "camera": _camera_to_json(self.camera), "references": references}

    @staticmethod
    def from_json(data: dict[str, Any]) -> PairRow:
        """The inverse of to_json. KeyError, TypeError or ValueError for what is no such row."""
        references = tuple(
            ReferenceRow(**{**one, "camera": _camera_from_json(one["camera"])}) for one in data["references"]
        )
        return PairRow(**{**data, "camera": _camera_from_json(data["camera"]), "references": references})

    def difix(self) -> dict[str, Any]:
        """The row of Difix's training JSON."""
        row = {"image": self.image, "target_image": self.target, "prompt": PROMPT}
        return {**row, "ref_image": self.references[0].image} if self.references else row


def _camera_to_json(camera: Camera) -> dict[str, Any]:
    return {
        "K": camera.K.tolist(),
        "width": camera.width,
        "height": camera.height,
        "cam_from_world": camera.cam_from_world.tolist(),
    }


def _camera_from_json(data: dict[str, Any]) -> Camera:
    return Camera(data["K"], data["width"], data["height"], data["cam_from_world"])

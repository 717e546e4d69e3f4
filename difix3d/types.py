"""The nouns of the project, as plain data: numpy in, no disk, no torch.

Notation used everywhere
    cam_from_world   [4, 4] maps world points to camera points: p_cam = cam_from_world @ p_world
    camera axes      OpenCV: x right, y down, z forward
    world axes       after `reconstruct`: z up, capture centred near the origin, cameras about 1 away
    pixel centres    at half-integers: the centre of the first pixel is (0.5, 0.5)
    colours          uint8 [H, W, 3] RGB for pictures; float32 in [0, 1] inside numerics
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from difix3d.errors import ShapeError


def require_shape(name: str, array: np.ndarray, expected: tuple[int | str, ...]) -> None:
    """Raise ShapeError unless `array` has the shape `expected`; a string matches any size ("N")."""
    fits = array.ndim == len(expected) and all(
        isinstance(want, str) or want == got for want, got in zip(expected, array.shape)
    )
    if not fits:
        wanted = ", ".join(str(size) for size in expected)
        raise ShapeError(f"{name}: expected [{wanted}], got {list(array.shape)}")


@dataclass(frozen=True)
class Camera:
    """A pinhole camera.

    K: [3, 3] pixels; width, height: pixels; cam_from_world: [4, 4] rigid transform.
    """

    K: NDArray[np.float64]
    width: int
    height: int
    cam_from_world: NDArray[np.float64]

    def __post_init__(self) -> None:
        object.__setattr__(self, "K", np.asarray(self.K, dtype=np.float64))
        object.__setattr__(self, "cam_from_world", np.asarray(self.cam_from_world, dtype=np.float64))
        object.__setattr__(self, "width", int(self.width))
        object.__setattr__(self, "height", int(self.height))
        require_shape("K", self.K, (3, 3))
        require_shape("cam_from_world", self.cam_from_world, (4, 4))
        if self.width < 1 or self.height < 1:
            raise ShapeError(f"Camera: expected at least 1x1 pixels, got {self.width}x{self.height}")

    @property
    def world_from_cam(self) -> NDArray[np.float64]:
        """[4, 4] inverse of the rigid cam_from_world."""
        rotation, translation = self.cam_from_world[:3, :3], self.cam_from_world[:3, 3]
        inverse = np.eye(4)
        inverse[:3, :3] = rotation.T
        inverse[:3, 3] = -rotation.T @ translation
        return inverse

    @property
    def position(self) -> NDArray[np.float64]:
        """[3] camera centre in the world."""
        return self.world_from_cam[:3, 3]

    @property
    def forward(self) -> NDArray[np.float64]:
        """[3] unit viewing direction in the world."""
        return self.cam_from_world[2, :3]

    def sized(self, width: int, height: int) -> Camera:
        """The same view on another pixel grid; K scales with each axis."""
        scale_x, scale_y = width / self.width, height / self.height
        K = self.K * np.array([[scale_x], [scale_y], [1.0]])
        return Camera(K, width, height, self.cam_from_world)

    def resized(self, long_side_px: int) -> Camera:
        """The same view with its longer side `long_side_px` pixels long."""
        scale = long_side_px / max(self.width, self.height)
        return self.sized(max(1, round(self.width * scale)), max(1, round(self.height * scale)))

    def moved(self, cam_from_world: NDArray[np.float64]) -> Camera:
        """The same lens at another pose."""
        return Camera(self.K, self.width, self.height, cam_from_world)


@dataclass(frozen=True)
class View:
    """A camera and the photo it took. point_indices: [M] rows of Reconstruction.points that it sees."""

    name: str
    camera: Camera
    image_path: Path | None = None
    point_indices: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, dtype=np.int64))


@dataclass(frozen=True)
class Reconstruction:
    """Registered views and sparse points. points: [P, 3] world; colors: [P, 3] uint8; errors: [P] pixels."""

    views: tuple[View, ...]
    points: NDArray[np.float64]
    colors: NDArray[np.uint8]
    errors: NDArray[np.float64] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "views", tuple(self.views))
        require_shape("points", self.points, ("P", 3))
        require_shape("colors", self.colors, (len(self.points), 3))

    def view(self, name: str) -> View:
        """The view of that name; KeyError names the ones there are."""
        for view in self.views:
            if view.name == name:
                return view
        raise KeyError(f"no view {name!r}; there are {[view.name for view in self.views]}")


SH_C0 = 0.28209479177387814
"""The constant basis function Y_0^0 of the spherical harmonics: colour = 0.5 + SH_C0 * sh[0] (3DGS)."""


@dataclass(frozen=True)
class Splats:
    """3D Gaussians as 3DGS stores them (Kerbl et al. 2023).

    means: [N, 3] world; quats: [N, 4] wxyz, any length > 0; log_scales: [N, 3] natural log of world units;
    opacity_logits: [N]; sh: [N, K, 3] with K = (degree + 1)^2 in 1, 4, 9, 16. All float32.
    """

    means: NDArray[np.float32]
    quats: NDArray[np.float32]
    log_scales: NDArray[np.float32]
    opacity_logits: NDArray[np.float32]
    sh: NDArray[np.float32]

    def __post_init__(self) -> None:
        for name in ("means", "quats", "log_scales", "opacity_logits", "sh"):
            object.__setattr__(self, name, np.ascontiguousarray(getattr(self, name), dtype=np.float32))
        count = len(self.means)
        require_shape("means", self.means, ("N", 3))
        require_shape("quats", self.quats, (count, 4))
        require_shape("log_scales", self.log_scales, (count, 3))
        require_shape("opacity_logits", self.opacity_logits, (count,))
        require_shape("sh", self.sh, (count, "K", 3))
        if self.sh.shape[1] not in (1, 4, 9, 16):
            raise ShapeError(f"sh: expected 1, 4, 9 or 16 coefficients, got {self.sh.shape[1]}")

    def __len__(self) -> int:
        return len(self.means)

    @property
    def sh_degree(self) -> int:
        return round(self.sh.shape[1] ** 0.5) - 1


@dataclass(frozen=True)
class Trajectory:
    """Ordered cameras to render. view_names: for a trajectory through photos (held-out), one name per camera."""

    name: str
    cameras: tuple[Camera, ...]
    fps: float = 24.0
    view_names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "cameras", tuple(self.cameras))
        object.__setattr__(self, "view_names", tuple(self.view_names))

    def __len__(self) -> int:
        return len(self.cameras)


@dataclass(frozen=True)
class Frame:
    """One render. rgb: [H, W, 3] uint8; alpha: [H, W] float32 in [0, 1]; depth: [H, W] float32, world units
    along z, 0 where nothing was hit."""

    trajectory: str
    index: int
    camera: Camera
    rgb: NDArray[np.uint8]
    alpha: NDArray[np.float32]
    depth: NDArray[np.float32]


@dataclass(frozen=True)
class Reference:
    """A capture photo given to a fixer. rgb: [H, W, 3] uint8 at camera's size; depth: [H, W] float32 as rendered
    from the splats at that camera (None where the fixer does not ask for it)."""

    name: str
    camera: Camera
    rgb: NDArray[np.uint8]
    depth: NDArray[np.float32] | None = None


@dataclass(frozen=True)
class Candidate:
    """One fix of one frame, and everything needed to make it again. image_path is relative to the scene folder;
    sha256 is of that file's bytes. The raw render is a candidate too: fixer "render"."""

    scene_id: str
    trajectory: str
    frame_index: int
    fixer: str
    image_path: str
    sha256: str
    references: tuple[str, ...] = ()
    timestep: int | None = None
    seed: int = 0
    extra: dict[str, Any] = field(default_factory=dict)


ARTIFACT_TAGS = ("floaters", "blur", "ghosting", "colour_shift", "invented_detail", "lost_detail")
SCORES = (1, 2, 3, 4, 5)
"""Higher is better, for both scores of a Judgement."""
MAX_COMMENT = 1000


@dataclass(frozen=True)
class Judgement:
    """What a person added about one of the two pictures; all of it may be left out.

    tags: out of ARTIFACT_TAGS; artifact_removal, faithfulness: 1 (worst) to 5; marks: where the picture is bad, a
    PNG of 8-bit grey at the picture's own size, non-zero there.
    """

    tags: tuple[str, ...] = ()
    artifact_removal: int | None = None
    faithfulness: int | None = None
    marks: bytes | None = None


@dataclass(frozen=True)
class Rating:
    """What one person said of two candidates seen blind. choice: a | b | tie | both_bad | skip (cannot tell), in
    terms of candidates (never of screen sides); left_is: a | b; seconds: from both pictures shown to the vote;
    comment: of MAX_COMMENT characters at most."""

    candidate_a: Candidate
    candidate_b: Candidate
    choice: str
    left_is: str
    rater: str
    seconds: float
    reference: str | None = None
    on_a: Judgement = Judgement()
    on_b: Judgement = Judgement()
    comment: str = ""


@dataclass(frozen=True)
class TrainingPair:
    """One row of Difix's training JSON: paths of a degraded image, its true target and its references.

    weight: how much its loss counts, 1 as a rule. worse_image: of a comparison, the fix to which raters preferred
    target_image; mask_image: where they marked it as bad, not black there, None where they marked nothing.
    """

    image: Path
    target_image: Path
    references: tuple[Path, ...] = ()
    prompt: str = "remove degradation"
    weight: float = 1.0
    worse_image: Path | None = None
    mask_image: Path | None = None
    provenance: dict[str, Any] = field(default_factory=dict)

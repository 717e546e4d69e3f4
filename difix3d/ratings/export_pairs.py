"""Training pairs of a scene: true photos at held-out cameras, and fixes that raters preferred to the raw render."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from difix3d.errors import FormatError
from difix3d.geometry import pose_distance
from difix3d.ratings.candidates import RENDER, read_candidates
from difix3d.ratings.export_pictures import ExportedPictures, size_of
from difix3d.ratings.identity import candidate_key
from difix3d.ratings.pictures import find_picture
from difix3d.scene import Scene
from difix3d.trajectories import HELDOUT
from difix3d.types import Camera, Candidate, Rating, View

PROMPT = "remove degradation"
PHOTO, APPROVED_FIX = "photo", "approved_fix"

_SAME_SHAPE = 0.02
"""A photo and the render at its camera may differ so much in aspect: rounding to whole pixels at 100 px."""

_DEGREES_PER_UNIT = 60.0
"""Weighs turning against moving: half a world unit around what cameras look at, 1 away, is about 30 degrees."""

Warn = Callable[[str], None]


@dataclass(frozen=True)
class PairRow:
    """One row of difix.json or comparisons.json. files: image, target_image and, where there are, ref_image,
    worse_image and mask_image, relative to the export; weight: None for 1."""

    id: str
    files: dict[str, str]
    provenance: dict[str, Any]
    prompt: str = PROMPT
    weight: float | None = None

    @property
    def has_reference(self) -> bool:
        return "ref_image" in self.files


@dataclass
class Tally:
    """Votes that count on one item, skips apart. marks: where those who preferred the other side marked this one."""

    candidate_a: Candidate
    candidate_b: Candidate
    votes: dict[str, int] = field(default_factory=lambda: {"a": 0, "b": 0, "tie": 0, "both_bad": 0})
    marks: dict[str, list[bytes]] = field(default_factory=lambda: {"a": [], "b": []})

    def add(self, rating: Rating) -> None:
        if rating.choice in self.votes:
            self.votes[rating.choice] += 1
        for side, judgement, other in (("a", rating.on_a, "b"), ("b", rating.on_b, "a")):
            if judgement.marks and rating.choice == other:
                self.marks[side].append(judgement.marks)

    def approval(self) -> Approval | None:
        """The votes as a fix against the raw render; None for a pair of two fixes."""
        sides = {"a": self.candidate_a, "b": self.candidate_b}
        for fix, render in (("a", "b"), ("b", "a")):
            if sides[render].fixer == RENDER != sides[fix].fixer:
                return Approval(
                    sides[render],
                    sides[fix],
                    for_fix=self.votes[fix],
                    for_render=self.votes[render],
                    ties=self.votes["tie"],
                    both_bad=self.votes["both_bad"],
                )
        return None


@dataclass(frozen=True)
class Approval:
    """What raters said of a fix against the raw render of its frame."""

    render: Candidate
    fix: Candidate
    for_fix: int
    for_render: int
    ties: int
    both_bad: int

    @property
    def total(self) -> int:
        return self.for_fix + self.for_render + self.ties + self.both_bad

    @property
    def rank(self) -> tuple[float, int, str]:
        """Share of the votes for the fix, then how many there are, then anything that is always the same."""
        return self.for_fix / self.total, self.total, candidate_key(self.fix)

    def is_given(self, min_votes: int) -> bool:
        """Enough votes, and more than half of them for the fix."""
        return self.total >= max(1, min_votes) and self.for_fix * 2 > self.total


def heldout_rows(scene: Scene, pictures: ExportedPictures, warn: Warn) -> Iterator[PairRow]:
    """Render at a held-out camera -> the photo taken there, brought to the render's size.

    The reference is the first that a fix of this frame used, else the nearest training photo.
    """
    from difix3d.formats.camera_path import read_camera_path

    if not scene.trajectory_path(HELDOUT).is_file():
        return
    trajectory = read_camera_path(scene.trajectory_path(HELDOUT))
    split = scene.split()
    used = _references_of_fixes(scene)
    train_views = _training_views(scene, split["train"])
    for index, (camera, name) in enumerate(zip(trajectory.cameras, trajectory.view_names)):
        render = scene.renders_dir(HELDOUT) / f"{index:05d}.png"
        photo = scene.inside(f"images/{name}")
        if name not in split["heldout"] or not render.is_file():
            continue  # rendered before the split was made anew, or not at all
        if not photo.is_file():
            warn(f"{scene.id}: held-out photo {name} is missing; its pair is left out")
            continue
        try:
            size, photo_size = size_of(render), size_of(photo)
            if abs(size[0] * photo_size[1] / (size[1] * photo_size[0]) - 1) > _SAME_SHAPE:
                warn(f"{scene.id}: {name} is {photo_size[0]}x{photo_size[1]}, its render {size[0]}x{size[1]}: left out")
                continue
            reference = next((one for one in used.get(index, ()) if one in split["train"]), None)
            reference = reference or _nearest(camera, train_views)
            files = {"image": pictures.copy(render), "target_image": pictures.photo(photo, size)}
            if reference is not None:
                files["ref_image"] = pictures.photo(scene.inside(f"images/{reference}"), size)
        except FormatError as error:
            warn(f"{scene.id}: held-out pair of {name} is left out: {error}")
            continue
        facts = {"kind": PHOTO, "scene_id": scene.id, "photo": name, "reference": reference, "frame_index": index}
        yield PairRow(f"{scene.id}-{HELDOUT}-{index:05d}", files, {**facts, "trajectory": HELDOUT})


def approved_rows(
    scenes: Path, tallies: Iterable[Tally], min_votes: int, pictures: ExportedPictures, warn: Warn
) -> Iterator[PairRow]:
    """Raw render -> the fix that more than half of the votes preferred to it; of several for one frame the one
    with the highest share, then the most votes. Its weight is by how much of the votes it leads. Pictures that are not
    as they were rated are left out."""
    best: dict[tuple[str, str, int], Approval] = {}
    for tally in tallies:
        approval = tally.approval()
        if approval is not None and approval.is_given(min_votes):
            frame = (approval.fix.scene_id, approval.fix.trajectory, approval.fix.frame_index)
            best[frame] = max(approval, best.get(frame, approval), key=lambda one: one.rank)
    for _, approval in sorted(best.items()):
        render, fix = approval.render, approval.fix
        paths = rated_pictures(scenes, {"image": render, "target_image": fix}, warn)
        if paths is None:
            continue
        try:
            files = {role: pictures.copy(path) for role, path in paths.items()}
            reference = reference_photo(scenes, fix)
            if reference is not None:
                files["ref_image"] = pictures.photo(reference, size_of(paths["image"]))
        except FormatError as error:
            warn(f"{fix.scene_id}: approved fix {fix.image_path} is left out: {error}")
            continue
        facts = {
            "kind": APPROVED_FIX,
            "scene_id": fix.scene_id,
            "trajectory": fix.trajectory,
            "frame_index": fix.frame_index,
            "fixer": fix.fixer,
            "references": list(fix.references),
            "timestep": fix.timestep,
            "seed": fix.seed,
            "settings": fix.extra,
            "render_sha256": render.sha256,
            "fix_sha256": fix.sha256,
            "votes": {name: getattr(approval, name) for name in ("for_fix", "for_render", "ties", "both_bad")},
        }
        row_id = f"{fix.scene_id}-{fix.trajectory}-{fix.frame_index:05d}-{candidate_key(fix)[:8]}"
        weight = round((approval.for_fix - approval.for_render) / approval.total, 4)
        yield PairRow(row_id, files, facts, prompt_of(fix), weight)


def rated_pictures(scenes: Path, roles: dict[str, Candidate], warn: Warn) -> dict[str, Path] | None:
    """role -> the picture as it was rated; None, and a warning, where one is not."""
    paths = {}
    for role, candidate in roles.items():
        path, problem = find_picture(scenes, candidate.scene_id, candidate.image_path, candidate.sha256)
        if path is None:
            warn(f"{candidate.scene_id}: {candidate.image_path} is {problem} since it was rated; left out")
        else:
            paths[role] = path
    return paths if len(paths) == len(roles) else None


def prompt_of(candidate: Candidate) -> str:
    return str(candidate.extra.get("prompt") or PROMPT)


def reference_photo(scenes: Path, candidate: Candidate, name: str | None = None) -> Path | None:
    """The photo of that name, else of the candidate's first reference; None where there is none on disk."""
    for reference in (name, *candidate.references[:1]):
        if reference:
            images = (scenes / candidate.scene_id / "images").resolve()
            path = (images / reference).resolve()
            if path.is_relative_to(images) and path.is_file():
                return path
    return None


def _references_of_fixes(scene: Scene) -> dict[int, list[str]]:
    """Held-out frame -> first references that fixes of it used, by folder name."""
    used: dict[int, list[str]] = {}
    for listing in sorted(scene.root.glob(f"fixed/{HELDOUT}/*/candidates.json")):
        for candidate in read_candidates(scene, listing):
            used.setdefault(candidate.frame_index, []).extend(candidate.references[:1])
    return used


def _training_views(scene: Scene, train: list[str]) -> list[View]:
    """The registered training photos; none for a scene that began at `render`, which has no photos' cameras."""
    from difix3d.formats.colmap import read_reconstruction

    try:
        return [view for view in read_reconstruction(scene.sparse_dir).views if view.name in set(train)]
    except FormatError:
        return []


def _nearest(camera: Camera, views: list[View]) -> str | None:
    def cost(view: View) -> float:
        moved, turned = pose_distance(camera, view.camera)
        return moved + turned / _DEGREES_PER_UNIT

    return min(views, key=cost).name if views else None

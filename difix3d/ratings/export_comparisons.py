"""comparisons.json: of two pictures of a frame, which one raters preferred, and where the other was bad.

Rows are as in difix.json, with the preferred picture as target_image, and besides worse_image, mask_image where raters
marked regions of it, and weight: by how much of the votes the preferred one leads.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from difix3d.errors import FormatError
from difix3d.ratings.candidates import RENDER
from difix3d.ratings.export_pairs import PairRow, Tally, Warn, prompt_of, rated_pictures, reference_photo
from difix3d.ratings.export_pictures import ExportedPictures, size_of
from difix3d.ratings.identity import candidate_key
from difix3d.ratings.pictures import find_picture

COMPARISON = "comparison"


def comparison_rows(
    scenes: Path, tallies: Iterable[Tally], min_votes: int, pictures: ExportedPictures, warn: Warn
) -> Iterator[PairRow]:
    """One for each pair that at least `min_votes` raters judged and one side of which leads. Pictures that are not as
    they were rated are left out, and so are fixes whose raw render is gone."""
    for tally in sorted(tallies, key=lambda one: (candidate_key(one.candidate_a), candidate_key(one.candidate_b))):
        lead, total = tally.votes["a"] - tally.votes["b"], sum(tally.votes.values())
        if lead == 0 or total < max(1, min_votes):
            continue
        sides = {"a": tally.candidate_a, "b": tally.candidate_b}
        best, other = ("a", "b") if lead > 0 else ("b", "a")
        better, worse = sides[best], sides[other]
        paths = rated_pictures(scenes, {"target_image": better, "worse_image": worse}, warn)
        if paths is None:
            continue
        render = _render_of(scenes, tally)
        if render is None:
            warn(f"{better.scene_id}: the render of frame {better.frame_index} was made again; comparison left out")
            continue
        fix = worse if better.fixer == RENDER else better
        try:
            files = {"image": pictures.copy(render), **{role: pictures.copy(path) for role, path in paths.items()}}
            if (reference := reference_photo(scenes, fix)) is not None:
                files["ref_image"] = pictures.photo(reference, size_of(render))
            if (marks := _together(tally.marks[other], size_of(paths["worse_image"]))) is not None:
                files["mask_image"] = pictures.written(marks)
        except FormatError as error:
            warn(f"{fix.scene_id}: comparison of frame {fix.frame_index} is left out: {error}")
            continue
        facts = {
            "kind": COMPARISON,
            "scene_id": fix.scene_id,
            "trajectory": fix.trajectory,
            "frame_index": fix.frame_index,
            "fixer": better.fixer,
            "settings": better.extra,
            "worse_fixer": worse.fixer,
            "worse_settings": worse.extra,
            "votes": {
                "for": tally.votes[best],
                "against": tally.votes[other],
                **{choice: tally.votes[choice] for choice in ("tie", "both_bad")},
            },
        }
        keys = "-".join(candidate_key(one)[:8] for one in (better, worse))
        row_id = f"{fix.scene_id}-{fix.trajectory}-{fix.frame_index:05d}-{keys}"
        yield PairRow(row_id, files, facts, prompt_of(fix), round(abs(lead) / total, 4))


def _render_of(scenes: Path, tally: Tally) -> Path | None:
    """The raw render of the frame: one of the two, or the file that the fixes say they were made from."""
    for candidate in (tally.candidate_a, tally.candidate_b):
        if candidate.fixer == RENDER:
            return find_picture(scenes, candidate.scene_id, candidate.image_path, candidate.sha256)[0]
    fix = tally.candidate_a
    name = f"renders/{fix.trajectory}/{fix.frame_index:05d}.png"
    sha256 = fix.extra.get("render_sha256")
    if sha256:
        return find_picture(scenes, fix.scene_id, name, sha256)[0]
    path = scenes / fix.scene_id / name
    return path if path.is_file() else None


def _together(marks: list[bytes], size: tuple[int, int]) -> bytes | None:
    """Every region that somebody marked, as one RGB PNG of `size` (width, height); None without any."""
    bad = np.zeros((size[1], size[0]), bool)
    for png in marks:
        with Image.open(io.BytesIO(png)) as image:
            if image.size == size:
                bad |= np.asarray(image.convert("L")) > 0
    if not bad.any():
        return None
    buffer = io.BytesIO()
    Image.fromarray(bad.astype(np.uint8) * 255).convert("RGB").save(buffer, "PNG")
    return buffer.getvalue()

"""comparisons.json: which of two pictures raters preferred, by how much, and where the other was bad."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
from PIL import Image
from rated_scene import RENDER_SIZE, make_scene, vote_on

from difix3d.ratings.candidates import candidates_of
from difix3d.ratings.export import Export
from difix3d.ratings.identity import canonical_pair
from difix3d.ratings.store import RatingStore
from difix3d.scene import hash_file
from difix3d.training.pairs import COMPARISONS_NAME, read_pairs
from difix3d.types import Judgement, Rating


def marks(columns: slice) -> bytes:
    grey = np.zeros((RENDER_SIZE[1], RENDER_SIZE[0]), np.uint8)
    grey[:, columns] = 255
    buffer = io.BytesIO()
    Image.fromarray(grey).save(buffer, "PNG")
    return buffer.getvalue()


def exported(tmp_path: Path, store: RatingStore, scenes: Path) -> tuple[dict, dict, Path]:
    """(rows of the train split, figures, folder)"""
    export = Export(store, scenes, tmp_path / "export")
    list(export.run())
    return json.loads((tmp_path / "export" / COMPARISONS_NAME).read_text())["train"], export.figures, export.out


def test_who_leads_is_better_and_marks_on_the_other_are_joined(tmp_path: Path) -> None:
    scenes = tmp_path / "scenes"
    scene = make_scene(scenes, "court")
    with RatingStore(f"sqlite:///{tmp_path / 'r.sqlite'}", scenes) as store:
        render, fix = candidates_of(scene)["orbit", 0][:2]
        a, b = canonical_pair(render, fix)
        for rater, choice, columns in (
            ("ann", "fix", slice(0, 4)),
            ("bob", "fix", slice(8, 10)),
            ("eve", "render", slice(20, 24)),
        ):
            chosen = {"fix": fix, "render": render}[choice]
            # Everybody marks what they did not choose; eve's are on the fix, and are not used.
            said = {"on_b" if chosen is a else "on_a": Judgement(marks=marks(columns))}
            store.add(Rating(a, b, "a" if chosen is a else "b", "a", rater, 1.0, **said), rater)
        for rater in ("ann", "bob"):  # as many for one as for the other: nothing is preferred
            vote_on(store, scene, "fix" if rater == "ann" else "render", rater, 1)
        vote_on(store, scene, "both_bad", "ann", 2)
        rows, figures, out = exported(tmp_path, store, scenes)
    assert figures["comparisons"] == len(rows) == 1
    ((row_id, row),) = rows.items()
    assert row["weight"] == round(1 / 3, 4)
    assert hash_file(out / row["target_image"]) == fix.sha256
    assert hash_file(out / row["worse_image"]) == hash_file(out / row["image"]) == render.sha256
    with Image.open(out / row["mask_image"]) as mask:
        bad = np.asarray(mask.convert("L")) > 0
    assert bad[:, :4].all() and bad[:, 8:10].all() and bad.sum() == 6 * RENDER_SIZE[1]
    provenance = json.loads((out / "provenance.json").read_text())[row_id]
    assert provenance["votes"] == {"for": 2, "against": 1, "tie": 0, "both_bad": 0}
    pair = read_pairs(out, comparisons=True)["train"][-1]
    assert pair.worse_image is not None and pair.mask_image is not None and pair.weight == row["weight"]


def test_two_fixes_are_compared_over_the_render_they_were_made_from(tmp_path: Path) -> None:
    scenes = tmp_path / "scenes"
    scene = make_scene(scenes, "court")
    other = scene.fixed_dir("orbit", "reproject") / "candidates.json"
    listed = json.loads(other.read_text())
    second = scene.fixed_dir("orbit", "second")
    second.mkdir(parents=True)
    for entry in listed:
        path = second / Path(entry["image_path"]).name
        with Image.open(scene.root / entry["image_path"]) as image:
            Image.fromarray(255 - np.asarray(image)).save(path)
        entry.update(fixer="second", image_path=scene.relative(path), sha256=hash_file(path))
    (second / "candidates.json").write_text(json.dumps(listed))
    with RatingStore(f"sqlite:///{tmp_path / 'r.sqlite'}", scenes) as store:
        render, *fixes = candidates_of(scene)["orbit", 0]
        a, b = canonical_pair(*fixes)
        store.add(Rating(a, b, "a", "a", "ann", 1.0), "ann")
        rows, _, out = exported(tmp_path, store, scenes)
        (row,) = rows.values()
        assert hash_file(out / row["image"]) == render.sha256 and row["weight"] == 1.0 and "mask_image" not in row
        assert (hash_file(out / row["target_image"]), hash_file(out / row["worse_image"])) == (a.sha256, b.sha256)

        (scene.root / a.image_path).unlink()
        (scene.root / "rated" / f"{a.sha256}.png").unlink()
        rows, figures, _ = exported(tmp_path, store, scenes)
    assert rows == {} and figures["comparisons"] == 0

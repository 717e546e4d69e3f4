"""A small scene with a fit, renders at its held-out photos, fixes of them and votes: from it lite can learn."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from fitted_scene import write_fitted_scene

from difix3d.ratings.candidates import RENDER, candidates_of
from difix3d.ratings.identity import canonical_pair
from difix3d.ratings.store import RatingStore
from difix3d.scene import Scene
from difix3d.stages.export import ExportConfig, export
from difix3d.stages.fixing import FixSession, store_candidate
from difix3d.stages.render import RenderConfig, render
from difix3d.trajectories import HELDOUT
from difix3d.types import Judgement, Rating


def rated_capture(scenes: Path, name: str, url: str, raters: int = 2, seed: int = 0) -> Scene:
    """Three frames of `heldout`, each with a fix by `reproject`, to which the raters preferred the render in frame 1
    (and marked its left half), and which they preferred in the others."""
    scene = write_fitted_scene(scenes / name, seed)
    for _ in render(scene, RenderConfig(trajectory=HELDOUT, renderer="cpu")):
        pass
    session = FixSession(scene, "reproject")
    for index in range(3):
        frame = session.frame(HELDOUT, index)
        made = session.fix(frame)
        fixed, used = made.rgb, made.references
        store_candidate(scene, frame, fixed, session.fixer, used, strength=made.strength)
    with RatingStore(url, scenes) as store:
        for (_, index), candidates in candidates_of(scene).items():
            raw, fix = candidates[0], candidates[-1]
            assert raw.fixer == RENDER
            a, b = canonical_pair(raw, fix)
            liked = raw if index == 1 else fix
            disliked_marks = Judgement(marks=_left_half(96, 72) if index == 1 else None)
            for rater in range(raters):
                said = {"on_b" if liked is a else "on_a": disliked_marks}
                rating = Rating(a, b, "a" if liked is a else "b", "a", f"rater{rater}", 1.0, **said)
                store.add(rating, f"{name}-{index}-{rater}")
    return scene


def exported(scenes: Path, url: str, out: Path, **changes) -> Path:
    for _ in export(ExportConfig(**{"out": str(out), "ratings_db": url, "scenes": str(scenes), **changes})):
        pass
    return out


def _left_half(width: int, height: int) -> bytes:
    import io

    from PIL import Image

    marks = np.zeros((height, width), np.uint8)
    marks[:, : width // 2] = 255
    buffer = io.BytesIO()
    Image.fromarray(marks).save(buffer, "PNG")
    return buffer.getvalue()

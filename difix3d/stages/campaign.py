"""Campaign: a tuned checkpoint and its parent fix the same held-out views, to be rated blind."""

from __future__ import annotations

import os
import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from difix3d.errors import ConfigError, Difix3DError
from difix3d.events import Done, Event, Progress, Warned
from difix3d.spread import evenly
from difix3d.stages.base import option

if TYPE_CHECKING:
    from difix3d.fixers.base import Fixer
    from difix3d.ratings.campaigns import Match
    from difix3d.scene import Scene


@dataclass(frozen=True)
class CampaignConfig:
    """Which two, on which scenes, and on how many frames of each."""

    new: str = field(metadata={"help": "folder of the tuned checkpoint"})
    old: str = option("", "what it is held against: a fixer's name, a folder or a Hub id (default: its parent)")
    scenes: str = option("", "folder of scenes, or one scene (default: $DIFIX3D_SCENES, or scenes)")
    frames: int = option(12, "held-out views of each scene, evenly spread", minimum=1)
    ratings_db: str = option("", "SQLAlchemy URL of the ratings (default: $DIFIX3D_RATINGS_DB)")


_ENOUGH = 4
"""Views of fewer decide nothing, even if all of them are won: Wilson's interval of 3 of 3 begins at 44 %."""


def campaign(config: CampaignConfig) -> Iterator[Event]:
    """Yields Progress, Warned for scenes that cannot take part, and at last Done with {"new", "old", "scenes",
    "frames" (questions entered), "trained_on" (of these, by one of the two), "identical" (frames that both fix to the
    same pixels: no question)}.

    Frames that one of the two was trained on are left out, where at least four others are there. Else they are asked
    about too, and Warned says of how many.

    ConfigError where `new` is no checkpoint, its parent is not known, or no scene has held-out photos. Asking again
    changes nothing: fixes that are there are found, questions stay.
    """
    from difix3d.fixers import load_fixer
    from difix3d.fixers.listing import trained_frames
    from difix3d.ratings.campaigns import enter
    from difix3d.ratings.export_scenes import find_scenes
    from difix3d.ratings.store import RatingStore

    started = time.monotonic()
    old_name = config.old or _parent_of(config.new)
    new, old = load_fixer(config.new), load_fixer(old_name)
    root, only = Path(config.scenes or os.environ.get("DIFIX3D_SCENES") or "scenes").resolve(), None
    if (root / "scene.json").is_file():
        root, only = root.parent, root.name
    scenes = find_scenes(root, only)
    if not scenes:
        raise ConfigError(f"{root}: expected scenes in it, found none. Name the folder of scenes with --scenes.")
    for fixer in (new, old):
        yield from fixer.fetch("campaign")
    problems: dict[str, str] = {}
    photos: dict[str, dict[int, str]] = {}
    for scene in scenes:
        try:
            photos[scene.id] = yield from _photos(scene)
        except Difix3DError as error:
            problems[scene.id] = error.message
            yield Warned("campaign", f"{scene.id} takes no part: {error.message}")
    seen = {name: trained_frames((config.new, old_name), name, there) for name, there in photos.items()}
    unseen = {name: there.keys() - seen[name] for name, there in photos.items()}
    others = sum(map(len, unseen.values()))
    asks_all = others < _ENOUGH and any(seen.values())
    chosen = photos if asks_all else unseen
    asked = {name: evenly(sorted(frames), config.frames) for name, frames in chosen.items()}
    if asks_all:
        known, total = sum(len(seen[name] & {*frames}) for name, frames in asked.items()), sum(map(len, asked.values()))
        yield Warned(
            "campaign",
            f"{known} of {total} views were trained on, which favours the new checkpoint: {others} others were kept "
            f"out, and {_ENOUGH} are needed. Name further scenes with --scenes.",
        )
    entered = trained_on = identical = 0
    with RatingStore(config.ratings_db, root) as store:
        for scene in scenes:
            frames, found = asked.get(scene.id, []), []
            try:
                for done, (index, match) in enumerate(_matches(scene, frames, new, old), 1):
                    found += [match] if match else []
                    trained_on += bool(match) and index in seen[scene.id]
                    identical += match is None
                    yield Progress("campaign", f"{scene.id}: frame {index} by both", done, len(frames), "frames")
            except Difix3DError as error:
                problems[scene.id] = error.message
                yield Warned("campaign", f"{scene.id} takes no part: {error.message}")
                continue
            enter(store, found)
            entered += len(found)
    if len(problems) == len(scenes):
        raise ConfigError(f"None of {len(scenes)} scenes can take part: {next(iter(problems.values()))}")
    took_part = sum(bool(frames) and name not in problems for name, frames in asked.items())
    figures = {"new": new.name, "old": old.name, "scenes": took_part, "frames": entered}
    figures |= {"trained_on": trained_on, "identical": identical}
    yield Done("campaign", round(time.monotonic() - started, 2), figures)


def _parent_of(checkpoint: str) -> str:
    from difix3d.fixers.listing import trained

    folder = Path(checkpoint).resolve()
    known = next((one for one in trained(folder.parent) if one.name == folder.name), None)
    if known is None:
        raise ConfigError(f"{checkpoint}: expected the folder of a checkpoint that was trained here (difix3d finetune)")
    if not known.parent:
        raise ConfigError(f"{checkpoint} does not say what it was trained from: name that with --old")
    return known.parent


def _photos(scene: Scene) -> Generator[Event, None, dict[int, str]]:
    """Frame of `heldout` -> the photo taken there, of photos that are kept out now. Frames are rendered where they are
    not there as the splats and the split are now, at the settings that they had."""
    from difix3d.errors import SceneError
    from difix3d.formats.camera_path import read_camera_path
    from difix3d.stages.render import RenderConfig, render
    from difix3d.trajectories import HELDOUT

    heldout = scene.split()["heldout"]
    if not heldout:
        raise SceneError(f"no photo was kept out of its fit. Fit again: difix3d fit --scene {scene.root} --holdout 8.")
    if scene.splats_path.is_file() or not scene.trajectory_path(HELDOUT).is_file():
        before = (scene.manifest("render", HELDOUT) or {}).get("config", {})
        kept = {name: value for name, value in before.items() if name in RenderConfig.__dataclass_fields__}
        for event in render(scene, RenderConfig(**{**kept, "trajectory": HELDOUT})):
            if not isinstance(event, Done):
                yield event
    # Without splats what is there was rendered elsewhere, and perhaps for another split.
    names = read_camera_path(scene.trajectory_path(HELDOUT)).view_names
    renders = scene.renders_dir(HELDOUT)
    there = {
        index: name for index, name in enumerate(names) if name in heldout and (renders / f"{index:05d}.png").is_file()
    }
    if not there:
        raise SceneError(
            f"its renders at held-out photos are of other photos than are kept out now. Render again: difix3d render "
            f"--scene {scene.root} --trajectory {HELDOUT}."
        )
    return there


def _matches(scene: Scene, frames: list[int], new: Fixer, old: Fixer) -> Iterator[tuple[int, Match | None]]:
    """(frame, what to ask of it); None where both made the same pixels."""
    from difix3d.ratings.campaigns import Match
    from difix3d.ratings.candidates import candidates_of
    from difix3d.ratings.sampling import questions_of
    from difix3d.stages.fixing import FixSession, store_candidate
    from difix3d.trajectories import HELDOUT

    # One session for two fixers that look at the same: depth of photos takes longest.
    session = FixSession(scene, new)
    others = session if new.needs_depth == old.needs_depth else FixSession(scene, old)
    for index in frames:
        frame = session.frame(HELDOUT, index)
        made = {}
        for side, each, fixer in (("new", session, new), ("old", others, old)):
            each.fixer = fixer
            fixed = each.fix(frame if each is session else each.frame(HELDOUT, index))
            stored = store_candidate(scene, frame, fixed.rgb, fixer, fixed.references, strength=fixed.strength)
            made[side] = stored.sha256
        match = None
        if made["new"] != made["old"]:
            here = {(HELDOUT, index): candidates_of(scene)[HELDOUT, index]}
            for item, (a, b) in questions_of([here]).items():
                if (a.sha256, b.sha256) == (made["new"], made["old"]):
                    match = Match(item, a, b, "a")
                elif (b.sha256, a.sha256) == (made["new"], made["old"]):
                    match = Match(item, a, b, "b")
        yield index, match

"""The closed loop on real captures: raters judge fixes, lite learns from them, and is held against its parent, blind.

    python benchmarks/closed_loop.py [--train NAME...] [--dev NAME...] [--steps N] [--work DIR] [--json]

Captures are read from ../shared/scenes (or $DIFIX3D_SHARED) and fitted to a third of their photos; the others are
hidden.
1. On the training captures each of some hidden views is shown as the render, by `reproject`, and by lite with all of
   its photos, the nearest, the second, and none. Oracle raters (see Oracle) compare them through the rating store.
2. An export of photos, approved fixes and comparisons; `finetune` on it, from that lite.
3. On the dev captures, of which nothing was trained on, a campaign: the tuned checkpoint against its parent, the same
   raters, every question blind. LPIPS and PSNR are of these views.

The parent is a lite that has learned nothing, so that what the loop teaches is seen: the one that ships (--from lite)
has learned from these training captures already.

win_rate counts each view once (ties half); interval is Wilson's for so many views (difix3d/ratings/campaigns.py).
Stopped and started again it goes on: fits, fixes, votes and training are kept in DIR, which has a name of its own for
each weights of lite. Prints a table; with --json the last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from benchmark_scene import CACHE
from fit import WORK as RECONSTRUCTED
from fit import reconstructed
from PIL import Image
from safetensors.torch import save_file

from difix3d import metrics
from difix3d.atomic import replacing_file, write_json
from difix3d.events import Done, Event, Progress, Warned
from difix3d.fixers import load_fixer
from difix3d.fixers.lite.checkpoint import sha256_of, weights_of
from difix3d.fixers.lite.fixer import WEIGHTS
from difix3d.fixers.lite.network import LiteNetwork
from difix3d.formats.camera_path import read_camera_path
from difix3d.formats.image import read_rgb
from difix3d.jobs import Step, run_inline
from difix3d.ratings.campaigns import entered, outcomes
from difix3d.ratings.identity import item_key
from difix3d.ratings.sampler import Sampler
from difix3d.ratings.store import RatingStore
from difix3d.scene import Scene
from difix3d.stages.campaign import CampaignConfig, campaign
from difix3d.stages.export import ExportConfig, export
from difix3d.stages.finetune import FinetuneConfig, finetune
from difix3d.stages.fixing import FixSession, store_candidate
from difix3d.trajectories import HELDOUT
from difix3d.types import Candidate, Rating

TRAIN = ("boruszyn", "garfield", "lewis", "v_university", "v_university2")
DEV = ("brighton", "panel17", "saharov", "v_street")
TRAIN_EVERY = 3
RATERS = ("ann", "bob", "cid")
_TOLD_EVERY_S = 10.0


class Oracle:
    """Raters who know the hidden photo: of two pictures they prefer the one that is nearer to it, as they see it.

    distance = LPIPS (VGG) + squared error, of pixels in [-1, 1], both pictures at most SEEN_PX long; a rater sees it
    with Gaussian noise of NOISE on each picture, calls less than TIE a tie, and guesses in LAPSES of all answers.
    cache: sha256 of a picture -> scores.
    """

    SEEN_PX = 480
    NOISE, TIE, LAPSES = 0.006, 0.003, 0.04

    def __init__(self, scenes: Path, cache: Path):
        self.scenes, self._cache = scenes, cache
        self._scores: dict[str, dict[str, float]] = json.loads(cache.read_text()) if cache.is_file() else {}
        self._photos: dict[tuple[str, int], str] = {}

    def scores(self, candidate: Candidate) -> dict[str, float]:
        """{"lpips", "psnr", "distance"} to the hidden photo."""
        if candidate.sha256 not in self._scores:
            scene = Scene(self.scenes / candidate.scene_id)
            names = read_camera_path(scene.trajectory_path(HELDOUT)).view_names
            pair = scene.inside(candidate.image_path), scene.images_dir / names[candidate.frame_index]
            picture, photo = (read_rgb(path, self._size(pair[0])) for path in pair)
            lpips = metrics.lpips(picture, photo)
            if lpips is None:
                sys.exit("LPIPS's weights are not here: set DIFIX3D_LPIPS_WEIGHTS, or fetch them with difix3d weights")
            error = float(np.mean(((picture.astype(np.float64) - photo) / 127.5) ** 2))
            self._scores[candidate.sha256] = {
                "lpips": lpips,
                "psnr": metrics.psnr(picture, photo),
                "distance": lpips + error,
            }
            write_json(self._cache, self._scores)
        return self._scores[candidate.sha256]

    def _size(self, path: Path) -> tuple[int, int]:
        with Image.open(path) as picture:
            width, height = picture.size
        scale = min(1.0, self.SEEN_PX / max(width, height))
        return max(1, round(scale * width)), max(1, round(scale * height))

    def choice(self, a: Candidate, b: Candidate, rng: random.Random) -> str:
        if rng.random() < self.LAPSES:
            return rng.choice(["a", "b", "tie"])
        seen = [self.scores(each)["distance"] + rng.gauss(0.0, self.NOISE) for each in (a, b)]
        if abs(seen[0] - seen[1]) < self.TIE:
            return "tie"
        return "a" if seen[0] < seen[1] else "b"


@dataclass
class Studio:
    """Scenes, ratings and raters of one half of the experiment."""

    folder: Path
    names: tuple[str, ...]
    kind: str

    def __post_init__(self) -> None:
        self.scenes = self.folder / "scenes"
        self.url = f"sqlite:///{self.folder / 'ratings.sqlite'}"
        self.oracle = Oracle(self.scenes, self.folder / "scores.json")

    def fit(self, steps: int) -> list[Scene]:
        """Each capture's cameras, fitted to a third of its photos, rendered at the others."""
        found = []
        for name in self.names:
            source = reconstructed(f"{self.kind}/{name}", RECONSTRUCTED)
            scene = Scene.create(self.scenes / name, name=name)
            for part in ("images", "sparse"):
                _link(source.root / part, scene.root / part)
            fit = {"steps": steps, "train_every": TRAIN_EVERY}
            told(run_inline(scene, [Step("fit", fit), Step("render", {"trajectory": HELDOUT})]))
            found.append(scene)
        return found

    def rate(self, store: RatingStore, only: Callable[[str], bool] = lambda item: True) -> None:
        """Every rater answers what the sampler asks, until there is nothing left, or it is not one of `only`."""
        scenes = [Scene(self.scenes / name) for name in self.names]
        rng = random.Random(0)
        sampler = Sampler(store, self.scenes, target_votes=len(RATERS), make_gold=False, rng=rng)
        asking = list(RATERS)
        while asking:
            for rater in list(asking):
                pair = sampler.next(rater, scenes)
                if pair is None or not only(item_key(pair.candidate_a, pair.candidate_b)):
                    asking.remove(rater)
                    continue
                choice = self.oracle.choice(pair.candidate_a, pair.candidate_b, rng)
                rating = Rating(pair.candidate_a, pair.candidate_b, choice, pair.left_is, rater, 1.0)
                sampler.vote(rating, pair.token)
        sampler.close()


def make_candidates(scene: Scene, parent: str, most: int) -> int:
    """Fixes of up to `most` hidden views, evenly spread, in all ways; how many views there are."""
    session = FixSession(scene, parent)
    lite, reproject = session.fixer, load_fixer("reproject")
    count = len(session.trajectory(HELDOUT))
    frames = sorted({int(at) for at in np.linspace(0, count - 1, min(most, count)).round()})
    for index in frames:
        frame = session.frame(HELDOUT, index)
        ranked = [one.name for one in session.ranked(frame)]
        ways = [
            (reproject, None),
            (lite, ranked[: lite.max_references]),
            (lite, ranked[:1]),
            (lite, ranked[1:2]),
            (lite, []),
        ]
        for fixer, names in ways:
            session.fixer = fixer
            fixed = session.fix(frame, names)
            store_candidate(scene, frame, fixed.rgb, fixer, fixed.references, strength=fixed.strength)
    return len(frames)


def told(events: Iterator[Event]) -> Done:
    """Run a stage to its end, with a word on stderr now and then."""
    last, last_told = None, 0.0
    for event in events:
        last = event
        if isinstance(event, Warned):
            say(event.message)
        elif isinstance(event, Progress) and time.monotonic() - last_told > _TOLD_EVERY_S:
            last_told = time.monotonic()
            say(f"{event.stage}: {event.message} {event.done:g}/{event.total:g}")
    assert isinstance(last, Done)
    return last


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _link(source: Path, target: Path) -> None:
    """The files of a folder again, as hard links where that works; nothing is made twice."""

    def copy(one: str, other: str) -> None:
        if not Path(other).exists():
            try:
                os.link(one, other)
            except OSError:
                shutil.copyfile(one, other)

    shutil.copytree(source, target, copy_function=copy, dirs_exist_ok=True)


def learn(studio: Studio, options: argparse.Namespace) -> tuple[Path, dict[str, Any], dict[str, Any]]:
    """(the tuned checkpoint, figures of the export, figures of the training); made unless it is there."""
    data, out, record = (options.work / name for name in ("export", "checkpoints/tuned", "training.json"))
    if not record.is_file():
        config = ExportConfig(out=str(data), ratings_db=studio.url, scenes=str(studio.scenes))
        if not Path(f"{out}.training").is_dir():
            exported = told(export(config)).figures
            write_json(options.work / "export.json", exported)
        settings: dict[str, Any] = {"steps": options.steps, "save_every": 20, "tracker": "none"}
        settings |= {"learning_rate": options.learning_rate, "preference_weight": options.preference_weight}
        settings |= {"lpips_weight": options.lpips_weight}
        trained = told(finetune(FinetuneConfig(data=str(data), start=options.start, out=str(out), **settings))).figures
        write_json(record, trained)
    return out, json.loads((options.work / "export.json").read_text()), json.loads(record.read_text())


def untrained(folder: Path) -> Path:
    """A checkpoint of a lite that has learned nothing: it blends photos as `reproject` does."""
    torch.manual_seed(0)
    with replacing_file(folder / WEIGHTS.name) as temporary:
        save_file({name: value.contiguous() for name, value in LiteNetwork().state_dict().items()}, temporary)
    return folder


def means(oracle: Oracle, candidates: list[Candidate]) -> dict[str, float]:
    scores = [oracle.scores(candidate) for candidate in candidates]
    return {name: round(float(np.mean([each[name] for each in scores])), 4) for name in ("lpips", "psnr")}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--train", nargs="+", default=TRAIN, help="of scenes/train")
    parser.add_argument("--dev", nargs="+", default=DEV, help="of scenes/dev")
    parser.add_argument("--fit-steps", type=int, default=600, help="of each fit")
    parser.add_argument("--frames", type=int, default=6, help="hidden views of each training capture that are rated")
    parser.add_argument("--dev-frames", type=int, default=24, help="hidden views of each dev capture")
    parser.add_argument("--steps", type=int, default=350, help="of the training")
    parser.add_argument("--learning-rate", type=float, default=6e-4, help="0: finetune's own for lite")
    parser.add_argument("--preference-weight", type=float, default=1.0, help="0: photos and approved fixes alone")
    parser.add_argument("--lpips-weight", type=float, default=1.0, help="of LPIPS, in all losses")
    parser.add_argument("--from", dest="start", default="untrained", help="untrained, lite, or a checkpoint of it")
    parser.add_argument("--work", type=Path, default=None, help="default: under benchmarks/.cache, by lite's weights")
    parser.add_argument("--json", action="store_true", help="also print one JSON object, as the last line")
    options = parser.parse_args()
    if options.start == "untrained":
        options.start = str(untrained(CACHE / "closed_loop" / "untrained"))
    weights = weights_of(options.start)
    if weights is None:
        sys.exit(f"{options.start} is no checkpoint of lite")
    options.work = (options.work or CACHE / "closed_loop" / sha256_of(weights)[:8]).resolve()
    seconds: dict[str, float] = {}

    def timed(name: str, began: float) -> None:
        seconds[name] = round(time.monotonic() - began, 1)
        say(f"{name}: {seconds[name]:.0f} s")

    began = time.monotonic()
    train = Studio(options.work / "train", tuple(options.train), "train")
    dev = Studio(options.work / "dev", tuple(options.dev), "dev")
    scenes = train.fit(options.fit_steps)
    dev.fit(options.fit_steps)
    timed("fits", began)
    began = time.monotonic()
    with RatingStore(train.url, train.scenes) as store:
        views = sum(make_candidates(scene, options.start, options.frames) for scene in scenes)
        timed("candidates", began)
        began = time.monotonic()
        train.rate(store)
        votes = store.counts()["ratings"]
    timed("votes", began)
    began = time.monotonic()
    tuned, exported, trained = learn(train, options)
    timed("training", began)

    began = time.monotonic()
    config = {"scenes": str(dev.scenes), "frames": options.dev_frames, "ratings_db": dev.url}
    asked = told(campaign(CampaignConfig(new=str(tuned), old=options.start, **config))).figures
    with RatingStore(dev.url, dev.scenes) as store:
        new_is = entered(store)
        if not new_is:
            sys.exit("The tuned checkpoint fixes every view to its parent's pixels: train for more --steps")
        dev.rate(store, new_is.__contains__)
        standing = store.ratings()
        (outcome,) = outcomes(new_is, standing)
    sides: dict[str, dict[str, Candidate]] = {"new": {}, "old": {}}
    for vote in standing:
        if side := new_is.get(vote.item_id):
            a, b = vote.rating.candidate_a, vote.rating.candidate_b
            sides["new"][vote.item_id], sides["old"][vote.item_id] = (a, b) if side == "a" else (b, a)
    timed("campaign", began)
    before, after = (means(dev.oracle, list(sides[side].values())) for side in ("old", "new"))
    found = {
        "win_rate": outcome["win_rate"],
        "interval": outcome["interval"],
        "lpips_before": before["lpips"],
        "lpips_after": after["lpips"],
        "psnr_before": before["psnr"],
        "psnr_after": after["psnr"],
        "comparisons": exported["comparisons"],
        "photos": trained["photos"],
        "approved": trained["approved"],
        "views": outcome["frames"],
        "identical": asked["identical"],
        "votes_on_train": votes,
        "views_on_train": views,
        "votes_on_dev": outcome["votes"],
        "gate": trained["gate"],
        "steps": trained["steps"],
        "train": list(train.names),
        "dev": list(dev.names),
        "seconds": seconds,
    }
    low, high = outcome["interval"]
    print(f"{votes} votes on {views} views of {', '.join(train.names)}: {found['comparisons']} comparisons,")
    print(f"{found['photos']} photos, {found['approved']} approved fixes; {found['steps']} steps.")
    print(f"\n| {outcome['frames']} hidden views of {', '.join(dev.names)} | LPIPS (VGG) | PSNR, dB |")
    print("| --- | ---: | ---: |")
    for label, row in (("parent", before), ("tuned", after)):
        print(f"| {label} | {row['lpips']:.4f} | {row['psnr']:.2f} |")
    print(f"\nTuned preferred to its parent: {outcome['win_rate']:.1%} ({low:.1%} to {high:.1%}) of the views")
    if options.json:
        print(json.dumps(found))


if __name__ == "__main__":
    main()

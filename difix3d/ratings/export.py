"""An export: training pairs, preferences and the raw log of ratings as one folder that stands alone.

images/SHA256.png       every picture once, lossless
difix.json              {"train" | "test": {id: {image, target_image, ref_image, prompt}}}
difix_no_ref.json       the same for pairs without a reference: mixing both breaks batches
comparisons.json        {"train" | "test": {id: {image, target_image, worse_image, weight, ...}}}: what raters preferred
provenance.json         id -> where the pair is from
frames.jsonl inputs/    depth and cameras of each frame and of its photos (stages/exporting.py)
preferences-SPLIT.parquet   see export_preferences.py
ratings.jsonl           one line per vote, changed and undone ones too, and those on gold and repeats ("purpose")
README.md               dataset card
export.json             what this export holds; marks the folder as one that a later export may replace
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import difix3d
from difix3d.atomic import replacing_folder, write_json
from difix3d.errors import ConfigError, RatingError
from difix3d.events import Event, Progress, Warned
from difix3d.ratings.export_card import CardFacts, card
from difix3d.ratings.export_comparisons import comparison_rows
from difix3d.ratings.export_pairs import PairRow, Tally, approved_rows, heldout_rows
from difix3d.ratings.export_pictures import ExportedPictures
from difix3d.ratings.export_preferences import PictureGone, PreferencesWriter
from difix3d.ratings.export_scenes import (
    Licences,
    find_scenes,
    keep_splits,
    known_splits,
    split_scenes,
    what_to_know,
)
from difix3d.ratings.filters import VoteFilter, all_that_stand
from difix3d.ratings.log import StoredRating
from difix3d.ratings.results import results_of
from difix3d.ratings.schema import GOLD, RATE, REPEAT, now
from difix3d.ratings.store import RatingStore
from difix3d.types import Judgement

MARK = "export.json"
_STAGE = "export"
_MAX_WARNINGS = 50
_TOLD_EVERY = 20

Inputs = Callable[[Path, ExportedPictures, Mapping[str, tuple[str, str, int]]], Iterator[Event]]
"""Writes what a fixer was given for each frame: see Export.inputs."""


@dataclass
class Export:
    """One run. scenes: folder of scenes; only: the name of the one to export; test_share: of the scenes; min_votes: on
    a fix before it can be a target; filters: which votes count (its scene is `only`): ratings.jsonl holds the others
    too, and says of each that it was left out."""

    store: RatingStore
    scenes: Path
    out: Path
    only: str | None = None
    test_share: float = 0.2
    min_votes: int = 1
    inputs: Inputs | None = None
    filters: VoteFilter = field(default_factory=VoteFilter)
    figures: dict[str, Any] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    _told: int = 0
    _without: frozenset[int] = frozenset()

    def run(self) -> Iterator[Event]:
        """Writes `out` whole or not at all; `figures` are there at the end. Yields Progress and Warned.

        ConfigError where `out` holds something else than an export, RatingError where there is nothing to write.
        """
        if self.out.exists() and not (self.out / MARK).is_file() and (self.out.is_file() or any(self.out.iterdir())):
            raise ConfigError(f"{self.out} exists and is no export: name a new folder with --out")
        last = self.store.last_number()
        self.filters = replace(self.filters, scene=self.only)
        chosen = self.filters.chosen(all_that_stand(self.store, up_to=last))
        self._without = frozenset(chosen.record["without_raters"])
        tallies, votes_on_frame = self._count_votes(last)
        scenes = {scene.id: scene for scene in find_scenes(self.scenes, self.only)}
        known = known_splits(scenes.values(), self._splits_before())
        licences = Licences(scenes)
        with replacing_folder(self.out) as folder:
            pictures = ExportedPictures(folder)
            rows: list[tuple[str, PairRow]] = []
            for number, scene in enumerate(scenes.values()):
                yield Progress(_STAGE, f"held-out photos of {scene.id}", number, len(scenes), "scenes")
                for row in heldout_rows(scene, pictures, self._warn):
                    rows.append((scene.id, row))
                    yield Progress(_STAGE, f"held-out photos of {scene.id}", number, len(scenes), "scenes")
                yield from self._new_warnings()
            compared = list(comparison_rows(self.scenes, tallies.values(), self.min_votes, pictures, self._warn))
            for row in approved_rows(self.scenes, tallies.values(), self.min_votes, pictures, self._warn):
                rows.append((row.provenance["scene_id"], row))
            yield from self._new_warnings()

            exported = {*(scene_id for scene_id, _ in rows), *(frame[0] for frame in votes_on_frame)}
            splits = split_scenes(exported, self.test_share, known)
            if not splits:
                raise RatingError(
                    f"Nothing to export: no votes in the database, and no scene in {self.scenes} has renders at its "
                    "held-out photos. Rate some pairs in the app, or: difix3d render --scene DIR --trajectory heldout"
                )
            if len(splits) == 1:
                self._warn(f"One scene only ({next(iter(splits))}): all of it is in train, and there is no test split")
            for sentence in what_to_know(splits, known, self.test_share):
                self._warn(sentence)
            if not votes_on_frame:
                filtered = chosen.record["votes_left_out"]
                why = f"The filters leave out all of {filtered} votes" if filtered else "No votes yet"
                self._warn(f"{why}: the export holds pairs with true photos only")
            self._write_pairs(folder, rows, compared, splits, licences)
            yield from self._new_warnings()
            if self.inputs is not None:
                yield from self.inputs(folder, pictures, _frames([*(row for _, row in rows), *compared]))
            yield from self._write_votes(folder, last, splits, licences, votes_on_frame)
            yield from self._new_warnings()
            self.figures |= {"images": pictures.count, "image_bytes": pictures.bytes, "scenes": len(splits)}
            facts = CardFacts(self.figures, results_of(chosen), splits, licences.seen)
            (folder / "README.md").write_text(card(facts))
            mark = {"created": now().isoformat(timespec="seconds"), "difix3d": difix3d.__version__, "last_entry": last}
            settings = {"test_share": self.test_share, "min_votes": self.min_votes}
            found = {"filters": chosen.record, "splits": splits, "figures": self.figures}
            write_json(folder / MARK, {**mark, "settings": settings, **found})
            for scene_id in keep_splits(scenes.values(), splits):
                self._warn(f"{scene_id} cannot be written to: another export may put it into another split")
            yield from self._new_warnings()

    def _splits_before(self) -> Iterable[tuple[str, str]]:
        """Of the export that this one replaces."""
        mark = self.out / MARK
        return json.loads(mark.read_text()).get("splits", {}).items() if mark.is_file() else ()

    def _count_votes(self, last: int) -> tuple[dict[str, Tally], dict[tuple[str, str, int], int]]:
        """(item -> tally, frame -> votes that count), as of entry `last`."""
        tallies: dict[str, Tally] = {}
        votes_on_frame: dict[tuple[str, str, int], int] = {}
        for vote in self.store.stream(self.only, up_to=last):
            if not self._counts(vote):
                continue
            a, b = vote.rating.candidate_a, vote.rating.candidate_b
            if not vote.own_upload:  # nobody alone approves what is made of their own photos
                tallies.setdefault(vote.item_id, Tally(a, b)).add(vote.rating)
            frame = (a.scene_id, a.trajectory, a.frame_index)
            votes_on_frame[frame] = votes_on_frame.get(frame, 0) + 1
        return tallies, votes_on_frame

    def _write_pairs(
        self,
        folder: Path,
        rows: list[tuple[str, PairRow]],
        compared: list[PairRow],
        splits: dict[str, str],
        licences: Licences,
    ) -> None:
        files: dict[bool, dict[str, dict[str, Any]]] = {
            with_ref: {"train": {}, "test": {}} for with_ref in (True, False)
        }
        provenance = {}
        for scene_id, row in rows:
            split = splits[scene_id]
            weight = {} if row.weight is None else {"weight": row.weight}
            files[row.has_reference][split][row.id] = {**row.files, "prompt": row.prompt, **weight}
            licence = licences.of(scene_id, row.provenance.get("fixer"), row.provenance.get("settings", {}))
            provenance[row.id] = {**row.provenance, "split": split, "license": licence}
        comparisons: dict[str, dict[str, dict[str, Any]]] = {"train": {}, "test": {}}
        for row in compared:
            facts = row.provenance
            split = splits[facts["scene_id"]]
            comparisons[split][row.id] = {**row.files, "prompt": row.prompt, "weight": row.weight}
            both = ((facts["fixer"], facts["settings"]), (facts["worse_fixer"], facts["worse_settings"]))
            licence = " · ".join(dict.fromkeys(licences.of(facts["scene_id"], *one) for one in both))
            provenance[row.id] = {**facts, "split": split, "license": licence}
        write_json(folder / "comparisons.json", comparisons)
        write_json(folder / "difix.json", files[True])
        write_json(folder / "difix_no_ref.json", files[False])
        write_json(folder / "provenance.json", provenance)
        kinds = [row.provenance["kind"] for _, row in rows]
        self.figures |= {
            "pairs": len(rows),
            "train": len(files[True]["train"]),
            "test": len(files[True]["test"]),
            "without_reference": sum(len(split) for split in files[False].values()),
            "photos": kinds.count("photo"),
            "approved": kinds.count("approved_fix"),
            "comparisons": len(compared),
        }

    def _write_votes(
        self,
        folder: Path,
        last: int,
        splits: dict[str, str],
        licences: Licences,
        votes_on_frame: dict[tuple[str, str, int], int],
    ) -> Iterator[Event]:
        """preferences-SPLIT.parquet and ratings.jsonl in one pass over the log."""
        total = sum(votes_on_frame.values())
        left_out = lines = rows = filtered = 0
        with (folder / "ratings.jsonl").open("w") as log, ExitStack() as writing:
            writers = {
                split: writing.enter_context(PreferencesWriter(folder / f"preferences-{split}.parquet", self.scenes))
                for split in sorted({"train", *splits.values()})
            }
            everything = self.store.stream(
                self.only, include_superseded=True, up_to=last, purposes=(RATE, GOLD, REPEAT), marks=False
            )
            for vote in everything:
                a, b = vote.rating.candidate_a, vote.rating.candidate_b
                split = splits.get(a.scene_id, "train")
                counts = self._counts(vote)
                log.write(json.dumps({**raw(vote), "split": split, "left_out": not counts}, default=str) + "\n")
                lines += 1
                filtered += not counts
                if vote.superseded_by or vote.purpose != RATE or not counts:
                    continue
                licence = " · ".join(dict.fromkeys(licences.of(c.scene_id, c.fixer, c.extra) for c in (a, b)))
                on_frame = votes_on_frame[a.scene_id, a.trajectory, a.frame_index]
                try:
                    writers[split].add(vote, split=split, licence=licence, votes_on_frame=on_frame)
                    rows += 1
                except PictureGone as gone:
                    left_out += 1
                    self._warn(f"{gone}; its votes are left out of the preferences")
                    yield from self._new_warnings()
                if (rows + left_out) % _TOLD_EVERY == 0:
                    yield Progress(_STAGE, "preferences", rows + left_out, total, "votes")
            self.figures |= {"preferences": rows, "ratings": lines, "left_out": left_out, "filtered": filtered}

    def _counts(self, vote: StoredRating) -> bool:
        """Whether the filters let it count."""
        return vote.rater_number not in self._without and not self.filters.is_before(vote)

    def _warn(self, message: str) -> None:
        if message not in self.warnings:
            self.warnings.append(message)

    def _new_warnings(self) -> Iterator[Event]:
        for number, message in enumerate(self.warnings[self._told :], self._told):
            if number < _MAX_WARNINGS:
                yield Warned(_STAGE, message)
            elif number == _MAX_WARNINGS:
                yield Warned(_STAGE, f"More than {_MAX_WARNINGS} of these; the others are not named")
        self._told = len(self.warnings)


def _frames(rows: Iterable[PairRow]) -> dict[str, tuple[str, str, int]]:
    """Render -> (scene, trajectory, frame)."""
    facts = {row.files["image"]: row.provenance for row in rows}
    return {image: (one["scene_id"], one["trajectory"], one["frame_index"]) for image, one in facts.items()}


def raw(vote: StoredRating) -> dict[str, Any]:
    """A vote as it is in the log, without the rater's key."""
    rating = vote.rating
    return {
        "number": vote.number,
        "id": vote.id,
        "item_id": vote.item_id,
        "user_id": vote.rater_number,
        "choice": rating.choice,
        "left_is": rating.left_is,
        "seconds": rating.seconds,
        "reference": rating.reference,
        "shown_at": vote.shown_at.isoformat(),
        "created_at": vote.created_at.isoformat(),
        "ui_version": vote.ui_version,
        "purpose": vote.purpose,
        "expected": vote.expected,
        "late": vote.late,
        "own_upload": vote.own_upload,
        "comment": rating.comment,
        "on_a": _said(rating.on_a, "a" in vote.has_marks),
        "on_b": _said(rating.on_b, "b" in vote.has_marks),
        "superseded": bool(vote.superseded_by),
        "superseded_by": vote.superseded_by or None,
        "superseded_as": vote.superseded_as or None,
        "candidate_a": asdict(rating.candidate_a),
        "candidate_b": asdict(rating.candidate_b),
    }


def _said(judgement: Judgement, marked: bool) -> dict[str, Any]:
    """tags, artifact_removal, faithfulness, and whether regions are marked."""
    scores = {"artifact_removal": judgement.artifact_removal, "faithfulness": judgement.faithfulness}
    return {"tags": list(judgement.tags), **scores, "marked": marked}

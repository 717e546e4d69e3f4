"""An export keeps gold, repeats and what was said of each picture in its raw log; preferences are of quality only."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
from rated_scene import make_scene, vote_on
from test_judgements import png

from difix3d.ratings.candidates import candidates_of
from difix3d.ratings.export import Export
from difix3d.ratings.gold import make_gold
from difix3d.ratings.log import NewItem, ensure_item
from difix3d.ratings.schema import AssignmentRow
from difix3d.ratings.store import RatingStore
from difix3d.types import Judgement, Rating


def test_raw_log_and_preferences(tmp_path: Path) -> None:
    scenes = tmp_path / "scenes"
    scene = make_scene(scenes, "court")
    with RatingStore(f"sqlite:///{tmp_path / 'r.sqlite'}", scenes) as store:
        vote_on(store, scene, "fix", "ann", 0)
        gold = next(pair for pair in make_gold(scene, candidates_of(scene)) if pair.kind == "photo")
        store.write(lambda session: ensure_item(session, NewItem(gold.a, gold.b, gold.kind, gold.expected), {}))
        said = Judgement(("blur",), 2, None, png())
        store.add(Rating(gold.a, gold.b, "tie", "a", "ann", 1.0, on_a=said, comment="looks <b>fine</b>"), "gold")
        export = Export(store, scenes, tmp_path / "export")
        list(export.run())
    lines = [json.loads(line) for line in (tmp_path / "export" / "ratings.jsonl").read_text().splitlines()]
    assert [line["purpose"] for line in lines] == ["rate", "gold"]
    assert lines[1]["expected"] == gold.expected and lines[1]["comment"] == "looks <b>fine</b>"
    assert lines[1]["on_a"] == {"tags": ["blur"], "artifact_removal": 2, "faithfulness": None, "marked": True}
    preferences = pq.read_table(tmp_path / "export" / "preferences-train.parquet")
    assert preferences.num_rows == export.figures["preferences"] == 1


def test_nobody_alone_approves_a_fix_of_their_own_photos(tmp_path: Path) -> None:
    scenes = tmp_path / "scenes"
    scene = make_scene(scenes, "court")
    with RatingStore(f"sqlite:///{tmp_path / 'r.sqlite'}", scenes) as store:
        vote_on(store, scene, "fix", "owner", 0)
        counted = Export(store, scenes, tmp_path / "one")
        list(counted.run())
        first = store.ratings()[0]

        def ask(session) -> None:
            values = {"id": "own", "left_is": "a", "purpose": "rate", "own_upload": True, "lease_s": 600.0}
            session.add(AssignmentRow(rater_number=1, item_id=first.item_id, **values))

        store.write(ask)
        store.add(replace(first.rating, left_is="a"), "own")  # the same vote, now of the one who uploaded it
        own = Export(store, scenes, tmp_path / "two")
        list(own.run())
    assert (counted.figures["approved"], own.figures["approved"]) == (1, 0)
    assert own.figures["preferences"] == 1

"""preferences-SPLIT.parquet: one row per vote, in Pick-a-Pic's columns, with pictures that the Hub's viewer shows.

jpg_0, jpg_1 (what Diffusion-DPO's script reads) are JPEG re-encodings; image_0, image_1 hold the very bytes that
were rated. 0 and 1 are the candidates' canonical order, never the side they were shown on.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from difix3d.errors import FormatError
from difix3d.ratings.candidates import RENDER
from difix3d.ratings.export_pairs import prompt_of, reference_photo
from difix3d.ratings.export_pictures import jpeg_bytes, size_of
from difix3d.ratings.log import StoredRating
from difix3d.ratings.pictures import find_picture
from difix3d.types import Candidate

_IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
_COLUMNS: list[tuple[str, pa.DataType]] = [
    *[(name, pa.binary()) for name in ("jpg_0", "jpg_1")],
    *[(name, _IMAGE) for name in ("image_0", "image_1", "source_image", "ref_image")],
    *[(name, pa.float64()) for name in ("label_0", "label_1")],
    *[(name, pa.bool_()) for name in ("has_label", "are_different")],
    *[(name, pa.string()) for name in ("caption", "best_image_uid", "image_0_uid", "image_1_uid")],
    *[(name, pa.string()) for name in ("model_0", "model_1")],
    *[(name, pa.int64()) for name in ("ranking_id", "user_id")],
    ("created_at", pa.timestamp("us", tz="UTC")),
    ("num_example_per_prompt", pa.int64()),
    ("choice", pa.string()),
    ("both_bad", pa.bool_()),
    *[(name, pa.string()) for name in ("scene_id", "trajectory")],
    ("frame_index", pa.int64()),
    *[(name, pa.string()) for name in ("item_id", "left_is")],
    ("client_ms", pa.int64()),
    *[(name, pa.int64()) for name in ("timestep_0", "timestep_1", "seed_0", "seed_1")],
    *[(name, pa.string()) for name in ("references_0", "references_1", "license", "split")],
]
_LABELS = {"a": (1.0, 0.0), "b": (0.0, 1.0), "tie": (0.5, 0.5)}
_PLAIN_COLUMNS = [name for name, kind in _COLUMNS if kind not in (pa.binary(), _IMAGE)]

_GROUP_ROWS = 100
_GROUP_BYTES = 32 << 20
"""A row group ends at either: the Hub's viewer reads whole groups, and so much is held in memory here."""


def _feature(kind: pa.DataType) -> dict[str, str]:
    """How `datasets` names a column's type."""
    if kind == _IMAGE:
        return {"_type": "Image"}
    return {"dtype": {"double": "float64"}.get(str(kind), str(kind)), "_type": "Value"}


def preferences_schema() -> pa.Schema:
    """The columns, with the metadata by which `datasets` and the Hub know which are pictures."""
    features = {name: _feature(kind) for name, kind in _COLUMNS}
    return pa.schema(_COLUMNS, metadata={"huggingface": json.dumps({"info": {"features": features}})})


class PictureGone(Exception):
    """A rated picture is no longer there as it was rated; its text says which and how."""


class PreferencesWriter:
    """Writes rows in groups; use as a context manager. scenes: the folder of scenes."""

    def __init__(self, path: Path, scenes: Path):
        self.scenes = scenes
        self.rows = 0
        self._writer = pq.ParquetWriter(path, preferences_schema(), use_dictionary=_PLAIN_COLUMNS)
        self._waiting: list[dict[str, Any]] = []
        self._waiting_bytes = 0

    def __enter__(self) -> PreferencesWriter:
        return self

    def __exit__(self, *error: object) -> None:
        try:
            if error[0] is None:
                self._flush()
        finally:
            self._writer.close()

    def add(self, vote: StoredRating, *, split: str, licence: str, votes_on_frame: int) -> None:
        """One row. PictureGone where one of the two pictures is not as it was rated: nothing is written."""
        row = {
            **self._pictures(vote),
            **_facts(vote),
            "num_example_per_prompt": votes_on_frame,
            "license": licence,
            "split": split,
        }
        self._waiting.append(row)
        self._waiting_bytes += sum(_size(value) for value in row.values())
        self.rows += 1
        if len(self._waiting) >= _GROUP_ROWS or self._waiting_bytes >= _GROUP_BYTES:
            self._flush()

    def _flush(self) -> None:
        if self._waiting:
            self._writer.write_table(pa.Table.from_pylist(self._waiting, schema=preferences_schema()))
        self._waiting, self._waiting_bytes = [], 0

    def _pictures(self, vote: StoredRating) -> dict[str, Any]:
        a, b = vote.rating.candidate_a, vote.rating.candidate_b
        paths = [self._rated(candidate) for candidate in (a, b)]
        try:
            source = self._source(a, b, paths)
            reference = reference_photo(self.scenes, b if a.fixer == RENDER else a, vote.rating.reference)
            long_side_px = max(size_of(paths[0]))
            return {
                "jpg_0": jpeg_bytes(paths[0]),
                "jpg_1": jpeg_bytes(paths[1]),
                "image_0": _image(paths[0], a.sha256),
                "image_1": _image(paths[1], b.sha256),
                "source_image": source and _image(source, source.stem),
                "ref_image": reference
                and {"bytes": jpeg_bytes(reference, long_side_px), "path": f"{reference.stem}.jpg"},
            }
        except FormatError as error:
            raise PictureGone(f"{a.scene_id}: {error}") from error

    def _rated(self, candidate: Candidate) -> Path:
        path, problem = find_picture(self.scenes, candidate.scene_id, candidate.image_path, candidate.sha256)
        if path is None:
            raise PictureGone(f"{candidate.scene_id}: {candidate.image_path} is {problem} since it was rated")
        return path

    def _source(self, a: Candidate, b: Candidate, paths: list[Path]) -> Path | None:
        """The raw render: one of the two, or for two fixes the one that is on disk now."""
        for candidate, path in zip((a, b), paths):
            if candidate.fixer == RENDER:
                return path
        path = self.scenes / a.scene_id / "renders" / a.trajectory / f"{a.frame_index:05d}.png"
        return path if path.is_file() else None


def _facts(vote: StoredRating) -> dict[str, Any]:
    rating = vote.rating
    a, b = rating.candidate_a, rating.candidate_b
    label_0, label_1 = _LABELS.get(rating.choice, (None, None))
    best = {"a": a.sha256, "b": b.sha256, "tie": "tie"}.get(rating.choice, "none")
    return {
        "label_0": label_0,
        "label_1": label_1,
        "has_label": rating.choice in _LABELS,
        "are_different": rating.choice in ("a", "b"),
        "caption": prompt_of(b if a.fixer == RENDER else a),
        "best_image_uid": best,
        "image_0_uid": a.sha256,
        "image_1_uid": b.sha256,
        "model_0": a.fixer,
        "model_1": b.fixer,
        "ranking_id": vote.number,
        "user_id": vote.rater_number,
        "created_at": vote.created_at,
        "choice": rating.choice,
        "both_bad": rating.choice == "both_bad",
        "scene_id": a.scene_id,
        "trajectory": a.trajectory,
        "frame_index": a.frame_index,
        "item_id": vote.item_id,
        "left_is": rating.left_is,
        "client_ms": round(rating.seconds * 1000),
        "timestep_0": a.timestep,
        "timestep_1": b.timestep,
        "seed_0": a.seed,
        "seed_1": b.seed,
        "references_0": json.dumps(list(a.references)),
        "references_1": json.dumps(list(b.references)),
    }


def _image(path: Path, name: str) -> dict[str, Any]:
    return {"bytes": path.read_bytes(), "path": f"{name}.png"}


def _size(value: Any) -> int:
    if isinstance(value, dict):
        value = value["bytes"]
    return len(value) if isinstance(value, bytes) else 16

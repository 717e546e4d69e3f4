"""README.md of a repository that votes and exports are pushed to."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any


def repository_card(exports: Sequence[dict[str, Any]]) -> str:
    """exports: {"name", "created", "splits": [split with preferences, ...]}, the newest last. The newest is what
    `load_dataset` reads without more words."""
    lines = ["---", 'pretty_name: "Difix3D Studio: ratings"', "license: other", 'license_name: "per-row"']
    lines += ["task_categories:", "- image-to-image", "tags:", "- novel-view-synthesis", "- preference", "- difix"]
    readable = [each for each in exports if each["splits"]]
    if readable:
        lines.append("configs:")
    for number, each in enumerate(reversed(readable)):
        lines.append(f"- config_name: {json.dumps(each['name'])}")
        lines += ["  default: true"] * (number == 0) + ["  data_files:"]
        for split in each["splits"]:
            path = f"exports/{each['name']}/preferences-{split}.parquet"
            lines += [f"  - split: {split}", f"    path: {json.dumps(path)}"]
    lines += ["---", "", *_BODY]
    lines += [f"- `exports/{each['name']}/`: made {each['created']}" for each in reversed(exports)] or ["None yet."]
    return "\n".join(lines) + "\n"


_BODY = (
    "# Ratings of Difix3D Studio",
    "",
    "Pushed by the program while people rate. Files are only added: none is changed once it is here, but this one.",
    "",
    "| folder | what |",
    "|---|---|",
    "| `votes/` | the raw log, one line of JSON per entry, in the order of their ids: `vote`, `retract` (undone), "
    "`withdrawal` |",
    "| `images/` | the very pictures that were rated, by the sha256 that `candidate_a` and `candidate_b` name |",
    "| `marks/` | where raters marked a picture as bad: white there |",
    "| `exports/` | datasets that stand alone, each with a card of its own |",
    "",
    "A vote counts while no later entry `supersedes` its `id`. After a `withdrawal`, drop every earlier line of that "
    "`user_id`: that rater took everything back. `user_id` stands for a rater; no name is in here. Licences are named "
    "in the lines (`candidate_a.extra`) and in the cards of the exports.",
    "",
    "Files in `votes/` are named NUMBER-LOG-ID. Where a backup of the ratings was restored, its log begins anew as "
    "another LOG: entries of one `id` are one, and `user_id` and `number` tell within one LOG.",
    "",
    "## Exports, the newest first",
    "",
)

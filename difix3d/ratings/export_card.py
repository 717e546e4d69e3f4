"""README.md of an export: the dataset card that people and the Hub read."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any


@dataclass
class CardFacts:
    """What the card tells. figures: of the export; counts, win_rates: of the rating store; scenes: id -> split;
    licences: what -> licence."""

    figures: dict[str, Any]
    counts: dict[str, Any]
    win_rates: dict[str, dict[str, Any]]
    scenes: dict[str, str] = field(default_factory=dict)
    licences: dict[str, str] = field(default_factory=dict)


def card(facts: CardFacts) -> str:
    """The whole file. JSON strings are YAML too, which is how names with colons stay whole."""
    return "\n".join([*_front_matter(facts), "", *_body(facts)]) + "\n"


def _front_matter(facts: CardFacts) -> list[str]:
    rows = max(facts.figures["preferences"], facts.figures["pairs"])
    size = next((name for limit, name in ((1000, "n<1K"), (10_000, "1K<n<10K")) if rows < limit), "10K<n<100K")
    lines = [
        "---",
        'pretty_name: "Difix3D Studio: ratings and training pairs"',
        "license: other",
        'license_name: "per-row"',
        "task_categories:",
        "- image-to-image",
        "tags:",
        "- novel-view-synthesis",
        "- preference",
        "- difix",
        "size_categories:",
        f"- {json.dumps(size)}",
    ]
    if facts.figures["preferences"]:
        lines += [
            "configs:",
            "- config_name: preferences",
            "  default: true",
            "  data_files:",
            "  - split: train",
            '    path: "preferences.parquet"',
        ]
    return [*lines, "---"]


def _body(facts: CardFacts) -> list[str]:
    figures, counts = facts.figures, facts.counts
    return [
        "# Ratings and training pairs of Difix3D Studio",
        "",
        "Renders of 3D Gaussian splats at novel views, fixes of them, what people preferred when they saw two of "
        "them blind, and pairs to train a fixer on.",
        "",
        "| file | rows | what |",
        "|---|---|---|",
        f"| `difix.json` | {figures['train']} train, {figures['test']} test | image, target_image, ref_image, prompt "
        "(Difix's training format; paths are relative to this folder) |",
        f"| `difix_no_ref.json` | {figures['without_reference']} | pairs that have no reference photo |",
        f"| `comparisons.json` | {figures['comparisons']} | of two pictures of a frame the one that raters preferred "
        "(target_image), the other (worse_image), and where it was marked as bad (mask_image) |",
        f"| `provenance.json` | {figures['pairs'] + figures['comparisons']} | where each row is from: `photo` is "
        "a true photo at a held-out camera, `approved_fix` a fix that most raters preferred to the raw render |",
        f"| `preferences.parquet` | {figures['preferences']} | one vote each, in Pick-a-Pic's columns; "
        "`load_dataset` shows the pictures |",
        f"| `ratings.jsonl` | {figures['ratings']} | the raw log, changed and undone votes too |",
        f"| `images/` | {figures['images']} | lossless PNG, named by the sha256 of the file |",
        "",
        "Trainers that read paths from the current folder are started in this one.",
        "",
        "## Splits",
        "",
        "By scene, never by frame: frames of one scene show the same things.",
        "",
        *([f"- `{scene}`: {split}" for scene, split in sorted(facts.scenes.items())] or ["No scenes."]),
        "",
        "## Votes",
        "",
        *_votes(counts, facts.win_rates),
        "",
        "`image_0`/`image_1` are in an order that tells nothing of fixer or side; `left_is` says which of `a` (0) "
        "and `b` (1) was on the left. `has_label` is false for skips and for both bad. `user_id` stands for a "
        "rater; their key is not in this dataset. `source_image` is the raw render: for a pair of two fixes the "
        "one on disk at the export.",
        "",
        "## Known biases",
        "",
        *_biases(counts, figures),
        "",
        "## Licences",
        "",
        *([f"- {what}: {licence}" for what, licence in sorted(facts.licences.items())] or ["Nothing is in here."]),
        "",
        "Each row of `preferences.parquet` names its own. A fixer's licence may bind what is made with it: the "
        "published Difix weights are for research and evaluation only.",
    ]


def _votes(counts: dict[str, Any], rates: dict[str, dict[str, Any]]) -> list[str]:
    if not counts["ratings"]:
        return ["None yet: this export holds pairs with true photos only."]
    choices = counts["choices"]
    lines = [
        f"{counts['ratings']} votes by {counts['raters']} raters on {counts['items']} pairs: {choices['decided']} for "
        f"one picture, {choices['tie']} ties, {choices['both_bad']} both bad, {choices['skip']} skipped. "
        f"{counts['superseded']} more were changed or undone.",
        "",
        "| fixer | wins | ties | losses | both bad | win rate (95 %) |",
        "|---|---|---|---|---|---|",
    ]
    for fixer, rate in rates.items():
        share = ""
        if rate["win_rate"] is not None:
            share = "{:.2f} ({:.2f} to {:.2f})".format(rate["win_rate"], *rate["interval"])
        lines.append(f"| {fixer} | {rate['wins']} | {rate['ties']} | {rate['losses']} | {rate['both_bad']} | {share} |")
    return lines


def _biases(counts: dict[str, Any], figures: dict[str, Any]) -> list[str]:
    side = counts["side_bias"]
    share = side["left_share"]
    sided = "no vote for one side yet" if share is None else f"{share:.2f} of {side['left'] + side['right']} votes"
    return [
        f"- Side: the left picture was chosen in {sided} (0.50 would be none; sides are drawn at random).",
        f"- Few raters ({counts['raters']}): a preference here may be one person's.",
        "- Raters saw the frames of these scenes only, at the size of the renders, on screens unknown to us.",
        f"- {figures['approved']} approved fixes are outputs of a fixer: training that same fixer on them alone "
        "teaches it nothing, and their mistakes are taught with them.",
        f"- {figures['left_out']} rows were left out because a picture was missing or altered.",
    ]

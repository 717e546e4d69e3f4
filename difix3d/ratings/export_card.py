"""README.md of an export: the dataset card that people and the Hub read."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

_FEW_RATERS = 10


@dataclass
class CardFacts:
    """What the card tells. figures: of the export; results: of its votes (ratings/results.py); scenes: id -> split;
    licences: what -> licence."""

    figures: dict[str, Any]
    results: dict[str, Any]
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
        lines += ["configs:", "- config_name: preferences", "  default: true", "  data_files:"]
        for split in sorted({"train", *facts.scenes.values()}, reverse=True):
            lines += [f"  - split: {split}", f'    path: "preferences-{split}.parquet"']
    return [*lines, "---"]


def _body(facts: CardFacts) -> list[str]:
    figures = facts.figures
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
        f"| `preferences-SPLIT.parquet` | {figures['preferences']} | one vote each, in Pick-a-Pic's columns; "
        "`load_dataset` shows the pictures |",
        f"| `ratings.jsonl` | {figures['ratings']} | the raw log: changed and undone votes, and those on checks and "
        "repeats too |",
        "| `frames.jsonl`, `inputs/` | one per frame | depth, camera and photos of each frame, for fixers that carry "
        "photos into it (`lite`); `image` is as in the other files |",
        f"| `images/` | {figures['images']} | lossless PNG, named by the sha256 of the file |",
        "",
        "Trainers that read paths from the current folder are started in this one.",
        "",
        "## Splits",
        "",
        "By scene, never by frame: frames of one scene show the same things. A scene stays in its split.",
        "",
        *([f"- `{scene}`: {split}" for scene, split in sorted(facts.scenes.items())] or ["No scenes."]),
        "",
        "## Votes",
        "",
        *_votes(facts.results),
        "",
        "`image_0`/`image_1` are in an order that tells nothing of fixer or side; `left_is` says which of `a` (0) "
        "and `b` (1) was on the left. `has_label` is false for skips and for both bad. `user_id` stands for a "
        "rater; their key is not in this dataset. `source_image` is the raw render: for a pair of two fixes the "
        "one on disk at the export.",
        "",
        "## Agreement",
        "",
        *_agreement(facts.results),
        "",
        "## Known biases",
        "",
        *_biases(facts.results, figures),
        "",
        "## Licences",
        "",
        *([f"- {what}: {licence}" for what, licence in sorted(facts.licences.items())] or ["Nothing is in here."]),
        "",
        "Each row of the preferences names its own. A fixer's licence may bind what is made with it: the "
        "published Difix weights are for research and evaluation only.",
    ]


def _votes(results: dict[str, Any]) -> list[str]:
    filters = results["filters"]
    left_out = []
    if filters["votes_left_out"]:
        parts = [
            f"{filters['votes_before']} from before {filters['since']}" if filters["votes_before"] else "",
            f"{filters['votes_of_left_out_raters']} of raters {filters['without_raters']}"
            if filters["votes_of_left_out_raters"]
            else "",
        ]
        why = " and ".join(part for part in parts if part)
        left_out = [f"Left out by a filter: {why}. `ratings.jsonl` holds them, with `left_out`.", ""]
    if not results["votes"]:
        return [*left_out, "None: this export holds pairs with true photos only."]
    choices = results["choices"]
    decided = choices.get("a", 0) + choices.get("b", 0)
    lines = [
        f"{results['votes']} votes by {len(results['raters'])} raters on {results['pairs']} pairs: {decided} for one "
        f"picture, {choices.get('tie', 0)} ties, {choices.get('both_bad', 0)} both bad, {choices.get('skip', 0)} "
        "skipped.",
        "",
        *left_out,
    ]
    scores = results["scores"]["fixer"]
    if not scores:
        return lines
    matrix = results["fixer_matrix"]
    lines += ["| fixer | score (95 %) | wins | losses | ties |", "|---|---|---|---|---|"]
    for each in scores:
        low, high = each["interval"]
        row = matrix["names"].index(each["name"])
        wins, ties = sum(matrix["wins"][row]), sum(matrix["ties"][row])
        losses = sum(other[row] for other in matrix["wins"])
        lines.append(
            f"| {_cell(each['name'])} | {each['score']:+.2f} ({low:+.2f} to {high:+.2f}) | {wins} | {losses} | {ties} |"
        )
    return [
        *lines,
        "",
        "Scores are Bradley-Terry's with ties (Davidson), in logits about the mean; ties count both bad too. A rater's "
        "votes on their own upload count where somebody else judged the same pair.",
    ]


def _agreement(results: dict[str, Any]) -> list[str]:
    alpha, gold, again = results["alpha"]["choice"], results["gold"], results["consistency"]
    said = "nothing to say yet: no pair has two raters"
    if alpha["alpha"] is not None:
        said = f"{alpha['alpha']:.2f}{_interval(alpha['interval'])} over {alpha['units']} pairs"
    lines = [
        f"- Krippendorff's alpha of the choices (nominal; A, B or neither): {said}.",
        f"- Checks whose answer is known: {gold['right']} of {gold['answered']} right{_interval(gold['interval'])}.",
        f"- The same pair again with sides swapped: the same answer in {again['same']} of "
        f"{again['repeats']}{_interval(again['interval'])}.",
    ]
    if results["flagged"]:
        out = set(results["filters"]["without_raters"])
        lines.append("- Raters who are flagged (and in the data, unless said otherwise):")
        lines += [
            f"  - `user_id` {each['rater']}: {'; '.join(each['flags'])}{' (left out)' if each['rater'] in out else ''}"
            for each in results["flagged"]
        ]
    return lines


def _biases(results: dict[str, Any], figures: dict[str, Any]) -> list[str]:
    side = results["side_bias"]
    share, raters = side["left_share"], len(results["raters"])
    sided = "no vote for one side yet"
    if share is not None:
        sided = f"{share:.2f}{_interval(side['interval'])} of {side['left'] + side['right']} votes"
    return [
        f"- Side: the left picture was chosen in {sided} (0.50 would be none; sides are drawn at random).",
        f"- Few raters ({raters}): a preference here may be one person's."
        if raters < _FEW_RATERS
        else f"- {raters} raters, of whom nothing is known but what they voted.",
        "- Raters saw the frames of these scenes only, at the size of the renders, on screens unknown to us.",
        f"- {figures['approved']} approved fixes are outputs of a fixer: training that same fixer on them alone "
        "teaches it nothing, and their mistakes are taught with them.",
        f"- {figures['left_out']} rows were left out because a picture was missing or altered.",
    ]


def _interval(interval: list[float] | None) -> str:
    return "" if interval is None else f" ({interval[0]:.2f} to {interval[1]:.2f})"


def _cell(text: str) -> str:
    """A name in a table of Markdown."""
    return text.replace("|", "\\|").replace("<", "&lt;")

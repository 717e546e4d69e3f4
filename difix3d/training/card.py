"""README.md of a checkpoint: the model card that people and the Hub read."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from difix3d.fixers.difix.hub import is_hub_id

_PLACES = ("data", "start", "out")
"""Settings that are paths of one machine; a card goes to others."""
_LIMITS = (
    "- It was judged on the pairs above only. Other scenes, cameras and renderers may look worse than before.",
    "- A fixer invents what the renders do not show: do not measure in its pictures, or take them for photographs.",
    "- Few pairs or many steps teach it these scenes by heart. Compare with the parent before using it elsewhere.",
)

_KINDS = {
    "difix": (
        "Difix",
        "Cleans renders of 3D scenes in one denoising step.",
        "from difix3d.fixers.difix import DifixPipeline",
        "",
        'fixed = DifixPipeline.from_pretrained("THIS FOLDER")(image, ref_image).images[0]',
    ),
    "lite": (
        "lite",
        "Cleans renders of 3D scenes with photos that are carried into them: a small convolutional network.",
        "from difix3d.fixers import load_fixer",
        "",
        'fixed = load_fixer("THIS FOLDER").fix(frame, references)',
    ),
}
"""Kind of checkpoint -> its name, what it does, and lines of code that use it."""


def card(about: dict[str, Any]) -> str:
    """The whole file, from what difix3d.json says. JSON strings are YAML too: names with colons stay whole."""
    return "\n".join([*_front_matter(about), "", *_body(about)]) + "\n"


def _front_matter(about: dict[str, Any]) -> list[str]:
    parent = about["start"]["name"]
    return [
        "---",
        "license: other",
        f"license_name: {re.sub('[^a-z0-9.]+', '-', about['licence'].lower()).strip('-')}",
        *([f"base_model: {json.dumps(parent)}"] if is_hub_id(parent) else []),
        "pipeline_tag: image-to-image",
        "tags:",
        f"- {about.get('kind', 'difix')}",
        "- novel-view-synthesis",
        "---",
    ]


def _body(about: dict[str, Any]) -> list[str]:
    start, data, figures = about["start"], about["data"], about["figures"]
    name, what, *usage = _KINDS[about.get("kind", "difix")]
    revision = f", revision `{start['revision']}`" if start["revision"] else ""
    return [
        f"# A {name} checkpoint, trained on {data['pairs']} pairs",
        "",
        f"{what} Trained with Difix3D Studio.",
        "",
        f"- Parent: `{_shown(start['name'])}`{revision}; weights' sha256 `{start['sha256']}`",
        f"- Licence: {about['licence']}. It is the parent's, and binds this checkpoint as it binds the parent.",
        f"- Data: `{_shown(data['name'])}`, {data['pairs']} training pairs, sha256 `{data['sha256']}`. Licences of "
        "its pictures, as far as it states them; see there whether they bind what is learned from them:",
        *(f"  - {licence}" for licence in data["licences"]),
        f"- References it was trained to look at: {about['references']}",
        "",
        "```python",
        *usage,
        "```",
        "",
        "## Validation",
        "",
        *_validation(figures["validation"]),
        *_gate(figures.get("gate", {})),
        "",
        "## Training",
        "",
        f"{figures['steps']} steps with {' + '.join(about['losses'])}; mean loss {figures['loss_first']:.4f} in the "
        f"first tenth of them and {figures['loss_last']:.4f} in the last.",
        "",
        "| setting | value |",
        "|---|---|",
        *(f"| {name} | {value} |" for name, value in about["settings"].items() if name not in _PLACES),
        *(f"| {name} | {version} |" for name, version in about["versions"].items()),
        "",
        "## Known limits",
        "",
        *_LIMITS,
    ]


def _shown(name: str) -> str:
    """A Hub id as it is, of a path its last part."""
    return name if is_hub_id(name) else Path(name).name


def _gate(found: dict[str, Any]) -> list[str]:
    """Whether it was found good enough to be offered."""
    problems = "; ".join(found.get("problems", ()))
    return ["", f"Not offered among the fixers: {problems}."] if problems else []


def _validation(found: dict[str, Any] | None) -> list[str]:
    if found is None:
        return ["None: the data had no test pairs, or they were not to be looked at. Nothing is known of its quality."]
    sides = (("input, not fixed", "input"), ("parent", "before"), ("this checkpoint", "after"))

    def cells(side: str) -> str:
        return " | ".join("-" if value is None else f"{value:.4f}" for value in found[side].values())

    return [
        f"Means over {found['pairs']} pairs of the test split, at full size; pictures are in `validation/`.",
        "",
        f"| | {' | '.join(found['after'])} |",
        "|---|" + "---|" * len(found["after"]),
        *(f"| {label} | {cells(side)} |" for label, side in sides),
    ]

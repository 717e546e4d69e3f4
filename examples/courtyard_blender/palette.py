"""Which material is which colour: change the look of the courtyard here."""

from __future__ import annotations

from typing import Any

import numpy as np

from courtyard_blender import materials as m
from courtyard_blender import patterns


def palette(rng: np.random.Generator) -> dict[str, Any]:
    """Every material of the courtyard by name."""
    return {
        "slabs": m.paving("slabs", (0.62, 0.44), ("#a89274", "#c2ab88", "#8f7f6b")),
        "setts": m.paving("setts", (0.2, 0.13), ("#8c7a68", "#ab8f70", "#6f6860")),
        "ochre": m.plaster("ochre", "#dba35a", "#a8703a", 0.42),
        "white": m.plaster("white", "#efe6d6", "#c3b198", 0.16),
        "rose": m.plaster("rose", "#cf8a6a", "#96573f", 0.36),
        "rubble": m.rubble("rubble"),
        "stone": m.limestone("stone"),
        "grey stone": m.limestone("grey stone", "#b3ada0", "#6d6a62"),
        "clay": m.earthenware("clay", "#b9653c", "#d99f77", "#85422a"),
        "pale clay": m.earthenware("pale clay", "#c98d62", "#e2bd96", "#99623d"),
        "blue glaze": m.earthenware("blue glaze", "#2a5ea6", "#4d86c6", "#173a70", 0.25),
        "green glaze": m.earthenware("green glaze", "#3f7a55", "#7aa777", "#1f4a35", 0.25),
        "roof": m.speckled("roof", ["#8d4a2f", "#b9653c", "#c98d62", "#9b5538", "#d7a37c"], 14.0, 0.9),
        "door": m.wood("door", "#8a5a34", "#4a2d1a", (1, 1, 0.07), "#2f6e6a"),
        "shutter": m.wood("shutter", "#9a7550", "#5a3d26", (1, 1, 0.07), "#35649c"),
        "oak": m.wood("oak", "#a8763f", "#5e3b1e", (0.06, 1, 1)),
        "grey wood": m.wood("grey wood", "#9b8c78", "#5a4d40", (0.06, 1, 1)),
        "posts": m.wood("posts", "#8d6a45", "#4f3822", (1, 1, 0.06)),
        "leaves": m.speckled("leaves", ["#2f4f1f", "#4c7a2c", "#6f9a3a", "#3b6327", "#86a648"], 30.0),
        "dark leaves": m.speckled("dark leaves", ["#1f3d22", "#2f5a2f", "#47733a", "#264a2a"], 30.0, 0.45),
        "silver leaves": m.speckled("silver leaves", ["#6f8468", "#93a587", "#5b7459", "#a9b596"], 30.0),
        "red petals": m.speckled("red petals", ["#b3161f", "#d92b2b", "#e8503f", "#9a0f26"], 60.0),
        "pink petals": m.speckled("pink petals", ["#b81e77", "#d8409a", "#e56cb4", "#96145f"], 60.0),
        "white petals": m.speckled("white petals", ["#f3ead8", "#fff8ea", "#eadfc9"], 60.0),
        "violet petals": m.speckled("violet petals", ["#5b3f94", "#7a5ab8", "#46307a"], 60.0),
        "oranges": m.speckled("oranges", ["#e07a12", "#f09a1e", "#d9660c"], 90.0, 0.45),
        "lemons": m.speckled("lemons", ["#e8c21e", "#f2d648", "#d6a812"], 80.0, 0.45),
        "apples": m.speckled("apples", ["#a31d1f", "#c93a2a", "#b8c23a", "#7d1420"], 40.0, 0.35),
        "bread": m.speckled("bread", ["#b77a3a", "#d7a25c"], 28.0, 0.9, 0.012),
        "bark": m.speckled("bark", ["#5d4a36", "#7a6248"], 40.0, 0.95, 0.02),
        "water": m.water("water"),
        "iron": m.speckled("iron", ["#2a2725", "#3c3633"], 50.0, 0.5),
        "tiles": m.painted("tiles", patterns.azulejos(rng, 5, 14), (2.52, 0.9)),
        "tile panel": m.painted("tile panel", patterns.azulejos(rng, 9, 7), (1.4, 1.8)),
        "kilim": m.painted("kilim", patterns.kilim(rng), (1.15, 2.0), 0.95),
        "runner": m.painted("runner", patterns.kilim(rng, 180, 520), (0.62, 1.8), 0.95),
        "jug": m.painted("jug", patterns.jug_bands(rng), (0.86, 0.46), 0.25),
    }

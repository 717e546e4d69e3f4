"""Many photos on one picture, to look at while more are read."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

THUMBNAIL_PX = 168
GAP_PX = 4
WIDTH_PX = 1400
BACKGROUND = 24


def thumbnail(rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """[THUMBNAIL_PX, w, 3]: all of the same height, so that rows line up."""
    height, width = rgb.shape[:2]
    size = (max(1, round(width * THUMBNAIL_PX / height)), THUMBNAIL_PX)
    return np.asarray(Image.fromarray(rgb).resize(size, Image.Resampling.BOX, reducing_gap=2.0))


def compose(thumbnails: Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """Rows of thumbnails of one height, left to right, wrapped at WIDTH_PX; [H, W, 3] uint8."""
    rows: list[list[NDArray[np.uint8]]] = [[]]
    used = 0
    for picture in thumbnails:
        if rows[-1] and used + picture.shape[1] > WIDTH_PX:
            rows.append([])
            used = 0
        rows[-1].append(picture)
        used += picture.shape[1] + GAP_PX
    width = max(sum(p.shape[1] + GAP_PX for p in row) for row in rows) + GAP_PX
    height = thumbnails[0].shape[0]
    sheet = np.full((len(rows) * (height + GAP_PX) + GAP_PX, width, 3), BACKGROUND, np.uint8)
    for index, row in enumerate(rows):
        x, y = GAP_PX, GAP_PX + index * (height + GAP_PX)
        for picture in row:
            sheet[y : y + height, x : x + picture.shape[1]] = picture
            x += picture.shape[1] + GAP_PX
    return sheet

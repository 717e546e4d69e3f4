"""Every thumbnail is on the sheet, upright and in order."""

from __future__ import annotations

import numpy as np
import pytest

from difix3d.formats.contact_sheet import BACKGROUND, GAP_PX, THUMBNAIL_PX, WIDTH_PX, compose, thumbnail


@pytest.mark.parametrize("count", [1, 7, 40])
def test_every_photo_is_there(count: int) -> None:
    rng = np.random.default_rng(count)
    sizes = [(300, 400) if rng.random() < 0.5 else (400, 300) for _ in range(count)]
    colours = [np.array([60 + 4 * index, 200, 30], np.uint8) for index in range(count)]
    sheet = compose([thumbnail(np.tile(colour, (*size, 1))) for size, colour in zip(sizes, colours)])
    assert sheet.dtype == np.uint8
    assert sheet.shape[1] <= WIDTH_PX + 2 * GAP_PX
    for size, colour in zip(sizes, colours):
        area = (sheet == colour).all(-1).sum()
        assert area == THUMBNAIL_PX * round(size[1] * THUMBNAIL_PX / size[0])
    assert (sheet[0] == BACKGROUND).all()


def test_a_very_wide_photo_gets_a_row_of_its_own() -> None:
    wide = thumbnail(np.full((100, 2000, 3), 200, np.uint8))
    sheet = compose([wide, wide])
    assert sheet.shape[0] == 2 * THUMBNAIL_PX + 3 * GAP_PX

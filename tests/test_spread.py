"""Some of many are spread over all of them."""

from __future__ import annotations

from difix3d.spread import evenly


def test_some_of_many_are_spread_over_all() -> None:
    many = list(range(100))
    assert evenly(many, 4) == [0, 33, 66, 99]
    assert evenly(many[:3], 4) == [0, 1, 2] and evenly(many, 0) == [] and evenly(many, 1) == [0]

"""A lease ends, whatever is done to the clock of the wall."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from difix3d.ratings.leases import Leases, lease_is_held

START = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("seconds_later", "held"),
    [
        (0, True),
        (599, True),
        (600, False),
        (-3, True),  # two servers do not agree to the second
        (-3600, False),  # the clock was set back: a lease of a future hour blocks nothing
        (365 * 86400, False),
    ],
)
def test_by_the_wall_clock(seconds_later: float, held: bool) -> None:
    assert lease_is_held(START, 600.0, START + timedelta(seconds=seconds_later)) is held


def test_by_our_own_clock() -> None:
    now = [1000.0]
    leases = Leases(lambda: now[0])
    leases.give("one", 600.0)
    assert leases.held("one") is True and leases.held("never given") is None
    now[0] += 600.0
    assert leases.held("one") is False
    leases.give("one", 600.0)
    assert leases.held("one") is True

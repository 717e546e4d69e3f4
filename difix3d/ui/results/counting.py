"""Figures of the votes for the page: counted once, and kept until somebody votes, undoes or withdraws.

Handlers call this from Gradio's worker threads, never from its event loop. One count runs at a time; who asks meanwhile
waits for it in a thread of their own, and often finds that it is theirs.
"""

from __future__ import annotations

import tempfile
import threading
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import func, select

from difix3d.atomic import write_json
from difix3d.ratings.filters import VoteFilter, all_that_stand
from difix3d.ratings.log import StoredRating
from difix3d.ratings.results import results_of
from difix3d.ratings.schema import RatingRow, WithdrawalRow
from difix3d.ratings.store import RatingStore
from difix3d.ui.results.plots import draw_all

_MOST_KEPT = 8
Stamp = tuple[int, int]


@dataclass(frozen=True)
class Counted:
    """figures: of ratings/results.py; plots: name -> PNG file; file: the figures as JSON."""

    figures: dict[str, Any]
    plots: dict[str, Path]
    file: Path


class Counting:
    """Of one store, for as long as the server runs."""

    def __init__(self, store: RatingStore):
        self._store = store
        self._lock = threading.Lock()
        self._kept: OrderedDict[tuple[VoteFilter, Stamp], Counted] = OrderedDict()
        self._votes: tuple[Stamp, list[StoredRating]] = ((-1, -1), [])
        self._folder = tempfile.TemporaryDirectory(prefix="difix3d-results-")
        self._number = 0

    def at_hand(self, wanted: VoteFilter) -> Counted | None:
        """What was counted of the votes as they are now; None where it has to be counted."""
        return self._kept.get((wanted, self._stamp()))

    def count(self, wanted: VoteFilter) -> Counted:
        """May take seconds. RatingError and SQLAlchemy's errors where the votes cannot be read."""
        with self._lock:
            stamp = self._stamp()
            if (known := self._kept.get((wanted, stamp))) is not None:
                return known
            if self._votes[0] != stamp:
                self._votes = (stamp, all_that_stand(self._store, up_to=stamp[0]))
            counted = self._written(results_of(wanted.chosen(self._votes[1])))
            self._kept[wanted, stamp] = counted
            while len(self._kept) > _MOST_KEPT:
                _, old = self._kept.popitem(last=False)
                for path in (old.file, *old.plots.values()):
                    path.unlink(missing_ok=True)
            return counted

    def raters(self) -> list[int]:
        """Numbers of those whose votes were counted last."""
        return sorted({vote.rater_number for vote in self._votes[1]})

    def _stamp(self) -> Stamp:
        """Changes with every entry of the log, and when one is gone."""
        query = select(
            select(func.max(RatingRow.number)).scalar_subquery(),
            select(func.max(WithdrawalRow.number)).scalar_subquery(),
        )
        with self._store.engine.connect() as connection:
            newest, withdrawals = connection.execute(query).one()
        return newest or 0, withdrawals or 0

    def _written(self, figures: dict[str, Any]) -> Counted:
        self._number += 1
        folder = Path(self._folder.name)
        plots = {}
        for name, png in draw_all(figures).items():
            plots[name] = folder / f"{self._number}-{name}.png"
            plots[name].write_bytes(png)
        file = folder / f"{self._number}.json"
        write_json(file, figures)
        return Counted(figures, plots, file)

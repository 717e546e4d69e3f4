"""Questions sorted by how many votes they have, so that the least-voted are found without looking at all of them."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator


class _Shelf:
    """A set from which one can draw at random."""

    def __init__(self) -> None:
        self.items: list[str] = []
        self._where: dict[str, int] = {}

    def add(self, item: str) -> None:
        self._where[item] = len(self.items)
        self.items.append(item)

    def remove(self, item: str) -> None:
        where, last = self._where.pop(item), self.items.pop()
        if last != item:
            self.items[where] = last
            self._where[last] = where


class Shelves:
    """item -> its number of votes, of one scene."""

    def __init__(self) -> None:
        self._votes: dict[str, int] = {}
        self._shelves: dict[int, _Shelf] = {}

    def __len__(self) -> int:
        return len(self._votes)

    def __contains__(self, item: str) -> bool:
        return item in self._votes

    def put(self, item: str, votes: int) -> None:
        """Add an item, or move it to another shelf."""
        before = self._votes.get(item)
        if before == votes:
            return
        if before is not None:
            self._shelves[before].remove(item)
        self._votes[item] = votes
        self._shelves.setdefault(votes, _Shelf()).add(item)

    def levels(self) -> list[int]:
        """Numbers of votes that some item has, the fewest first."""
        return sorted(votes for votes, shelf in self._shelves.items() if shelf.items)

    def draw(self, votes: int, is_open: Callable[[str], bool], rng: random.Random) -> Iterator[str]:
        """The items with so many votes that are open to a rater, in an order drawn at random, each once."""
        items = self._shelves[votes].items if votes in self._shelves else []
        tried: set[str] = set()
        for _ in range(min(32, len(items))):  # mostly enough, and then all need not be looked at
            item = rng.choice(items)
            if item not in tried:
                tried.add(item)
                if is_open(item):
                    yield item
        rest = [item for item in items if item not in tried and is_open(item)]
        rng.shuffle(rest)
        yield from rest

"""Generators that say how far they are, run to their end."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, TypeVar

Value = TypeVar("Value")


def returned(work: Generator[Any, None, Value]) -> Value:
    """What the generator returns; what it yields is dropped."""
    while True:
        try:
            next(work)
        except StopIteration as end:
            return end.value

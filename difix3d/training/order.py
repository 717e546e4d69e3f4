"""Which rows each training step sees: a function of the seed and the step, whoever computes it and from where on.

Rows of one shape (number of views, height, width) form a bucket, and a step takes its G rows from one bucket, so that
they stack. Each bucket is an endless stream of shuffled passes over its rows, cut into groups of G. An epoch holds the
groups that one more pass completes, the buckets taking turns at random: rows that fill no group wait for the next
epoch, and none is seen twice before all of its bucket were seen once.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count, islice

import torch

from difix3d.training.dataset import Draw
from difix3d.training.draws import Purpose, generator_of


def step_draws(shapes: Sequence[Hashable], size: int, seed: int) -> Iterator[list[Draw]]:
    """Without end: `size` draws for each step. shapes: one for each row."""
    buckets: dict[Hashable, list[int]] = {}
    for row, shape in enumerate(shapes):
        buckets.setdefault(shape, []).append(row)
    number = 0
    for epoch in count():
        groups = [_groups(rows, size, epoch, (seed, bucket)) for bucket, rows in enumerate(buckets.values())]
        turns = [bucket for bucket, ready in enumerate(groups) for _ in ready]
        waiting = [iter(ready) for ready in groups]
        for turn in torch.randperm(len(turns), generator=generator_of(seed, Purpose.BUCKET_ORDER, epoch)).tolist():
            rows = next(waiting[turns[turn]])
            yield [Draw(row, number + place) for place, row in enumerate(rows)]
            number += size


def _groups(rows: list[int], size: int, epoch: int, key: tuple[int, int]) -> list[list[int]]:
    """The groups of a bucket that end in its pass number `epoch`."""
    seed, bucket = key
    length = len(rows)
    start, stop = (end * length // size * size for end in (epoch, epoch + 1))  # places in the stream
    passes = range(start // length, -(-stop // length))
    stream = [
        rows[index]
        for number in passes
        for index in torch.randperm(length, generator=generator_of(seed, Purpose.ROW_ORDER, bucket, number)).tolist()
    ]
    first = passes.start * length
    return [stream[place - first : place - first + size] for place in range(start, stop, size)]


@dataclass(frozen=True)
class Share:
    """What one of several processes takes of each step: `accumulation` batches of `batch_size` draws."""

    batch_size: int = 1
    accumulation: int = 1
    process: int = 0
    processes: int = 1

    @property
    def step_size(self) -> int:
        """Draws of a step, of all processes together."""
        return self.batch_size * self.accumulation * self.processes

    def batches(self, steps: Iterator[list[Draw]], done: int) -> Iterator[list[Draw]]:
        """This process's batches, `accumulation` for each step after the first `done`."""
        for draws in islice(steps, done, None):
            for batch in range(self.accumulation):
                start = (batch * self.processes + self.process) * self.batch_size
                yield draws[start : start + self.batch_size]

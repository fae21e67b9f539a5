"""What a worker tells its supervisor: a few numbers in memory that both share.

A worker that hangs cannot answer, and one that is asked through a pipe may block on it. Each number
has one writer.
"""

import ctypes
from collections.abc import MutableSequence
from typing import cast

BEAT, RESTORED, RECORDS, BATCHES, OUTPUTS, REFUSED, DROPPED, TOOK_MS, FIXED = range(9)


class Figures:
    """The numbers of one worker: fixed ones, then a flag for each partition of its sources.

    Args:
        values: shared memory, or a list where nobody else looks.
        sources: the topics, and how many partitions each has, in this order.
    """

    def __init__(self, values: MutableSequence[int], sources: list[tuple[str, int]]) -> None:
        self._values = values
        self._places = {
            tp: FIXED + index
            for index, tp in enumerate(
                (topic, partition) for topic, count in sources for partition in range(count)
            )
        }
        assert len(values) == size(sources)

    def __repr__(self) -> str:
        return f"<Figures {list(self._values[:FIXED])}>"

    def beat(self, owned: set[tuple[str, int]], restored: int) -> None:
        """Say that the worker lives, what the group has given it, and how much it has restored."""
        for tp, place in self._places.items():
            self._values[place] = int(tp in owned)
        self._values[RESTORED] = restored
        self._values[BEAT] += 1

    def batch(
        self, *, records: int, outputs: int, refused: int, dropped: int, took_ms: int
    ) -> None:
        """Count one batch that is done."""
        self._values[RECORDS] += records
        self._values[BATCHES] += 1
        self._values[OUTPUTS] += outputs
        self._values[REFUSED] += refused
        self._values[DROPPED] += dropped
        self._values[TOOK_MS] = took_ms

    def __getitem__(self, place: int) -> int:
        """Return one of the fixed numbers."""
        return self._values[place]

    def owned(self) -> set[tuple[str, int]]:
        """Return which partitions of the sources it has."""
        return {tp for tp, place in self._places.items() if self._values[place]}


def size(sources: list[tuple[str, int]]) -> int:
    """Return how many numbers it takes."""
    return FIXED + sum(count for _, count in sources)


def plain(sources: list[tuple[str, int]]) -> Figures:
    """Return figures that nobody else looks at."""
    return Figures([0] * size(sources), sources)


def shared(sources: list[tuple[str, int]]) -> tuple[MutableSequence[int], Figures]:
    """Return memory that a child process can be given, and the figures in it."""
    from multiprocessing import get_context  # noqa: PLC0415 - a worker needs it not

    values = cast(
        "MutableSequence[int]", get_context("spawn").RawArray(ctypes.c_longlong, size(sources))
    )
    return values, Figures(values, sources)

"""The ledger's throughput at several numbers of partitions and of worker processes, beside its peer.

    python -m bench.scaling [--workers 1 2] [--partitions 1 2 4 12] [--events 3000000]
                            [--beside 4] [--ledgers …] [--streams …]

On so many partitions as `--beside` says stand, with the same events in the same run: Kafka Streams with
all its settings, those with two and four threads among them, and our other drivers and the compiled
copies with the most workers.
"""

import argparse
import asyncio
import sys
from collections.abc import Sequence

import msgspec

from bench.load import Load
from bench.place import Place, another, place
from bench.report import emit, table
from bench.systems import (
    COMMIT_MS,
    LEDGERS,
    STREAMS_PLAIN,
    STREAMS_VARIANTS,
    System,
    check,
    ledgers,
)
from bench.throughput import PARTITIONS, WARM_UP_SHARE, Throughput, measure, preloaded

STREAMS = {
    "kafka-streams": STREAMS_PLAIN,
    **{f"kafka-streams-{name}": variant for name, variant in STREAMS_VARIANTS.items()},
}
OTHERS = tuple(name for name in LEDGERS if name != "ledger")


class Scaled(msgspec.Struct, frozen=True):
    """A steady state with so many processes; threads of a peer are none."""

    workers: int
    throughput: Throughput


class Asked(msgspec.Struct, frozen=True):
    """What to measure: the ledger in each combination, and the others where it is held against them."""

    load: Load
    workers: Sequence[int]
    partitions: Sequence[int]
    beside: int
    others: Sequence[str]
    peers: Sequence[str]


class Run:
    """Measures on one broker, and keeps what it has measured."""

    def __init__(self, first: Place, load: Load) -> None:
        self._first, self._load = first, load
        self.measured: list[Scaled] = []

    async def ledger(self, name: str, partitions: int, workers: int) -> None:
        """Measure one of ours, on topics of its own."""
        prefix = f"scaling-{name}-{partitions}-{workers}."
        where, total = await self._preloaded(partitions, prefix)
        added = partitions  # one policy.set of each is an event as well
        await self._measure(where, name, ledgers(workers)[name], total, added, workers)

    async def peers(self, names: Sequence[str], partitions: int) -> None:
        """Measure Kafka Streams' variants, one after the other, on the same topic."""
        where, total = await self._preloaded(partitions, "scaling-peers.")
        for name in names:
            await self._measure(where, name, STREAMS[name], total, 0, 1)

    async def _preloaded(self, partitions: int, prefix: str) -> tuple[Place, int]:
        where = await another(self._first, partitions, prefix)
        return where, await preloaded(where, self._load)

    async def _measure(
        self, where: Place, name: str, system: System, total: int, added: int, workers: int
    ) -> None:
        partitions = where.settings.partitions
        print(f"{name}: {partitions} partitions, {workers} workers …", file=sys.stderr)
        processor, position = await system(where, COMMIT_MS)
        found = await measure(
            name,
            processor,
            position,
            total=total + added,
            warm_up=total // WARM_UP_SHARE,
            partitions=partitions,
        )
        self.measured.append(Scaled(workers, found))
        emit("scaling", self.measured[-1])


async def scaling(asked: Asked) -> list[Scaled]:
    """Measure what was asked for."""
    async with place(1) as first:
        run = Run(first, asked.load)
        for count in asked.partitions:
            for workers in asked.workers:
                await run.ledger("ledger", count, workers)
            if count == asked.beside:
                if asked.peers:
                    await run.peers(asked.peers, count)
                for name in asked.others:
                    await run.ledger(name, count, max(asked.workers))
        return run.measured


def main() -> None:
    """Measure what was asked for and print it."""
    parser = argparse.ArgumentParser(prog="python -m bench.scaling", description=__doc__)
    parser.add_argument("--events", type=int, default=3_000_000)
    parser.add_argument("--tasks", type=int, default=1_000, help="open at once")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--partitions", type=int, nargs="+", default=[1, 2, 4, 12])
    parser.add_argument("--beside", type=int, default=PARTITIONS, help="partitions")
    parser.add_argument("--ledgers", nargs="*", choices=OTHERS, default=list(OTHERS))
    parser.add_argument("--streams", nargs="*", choices=list(STREAMS), default=list(STREAMS))
    given = parser.parse_args()
    check(given.ledgers)
    asked = Asked(
        Load(given.events, given.tasks),
        given.workers,
        given.partitions,
        given.beside,
        given.ledgers,
        given.streams,
    )
    measured = asyncio.run(scaling(asked))
    first = measured[0].throughput.events_per_s
    table(
        ("", "partitions", "workers", "events/s", "÷ the first", "CPU s per million", "peak MB"),
        (
            (
                each.throughput.system,
                each.throughput.partitions,
                each.workers,
                each.throughput.events_per_s,
                round(each.throughput.events_per_s / first, 2),
                each.throughput.cpu_s_per_million,
                each.throughput.peak_mb,
            )
            for each in measured
        ),
    )


if __name__ == "__main__":
    main()

"""The ledger's throughput at several numbers of partitions and of worker processes.

python -m bench.scaling [--workers 1 2] [--partitions 1 2 4 12] [--events 2000000]
"""

import argparse
import asyncio
import sys

import msgspec

from bench.load import Load
from bench.place import another, place
from bench.positions import LedgerPosition
from bench.processor import ledger
from bench.report import emit, table
from bench.throughput import WARM_UP_SHARE, Throughput, measure, preloaded


class Scaled(msgspec.Struct, frozen=True):
    """A steady state with so many processes."""

    workers: int
    throughput: Throughput


async def scaling(load: Load, workers: list[int], partitions: list[int]) -> list[Scaled]:
    """Measure each combination on one broker, on topics of its own."""
    measured = []
    async with place(1) as first:
        for count in partitions:
            for processes in workers:
                print(f"{count} partitions, {processes} workers …", file=sys.stderr)
                where = await another(first, count, f"scaling-{count}-{processes}.")
                total = await preloaded(where, load)
                name = f"ledger-{count}-{processes}"
                found = await measure(
                    name,
                    ledger(where.settings, where.folder, workers=processes, name=name),
                    LedgerPosition(where.settings),
                    total=total + count,  # one policy.set of each partition
                    warm_up=total // WARM_UP_SHARE,
                    partitions=count,
                )
                measured.append(Scaled(processes, found))
                emit("scaling", measured[-1])
    return measured


def main() -> None:
    """Measure what was asked for and print it."""
    parser = argparse.ArgumentParser(prog="python -m bench.scaling", description=__doc__)
    parser.add_argument("--events", type=int, default=2_000_000)
    parser.add_argument("--tasks", type=int, default=1_000, help="open at once")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--partitions", type=int, nargs="+", default=[1, 2, 4, 12])
    asked = parser.parse_args()
    load = Load(asked.events, asked.tasks)
    measured = asyncio.run(scaling(load, asked.workers, asked.partitions))
    first = measured[0].throughput.events_per_s
    table(
        ("partitions", "workers", "events/s", "÷ the first", "CPU s per million", "peak MB"),
        (
            (
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

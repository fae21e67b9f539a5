"""Throughput with a million open tasks, a thousand of which get events, against a thousand alone.

python -m bench.crowd [--tasks 1000 1000000] [--events 1000000] [--partitions 4]
"""

import argparse
import asyncio
import sys
from collections.abc import Iterator

import msgspec

from bench.load import usage_event, write
from bench.open_tasks import OPEN_PHASE, task_id, write_open_tasks
from bench.place import Place, another, place
from bench.positions import LedgerPosition
from bench.processor import ledger
from bench.report import emit, table
from bench.throughput import PARTITIONS, WARM_UP_SHARE, Throughput, measure
from schemas.topics import Topic

BUSY_TASKS = 1_000
STARTED_WITHIN_S = 900.0


class Crowd(msgspec.Struct, frozen=True):
    """A steady state with so many open tasks."""

    tasks: int
    busy_tasks: int
    throughput: Throughput


def of_busy(tasks: int, events: int) -> Iterator[tuple[bytes, bytes]]:
    """Yield key and value of reports of the busy tasks, which are spread evenly over all."""
    busy = min(BUSY_TASKS, tasks)
    for index in range(events):
        task = task_id(index % busy * (tasks // busy))
        value = usage_event(index + 1, task, phase=OPEN_PHASE, input_tokens=2, output_tokens=1)
        yield task.encode(), value


async def crowd(where: Place, tasks: int, events: int) -> Crowd:
    """Measure a ledger on topics of its own."""
    settings = where.settings
    await write_open_tasks(settings, tasks)
    topic = settings.topic(Topic.EVENTS)
    count, _ = await write(
        settings.bootstrap_servers, topic, settings.partitions, of_busy(tasks, events)
    )
    found = await measure(
        f"ledger-{tasks}",
        # What is measured is not the restart: see bench.restore for that.
        ledger(settings, where.folder, name=f"ledger-{tasks}"),
        LedgerPosition(settings, from_end=True),
        # Of each partition one event that was folded before, and one policy.set.
        total=count + 2 * settings.partitions,
        warm_up=count // WARM_UP_SHARE,
        partitions=settings.partitions,
        started_within_s=STARTED_WITHIN_S,
    )
    return Crowd(tasks, min(BUSY_TASKS, tasks), found)


async def crowds(counts: list[int], events: int, partitions: int) -> list[Crowd]:
    """Measure all of them on one broker."""
    measured = []
    async with place(partitions) as first:
        for count in counts:
            print(f"{count:,} open tasks …", file=sys.stderr)
            where = await another(first, partitions, f"crowd-{count}.")
            found = await crowd(where, count, events)
            emit("crowd", found)
            measured.append(found)
    return measured


def main() -> None:
    """Measure what was asked for and print it."""
    parser = argparse.ArgumentParser(prog="python -m bench.crowd", description=__doc__)
    parser.add_argument("--tasks", type=int, nargs="+", default=[BUSY_TASKS, 1_000_000])
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--partitions", type=int, default=PARTITIONS)
    asked = parser.parse_args()
    measured = asyncio.run(crowds(asked.tasks, asked.events, asked.partitions))
    first = measured[0].throughput.events_per_s
    table(
        ("open tasks", "events/s", f"÷ {measured[0].tasks:,}", "CPU s per million", "peak MB"),
        (
            (
                each.tasks,
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

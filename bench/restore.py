"""How long a ledger takes to be back with many open tasks, and in how much memory.

    python -m bench.restore [--tasks 10000 100000 1000000] [--partitions 4]

The tasks are those of `bench.task_size`, all four phases begun. Each number has a topic of its own
and a new process; one without any task says what the process itself takes.
"""

import argparse
import asyncio
import re
import time

import msgspec

from bench.open_tasks import write_open_tasks
from bench.place import Place, another, place
from bench.processor import Processor, ledger
from bench.report import emit, table

PARTITIONS = 4
POLL_S = 0.02
RESTORED_WITHIN_S = 600.0
LINE = re.compile(r"partition (\d+): (\d+) tasks restored in (\d+) ms")


class Restored(msgspec.Struct, frozen=True):
    """One restart; `seconds` from the start of the process until the last partition is there.

    `longest_s` is the longest of a partition alone; memory is that of the process, in MB.
    """

    tasks: int
    partitions: int
    seconds: float
    longest_s: float
    rss_mb: int
    peak_mb: int
    bytes_in_tasks: int


async def restored(where: Place, tasks: int) -> Restored:
    """Measure a restart with so many open tasks."""
    size_bytes = await write_open_tasks(where.settings, tasks)
    process = ledger(where.settings, where.folder, name=f"ledger-{tasks}")
    began_s = time.perf_counter()
    async with process, asyncio.timeout(RESTORED_WITHIN_S):
        while len(found := _said(process)) < where.settings.partitions:
            process.check()
            await asyncio.sleep(POLL_S)
        seconds = time.perf_counter() - began_s
        rss_mb, peak_mb = round(process.rss_mb), round(process.peak_mb)
    count = sum(count for count, _ in found.values())
    if count != tasks:
        raise SystemExit(f"restored: {count} tasks, should be {tasks}")
    return Restored(
        tasks=tasks,
        partitions=where.settings.partitions,
        seconds=round(seconds, 2),
        longest_s=max(took_ms for _, took_ms in found.values()) / 1000,
        rss_mb=rss_mb,
        peak_mb=peak_mb,
        bytes_in_tasks=size_bytes,
    )


def _said(process: Processor) -> dict[int, tuple[int, int]]:
    """Return tasks and milliseconds of each partition whose restoring the ledger has reported."""
    lines = LINE.findall(process.log.read_text(errors="replace"))
    return {int(partition): (int(tasks), int(took_ms)) for partition, tasks, took_ms in lines}


async def restore(counts: list[int], partitions: int) -> list[Restored]:
    """Measure all of them on one broker."""
    measured = []
    async with place(partitions) as first:
        for count in (0, *counts):
            where = await another(first, partitions, f"restore-{count}.")
            found = await restored(where, count)
            emit("restore", found)
            measured.append(found)
    return measured


def main() -> None:
    """Measure what was asked for and print it."""
    parser = argparse.ArgumentParser(prog="python -m bench.restore", description=__doc__)
    parser.add_argument("--tasks", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--partitions", type=int, default=PARTITIONS)
    asked = parser.parse_args()
    measured = asyncio.run(restore(asked.tasks, asked.partitions))
    base = measured[0]
    table(
        ("open tasks", "s to the last partition", "longest partition s", "RSS MB", "peak MB", "B a task"),
        (
            (
                each.tasks,
                each.seconds,
                each.longest_s,
                each.rss_mb,
                each.peak_mb,
                round((each.rss_mb - base.rss_mb) * 1e6 / each.tasks) if each.tasks else "",
            )
            for each in measured
        ),
    )  # fmt: skip


if __name__ == "__main__":
    main()

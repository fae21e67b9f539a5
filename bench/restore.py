"""How long a ledger takes to be back with many open tasks, and in how much memory.

    python -m bench.restore [--tasks 10000 100000 1000000] [--partitions 4] [--patient]

The tasks are those of `bench.task_size`, all four phases begun. Each number has a topic of its own
and a new process; one without any task says what the process itself takes. `--patient` gives the
ledger a session of ten minutes: what a restart takes where the group waits for it.
"""

import argparse
import asyncio
import re
import time

import msgspec

from bench.open_tasks import write_open_tasks
from bench.place import Place, another, place
from bench.processor import PATIENT, Processor, ledger
from bench.report import emit, table

PARTITIONS = 4
POLL_S = 0.02
RESTORED_WITHIN_S = 900.0
OWNS = "ledger: owns partitions"
STANDS_STILL = re.compile(r"partition \d+ stands still: .*")
LINE = re.compile(r"partition (\d+): (\d+) tasks restored in (\d+) ms")


class Restored(msgspec.Struct, frozen=True):
    """One restart; `seconds` from the start of the process until the last partition is there.

    `longest_s` is the longest of a partition alone; memory is that of the process, in MB.
    `assignments` above 1: the group thought it dead while it restored, and it began again;
    `finished` false: until the time was over.
    """

    tasks: int
    partitions: int
    finished: bool
    assignments: int
    seconds: float
    longest_s: float
    rss_mb: int
    peak_mb: int
    bytes_in_tasks: int


async def restored(where: Place, tasks: int, *, patient: bool) -> Restored:
    """Measure a restart with so many open tasks."""
    size_bytes = await write_open_tasks(where.settings, tasks)
    process = ledger(
        where.settings,
        where.folder,
        name=f"ledger-{tasks}",
        changed=PATIENT if patient else None,
    )
    began_s, assignments = time.perf_counter(), 0
    async with process:
        found: dict[int, tuple[int, int]] = {}
        while (
            len(found) < where.settings.partitions
            and time.perf_counter() - began_s < RESTORED_WITHIN_S
        ):
            process.check()
            if (torn := STANDS_STILL.search(process.log.read_text(errors="replace"))) is not None:
                raise SystemExit(torn[0])
            await asyncio.sleep(POLL_S)
            assignments, found = _said(process)
        seconds = time.perf_counter() - began_s
        rss_mb, peak_mb = round(process.rss_mb), round(process.peak_mb)
    finished = len(found) == where.settings.partitions
    count = sum(count for count, _ in found.values())
    if finished and count != tasks:
        raise SystemExit(f"restored: {count} tasks, should be {tasks}")
    return Restored(
        tasks=tasks,
        partitions=where.settings.partitions,
        finished=finished,
        assignments=assignments,
        seconds=round(seconds, 2),
        longest_s=max((took_ms for _, took_ms in found.values()), default=0) / 1000,
        rss_mb=rss_mb,
        peak_mb=peak_mb,
        bytes_in_tasks=size_bytes,
    )


def _said(process: Processor) -> tuple[int, dict[int, tuple[int, int]]]:
    """Return how often partitions were assigned, and what is restored since the last time.

    That is tasks and milliseconds by partition. What was restored before is given back.
    """
    assignments = process.log.read_text(errors="replace").split(OWNS)
    lines = LINE.findall(assignments[-1])
    found = {int(partition): (int(tasks), int(took_ms)) for partition, tasks, took_ms in lines}
    return len(assignments) - 1, found


async def restore(counts: list[int], partitions: int, *, patient: bool) -> list[Restored]:
    """Measure all of them on one broker."""
    measured = []
    async with place(partitions) as first:
        for count in (0, *counts):
            where = await another(first, partitions, f"restore-{count}.")
            found = await restored(where, count, patient=patient)
            emit("restore", found)
            measured.append(found)
    return measured


def main() -> None:
    """Measure what was asked for and print it."""
    parser = argparse.ArgumentParser(prog="python -m bench.restore", description=__doc__)
    parser.add_argument("--tasks", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--partitions", type=int, default=PARTITIONS)
    parser.add_argument("--patient", action="store_true", help="with a session of ten minutes")
    asked = parser.parse_args()
    measured = asyncio.run(restore(asked.tasks, asked.partitions, patient=asked.patient))
    base = measured[0]
    table(
        ("open tasks", "all there", "assigned", "s to the last partition", "longest partition s", "RSS MB", "peak MB", "B a task"),
        (
            (
                each.tasks,
                each.finished,
                each.assignments,
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

"""How long nobody decides after a ledger was killed with SIGKILL, with many open tasks.

    python -m bench.gap [--tasks 100000] [--kills 10] [--partitions 4]

Two ledgers share the partitions. Every partition gets probes, each of which causes a decision at
once; the gap is the longest time without one in any partition, from the last decision before the
kill to the first after it. A new ledger takes the place of each that was killed; the gap that its
joining makes is told apart. A p99 takes more than 100 kills, an hour; of fewer the longest gap is told
as what it is. Of the gap after a kill two parts are told as well, by the log of the ledger that lives
on: until it has heard that the partitions are its own, and until it has restored them.
"""

import argparse
import asyncio
import math
import statistics
import time
from collections.abc import Iterable, Sequence
from contextlib import AsyncExitStack

import msgspec
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from bench.load import usage_event
from bench.open_tasks import write_open_tasks
from bench.place import Place, place
from bench.processor import Processor, ledger
from bench.report import emit, table
from schemas.topics import Topic
from streams.kafka.settings import Settings

PARTITIONS = 4
LEDGERS = 2
PROBE_EVERY_S = 0.1
PROBE_TOKENS = 12_000  # half of them cached: 6,650 metered, 1.1 of the limit of THINK
POLL_S = 0.05
STEADY_FOR_S = 5.0
STEADY_WITHIN_S = 120.0
OWNS, RESTORED = "ledger: owns partitions", "tasks restored in"
DECISIONS_AGE_S = 1.0  # older than that, a partition stands still


class Gap(msgspec.Struct, frozen=True):
    """One kill. `killed_s` and `joined_s`: the longest time without a decision, of all partitions.

    `killed_least_s` is that of the partition that waited least: one of the ledger that lives on.
    `heard_s`: from the kill until the group gave it the others; `restored_s`: from then until it had
    restored them.
    """

    kill: int
    killed_s: float
    killed_least_s: float
    heard_s: float
    restored_s: float
    joined_s: float


class Gaps(msgspec.Struct, frozen=True):
    """All kills of a run. `p99_s` is None where so few were killed that it is the longest."""

    tasks: int
    kills: int
    p50_s: float
    p99_s: float | None
    max_s: float
    least_p50_s: float
    heard_p50_s: float
    restored_p50_s: float
    joined_p50_s: float


class TakeOver:
    """What the log of a ledger says of partitions that came to it, and when."""

    def __init__(self, process: Processor) -> None:
        self._process = process
        self._said_before = len(self._log)
        self._began_s = time.perf_counter()
        self.heard_s = self.restored_s = 0.0

    async def watch(self) -> None:
        """Look at the log until cancelled."""
        restored = 0
        while True:
            said, now_s = self._log[self._said_before :], time.perf_counter() - self._began_s
            if OWNS in said and not self.heard_s:
                self.heard_s = now_s
            if said.count(RESTORED) > restored:
                restored = said.count(RESTORED)
                self.restored_s = now_s - self.heard_s
            await asyncio.sleep(POLL_S)

    @property
    def _log(self) -> str:
        return self._process.log.read_text(errors="replace")


class Decisions:
    """When each partition last decided, and its longest pause since `begin`."""

    def __init__(self, partitions: int) -> None:
        now_s = time.perf_counter()
        self._last_s = dict.fromkeys(range(partitions), now_s)
        self._longest_s = dict.fromkeys(range(partitions), 0.0)

    def seen(self, partition: int) -> None:
        """A decision is visible."""
        now_s = time.perf_counter()
        pause_s = now_s - self._last_s[partition]
        self._longest_s[partition] = max(self._longest_s[partition], pause_s)
        self._last_s[partition] = now_s

    def begin(self) -> None:
        """Forget the pauses that are over."""
        self._longest_s = dict.fromkeys(self._longest_s, 0.0)

    @property
    def longest_s(self) -> list[float]:
        """By partition, one that still goes on included."""
        now_s = time.perf_counter()
        return [
            max(longest_s, now_s - self._last_s[partition])
            for partition, longest_s in self._longest_s.items()
        ]

    @property
    def oldest_s(self) -> float:
        """How long ago the partition decided that has waited for longest."""
        return time.perf_counter() - min(self._last_s.values())


async def gaps(where: Place, tasks: int, kills: int) -> list[Gap]:
    """Kill one ledger after the other; measure each time."""
    settings = where.settings
    await write_open_tasks(settings, tasks)
    decisions, found = Decisions(settings.partitions), []
    async with AsyncExitStack() as stack:
        group = await stack.enter_async_context(asyncio.TaskGroup())
        others = [
            group.create_task(_probe(settings)),
            group.create_task(_watch(settings, decisions)),
        ]
        try:
            ledgers = [
                await stack.enter_async_context(
                    ledger(settings, where.folder, name=f"ledger-{one}")
                )
                for one in range(LEDGERS)
            ]
            await _steady(decisions, ledgers)
            for kill in range(kills):
                victim = ledgers.pop(0)
                decisions.begin()
                taken = TakeOver(ledgers[0])
                watching = group.create_task(taken.watch())
                await victim.server.kill()
                await _steady(decisions, ledgers)
                watching.cancel()
                pauses_s = decisions.longest_s
                decisions.begin()
                name = f"ledger-{LEDGERS + kill}"
                ledgers.append(
                    await stack.enter_async_context(ledger(settings, where.folder, name=name))
                )
                await _joined(ledgers[-1])
                await _steady(decisions, ledgers)
                found.append(
                    Gap(
                        kill=kill,
                        killed_s=round(max(pauses_s), 2),
                        killed_least_s=round(min(pauses_s), 2),
                        heard_s=round(taken.heard_s, 2),
                        restored_s=round(taken.restored_s, 2),
                        joined_s=round(max(decisions.longest_s), 2),
                    )
                )
                emit("gap", found[-1])
        finally:
            for other in others:
                other.cancel()
    return found


async def _steady(decisions: Decisions, ledgers: list[Processor]) -> None:
    """Wait until every partition has decided all the time, for a while."""
    began_s = since_s = time.perf_counter()
    while (now_s := time.perf_counter()) - since_s < STEADY_FOR_S:
        for each in ledgers:
            each.check()
        if decisions.oldest_s > DECISIONS_AGE_S:
            since_s = now_s
        if now_s - began_s > STEADY_WITHIN_S:
            raise SystemExit(f"no decision of a partition for {decisions.oldest_s:.1f} s")
        await asyncio.sleep(POLL_S)


async def _joined(process: Processor) -> None:
    """Wait until it owns a partition."""
    async with asyncio.timeout(STEADY_WITHIN_S):
        while RESTORED not in process.log.read_text(errors="replace"):
            process.check()
            await asyncio.sleep(POLL_S)


async def _probe(settings: Settings) -> None:
    """Send each partition a task of its own that crosses a level at once, again and again."""
    topic, number = settings.topic(Topic.EVENTS), 0
    async with AIOKafkaProducer(bootstrap_servers=settings.bootstrap_servers) as producer:
        while True:
            for partition in range(settings.partitions):
                number += 1
                task = f"PROBE-{number}"
                value = usage_event(number, task, input_tokens=PROBE_TOKENS)
                await producer.send(topic, key=task.encode(), value=value, partition=partition)
            await asyncio.sleep(PROBE_EVERY_S)


async def _watch(settings: Settings, decisions: Decisions) -> None:
    topic = settings.topic(Topic.DECISIONS)
    consumer = AIOKafkaConsumer(
        bootstrap_servers=settings.bootstrap_servers, isolation_level="read_committed"
    )
    async with consumer:
        consumer.assign([TopicPartition(topic, number) for number in range(settings.partitions)])
        async for record in consumer:
            if record.value is not None:
                decisions.seen(record.partition)


async def run(tasks: int, kills: int, partitions: int) -> list[Gap]:
    """Measure on a broker of its own."""
    async with place(partitions) as where:
        return await gaps(where, tasks, kills)


def main() -> None:
    """Measure what was asked for and print it."""
    parser = argparse.ArgumentParser(prog="python -m bench.gap", description=__doc__)
    parser.add_argument("--tasks", type=int, default=100_000)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--partitions", type=int, default=PARTITIONS)
    asked = parser.parse_args()
    found = asyncio.run(run(asked.tasks, asked.kills, asked.partitions))
    all_of_them = together(asked.tasks, found)
    emit("gaps", all_of_them)
    table(
        (
            *("open tasks", "kills", "p50 s", "p99 s", "max s", "the others' p50 s"),
            *("heard p50 s", "restored p50 s", "joining p50 s"),
        ),
        [["–" if value is None else value for value in msgspec.structs.astuple(all_of_them)]],
    )


def together(tasks: int, found: Sequence[Gap]) -> Gaps:
    """Return what all kills show: a p99 only where one in a hundred lies beyond it."""
    killed_s = sorted(each.killed_s for each in found)
    place = math.ceil(len(killed_s) * 0.99)  # of so many, 99 of 100 are at most as long
    return Gaps(
        tasks=tasks,
        kills=len(found),
        p50_s=_median(killed_s),
        p99_s=killed_s[place - 1] if place < len(killed_s) else None,
        max_s=killed_s[-1],
        least_p50_s=_median(each.killed_least_s for each in found),
        heard_p50_s=_median(each.heard_s for each in found),
        restored_p50_s=_median(each.restored_s for each in found),
        joined_p50_s=_median(each.joined_s for each in found),
    )


def _median(values: Iterable[float]) -> float:
    return round(statistics.median(values), 2)


if __name__ == "__main__":
    main()

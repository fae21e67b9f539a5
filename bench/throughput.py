"""Throughput: the ledger and its peers, on the same broker, the same events, exactly once.

    python -m bench.throughput [--events 3000000] [--tasks 1000] [--partitions 4] [--systems …]

All start on the same preloaded topic, one after the other, and are watched from outside, by what
they have committed. What counts begins when the warm-up is committed, and ends with the last event
or with the time.
"""

import argparse
import asyncio
import sys
import time

import msgspec

from bench.load import LIFE_EVENTS, Load, of_lives, write
from bench.place import Place, another, place
from bench.positions import Position
from bench.processor import Processor
from bench.report import emit, table
from bench.systems import COMMIT_MS, LEDGERS, STREAMS_VARIANTS, SYSTEMS, check
from schemas.topics import Topic

PARTITIONS = 4
POLL_S = 0.05
ALL = STREAMS_VARIANTS | SYSTEMS
STARTED_WITHIN_S = 120.0
WARM_UP_SHARE = 3  # a third of the events
WARM_UP_S_MAX = 60.0
MEASURED_S_MAX = 120.0
# Of a peer that is fifty times slower than another, two minutes say as much as an hour.


class Throughput(msgspec.Struct, frozen=True):
    """One system's steady state. CPU and memory are those of the processor with its children."""

    system: str
    partitions: int
    events: int
    seconds: float
    events_per_s: int
    cpu_s_per_million: float
    peak_mb: int
    finished: bool


class Mark(msgspec.Struct, frozen=True):
    """How far a processor was at a time."""

    at_s: float
    committed: int
    cpu_s: float


async def measure(
    name: str,
    processor: Processor,
    position: Position,
    *,
    total: int,
    warm_up: int,
    begun: int = 0,
    partitions: int = PARTITIONS,
    started_within_s: float = STARTED_WITHIN_S,
) -> Throughput:
    """Run a processor over `total` events.

    Args:
        total: what it has committed when it has committed all.
        warm_up: how many events do not count.
        begun: what is committed before it starts.
    """
    async with position, processor:
        started_s = time.perf_counter()

        async def until(target: int, within_s: float) -> Mark:
            """Return the first mark at or after `target`, or the last one before the time is over."""
            deadline_s = time.perf_counter() + within_s
            while True:
                processor.check()
                committed = await position.committed()
                mark = Mark(time.perf_counter(), committed, processor.cpu_s)
                if committed >= target or mark.at_s > deadline_s:
                    return mark
                await asyncio.sleep(POLL_S)

        first = await until(begun + 1, started_within_s)
        if first.committed <= begun:
            raise SystemExit(f"{name} has committed nothing in {started_within_s:.0f} s")
        print(f"{name}: first commit after {first.at_s - started_s:.1f} s", file=sys.stderr)
        begin = await until(begun + warm_up, WARM_UP_S_MAX)
        end = await until(total, MEASURED_S_MAX)
        peak_mb = round(processor.peak_mb)
    events, seconds = end.committed - begin.committed, end.at_s - begin.at_s
    if events <= 0:
        raise SystemExit(f"{name}: all was committed at once; --events: use more")
    return Throughput(
        system=name,
        partitions=partitions,
        events=events,
        seconds=round(seconds, 2),
        events_per_s=round(events / seconds),
        cpu_s_per_million=round((end.cpu_s - begin.cpu_s) / events * 1e6, 2),
        peak_mb=peak_mb,
        finished=end.committed >= total,
    )


async def preloaded(where: Place, load: Load) -> int:
    """Write the events of `load`; return how many they are."""
    topic = where.settings.topic(Topic.EVENTS)
    began_s = time.perf_counter()
    count, size_bytes = await write(
        where.broker.bootstrap_servers, topic, where.settings.partitions, of_lives(load)
    )
    print(
        f"{count:,} events of {size_bytes / count:.0f} bytes preloaded "
        f"in {time.perf_counter() - began_s:.0f} s",
        file=sys.stderr,
    )
    return count


async def compare(
    load: Load, names: list[str], *, partitions: int = PARTITIONS, commit_ms: int = COMMIT_MS
) -> list[Throughput]:
    """Measure the named systems, each on the same events."""
    measured = []
    async with place(partitions) as where:
        count = await preloaded(where, load)
        for name in sorted(names, key=list(ALL).index):  # the ledger last: it appends events
            on = where
            if name in LEDGERS and name != "ledger":
                on = await another(where, partitions, f"{name}.")  # the same events once more
                await preloaded(on, load)
            processor, position = await ALL[name](on, commit_ms)
            # One policy.set of each partition is an event as well.
            total = count + (partitions if name in LEDGERS else 0)
            found = await measure(
                name,
                processor,
                position,
                total=total,
                warm_up=count // WARM_UP_SHARE,
                partitions=partitions,
            )
            emit("throughput", found)
            measured.append(found)
    return measured


def show(measured: list[Throughput]) -> None:
    """Print all of them, as ratios to the ledger where it is among them."""
    by_name = {each.system: each for each in measured}
    own = by_name.get("ledger", measured[-1])
    table(
        (
            "",
            "events/s",
            f"{own.system} ÷ it",
            "CPU s per million",
            "it ÷ ours",
            "peak MB",
            "events",
        ),
        (
            (
                each.system,
                each.events_per_s,
                round(own.events_per_s / each.events_per_s, 2),
                each.cpu_s_per_million,
                round(each.cpu_s_per_million / own.cpu_s_per_million, 2),
                each.peak_mb,
                each.events,
            )
            for each in measured
        ),
    )


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add what a comparison can be told."""
    parser.add_argument("--events", type=int, default=3_000_000)
    parser.add_argument("--tasks", type=int, default=1_000, help="open at once")
    parser.add_argument("--life", type=int, default=LIFE_EVENTS, help="reports of a task")
    parser.add_argument("--partitions", type=int, default=PARTITIONS)
    parser.add_argument("--commit-ms", type=int, default=COMMIT_MS, help="of the peers")
    parser.add_argument("--systems", nargs="+", choices=list(ALL), default=list(SYSTEMS))


def run(asked: argparse.Namespace) -> None:
    """Compare what was asked for, and print it."""
    check(asked.systems)
    load = Load(asked.events, asked.tasks, asked.life)
    show(
        asyncio.run(
            compare(load, asked.systems, partitions=asked.partitions, commit_ms=asked.commit_ms)
        )
    )


def main() -> None:
    """Measure what was asked for and print it."""
    parser = argparse.ArgumentParser(prog="python -m bench.throughput", description=__doc__)
    arguments(parser)
    run(parser.parse_args())


if __name__ == "__main__":
    main()

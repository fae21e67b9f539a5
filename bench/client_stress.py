"""What the client costs an enforcer of fifty tasks at once, and what it loses when things die.

    python -m bench.client_stress [--minutes 10] [--tasks 50]

1. The same work without the client and with it, so many minutes each. In the middle of the second
   the broker is killed, and comes back: all must arrive, once, and the ledger must have counted it
   once.
2. The enforcer is killed with SIGKILL, with the broker alive and with it dead. The next emitter on
   its spool sends what it left: nothing may be missing that was accepted longer ago than the
   emitter's flush interval, one second.
"""

import argparse
import asyncio
import sys
import time
from collections import Counter
from pathlib import Path

import msgspec
from aiokafka import AIOKafkaConsumer, TopicPartition

from bench.enforcer import Enforced
from bench.place import Place, another, place
from bench.positions import LedgerPosition
from bench.processor import Processor, ledger
from bench.report import emit, table
from schemas.topics import Topic
from streams.client import Emitter
from streams.kafka.settings import Settings

PARTITIONS = 4
BROKER_AWAY_S = 20.0
FLUSH_INTERVAL_S = 1.0  # "on Kafka or on disk a second later"
BEYOND_THE_TIME_S = 300.0
KILLED_AFTER_S = 10.0
COUNTED_WITHIN_S = 120.0
ADOPTED_WITHIN_S = 120.0
POLL_S = 0.1
TRANSITIONS = (
    "transition_p50_us",
    "transition_p95_us",
    "transition_p99_us",
    "transition_p999_us",
)


class Arrived(msgspec.Struct, frozen=True):
    """What became of an enforcer's reports: on the topic, and in the ledger's counters."""

    reports: int
    lost: int
    twice_on_topic: int
    counted_by_ledger: int


class Added(msgspec.Struct, frozen=True):
    """With the client minus without it."""

    transition_p50_us: float
    transition_p95_us: float
    transition_p99_us: float
    transition_p999_us: float
    task_time_percent: float
    cpu_s_per_1000_reports: float


class Killed(msgspec.Struct, frozen=True):
    """One SIGKILL. `lost_too_old` were accepted longer ago than the flush interval."""

    broker_alive: bool
    accepted: int
    lost: int
    lost_too_old: int
    lost_age_max_s: float
    twice_on_topic: int


async def work(where: Place, kind: str, tasks: int, seconds: float) -> Enforced:
    """Run an enforcer to its end; with the client, kill the broker in the middle."""
    out = where.folder / f"{kind}.json"
    process = _enforcer(where, kind, tasks, out, seconds)
    async with process, asyncio.TaskGroup() as group:
        if kind == "with":
            group.create_task(_broker_away(where, seconds))
        code = await process.server.ended_within(seconds + BEYOND_THE_TIME_S)
        if code != 0:
            process.check()
            raise SystemExit(f"the enforcer is not done after {BEYOND_THE_TIME_S:.0f} s more")
    return msgspec.json.decode(out.read_bytes(), type=Enforced)


async def _broker_away(where: Place, seconds: float) -> None:
    away_s = min(BROKER_AWAY_S, seconds / 5)
    await asyncio.sleep((seconds - away_s) / 2)
    await where.broker.kill()
    await asyncio.sleep(away_s)
    await where.broker.start()


async def arrived(settings: Settings, reports: int) -> Arrived:
    """Compare what was said, reports 1 to `reports`, with the topic and with the ledger."""
    on_topic = await _on_topic(settings)
    async with asyncio.timeout(COUNTED_WITHIN_S), LedgerPosition(settings) as position:
        while await position.committed() < await _end(settings, Topic.EVENTS):  # noqa: ASYNC110 - the broker's, not ours
            await asyncio.sleep(POLL_S)
    return Arrived(
        reports=reports,
        lost=len(set(range(1, reports + 1)) - on_topic.keys()),
        twice_on_topic=sum(count - 1 for count in on_topic.values()),
        counted_by_ledger=await _counted(settings),
    )


async def killed(where: Place, tasks: int, *, broker_alive: bool) -> Killed:
    """Kill an enforcer; let another emitter send what it left; compare."""
    settings, noted = where.settings, where.folder / f"noted-{broker_alive}"
    process = _enforcer(where, "killed", tasks, noted, 0)
    async with process:
        await asyncio.sleep(KILLED_AFTER_S)
        if not broker_alive:
            await where.broker.kill()
            await asyncio.sleep(KILLED_AFTER_S)
        process.check()
        killed_ns = time.time_ns()
        await process.server.kill()
    if not broker_alive:
        await where.broker.start()
    await asyncio.to_thread(_send_what_is_left, settings, _spool(where))
    on_topic = await _on_topic(settings)
    accepted = [tuple(map(int, line.split())) for line in noted.read_bytes().splitlines()]
    ages_s = [(killed_ns - at_ns) / 1e9 for number, at_ns in accepted if number not in on_topic]
    return Killed(
        broker_alive=broker_alive,
        accepted=len(accepted),
        lost=len(ages_s),
        lost_too_old=sum(age_s > FLUSH_INTERVAL_S for age_s in ages_s),
        lost_age_max_s=round(max(ages_s, default=0.0), 3),
        twice_on_topic=sum(count - 1 for count in on_topic.values()),
    )


def _enforcer(where: Place, kind: str, tasks: int, out: Path, seconds: float) -> Processor:
    settings = where.settings
    env = {
        "STOPLOSS_BOOTSTRAP_SERVERS": settings.bootstrap_servers,
        "STOPLOSS_TOPIC_PREFIX": settings.topic_prefix,
    }
    command = [
        sys.executable, "-m", "bench.enforcer", kind, "--tasks", f"{tasks}",
        "--seconds", f"{seconds}", "--spool", f"{_spool(where)}", "--out", f"{out}",
    ]  # fmt: skip
    return Processor(f"enforcer {kind}", command, out.with_suffix(".log"), env)


def _spool(where: Place) -> Path:
    return where.folder / f"spool-{where.settings.topic_prefix}"


def _send_what_is_left(settings: Settings, spool: Path) -> None:
    with Emitter(settings, "heir", spool) as emitter:
        if not emitter.flush(ADOPTED_WITHIN_S):
            raise SystemExit(f"the spool is not empty after {ADOPTED_WITHIN_S:.0f} s: {emitter}")


async def _on_topic(settings: Settings) -> Counter[int]:
    """Return how often each report stands in `events`, by the number that it carries."""
    found: Counter[int] = Counter()
    for value in await _values(settings, Topic.EVENTS):
        event = _EVENT.decode(value)
        if event.type == "stoploss.phase.usage":
            found[event.data.input_tokens] += 1
    return found


async def _counted(settings: Settings) -> int:
    """Return how many calls the ledger has counted, in the last state of each task."""
    last: dict[str, int] = {}
    for value in await _values(settings, Topic.TASKS):
        state = _STATE.decode(value)
        if state.type == "stoploss.task.state":
            last[state.subject] = sum(
                int(phase.counters.get("model_calls", 0)) for phase in state.data.phases.values()
            )
    return sum(last.values())


async def _values(settings: Settings, topic: Topic) -> list[bytes]:
    """Return all values of a topic; those of a partition in order."""
    values: list[bytes] = []
    consumer = AIOKafkaConsumer(**settings.consumer_kwargs())
    async with consumer:
        tps = [TopicPartition(settings.topic(topic), one) for one in range(settings.partitions)]
        consumer.assign(tps)
        for tp, end in (await consumer.end_offsets(tps)).items():
            while await consumer.position(tp) < end:
                for records in (await consumer.getmany(timeout_ms=500)).values():
                    values += [record.value for record in records if record.value is not None]
    return values


async def _end(settings: Settings, topic: Topic) -> int:
    consumer = AIOKafkaConsumer(**settings.consumer_kwargs())
    async with consumer:
        tps = [TopicPartition(settings.topic(topic), one) for one in range(settings.partitions)]
        return sum((await consumer.end_offsets(tps)).values())


def added(without: Enforced, with_client: Enforced) -> Added:
    """Return what the client adds."""
    cpu_s = with_client.cpu_s / with_client.reports - without.cpu_s / without.reports
    return Added(
        **{
            name: round(getattr(with_client, name) - getattr(without, name), 2)
            for name in TRANSITIONS
        },
        task_time_percent=round((with_client.stretch / without.stretch - 1) * 100, 3),
        cpu_s_per_1000_reports=round(cpu_s * 1_000, 3),
    )


async def stress(tasks: int, seconds: float) -> None:
    """Measure all of it and print it.

    Raises:
        SystemExit: something was lost, or counted twice.
    """
    async with place(PARTITIONS, "stress.") as where:
        without = await work(where, "without", tasks, seconds)
        emit("client_stress", without)
        async with ledger(where.settings, where.folder):
            with_client = await work(where, "with", tasks, seconds)
            emit("client_stress", with_client)
            came = await arrived(where.settings, with_client.reports)
        emit("client_stress_arrived", came)
        difference = added(without, with_client)
        emit("client_stress_added", difference)
        kills = []
        for broker_alive in (True, False):
            alone = await another(where, PARTITIONS, f"killed-{broker_alive}.")
            kills.append(await killed(alone, tasks, broker_alive=broker_alive))
            emit("client_stress_killed", kills[-1])
    _show(without, with_client, difference, came, kills)
    if came.lost or came.counted_by_ledger != came.reports:
        raise SystemExit(f"not each report counts once: {came}")
    if any(each.lost_too_old for each in kills):
        raise SystemExit(f"older than {FLUSH_INTERVAL_S:g} s, and lost: {kills}")


def _show(
    without: Enforced,
    with_client: Enforced,
    difference: Added,
    came: Arrived,
    kills: list[Killed],
) -> None:
    table(
        ("", "without", "with", "difference"),
        [
            *((n, getattr(without, n), getattr(with_client, n), getattr(difference, n)) for n in TRANSITIONS),
            ("task p50 s", without.task_p50_s, with_client.task_p50_s, ""),
            ("task time ÷ calls", without.stretch, with_client.stretch, f"{difference.task_time_percent} %"),
            ("queued, at most", "", with_client.queued_max, ""),
            ("spooled, at most", "", with_client.spooled_max, ""),
            ("drained after s", "", with_client.drained_s, ""),
            ("MB after a quarter", without.rss_mb_quarter, with_client.rss_mb_quarter, ""),
            ("MB at the end", without.rss_mb_end, with_client.rss_mb_end, ""),
            ("verdicts in memory after a quarter", "", with_client.verdicts_quarter, ""),
            ("verdicts in memory at the end", "", with_client.verdicts_end, ""),
        ],
    )  # fmt: skip
    table(
        ("reports", "lost", "twice on the topic", "counted by the ledger"),
        [msgspec.structs.astuple(came)],
    )
    table(
        ("broker alive", "accepted", "lost", "of them too old", "oldest lost s", "twice on the topic"),
        [msgspec.structs.astuple(each) for each in kills],
    )  # fmt: skip


def main() -> None:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(prog="python -m bench.client_stress", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--tasks", type=int, default=50, help="at once")
    asked = parser.parse_args()
    asyncio.run(stress(asked.tasks, asked.minutes * 60))


class _Usage(msgspec.Struct):
    input_tokens: int = 0


class _Event(msgspec.Struct):
    type: str
    data: _Usage


class _Phase(msgspec.Struct):
    counters: dict[str, float]


class _TaskState(msgspec.Struct):
    phases: dict[str, _Phase] = {}


class _State(msgspec.Struct):
    type: str
    subject: str
    data: _TaskState


_EVENT = msgspec.json.Decoder(_Event)
_STATE = msgspec.json.Decoder(_State)


if __name__ == "__main__":
    main()

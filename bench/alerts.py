"""Breach → alert: from when a reader has the decision until it has the alert that follows from it.

    python -m bench.alerts [--rate 2000] [--seconds 30]

A real ledger and `stoploss agents alerts`, on a broker of their own. The breach stands in the same
transaction as the decision, so both are seen at once. The sender says what it has reached: where that
is less than what was asked for, the figure is of that load.
"""

import argparse
import asyncio
import statistics
import sys
import time
from array import array
from contextlib import AsyncExitStack

import msgspec
from aiokafka import AIOKafkaConsumer, TopicPartition

from bench.latency import PARTITIONS, WARM_UP_S, send
from bench.place import Place, place
from bench.processor import Processor, ledger
from bench.report import emit, table
from schemas.alerts import Alert, AlertState
from schemas.envelope import Envelope
from schemas.topics import SPECS, Topic
from streams.insight.task_alerts import BUDGET_BREACH

QUIET_S = 3.0
LAST_ONE_WITHIN_S = 120.0  # those that come late count as well

_ALERT = msgspec.json.Decoder(Envelope[Alert])


class AlertLatency(msgspec.Struct, frozen=True):
    """Milliseconds from the visible decision to the visible alert; `cpu_s` and `peak_mb` are the agent's."""

    events_per_s: int
    sent_per_s: int
    events: int
    alerts: int
    p50_ms: float
    p99_ms: float
    cpu_s: float
    peak_mb: int


class Seen:
    """When which decision was seen, and how long its alert took."""

    def __init__(self) -> None:
        self._decisions: dict[tuple[int, int], float] = {}
        self._alerts: dict[tuple[int, int], float] = {}

    async def watch(self, consumer: AIOKafkaConsumer, decisions: str) -> None:
        """Note what comes, for ever."""
        async for record in consumer:
            now_s = time.perf_counter()
            if record.topic == decisions:
                self._decisions[record.partition, record.offset] = now_s
                continue
            alert = _ALERT.decode(record.value).data
            if alert.name == BUDGET_BREACH.name and alert.state is AlertState.FIRING:
                origin = alert.origin
                assert origin is not None
                self._alerts.setdefault((origin.partition, origin.offset), now_s)

    def took_ms(self, since_s: float) -> list[float]:
        """Return how long each alert took, of the decisions after a moment."""
        return [
            max(now_s - self._decisions[place], 0.0) * 1000
            for place, now_s in self._alerts.items()
            if self._decisions.get(place, 0.0) > since_s
        ]


async def measure(rate: int, seconds: float) -> AlertLatency:
    """Send at a steady rate for a while, and watch what comes of it."""
    async with place(PARTITIONS) as where, AsyncExitStack() as stack:
        running = await stack.enter_async_context(ledger(where.settings, where.folder))
        agents = await stack.enter_async_context(agent(where))
        decisions = where.settings.topic(Topic.DECISIONS)
        consumer = await _consumer(where, stack)
        seen, started_s = Seen(), time.perf_counter()
        total_s = seconds + WARM_UP_S
        async with asyncio.TaskGroup() as group:
            watching = group.create_task(seen.watch(consumer, decisions))
            sent_at_s = array("d", bytes(8 * (int(rate * total_s) + 1)))
            sent = await send(where.settings, rate, total_s, sent_at_s)
            agents.check()
            took_ms = await _quiet(seen, started_s + WARM_UP_S)
            watching.cancel()
        running.check()
        agents.check()
        if len(took_ms) < 2:
            raise SystemExit(f"at {rate:,} events/s: no alerts after {LAST_ONE_WITHIN_S:.0f} s")
        cuts = statistics.quantiles(took_ms, n=100, method="inclusive")
        return AlertLatency(
            events_per_s=rate,
            sent_per_s=round(sent / total_s),
            events=sent,
            alerts=len(took_ms),
            p50_ms=round(cuts[49], 1),
            p99_ms=round(cuts[98], 1),
            cpu_s=round(agents.cpu_s, 1),
            peak_mb=round(agents.peak_mb),
        )


def agent(where: Place) -> Processor:
    """Return `stoploss agents alerts`, not started yet."""
    env = {
        "STOPLOSS_BOOTSTRAP_SERVERS": where.settings.bootstrap_servers,
        "STOPLOSS_TOPIC_PREFIX": where.settings.topic_prefix,
    }
    command = [sys.executable, "-P", "-m", "streams.cli.main", "agents", "alerts"]
    return Processor("agents", command, where.folder / "agents.log", env)


async def _consumer(where: Place, stack: AsyncExitStack) -> AIOKafkaConsumer:
    consumer = AIOKafkaConsumer(**where.settings.consumer_kwargs("bench"))
    await consumer.start()
    stack.push_async_callback(consumer.stop)
    consumer.assign(
        [
            TopicPartition(where.settings.topic(topic), partition)
            for topic in (Topic.DECISIONS, Topic.ALERTS)
            for partition in range(SPECS[topic].partitions or PARTITIONS)
        ]
    )
    await consumer.seek_to_beginning()
    return consumer


async def _quiet(seen: Seen, since_s: float) -> list[float]:
    """Wait until no alert comes any more; return how long they took."""
    deadline_s = time.perf_counter() + LAST_ONE_WITHIN_S
    count, took_ms = -1, seen.took_ms(since_s)
    while (not took_ms or count != len(took_ms)) and time.perf_counter() < deadline_s:
        count = len(took_ms)
        await asyncio.sleep(QUIET_S)
        took_ms = seen.took_ms(since_s)
    return took_ms


def main() -> None:
    """Measure what was asked for and print it."""
    parser = argparse.ArgumentParser(prog="python -m bench.alerts", description=__doc__)
    parser.add_argument("--rate", type=int, default=2_000, help="events a second")
    parser.add_argument("--seconds", type=float, default=30.0, help="after a warm-up of 25")
    asked = parser.parse_args()
    found = asyncio.run(measure(asked.rate, asked.seconds))
    emit("alerts", found)
    table(
        (
            "events/s",
            "sent/s",
            "events",
            "alerts",
            "p50 ms",
            "p99 ms",
            "agent's CPU s",
            "its peak MB",
        ),
        [msgspec.structs.astuple(found)],
    )


if __name__ == "__main__":
    main()

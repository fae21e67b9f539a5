"""Breach → alert, and what an overload of the agents does: they fall behind, and the ledger does not.

    python -m bench.alerts [--rates 2000 10000] [--seconds 30]

From when a reader has the decision until it has the alert that follows from it. A real ledger and
`stoploss agents alerts`, on a broker of their own for each rate. The breach stands in the same
transaction as the decision, so both are seen at once. How many records wait for the agent is asked of
the broker meanwhile, and until it has caught up. The ledger's decisions are timed in the same run, from
the send of the event, and in one of the same rate without agents: a line of its own. The sender says
what it has reached: where that is less than what was asked for, the figure is of that load.
"""

import argparse
import asyncio
import statistics
import sys
import time
from array import array
from collections.abc import Iterable
from contextlib import AsyncExitStack

import msgspec
from aiokafka import AIOKafkaConsumer, TopicPartition

from bench.latency import PARTITIONS, WARM_UP_S, latency, send
from bench.place import Place, place
from bench.processor import Processor, ledger
from bench.report import emit, table
from schemas.alerts import Alert, AlertState
from schemas.envelope import Envelope
from schemas.errors import UnavailableError
from schemas.outputs import Decision
from schemas.topics import BY_PARTITION, SPECS, Topic
from streams.agents.alerts import AGENT
from streams.agents.lag import opened
from streams.agents.topics import source_partitions
from streams.agents.waiting import waiting
from streams.insight.task_alerts import BUDGET_BREACH

RATES = [2_000, 10_000]
QUIET_S = 3.0
LAST_ONE_WITHIN_S = 300.0  # those that come late count as well
ASK_EVERY_S = 1.0
SHOWN_LAGS = 12
HEX_DIGITS = 32  # of the id of a usage event, which is its number

_ALERT = msgspec.json.Decoder(Envelope[Alert])
_DECISION = msgspec.json.Decoder(Envelope[Decision])


class AlertLatency(msgspec.Struct, frozen=True):
    """Milliseconds from the visible decision to the visible alert; `cpu_s` and `peak_mb` are the agent's.

    `lag_max` and `lag_at_end` are records that waited for it, the latter when the last event was sent;
    `caught_up_s` is how long after that none waited any more, None where some still did.
    """

    events_per_s: int
    sent_per_s: int
    events: int
    alerts: int
    p50_ms: float
    p99_ms: float
    cpu_s: float
    peak_mb: int
    lag_max: int
    lag_at_end: int
    caught_up_s: float | None


class AlertLag(msgspec.Struct, frozen=True):
    """How many records waited for the agent, at seconds since the first event was sent."""

    events_per_s: int
    lag: list[tuple[float, int]]


class BesideAgents(msgspec.Struct, frozen=True):
    """Milliseconds from the send of an event to its visible decision, beside agents and without any."""

    events_per_s: int
    sent_per_s: int
    decisions: int
    p50_ms: float
    p99_ms: float
    p50_ms_without: float
    p99_ms_without: float


class Seen:
    """When which decision was seen, and how long it and its alert took."""

    def __init__(self, sent_at_s: "array[float]") -> None:
        self._sent_at_s = sent_at_s
        self._decisions: dict[tuple[int, int], float] = {}
        self._alerts: dict[tuple[int, int], float] = {}
        self._decided: list[tuple[float, float]] = []  # when sent, and how long it took

    async def watch(self, consumer: AIOKafkaConsumer, decisions: str) -> None:
        """Note what comes, for ever."""
        async for record in consumer:
            now_s = time.perf_counter()
            if record.value is None:
                continue
            if record.topic == decisions:
                self._decisions[record.partition, record.offset] = now_s
                event_id = _DECISION.decode(record.value).data.event_id or ""
                if len(event_id) == HEX_DIGITS:  # else a start or an end of a task has caused it
                    at_s = self._sent_at_s[int(event_id, 16)]
                    self._decided.append((at_s, now_s - at_s))
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

    def decided_ms(self, since_s: float) -> list[float]:
        """Return how long each decision took, of the events sent after a moment."""
        return [took_s * 1000 for at_s, took_s in self._decided if at_s > since_s]


class Lags:
    """How many records wait for the agent, asked again and again."""

    def __init__(self, where: Place) -> None:
        self._where = where
        self.seen: list[tuple[float, int]] = []

    async def watch(self) -> None:
        """Ask for ever."""
        stages = {
            stage.name: PARTITIONS if stage.sources[0].topic in BY_PARTITION else 1
            for stage in AGENT.stages
        }
        sources = source_partitions(AGENT, stages)
        async with opened(self._where.settings) as standings:
            while True:
                try:
                    found = waiting(AGENT, await standings.of(AGENT.group, sources))
                    self.seen.append((time.perf_counter(), sum(found.values())))
                except UnavailableError:  # it has not made its own topics yet
                    pass
                await asyncio.sleep(ASK_EVERY_S)

    def at(self, moment_s: float) -> int:
        """Return how many waited when it was last asked before a moment."""
        return next((lag for at_s, lag in reversed(self.seen) if at_s <= moment_s), 0)

    def gone_s(self, moment_s: float) -> float | None:
        """Return how long after a moment none waited any more, None where some still did."""
        return next(
            (at_s - moment_s for at_s, lag in self.seen if at_s > moment_s and not lag), None
        )


async def measure(rate: int, seconds: float) -> tuple[AlertLatency, AlertLag, BesideAgents]:
    """Send at a steady rate for a while, and watch what comes of it; then once more without agents."""
    async with place(PARTITIONS) as where, AsyncExitStack() as stack:
        running = await stack.enter_async_context(ledger(where.settings, where.folder))
        agents = await stack.enter_async_context(agent(where))
        decisions = where.settings.topic(Topic.DECISIONS)
        consumer = await _consumer(where, stack)
        total_s = seconds + WARM_UP_S
        sent_at_s = array("d", bytes(8 * (int(rate * total_s) + 1)))
        seen, lags, started_s = Seen(sent_at_s), Lags(where), time.perf_counter()
        async with asyncio.TaskGroup() as group:
            watching = [
                group.create_task(seen.watch(consumer, decisions)),
                group.create_task(lags.watch()),
            ]
            sent = await send(where.settings, rate, total_s, sent_at_s)
            ended_s = time.perf_counter()
            agents.check()
            took_ms = await _quiet(seen, lags, started_s + WARM_UP_S, ended_s)
            for task in watching:
                task.cancel()
        running.check()
        agents.check()
        cpu_s, peak_mb = agents.cpu_s, agents.peak_mb
    if len(took_ms) < 2:
        raise SystemExit(f"at {rate:,} events/s: no alerts after {LAST_ONE_WITHIN_S:.0f} s")
    p50_ms, p99_ms = _cuts(took_ms)
    gone_s = lags.gone_s(ended_s)
    found = AlertLatency(
        events_per_s=rate,
        sent_per_s=round(sent / total_s),
        events=sent,
        alerts=len(took_ms),
        p50_ms=p50_ms,
        p99_ms=p99_ms,
        cpu_s=round(cpu_s, 1),
        peak_mb=round(peak_mb),
        lag_max=max(lag for _, lag in lags.seen),
        lag_at_end=lags.at(ended_s),
        caught_up_s=None if gone_s is None else round(gone_s, 1),
    )
    lag = AlertLag(rate, [(round(at_s - started_s, 1), lag) for at_s, lag in lags.seen])
    decided_ms = seen.decided_ms(started_s + WARM_UP_S)
    without = await latency("ledger", rate, seconds)
    p50_ms, p99_ms = _cuts(decided_ms)
    beside = BesideAgents(
        events_per_s=rate,
        sent_per_s=found.sent_per_s,
        decisions=len(decided_ms),
        p50_ms=p50_ms,
        p99_ms=p99_ms,
        p50_ms_without=round(without.p50_ms, 1),
        p99_ms_without=round(without.p99_ms, 1),
    )
    return found, lag, beside


def agent(where: Place) -> Processor:
    """Return `stoploss agents alerts`, not started yet."""
    env = {
        "STOPLOSS_BOOTSTRAP_SERVERS": where.settings.bootstrap_servers,
        "STOPLOSS_TOPIC_PREFIX": where.settings.topic_prefix,
    }
    command = [sys.executable, "-P", "-m", "streams.cli.main", "agents", "alerts"]
    return Processor("agents", command, where.folder / "agents.log", env)


def _cuts(took_ms: list[float]) -> tuple[float, float]:
    """Return p50 and p99."""
    cuts = statistics.quantiles(took_ms, n=100, method="inclusive")
    return round(cuts[49], 1), round(cuts[98], 1)


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


async def _quiet(seen: Seen, lags: Lags, since_s: float, ended_s: float) -> list[float]:
    """Wait until no alert comes any more and none waits; return how long they took."""
    deadline_s = time.perf_counter() + LAST_ONE_WITHIN_S
    count, took_ms = -1, seen.took_ms(since_s)
    while time.perf_counter() < deadline_s and (
        not took_ms or count != len(took_ms) or lags.gone_s(ended_s) is None
    ):
        count = len(took_ms)
        await asyncio.sleep(QUIET_S)
        took_ms = seen.took_ms(since_s)
    return took_ms


def _shown(lag: AlertLag) -> str:
    """Return the lag over time, a dozen points of it: `0 s 12, 6 s 3,400, …`."""
    step = max(1, -(-len(lag.lag) // SHOWN_LAGS))
    return ", ".join(f"{at_s:.0f} s {count:,}" for at_s, count in lag.lag[::step])


def _show(
    alerts: Iterable[AlertLatency], lags: Iterable[AlertLag], besides: Iterable[BesideAgents]
) -> None:
    table(
        ("events/s", "sent/s", "events", "alerts", "p50 ms", "p99 ms", "agent's CPU s", "its peak MB",
         "most that waited", "waited at the end", "caught up after s"),
        (msgspec.structs.astuple(each) for each in alerts),
    )  # fmt: skip
    table(
        ("events/s", "records that waited for the agent, over time"),
        ((lag.events_per_s, _shown(lag)) for lag in lags),
    )
    table(
        ("events/s", "sent/s", "decisions beside agents", "p50 ms", "p99 ms", "p50 ms without",
         "p99 ms without"),
        (msgspec.structs.astuple(each) for each in besides),
    )  # fmt: skip


def main() -> None:
    """Measure what was asked for and print it."""
    parser = argparse.ArgumentParser(prog="python -m bench.alerts", description=__doc__)
    parser.add_argument("--rates", type=int, nargs="+", default=RATES, help="events a second")
    parser.add_argument("--seconds", type=float, default=30.0, help="after a warm-up of 25")
    asked = parser.parse_args()
    measured = []
    for rate in asked.rates:
        print(f"alerts at {rate:,} events/s …", file=sys.stderr)
        found, lag, beside = asyncio.run(measure(rate, asked.seconds))
        emit("alerts", found)
        emit("alerts_lag", lag)
        emit("alerts_beside", beside)
        measured.append((found, lag, beside))
    _show(*zip(*measured, strict=True))


if __name__ == "__main__":
    main()

"""What `usage()` and `verdict()` cost their caller, with the broker alive and with it dead.

Run by hand: `python -m bench.emitter`. Starts a broker of its own. A call is timed with
`perf_counter_ns`, whose own cost is inside the figures.
"""

import asyncio
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from bench.command import leaving_when_told
from schemas.envelope import Envelope
from schemas.fields import Mode, Verdict
from schemas.outputs import Decision, InputRef, PolicyRef
from schemas.topics import Topic
from streams.client import Emitter, Verdicts
from streams.kafka.settings import Settings
from streams.local.broker import KafkaBroker

BURST_CALLS = 15_000  # below the queue's bound, so that nothing is dropped
PACED_S = 5.0
PACE_S = 0.0005
TASKS = 500
VERDICT_CALLS = 200_000
STALE_AFTER_S = 18.0  # fresh while the broker lives, stale when it has been dead for a while
TOPICS = (Topic.EVENTS, Topic.HEALTH, Topic.DECISIONS, Topic.HEARTBEATS)


def percentiles(took_ns: list[int]) -> str:
    """Return the figures of many calls on one line."""
    took_ns.sort()
    shares = {"p50": 0.5, "p99": 0.99, "p99.9": 0.999}
    figures = [
        f"{name} {took_ns[int(share * len(took_ns))] / 1000:7.2f} µs"
        for name, share in shares.items()
    ]
    return f"{'  '.join(figures)}  max {took_ns[-1] / 1000:9.1f} µs  ({len(took_ns)} calls)"


def timed(call: Callable[[int], object], calls: int) -> list[int]:
    """As fast as it goes."""
    took_ns = []
    for i in range(calls):
        begin_ns = time.perf_counter_ns()
        call(i)
        took_ns.append(time.perf_counter_ns() - begin_ns)
    return took_ns


async def paced(call: Callable[[int], object]) -> list[int]:
    """As an enforcer would that runs 2,000 steps a second in its own event loop."""
    took_ns, until_s = [], time.monotonic() + PACED_S
    while time.monotonic() < until_s:
        await asyncio.sleep(PACE_S)
        took_ns += timed(call, 1)
    return took_ns


async def measure(emitter: Emitter, verdicts: Verdicts, title: str) -> None:
    """Print what a call costs now."""
    floor_queue: list[object] = []

    def keep(task: str, phase: str, **fields: object) -> None:
        floor_queue.append((task, phase, time.time_ns(), fields))

    def floor(i: int) -> None:  # what any call with these arguments costs that keeps them
        keep(
            f"TASK-{i % 50}", "THINK", model="some-model", input_tokens=i, output_tokens=17,
            cache_read_tokens=0, cost_usd=0.0125, duration_ms=1200,
        )  # fmt: skip

    def usage(i: int) -> None:
        emitter.usage(
            f"TASK-{i % 50}", "THINK", model="some-model", input_tokens=i, output_tokens=17,
            cache_read_tokens=0, cost_usd=0.0125, duration_ms=1200,
        )  # fmt: skip

    print(f"floor    {title:6} paced  {percentiles(await paced(floor))}")
    print(f"usage    {title:6} paced  {percentiles(await paced(usage))}")
    print(f"usage    {title:6} burst  {percentiles(timed(usage, BURST_CALLS))}")
    await asyncio.sleep(2)
    print(f"         {emitter.stats}")
    task_ids = [f"TASK-{i}" for i in range(2 * TASKS)]  # half of them have a decision
    call = timed(lambda i: verdicts.verdict(task_ids[i % len(task_ids)]), VERDICT_CALLS)
    print(f"verdict  {title:6} burst  {percentiles(call)}  stale={verdicts.stale}")
    begin_ns = time.perf_counter_ns()
    for task_id in task_ids * 500:
        verdicts.verdict(task_id)
    mean_ns = (time.perf_counter_ns() - begin_ns) / (len(task_ids) * 500)
    print(f"verdict  {title:6} loop   mean {mean_ns:.0f} ns")


async def write_decisions(settings: Settings) -> None:
    """Write a decision for each of `TASKS` tasks."""
    topic = settings.topic(Topic.DECISIONS)
    async with AIOKafkaProducer(**settings.producer_kwargs()) as producer:
        for i in range(TASKS):
            decision = Decision(
                task_id=f"TASK-{i}", number=1, verdict=Verdict.WARN, previous=Verdict.CONTINUE,
                enforced=True, message="THINK at 160 % of its budget", mode=Mode.ENFORCE,
                policy=PolicyRef("1", "0"), limits_version=1, input=InputRef(0, i),
            )  # fmt: skip
            envelope = Envelope(
                id=f"0-{i}-0", source="bench", type="stoploss.decision", subject=f"TASK-{i}",
                time="2026-01-01T00:00:00.000Z", data=decision,
            )  # fmt: skip
            value = msgspec.json.encode(envelope)
            await producer.send_and_wait(topic, value, f"TASK-{i}".encode())


async def create_topics(settings: Settings) -> None:
    """Create what the emitter writes to."""
    admin = AIOKafkaAdminClient(**settings.admin_kwargs())
    await admin.start()
    try:
        names = [settings.topic(topic) for topic in TOPICS]
        await admin.create_topics([NewTopic(name, 4, 1) for name in names])
    finally:
        await admin.close()


async def main() -> None:
    """Measure, kill the broker, measure."""
    with tempfile.TemporaryDirectory() as folder:
        async with KafkaBroker(Path(folder) / "kafka") as broker:
            settings = Settings(bootstrap_servers=broker.bootstrap_servers)
            await create_topics(settings)
            await write_decisions(settings)
            verdicts = Verdicts(settings, stale_after_s=STALE_AFTER_S)
            await asyncio.to_thread(verdicts.wait_ready)
            emitter = Emitter(settings, "bench", Path(folder) / "spool")
            await measure(emitter, verdicts, "alive")
            await broker.kill()
            await measure(emitter, verdicts, "dead")
            await asyncio.to_thread(emitter.close, 0.1)
            await asyncio.to_thread(verdicts.close)


if __name__ == "__main__":
    with leaving_when_told():
        asyncio.run(main())

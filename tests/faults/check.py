"""Holds what the ledgers wrote against what was sent: by the judges of `stoploss`, and by own sums.

The sums are the simplest thing that can be said: every model call that was sent once is counted
once, in the state of its task, or, where the task is forgotten by now, in its executions.
"""

import base64
import re
from collections.abc import AsyncIterator, Mapping

import msgspec

from schemas.topics import Topic
from streams.kafka.reader import start_client
from streams.kafka.settings import Settings
from streams.verify.reading import OutputReader
from tests.faults import enforcers
from tests.faults.load import BUCKETS, Expected, bucket
from tests.integration.shell import stoploss

VERIFY_WITHIN_S = 1_800.0
READ = (Topic.TASKS, Topic.EXECUTIONS, Topic.DEAD_LETTERS)
EMITTED = "EMITTED-"
DIFFERENCES_MAX = 20
BAD = re.compile(rb"bad:(\d+);")


class _Counters(msgspec.Struct):
    model_calls: int = 0


class _Phase(msgspec.Struct):
    counters: _Counters


class _Task(msgspec.Struct):
    phases: dict[str, _Phase] = {}


class _TaskRecord(msgspec.Struct):
    data: _Task


class _Execution(msgspec.Struct):
    task_id: str
    phase: str
    attempt: int
    revision: int
    counters: _Counters


class _ExecutionRecord(msgspec.Struct):
    data: _Execution


class _Letter(msgspec.Struct):
    original: str


class _LetterRecord(msgspec.Struct):
    data: _Letter


_TASK = msgspec.json.Decoder(_TaskRecord)
_EXECUTION = msgspec.json.Decoder(_ExecutionRecord)
_LETTER = msgspec.json.Decoder(_LetterRecord)


class Counted(msgspec.Struct):
    """Model calls that stand in the topics, by bucket of tasks, and numbers of the letters."""

    calls: list[int]
    emitted: int = 0
    enforced: int = 0
    letters: set[int] = msgspec.field(default_factory=set)

    @property
    def total(self) -> int:
        return sum(self.calls)


async def count(settings: Settings) -> Counted:
    """Add up what the ledgers have written."""
    counted = Counted([0] * BUCKETS)
    client = await start_client(settings, [settings.topic(topic) for topic in READ], "count")
    try:
        for partition in range(settings.partitions):
            # One partition at a time: a task is in one.
            for task, calls in (await _calls(client, settings, partition)).items():
                if task.startswith(EMITTED):
                    counted.emitted += calls
                elif task.startswith(enforcers.TASKS):
                    counted.enforced += calls
                else:
                    counted.calls[bucket(task)] += calls
            async for value in _values(client, settings, Topic.DEAD_LETTERS, partition):
                original = base64.b64decode(_LETTER.decode(value).data.original)
                counted.letters |= {int(number) for number in BAD.findall(original)}
    finally:
        await client.close()
    return counted


async def _calls(client: object, settings: Settings, partition: int) -> dict[str, int]:
    tasks: dict[str, int] = {}
    reader = OutputReader(client, settings.topic(Topic.TASKS), partition)
    async for record in reader.until_written():
        key = (record.key or b"").decode()
        if record.value is None:
            tasks.pop(key, None)
        elif not key.startswith(("partition/", "policy/")):
            phases = _TASK.decode(record.value).data.phases
            tasks[key] = sum(phase.counters.model_calls for phase in phases.values())
    runs: dict[tuple[str, str, int], tuple[int, int]] = {}
    async for value in _values(client, settings, Topic.EXECUTIONS, partition):
        run = _EXECUTION.decode(value).data
        if run.task_id not in tasks:
            where = run.task_id, run.phase, run.attempt
            runs[where] = max(runs.get(where, (0, 0)), (run.revision, run.counters.model_calls))
    for (task, _, _), (_, calls) in runs.items():
        tasks[task] = tasks.get(task, 0) + calls
    return tasks


async def _values(
    client: object, settings: Settings, topic: Topic, partition: int
) -> AsyncIterator[bytes]:
    reader = OutputReader(client, settings.topic(topic), partition)
    async for record in reader.until_written():
        if record.value is not None:
            yield record.value


def differences(expected: Expected, emitted: int, counted: Counted) -> list[str]:
    """Say what does not add up."""
    found = [
        f"tasks of bucket {number}: {want} model calls were sent, {have} are counted"
        for number, (want, have) in enumerate(zip(expected.calls, counted.calls, strict=True))
        if want != have
    ]
    if emitted != counted.emitted:
        found.append(f"emitter: {emitted} events were delivered, {counted.emitted} are counted")
    if missing := set(range(expected.bad)) - counted.letters:
        found.append(f"{len(missing)} bad records have no dead letter, {min(missing)} first")
    return found[:DIFFERENCES_MAX]


async def judge(env: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    """Ask both judges.

    Returns:
        What each said, and what was wrong.
    """
    said: dict[str, str] = {}
    wrong: list[str] = []
    for command in ("verify", "verify --independent"):
        ran = await stoploss(
            *command.split(), env={**env, "COLUMNS": "200"}, within_s=VERIFY_WITHIN_S
        )
        said[command] = f"exit {ran.code}"
        if ran.code:
            wrong.append(f"{command} ended with {ran.code}: {ran.err.strip() or ran.out.strip()}")
    return said, wrong

"""Decisions and heartbeats on a real broker, and what an enforcer is told because of them."""

import asyncio
import multiprocessing
import sys
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from schemas.fields import Fail, Verdict
from schemas.topics import Topic, topic_config
from streams.client import TaskVerdict, Verdicts
from streams.client.answers import CONTINUE
from streams.kafka.settings import Settings
from streams.kafka.topics import partition_for
from streams.local.broker import KafkaBroker
from tests.integration.decisions import Ledger

pytestmark = pytest.mark.integration

PARTITIONS = 2
PATIENCE_S = 60.0
# Their keys are in partition 0 and 1 of 2.
IN_0, IN_1 = "TASK-0", "TASK-1"


def test_the_tasks_of_these_tests_are_in_different_partitions() -> None:
    assert [partition_for(task.encode(), PARTITIONS) for task in (IN_0, IN_1)] == [0, 1]


async def create_topics(settings: Settings) -> None:
    admin = AIOKafkaAdminClient(**settings.admin_kwargs())
    await admin.start()
    try:
        await admin.create_topics(
            [
                NewTopic(settings.topic(topic), count, 1, topic_configs=topic_config(topic))
                for topic, count in ((Topic.DECISIONS, PARTITIONS), (Topic.HEARTBEATS, 1))
            ]
        )
    finally:
        await admin.close()


@pytest.fixture
async def settings(bootstrap_servers: str, topic_prefix: str) -> Settings:
    settings = Settings(bootstrap_servers=bootstrap_servers, topic_prefix=topic_prefix)
    await create_topics(settings)
    return settings


@pytest.fixture
async def ledger(settings: Settings) -> AsyncIterator[Ledger]:
    async with Ledger(settings) as ledger:
        yield ledger


class Clock:
    """Stands still until a test moves it, so that only the test makes a feed stale."""

    now_s = 1_000.0

    def __call__(self) -> float:
        return self.now_s


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not condition():  # noqa: ASYNC110 - another thread's state
            await asyncio.sleep(0.01)


async def ready(verdicts: Verdicts) -> Verdicts:
    assert await asyncio.to_thread(verdicts.wait_ready, PATIENCE_S)
    return verdicts


def brief(answer: TaskVerdict) -> tuple[str, bool, str]:
    return answer.verdict.value, answer.held, answer.reason.value


async def test_decisions_from_before_and_after_the_start_reach_the_enforcer(
    settings: Settings, ledger: Ledger
) -> None:
    await ledger.decide((IN_0, Verdict.NOTICE), (IN_1, Verdict.WARN))
    await ledger.decide((IN_0, Verdict.BLOCK), ("OBSERVED", Verdict.BLOCK))
    await ledger.decide((IN_1, Verdict.BLOCK), abort=True)
    with Verdicts(settings) as verdicts:
        await ready(verdicts)
        assert brief(verdicts.verdict(IN_0)) == ("block", True, "decision")
        assert brief(verdicts.verdict(IN_1)) == ("warn", False, "decision")
        assert brief(verdicts.verdict("OBSERVED")) == ("block", False, "decision")
        assert verdicts.verdict("TASK-99") == CONTINUE
        assert (verdicts.must_stop(IN_0), verdicts.must_stop(IN_1)) == (True, False)
        told = verdicts.verdict(IN_0)
        assert (told.decision_id, told.number, told.message) == ("0-3-0", 3, "block: THINK")
        await ledger.decide((IN_0, Verdict.CONTINUE))
        await until(lambda: not verdicts.must_stop(IN_0))
        await ledger.decide((IN_1, Verdict.REVIEW))
        await until(lambda: verdicts.verdict(IN_1).explanation_owed)


async def test_a_tombstone_takes_the_decision_away(settings: Settings, ledger: Ledger) -> None:
    await ledger.decide((IN_0, Verdict.BLOCK), (IN_1, Verdict.BLOCK))
    await ledger.forget(IN_0)
    with Verdicts(settings) as verdicts:
        await ready(verdicts)
        assert [verdicts.must_stop(task) for task in (IN_0, IN_1)] == [False, True]
        await ledger.forget(IN_1)
        await until(lambda: not verdicts.must_stop(IN_1))
        assert verdicts.stats.tasks == 0


async def test_a_process_that_forgets_what_has_ended_does_not_grow(
    settings: Settings, ledger: Ledger
) -> None:
    with Verdicts(settings) as verdicts:
        await ready(verdicts)
        most = 0
        for turn in range(1, 21):
            tasks = [f"TASK-{turn}-{number}" for number in range(50)]
            await ledger.decide(*((task, Verdict.WARN) for task in tasks))
            await until(lambda turn=turn: verdicts.stats.decisions == turn * 50)  # type: ignore[misc]
            most = max(most, verdicts.stats.tasks)
            for task in tasks:
                verdicts.forget(task)
        assert (most, verdicts.stats.tasks) == (50, 0)


async def test_what_holds_a_task_is_not_forgotten(settings: Settings, ledger: Ledger) -> None:
    await ledger.decide((IN_0, Verdict.BLOCK), ("OBSERVED", Verdict.BLOCK))
    with Verdicts(settings) as verdicts:
        await ready(verdicts)
        for task in (IN_0, "OBSERVED", "TASK-99"):
            verdicts.forget(task)
        verdicts.forget(["no id"])  # type: ignore[arg-type]
        assert brief(verdicts.verdict(IN_0)) == ("block", True, "decision")
        assert verdicts.verdict("OBSERVED") == CONTINUE
        assert verdicts.stats.tasks == 1


async def test_what_cannot_be_read_is_counted_and_passed_over(
    settings: Settings, ledger: Ledger
) -> None:
    await ledger.write(IN_0, b"no decision")
    await ledger.decide((IN_0, Verdict.BLOCK))
    with Verdicts(settings) as verdicts:
        await ready(verdicts)
        assert verdicts.must_stop(IN_0)
        assert (verdicts.stats.unreadable, verdicts.stats.decisions) == (1, 1)


async def test_callbacks_hear_of_changes_and_may_fail(settings: Settings, ledger: Ledger) -> None:
    heard: list[tuple[str | None, str, str]] = []

    def fail(_: TaskVerdict) -> None:
        raise LookupError("the enforcer's own")

    def hear(answer: TaskVerdict) -> None:
        thread = threading.current_thread().name
        heard.append((answer.task_id, answer.verdict.value, thread))

    await ledger.decide((IN_0, Verdict.BLOCK), (IN_1, Verdict.CONTINUE))
    verdicts = Verdicts(settings)
    verdicts.on_change(fail)
    verdicts.on_change(hear)
    await ready(verdicts)
    await ledger.decide((IN_0, Verdict.CONTINUE))
    await until(lambda: len(heard) == 2)
    await asyncio.to_thread(verdicts.close)
    assert heard == [
        (IN_0, "block", "stoploss-verdicts"),
        (IN_0, "continue", "stoploss-verdicts"),
    ]
    assert verdicts.stats.callback_errors == 2


@pytest.mark.parametrize(
    ("fail", "known", "unknown"),
    [
        (Fail.OPEN, ("continue", False, "stale_feed"), ("continue", False, "stale_feed")),
        (Fail.CLOSED, ("block", True, "stale_feed"), ("block", True, "stale_feed")),
    ],
)
async def test_a_silent_ledger_fails_as_its_last_heartbeat_said(
    settings: Settings,
    ledger: Ledger,
    fail: Fail,
    known: tuple[str, bool, str],
    unknown: tuple[str, bool, str],
) -> None:
    clock, heard = Clock(), list[bool]()
    await ledger.decide((IN_0, Verdict.REVIEW), (IN_1, Verdict.WARN))
    with Verdicts(settings, monotonic_s=clock) as verdicts:
        verdicts.on_stale(heard.append)
        await ready(verdicts)
        clock.now_s += 20
        await ledger.beat(0, 1, fail=fail)
        await until(lambda: verdicts.stats.heartbeats == 2)
        clock.now_s += 25
        await ledger.beat(0, fail=fail)
        await until(lambda: verdicts.stats.heartbeats == 3)
        assert not verdicts.stale
        clock.now_s += 10
        await until(lambda: verdicts.stale)
        # Only partition 1 is silent.
        assert brief(verdicts.verdict(IN_0)) == ("review", False, "decision")
        assert brief(verdicts.verdict(IN_1)) == known
        assert brief(verdicts.verdict("TASK-99")) == unknown
        assert brief(verdicts.verdict("CHILD", root=IN_1)) == unknown
        assert verdicts.verdict("CHILD", root=IN_0) == CONTINUE
        await ledger.beat(1, fail=fail)
        await until(lambda: not verdicts.stale)
        assert brief(verdicts.verdict(IN_1)) == ("warn", False, "decision")
        assert verdicts.verdict("TASK-99") == CONTINUE
        assert verdicts.stats.stale_episodes == 1
    assert heard == [True, False]


@pytest.mark.parametrize(("fail", "held"), [("open", False), ("closed", True)])
async def test_without_kafka_nothing_waits_and_the_constructor_says_how_it_fails(
    fail: str, *, held: bool
) -> None:
    clock = Clock()
    away = Settings(bootstrap_servers="127.0.0.1:1")
    with Verdicts(away, fail=fail, monotonic_s=clock) as verdicts:
        assert not verdicts.must_stop(IN_0)
        assert not verdicts.wait_ready(0.05)
        clock.now_s += 31
        await until(lambda: verdicts.stale)
        assert verdicts.must_stop(IN_0) is held


async def test_the_kill_switch_acts_while_running(
    settings: Settings, ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streams.client.verdicts.TICK_S", 0.02)
    file = tmp_path / "off"
    await ledger.decide((IN_0, Verdict.BLOCK))
    with Verdicts(settings, kill_switch_file=file) as verdicts:
        await ready(verdicts)
        assert verdicts.must_stop(IN_0)

        monkeypatch.setenv("DISABLE_BUDGET_ENFORCEMENT", "1")
        await until(lambda: not verdicts.must_stop(IN_0))
        told = verdicts.verdict(IN_0)
        assert (told.verdict, told.enforced, told.unenforced_reason) == (
            Verdict.BLOCK,
            False,
            "kill_switch",
        )
        monkeypatch.delenv("DISABLE_BUDGET_ENFORCEMENT")
        await until(lambda: verdicts.must_stop(IN_0))

        file.touch()
        await until(lambda: verdicts.killed_by == str(file))
        assert not verdicts.must_stop(IN_0)
        file.unlink()
        await until(lambda: verdicts.must_stop(IN_0))

        verdicts.disable_enforcement()
        assert not verdicts.must_stop(IN_0)
        verdicts.enable_enforcement()
        assert verdicts.must_stop(IN_0)


async def test_a_broker_that_dies_and_returns_brings_no_old_verdict_back(tmp_path: Path) -> None:
    async with KafkaBroker(tmp_path / "kafka") as broker:
        settings = Settings(bootstrap_servers=broker.bootstrap_servers)
        await create_topics(settings)
        heard: list[str] = []
        async with Ledger(settings) as ledger:
            await ledger.decide((IN_0, Verdict.BLOCK))
            await ledger.decide((IN_0, Verdict.CONTINUE))
            verdicts = await ready(Verdicts(settings))
            verdicts.on_change(lambda answer: heard.append(answer.verdict.value))
        await broker.kill()
        assert not verdicts.must_stop(IN_0)
        await broker.start()
        async with Ledger(settings) as ledger:
            await ledger.decide((IN_0, Verdict.WARN))
            await until(lambda: verdicts.verdict(IN_0).verdict is Verdict.WARN)
        await asyncio.to_thread(verdicts.close)
    assert heard == ["warn"]


@pytest.mark.parametrize("task_id", [None, [], {}, b"x"], ids=repr)
def test_a_task_id_that_is_none_raises_nothing(task_id: str) -> None:
    with Verdicts(Settings(bootstrap_servers="127.0.0.1:1")) as verdicts:
        assert verdicts.verdict(task_id) == CONTINUE
        assert not verdicts.must_stop(task_id)


def _read_in_child(verdicts: Verdicts) -> None:
    verdicts.verdict(IN_0)  # begins to read anew
    sys.exit(0 if verdicts.wait_ready(PATIENCE_S) and verdicts.must_stop(IN_1) else 3)


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
async def test_a_forked_child_reads_for_itself(settings: Settings, ledger: Ledger) -> None:
    await ledger.decide((IN_0, Verdict.BLOCK))
    verdicts = await ready(Verdicts(settings))
    await asyncio.to_thread(verdicts.close)  # so that only the child can hear of the next one
    await ledger.decide((IN_1, Verdict.BLOCK))
    child = multiprocessing.get_context("fork").Process(target=_read_in_child, args=(verdicts,))
    child.start()
    await asyncio.to_thread(child.join, PATIENCE_S)
    assert child.exitcode == 0
    assert verdicts.must_stop(IN_0)
    assert not verdicts.must_stop(IN_1)

"""What an enforcer says, seen in the spool of an emitter whose Kafka is away."""

import json
import logging
import multiprocessing
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from streams.client import Emitter
from streams.client.spool import left_over
from streams.kafka.settings import Settings

NOWHERE = Settings(bootstrap_servers="127.0.0.1:1")
TOPIC = "stoploss.events"


def spooled(folder: Path) -> list[dict[str, Any]]:
    """The events that emitters which are no more have left in `folder`."""
    found = []
    for spool in left_over(folder, TOPIC):
        found += [msgspec.json.decode(item.value) for item in spool.peek(1_000_000, 1 << 30)]
        spool.abandon()
    return found


def short(event: dict[str, Any]) -> str:
    data = dict(event["data"])
    words = [event["type"].removeprefix("stoploss."), event["subject"]]
    words += [f"{name}={value}" for name, value in sorted(data.items())]
    return " ".join([*words, *([f"of {event['partitionkey']}"] if "partitionkey" in event else [])])


@pytest.fixture
def emitter(tmp_path: Path) -> Iterator[Emitter]:
    emitter = Emitter(NOWHERE, "enforcer-1", tmp_path)
    yield emitter
    emitter.close(0)


@pytest.fixture
def clock_ms(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Moves the monotonic clock of the context managers."""
    now_ns = [0]
    monkeypatch.setattr("streams.client.tasks.time.monotonic_ns", lambda: now_ns[0])

    def move(by_ms: int) -> None:
        now_ns[0] += by_ms * 1_000_000

    return move


def test_a_task_tells_its_story(
    emitter: Emitter, tmp_path: Path, clock_ms: Callable[[int], None]
) -> None:
    with emitter.task("TASK-1", complexity="large", labels={"a": "b"}) as task:
        with task.phase("THINK") as think:
            clock_ms(1500)
            think.usage(model="m", input_tokens=10)
        clock_ms(20)
        with task.phase("IMPLEMENT", attempt=2) as implement:
            clock_ms(7)
            implement.usage(output_tokens=4)
            implement.outcome("backtracked")
        with (
            task.child("TASK-2") as child,
            child.phase("PLAN"),
            child.child("TASK-3") as grandchild,
        ):
            grandchild.usage("PLAN", input_tokens=3)
        task.explain("it was worth it", phase="THINK")
    emitter.close(0)
    assert [short(event) for event in spooled(tmp_path)] == [
        "task.started TASK-1 complexity=large labels={'a': 'b'}",
        "phase.started TASK-1 phase=THINK",
        "phase.usage TASK-1 input_tokens=10 model=m phase=THINK",
        "phase.ended TASK-1 duration_ms=1500 outcome=completed phase=THINK",
        "phase.started TASK-1 attempt=2 phase=IMPLEMENT",
        "phase.usage TASK-1 attempt=2 output_tokens=4 phase=IMPLEMENT",
        "phase.ended TASK-1 attempt=2 duration_ms=7 outcome=backtracked phase=IMPLEMENT transition_ms=20",
        "task.started TASK-2 parent_task_id=TASK-1 of TASK-1",
        "phase.started TASK-2 phase=PLAN of TASK-1",
        "task.started TASK-3 parent_task_id=TASK-2 of TASK-1",
        "phase.usage TASK-3 input_tokens=3 phase=PLAN of TASK-1",
        "task.ended TASK-3 outcome=completed of TASK-1",
        "phase.ended TASK-2 duration_ms=0 outcome=completed phase=PLAN of TASK-1",
        "task.ended TASK-2 outcome=completed of TASK-1",
        "task.explained TASK-1 by=enforcer-1 phase=THINK text=it was worth it",
        "task.ended TASK-1 outcome=completed",
    ]


def test_an_exception_ends_phase_and_task_as_failed_and_goes_on(
    emitter: Emitter, tmp_path: Path, clock_ms: Callable[[int], None]
) -> None:
    def work() -> None:
        with emitter.task("TASK-1") as task, task.phase("THINK"):
            clock_ms(3)
            raise LookupError("nothing found")

    with pytest.raises(LookupError, match="nothing found"):
        work()
    emitter.close(0)
    assert [short(event) for event in spooled(tmp_path)][2:] == [
        "phase.ended TASK-1 duration_ms=3 outcome=failed phase=THINK",
        "task.ended TASK-1 outcome=failed",
    ]


def test_a_task_can_end_as_blocked(emitter: Emitter, tmp_path: Path) -> None:
    with emitter.task("TASK-1") as task:
        task.outcome("blocked")
    emitter.close(0)
    assert short(spooled(tmp_path)[-1]) == "task.ended TASK-1 outcome=blocked"


def test_what_the_caller_changes_afterwards_does_not_count(
    emitter: Emitter, tmp_path: Path
) -> None:
    labels, phases = {"team": "a"}, ["THINK"]
    emitter.task_started("TASK-1", labels=labels, planned_phases=phases)
    labels["team"] = "b"
    phases.clear()
    emitter.close(0)
    (event,) = spooled(tmp_path)
    assert event["data"] == {"labels": {"team": "a"}, "planned_phases": ["THINK"]}


def garbage(emitter: Any) -> None:  # noqa: ANN401 - calls that the types forbid
    emitter.usage()
    emitter.usage("T", "THINK", "more")
    emitter.usage("T", "THINK", tokens=3)
    emitter.usage(None, None)
    emitter.usage(object(), object(), input_tokens=object())
    emitter.usage("T", "THINK", input_tokens="many")
    emitter.task_started("T", labels={1: object()})
    emitter.task_ended("T", "happily")
    emitter.explained("T")
    emitter.explained("T", "")
    emitter.phase_ended("policy/3", "THINK", duration_ms=float("nan"))
    emitter.phase_started(["T"], "THINK")
    task = emitter.task("T")
    task.usage()
    task.usage("THINK", 5)
    task.phase("THINK").usage(5)
    task.explain()
    task.outcome()


def test_garbage_is_counted_and_said_once_and_raises_nothing(
    emitter: Emitter, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    garbage(emitter)
    garbage(emitter)
    emitter.usage("T", "THINK", input_tokens=1)
    emitter.close(0)
    assert [short(event) for event in spooled(tmp_path)] == [
        "phase.usage T input_tokens=1 phase=THINK"
    ]
    assert emitter.stats.invalid == 34
    said = Counter(record.getMessage() for record in caplog.records if "not an event" in record.msg)
    assert len(said) > 5
    assert set(said.values()) == {1}


def test_sequence_and_order_are_the_same_for_many_threads(emitter: Emitter, tmp_path: Path) -> None:
    def work(name: str) -> None:
        for number in range(500):
            emitter.usage(name, "THINK", input_tokens=number)

    threads = [threading.Thread(target=work, args=(f"TASK-{i}",)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    emitter.close(0)
    events = spooled(tmp_path)
    assert [event["sequence"] for event in events] == [f"{i:020d}" for i in range(1, 2_001)]
    for i in range(4):
        of_task = [e["data"]["input_tokens"] for e in events if e["subject"] == f"TASK-{i}"]
        assert of_task == list(range(500))
    assert {event["source"] for event in events} == {emitter.source}


def test_without_room_the_newest_are_dropped_counted_and_said_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    emitter = Emitter(NOWHERE, "enforcer-1", None, queue_count_max=10)
    for number in range(200):
        emitter.usage("TASK-1", "THINK", input_tokens=number)
    emitter.close(0)
    stats = emitter.stats
    assert stats.queued + stats.dropped == 200
    assert stats.queued == 10
    said = [record for record in caplog.records if "the newest events are dropped" in record.msg]
    assert len(said) == 1


def test_texts_count_for_the_bound(emitter: Emitter) -> None:
    small = Emitter(NOWHERE, "enforcer-1", None, queue_bytes_max=10_000)
    for _ in range(10):
        small.explained("TASK-1", "x" * 3_000)
    small.close(0)
    assert small.stats.dropped >= 4  # the bound is kept per tick
    assert small.stats.queued + small.stats.dropped == 10
    assert emitter.stats.dropped == 0


def test_what_is_said_after_the_end_is_dropped_and_counted(emitter: Emitter) -> None:
    assert emitter.close(0) is True
    assert emitter.close(0) is True
    emitter.usage("TASK-1", "THINK")
    assert (emitter.stats.dropped, emitter.flush(0.01)) == (1, True)


def test_a_flush_that_cannot_succeed_says_so_in_time(emitter: Emitter) -> None:
    emitter.usage("TASK-1", "THINK")
    assert emitter.flush(0.05) is False
    assert emitter.close(0) is False
    assert emitter.stats.spooled == 1


def test_an_emitter_that_nobody_holds_any_more_keeps_what_was_said(tmp_path: Path) -> None:
    Emitter(NOWHERE, "enforcer-1", tmp_path).usage("TASK-1", "THINK")
    (thread,) = [one for one in threading.enumerate() if one.name == "stoploss-emitter"]
    thread.join(20)
    assert [event["subject"] for event in spooled(tmp_path)] == ["TASK-1"]


def test_emitters_that_share_a_folder_leave_each_other_alone(tmp_path: Path) -> None:
    first, second = (Emitter(NOWHERE, "enforcer-1", tmp_path) for _ in range(2))
    first.usage("TASK-1", "THINK")
    second.usage("TASK-2", "THINK")
    first.close(0)
    second.close(0)
    events = spooled(tmp_path)
    assert {(event["source"], event["subject"]) for event in events} == {
        (first.source, "TASK-1"),
        (second.source, "TASK-2"),
    }


def test_a_folder_that_cannot_be_written_is_said_and_memory_does(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "a-file"
    file.touch()
    emitter = Emitter(NOWHERE, "enforcer-1", file)
    emitter.usage("TASK-1", "THINK")
    emitter.close(0)
    assert emitter.stats.queued == 1
    assert any("the spool takes no events" in record.msg for record in caplog.records)


def test_what_is_lost_at_the_end_without_a_spool_is_said(caplog: pytest.LogCaptureFixture) -> None:
    emitter = Emitter(NOWHERE)
    emitter.usage("TASK-1", "THINK")
    emitter.usage("TASK-1", "THINK")
    assert not emitter.close(0)
    assert "2 events are neither on Kafka nor on disk" in caplog.text


def test_a_spool_is_for_the_topic_that_the_environment_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STOPLOSS_BOOTSTRAP_SERVERS", NOWHERE.bootstrap_servers)
    monkeypatch.setenv("STOPLOSS_TOPIC_PREFIX", "ours.")
    emitter = Emitter(None, "enforcer-1", tmp_path)
    emitter.usage("TASK-1", "THINK")
    emitter.close(0)
    (about,) = tmp_path.glob("*/about.json")
    assert json.loads(about.read_bytes())["topic"] == "ours.events"


def test_wrong_settings_do_not_raise_into_the_enforcer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("STOPLOSS_BOOTSTRAP_SERVERS", "no port here")
    caplog.set_level(logging.WARNING)
    emitter = Emitter(None, "enforcer-1", tmp_path)
    emitter.usage("TASK-1", "THINK")
    emitter.flush(0.2)
    emitter.close(0)
    assert [event["subject"] for event in spooled(tmp_path)] == ["TASK-1"]
    assert any("bootstrap_servers" in record.getMessage() for record in caplog.records)


def _say_in_child(emitter: Emitter) -> None:
    emitter.usage("TASK-2", "THINK")
    emitter.close(0)


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_forked_child_has_an_emitter_of_its_own(emitter: Emitter, tmp_path: Path) -> None:
    emitter.usage("TASK-1", "THINK")
    child = multiprocessing.get_context("fork").Process(target=_say_in_child, args=(emitter,))
    child.start()
    child.join(20)
    assert child.exitcode == 0
    emitter.usage("TASK-3", "THINK")
    emitter.close(0)
    events = spooled(tmp_path)
    by_subject = {event["subject"]: event["source"] for event in events}
    assert by_subject["TASK-1"] == by_subject["TASK-3"] == emitter.source
    assert by_subject["TASK-2"] != emitter.source
    assert len(events) == 3

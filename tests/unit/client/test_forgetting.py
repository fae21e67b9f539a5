"""A process that says which of its tasks have ended keeps no more than those that go on."""

import threading
import time
from collections.abc import Callable, Iterator

import pytest

from schemas.envelope import Envelope
from schemas.fields import Mode, UnenforcedReason, Verdict
from schemas.outputs import Decision, InputRef, PolicyRef
from streams.client import Verdicts
from streams.client.verdicts import FORGOTTEN_MAX
from streams.kafka.settings import Settings

PATIENCE_S = 60.0
TIME = "2026-01-01T00:00:00.000Z"
NOBODY = Settings(bootstrap_servers="127.0.0.1:9")  # the feed is told by the tests


class Clock:
    """Moves only when a test moves it."""

    now_s = 1_000.0

    def __call__(self) -> float:
        return self.now_s


def until(condition: Callable[[], bool]) -> None:
    """Wait for what the verdicts' thread does each second."""
    waiting, deadline_s = threading.Event(), time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline_s
        waiting.wait(0.01)


def known_by(verdicts: Verdicts, decided: Envelope[Decision]) -> bool:
    """Whether a decision that comes now is taken in."""
    verdicts.decided(decided, 0)
    return verdicts.verdict(decided.data.task_id).decision_id == decided.id


def decision(
    task_id: str, offset: int, verdict: Verdict = Verdict.WARN, *, enforced: bool = True
) -> Envelope[Decision]:
    return Envelope(
        id=f"0-{offset}-0",
        source="ledger",
        type="stoploss.decision",
        subject=task_id,
        time=TIME,
        data=Decision(
            task_id=task_id,
            number=1,
            verdict=verdict,
            previous=Verdict.CONTINUE,
            enforced=enforced,
            unenforced_reason=None if enforced else UnenforcedReason.OBSERVE,
            message="",
            mode=Mode.ENFORCE,
            policy=PolicyRef("1", "abc"),
            limits_version=1,
            input=InputRef(0, offset),
        ),
    )


def connected(verdicts: Verdicts, *topic: Envelope[Decision], partitions: int = 1) -> None:
    """Read the topic from its beginning, as a feed does that has connected."""
    verdicts.loading(range(partitions))
    for each in topic:
        verdicts.decided(each, 0)
    verdicts.loaded()


@pytest.fixture
def verdicts() -> Iterator[Verdicts]:
    with Verdicts(NOBODY) as verdicts:
        yield verdicts


def test_task_after_task_leaves_nothing_behind(verdicts: Verdicts) -> None:
    topic: list[Envelope[Decision]] = []
    most = 0
    connected(verdicts)
    for offset in range(2_000):
        topic.append(decision(f"TASK-{offset}", offset))
        verdicts.decided(topic[-1], 0)
        most = max(most, verdicts.stats.tasks)
        verdicts.forget(f"TASK-{offset}")
        if offset % 500 == 499:
            connected(verdicts, *topic)

    assert (most, verdicts.stats.tasks) == (1, 0)


def test_a_decision_that_comes_after_the_end_is_passed_over_unless_it_holds(
    verdicts: Verdicts,
) -> None:
    connected(verdicts, decision("TASK-1", 1), decision("TASK-2", 2))
    for task in ("TASK-1", "TASK-2"):
        verdicts.forget(task)

    verdicts.decided(decision("TASK-1", 3, Verdict.REVIEW), 0)
    verdicts.decided(decision("TASK-2", 4, Verdict.BLOCK), 0)

    assert (verdicts.stats.tasks, verdicts.must_stop("TASK-2")) == (1, True)


def test_a_task_that_was_held_after_its_end_is_let_go_again(verdicts: Verdicts) -> None:
    connected(verdicts)
    verdicts.forget("TASK-1")
    verdicts.decided(decision("TASK-1", 1, Verdict.BLOCK), 0)

    verdicts.decided(decision("TASK-1", 2, Verdict.CONTINUE), 0)

    assert not verdicts.must_stop("TASK-1")


def test_what_was_forgotten_long_ago_does_not_come_back_with_a_new_connection() -> None:
    clock = Clock()
    topic = [
        decision("KEPT", 0),
        decision("FORGOTTEN", 1),
        decision("HELD ONCE", 2, Verdict.BLOCK),
        decision("HELD ONCE", 3),
        decision("MARK", 4),
        decision("MARK", 5),
        decision("OF THE SAME INPUT", 5),
        decision("NEW", 6),
    ]
    with Verdicts(NOBODY, monotonic_s=clock) as verdicts:
        connected(verdicts, *topic[:5])
        for task in ("FORGOTTEN", "HELD ONCE", "MARK"):
            verdicts.forget(task)
        clock.now_s += 700
        until(lambda: known_by(verdicts, topic[5]))

        connected(verdicts, *topic)

        told = {each.data.task_id: verdicts.verdict(each.data.task_id) for each in topic}
        assert [task for task, answer in told.items() if answer.number] == [
            "KEPT",
            "HELD ONCE",  # what is older than what let it go may not stand alone
            "MARK",
            "OF THE SAME INPUT",
            "NEW",
        ]
        assert not any(answer.held for answer in told.values())


def test_what_was_forgotten_ten_minutes_ago_is_known_again_once_it_is_decided() -> None:
    clock = Clock()
    with Verdicts(NOBODY, monotonic_s=clock) as verdicts:
        connected(verdicts, decision("TASK-1", 1))
        verdicts.forget("TASK-1")
        assert not known_by(verdicts, decision("TASK-1", 2))

        clock.now_s += 700

        until(lambda: known_by(verdicts, decision("TASK-1", 3)))


def test_of_those_that_were_forgotten_lately_only_so_many_are_remembered(
    verdicts: Verdicts,
) -> None:
    connected(verdicts)
    for number in range(FORGOTTEN_MAX + 1):
        verdicts.forget(f"TASK-{number}")

    until(lambda: known_by(verdicts, decision("TASK-0", 1)))
    assert not known_by(verdicts, decision("TASK-1", 2))


def test_a_connection_that_is_lost_while_it_loads_has_seen_nothing(verdicts: Verdicts) -> None:
    connected(verdicts, decision("EARLY", 1))
    verdicts.forget("EARLY")
    verdicts.loading(range(1))
    verdicts.decided(decision("MEANWHILE", 5), 0)  # and here it is lost

    connected(verdicts, decision("MEANWHILE", 5), decision("LAST", 9))

    assert verdicts.verdict("MEANWHILE").verdict is Verdict.WARN


def test_who_has_forgotten_nothing_takes_all_again(verdicts: Verdicts) -> None:
    connected(verdicts, decision("TASK-1", 100))

    connected(verdicts, decision("TASK-2", 7))  # of topics that were made anew

    assert verdicts.verdict("TASK-2").verdict is Verdict.WARN


def test_more_partitions_are_read_as_if_for_the_first_time(verdicts: Verdicts) -> None:
    connected(verdicts, decision("FORGOTTEN", 1), decision("LAST", 2))
    verdicts.forget("FORGOTTEN")

    connected(verdicts, decision("OTHER", 1), partitions=2)

    assert verdicts.verdict("OTHER").verdict is Verdict.WARN


def test_what_holds_a_task_is_neither_forgotten_nor_passed_over(verdicts: Verdicts) -> None:
    block = decision("HELD", 1, Verdict.BLOCK)
    connected(verdicts, block, decision("LAST", 2))
    verdicts.forget("HELD")
    assert verdicts.must_stop("HELD")

    verdicts.forget("LAST")
    verdicts.left("HELD")
    connected(verdicts, block, decision("LAST", 2))

    assert verdicts.must_stop("HELD")


def test_what_would_hold_a_task_in_another_mode_is_forgotten(verdicts: Verdicts) -> None:
    connected(verdicts, decision("OBSERVED", 1, Verdict.BLOCK, enforced=False))

    verdicts.forget("OBSERVED")

    assert verdicts.stats.tasks == 0


@pytest.mark.parametrize("task_id", ["TASK-99", "", None, ["no id"]])
def test_to_forget_what_is_not_known_does_no_harm(verdicts: Verdicts, task_id: object) -> None:
    connected(verdicts, decision("TASK-1", 1))

    verdicts.forget(task_id)  # type: ignore[arg-type]

    assert verdicts.stats.tasks == 1

"""What the enforcer is told, from decision, heartbeats and kill switch."""

from pathlib import Path

import pytest

from schemas.fields import Fail, Mode, UnenforcedReason, Verdict
from schemas.outputs import Decision, Heartbeat, InputRef, PolicyRef
from streams.client.answers import CONTINUE, Reason, TaskVerdict, of_decision
from streams.client.freshness import Freshness
from streams.client.kill_switch import KillSwitch
from streams.client.verdicts import Regime

ALL = frozenset({0, 1})
NONE: frozenset[int] = frozenset()


def decided(
    verdict: Verdict, *, enforced: bool = True, partition: int = 0, above: str | None = None
) -> TaskVerdict:
    decision = Decision(
        task_id="TASK-1",
        number=3,
        verdict=verdict,
        previous=Verdict.CONTINUE,
        enforced=enforced,
        unenforced_reason=None if enforced else UnenforcedReason.OBSERVE,
        inherited_from=above,
        message="THINK at 210 % of its budget",
        mode=Mode.ENFORCE if enforced else Mode.OBSERVE,
        policy=PolicyRef("1", "abc"),
        limits_version=1,
        input=InputRef(partition, 17),
    )
    return of_decision(decision, f"{partition}-17-0", partition)


BLOCK, WARN = decided(Verdict.BLOCK), decided(Verdict.WARN)
WOULD_BLOCK = decided(Verdict.BLOCK, enforced=False)
FRESH = Regime()
OPEN = Regime(None, ALL, Fail.OPEN, Mode.ENFORCE)
CLOSED = Regime(None, ALL, Fail.CLOSED, Mode.ENFORCE)
CLOSED_OBSERVING = Regime(None, ALL, Fail.CLOSED, Mode.OBSERVE)
CLOSED_UNHEARD = Regime(None, None, Fail.CLOSED, None)
KILLED = Regime("a call", NONE, Fail.OPEN, Mode.ENFORCE)
KILLED_CLOSED = Regime("a call", ALL, Fail.CLOSED, Mode.ENFORCE)
OTHER_IS_STALE = Regime(None, frozenset({1}), Fail.CLOSED, Mode.ENFORCE)


@pytest.mark.parametrize(
    ("regime", "decision", "partition", "told"),
    [
        pytest.param(FRESH, CONTINUE, None, "continue enforced no_decision", id="no decision"),
        pytest.param(FRESH, WARN, 0, "warn enforced decision", id="a warning holds nobody"),
        pytest.param(FRESH, BLOCK, 0, "block enforced held decision", id="a block holds"),
        pytest.param(FRESH, WOULD_BLOCK, 0, "block decision observe", id="not in observe"),
        pytest.param(OPEN, BLOCK, 0, "continue stale_feed stale_feed", id="open lets go"),
        pytest.param(OPEN, CONTINUE, None, "continue stale_feed stale_feed", id="and shows it"),
        pytest.param(CLOSED, WARN, 0, "block enforced held stale_feed", id="closed holds"),
        pytest.param(CLOSED, CONTINUE, None, "block enforced held stale_feed", id="everybody"),
        pytest.param(CLOSED_OBSERVING, WARN, 0, "block stale_feed observe", id="but who observes"),
        pytest.param(
            CLOSED_UNHEARD, CONTINUE, 1, "block enforced held stale_feed", id="Kafka never came"
        ),
        pytest.param(OTHER_IS_STALE, BLOCK, 0, "block enforced held decision", id="its own counts"),
        pytest.param(OTHER_IS_STALE, WARN, 0, "warn enforced decision", id="its own is fresh"),
        pytest.param(
            OTHER_IS_STALE, CONTINUE, 1, "block enforced held stale_feed", id="its root's is stale"
        ),
        pytest.param(
            OTHER_IS_STALE, CONTINUE, None, "block enforced held stale_feed", id="whose, unknown"
        ),
        pytest.param(KILLED, BLOCK, 0, "block decision kill_switch", id="the switch lets go"),
        pytest.param(
            KILLED_CLOSED, WARN, 0, "block stale_feed kill_switch", id="also of a stale feed"
        ),
    ],
)
def test_what_is_told(
    regime: Regime, decision: TaskVerdict, partition: int | None, told: str
) -> None:
    answer = regime.answer(decision, partition)
    words = [
        answer.verdict.value,
        "enforced" if answer.enforced else "",
        "held" if answer.held else "",
        answer.reason.value,
        answer.unenforced_reason or "",
    ]
    assert " ".join(filter(None, words)) == told


def test_the_last_known_verdict_is_said_when_the_feed_is_stale() -> None:
    assert OPEN.answer(BLOCK, 0).message == (
        "no fresh heartbeat of the budget ledger, fail open; the last known verdict was block"
    )


@pytest.mark.parametrize(
    ("verdict", "owed"),
    [(Verdict.WARN, False), (Verdict.REVIEW, True), (Verdict.BLOCK, True)],
)
def test_an_explanation_is_owed_from_review_on(verdict: Verdict, *, owed: bool) -> None:
    assert decided(verdict).explanation_owed is owed


def test_a_block_that_is_inherited_holds_and_is_not_to_be_explained() -> None:
    answer = decided(Verdict.BLOCK, above="TASK-P")
    assert (answer.held, answer.inherited_from) == (True, "TASK-P")
    assert not answer.explanation_owed


def test_no_decision_means_continue() -> None:
    assert (CONTINUE.verdict, CONTINUE.held) == (Verdict.CONTINUE, False)
    assert CONTINUE.reason is Reason.NO_DECISION


class Clock:
    now_s = 1_000.0

    def __call__(self) -> float:
        return self.now_s


def heartbeat(fail: Fail = Fail.OPEN, mode: Mode = Mode.ENFORCE) -> Heartbeat:
    return Heartbeat(mode=mode, fail=fail, clock="2026-01-01T00:00:00.000Z", next_offset=1)


def test_a_partition_is_stale_30_s_after_its_last_heartbeat() -> None:
    clock = Clock()
    freshness = Freshness(clock, Fail.OPEN)
    freshness.expect(range(2))
    clock.now_s += 20
    freshness.arrived(0, heartbeat())
    assert freshness.stale_partitions() == frozenset()
    clock.now_s += 10.1
    assert freshness.stale_partitions() == frozenset({1})  # never heard of: since the start
    clock.now_s += 20
    assert freshness.stale_partitions() == frozenset({0, 1})
    freshness.arrived(1, heartbeat())
    assert freshness.stale_partitions() == frozenset({0})


def test_a_ledger_never_heard_of_is_stale_everywhere() -> None:
    clock = Clock()
    freshness = Freshness(clock, Fail.CLOSED)
    assert freshness.stale_partitions() == frozenset()
    clock.now_s += 30.1
    assert freshness.stale_partitions() is None
    assert freshness.fail is Fail.CLOSED


def test_the_last_heartbeat_says_what_the_policy_wants() -> None:
    freshness = Freshness(Clock(), Fail.OPEN)
    freshness.expect(range(1))
    freshness.arrived(0, heartbeat(Fail.CLOSED, Mode.PARTIAL))
    assert (freshness.fail, freshness.mode) == (Fail.CLOSED, Mode.PARTIAL)


def test_a_heartbeat_of_a_partition_that_does_not_exist_says_nothing() -> None:
    clock = Clock()
    freshness = Freshness(clock, Fail.OPEN)
    freshness.expect(range(1))
    freshness.arrived(99, heartbeat(Fail.CLOSED))
    freshness.arrived(0, heartbeat())
    clock.now_s += 29
    assert (freshness.stale_partitions(), freshness.fail) == (frozenset(), Fail.OPEN)


@pytest.mark.parametrize(
    ("value", "by"),
    [
        ("1", "DISABLE_BUDGET_ENFORCEMENT"),
        ("true", "DISABLE_BUDGET_ENFORCEMENT"),
        ("0", None),
        ("false", None),
        ("", None),
    ],
)
def test_the_variable_is_read_at_each_look(value: str, by: str | None) -> None:
    environ = {"DISABLE_BUDGET_ENFORCEMENT": value}
    switch = KillSwitch(environ)
    assert switch.by == by
    environ.clear()
    switch.look()
    assert switch.by is None


def test_the_file_disables_as_long_as_it_is_there(tmp_path: Path) -> None:
    file = tmp_path / "stop"
    switch = KillSwitch({"STOPLOSS_KILL_SWITCH_FILE": str(file)})
    seen = [switch.by]
    file.touch()
    switch.look()
    seen.append(switch.by)
    file.unlink()
    switch.look()
    seen.append(switch.by)
    assert seen == [None, str(file), None]


@pytest.mark.parametrize("name", ["\0", "x" * 10_000], ids=["no name", "a long name"])
def test_a_file_that_cannot_be_looked_at_is_not_there(name: str) -> None:
    assert KillSwitch({}, name).by is None


def test_a_call_counts_at_once_and_beside_the_variable() -> None:
    environ = {"DISABLE_BUDGET_ENFORCEMENT": "1"}
    switch = KillSwitch(environ)
    switch.call(disabled=True)
    assert switch.by == "a call"
    switch.call(disabled=False)
    assert switch.by == "DISABLE_BUDGET_ENFORCEMENT"

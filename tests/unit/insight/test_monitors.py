"""All windows together: no order between topics, and no repetition, changes what they hold."""

from typing import TypeVar

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.alerts import Origin
from schemas.audit import Action, Audit
from schemas.envelope import Envelope
from schemas.errors import InvalidFieldError
from schemas.feedback import Feedback
from schemas.health import Health, LedgerHealth
from schemas.sketches import Histogram
from streams.budget.alert_rules import default_alert_rules
from streams.budget.policy import policy_from_toml, policy_json
from streams.insight.shares import Share
from streams.insight.signals import (
    BlockAnswered,
    ReportRead,
    Signal,
    SourceHeard,
    Tick,
    decode_signal,
    from_audit,
    from_feedback,
    from_health,
    report_read,
)
from tests.unit.budget.world import START_MS
from tests.unit.insight.signalling import Monitors, Teller

LINES = (
    "begin",
    "begin ×5",
    "block",
    "calls 40 unknown=8",
    "calls 40",
    "class 0-1-0 high/large as_of=1",
    "class 0-1-0 low/tiny as_of=2",
    "class 0-2-0 high/large",
    "answer 0-1-0 false",
    "answer 0-1-0 right",
    "answer 0-2-0 false",
    "heard enforcer-1 queue=31 ms=300×60",
    "heard enforcer-1 queue=5 ms=700×60 failed=1",
    "heard ledger-1 failed=2",
    "is critical",
    "is medium ×3",
    "is critical was=medium ago=2h",
    "awaits TASK-1",
    "settled TASK-1",
    "over TASK-1",
    "reads ann ×30",
)
SHARES = {
    "stop_loss_rate": ("blocked", "began", default_alert_rules().stop_loss_rate),
    "usage_missing": ("unknown", "calls", default_alert_rules().usage_missing),
}


@st.composite
def told(draw: st.DrawFn) -> list[Signal]:
    """Signals of the last 23 hours, none of which is too late for any window over all tasks."""
    lines = draw(st.lists(st.sampled_from(LINES), max_size=40))
    ages = draw(st.lists(st.integers(0, 23), min_size=len(lines), max_size=len(lines)))
    text = "".join(f"{line} own=-{age}h\n" for line, age in zip(lines, ages, strict=True))
    return Teller().told(f"tick\n{text}")


def interleaved(signals: list[Signal], data: st.DataObject) -> list[Signal]:
    """The same, in order within the topic that they follow from."""
    first, *rest = signals
    queues: dict[str, list[Signal]] = {}
    for signal in rest:
        assert not isinstance(signal, Tick)
        queues.setdefault(signal.origin.topic, []).append(signal)
    order = data.draw(st.permutations([name for name, queue in queues.items() for _ in queue]))
    return [first, *(queues[name].pop(0) for name in order)]


def shares_of(monitors: Monitors) -> dict[str, Share]:
    return {
        key: msgspec.json.decode(value, type=Share)
        for key, value in monitors.windows.items()
        if key.startswith((*SHARES, "false_positive_rate", "importance_inflation"))
    }


def content(monitors: Monitors) -> dict[str, object]:
    """What is held, but for where the alerts on shares stand; an empty window is as good as none."""
    shares = shares_of(monitors)
    found: dict[str, object] = {
        key: value for key, value in monitors.windows.items() if not key.startswith("scopes/")
    }
    for key, share in shares.items():
        found[key] = share.counters
    return {
        key: value
        for key, value in found.items()
        if key not in shares or shares[key].counters.buckets
    }


def after(signals: list[Signal]) -> Monitors:
    monitors = Monitors()
    monitors.take(signals)
    return monitors


@given(told(), st.data())
def test_what_windows_hold_does_not_depend_on_the_order_between_topics(
    signals: list[Signal], data: st.DataObject
) -> None:
    assert content(after(interleaved(signals, data))) == content(after(signals))


@given(told(), st.data())
def test_an_alert_on_a_share_stands_as_its_last_value_says_in_any_order(
    signals: list[Signal], data: st.DataObject
) -> None:
    """But between the two thresholds, where it stands as it did: that is what they are for."""
    for key, share in shares_of(after(interleaved(signals, data))).items():
        if key not in SHARES:
            continue
        part, whole, rule = SHARES[key]
        counted = share.counters.total(whole)
        value = share.counters.total(part) / counted if counted >= rule.count_min else 0.0
        if value > rule.fires_above:
            assert share.standing.is_firing
        elif value <= rule.resolves_at:
            assert not share.standing.is_firing


@given(told(), st.data())
def test_signals_that_come_again_change_nothing(signals: list[Signal], data: st.DataObject) -> None:
    cut = data.draw(st.integers(0, len(signals)))
    monitors = after(signals[:cut])
    before, sent = dict(monitors.windows), list(monitors.outcomes)
    start = data.draw(st.integers(0, cut))
    again = [one for one in signals[start:cut] if not isinstance(one, Tick)]
    assert monitors.take(again) == []
    assert monitors.windows == before
    monitors.take(signals[cut:])
    undisturbed = after(signals)
    assert monitors.windows == undisturbed.windows
    assert [*sent, *monitors.outcomes[len(sent) :]] == undisturbed.outcomes


@given(told())
def test_a_signal_travels_as_it_is(signals: list[Signal]) -> None:
    assert [decode_signal(msgspec.json.encode(one)) for one in signals] == signals


def test_of_what_one_tick_resolves_each_has_an_id_of_its_own() -> None:
    teller = Teller()
    monitors = Monitors()
    crowd = "".join(f"heard enforcer-{number} queue=31 failed=1\n" for number in range(5))
    monitors.take(teller.told(f"tick\n{crowd}begin ×20\nblock ×3\n"))
    resolved = monitors.take(teller.told("tick +2d\n"))
    ids = [one.id for one in resolved if isinstance(one, Envelope)]
    assert len(ids) == len(set(ids)) == 11
    assert ids[0] == "signals-0-29-stop_loss_rate-0"
    assert set(monitors.standing.values()) == {"resolved"}


Said = TypeVar("Said")


def envelope(data: Said, time: str = "2026-01-01T00:00:00Z") -> Envelope[Said]:
    return Envelope(id="1", source="x", type="y", subject="z", time=time, data=data)


ORIGIN = Origin("health", 0, 7)


def test_health_says_how_a_source_is() -> None:
    queue = Health(source="enforcer-1", queue_depth=3, transition_ms=Histogram(buckets={5: 2}))
    assert from_health(envelope(queue), ORIGIN, START_MS) == SourceHeard(
        at_ms=START_MS,
        origin=ORIGIN,
        source="enforcer-1",
        queue_depth=3,
        transition_ms=Histogram(buckets={5: 2}),
    )
    ledger = LedgerHealth(batches=5, batch_failures=1, commit_ms=Histogram())
    said = envelope(Health(source="ledger-1", ledger=ledger), time="of a wrong clock")
    assert from_health(said, ORIGIN, START_MS) == SourceHeard(
        at_ms=START_MS, origin=ORIGIN, source="ledger-1", batch_failures=1
    )


def test_health_with_other_buckets_is_refused() -> None:
    other = Health(source="x", transition_ms=Histogram(relative_error=0.05))
    with pytest.raises(InvalidFieldError, match=r"^data\.transition_ms\.relative_error: 0\.05 "):
        from_health(envelope(other), ORIGIN, START_MS)


def test_an_answer_is_about_its_decision() -> None:
    said = Feedback(task_id="TASK-1", decision_id="3-2-2", false_positive=True, by="ann")
    assert from_feedback(envelope(said), ORIGIN) == BlockAnswered(
        at_ms=START_MS, origin=ORIGIN, decision_id="3-2-2", false_positive=True
    )
    with pytest.raises(InvalidFieldError, match=r"^time: 'yesterday' "):
        from_feedback(envelope(said, time="yesterday"), ORIGIN)


def policy_set(text: str, action: Action = Action.POLICY_SET) -> Envelope[Audit]:
    document = msgspec.json.decode(policy_json(policy_from_toml(text, "policy.toml")))
    return envelope(Audit(subject="policy", action=action, by="ann", policy=document))


def test_a_policy_changes_the_rules_at_its_place_among_the_signals() -> None:
    monitors, teller = Monitors(), Teller()
    monitors.take(teller.told("tick\nbegin ×20\nblock ×3\nheard enforcer-1 queue=31\n"))
    looser = policy_set(
        "[alerts.queue_depth]\nfires_above = 90\n[alerts.stop_loss_rate]\nfires_above = 0.5"
    )
    signal = from_audit(looser, Origin("audit", 0, 3))
    assert signal is not None
    monitors.take([signal])
    assert monitors.edges == [
        "stop_loss_rate all firing 1",
        "queue_depth enforcer-1 firing 1",
        "stop_loss_rate all resolved 2",
        "queue_depth enforcer-1 resolved 2",
    ]
    monitors.take(teller.told("block ×3\nheard enforcer-1 queue=90\nheard enforcer-1 queue=91\n"))
    assert monitors.edges[4:] == ["queue_depth enforcer-1 firing 3"]


def test_a_policy_says_what_governance_judges_by() -> None:
    monitors, teller = Monitors(), Teller()
    monitors.take(teller.told("tick\nis medium ×20\nis critical ×5\nawaits TASK-1\ntick +2h"))
    stricter = policy_set("[governance]\ncritical_share_max = 0.5\nreview_due_ms = 3600000")
    signal = from_audit(stricter, Origin("audit", 0, 3))
    assert signal is not None
    monitors.take([signal])
    assert monitors.edges == [
        "importance_inflation all firing 1",
        "importance_inflation all resolved 2",
        "justification_unreviewed TASK-1 firing 1",
    ]


def test_what_else_was_done_sets_no_rules() -> None:
    assert from_audit(policy_set("", action=Action.MODE_SET), ORIGIN) is None
    done = Audit(subject="policy", action=Action.POLICY_SET, by="ann")
    assert from_audit(envelope(done), ORIGIN) is None


def test_who_has_read_a_report_is_told_and_nothing_else() -> None:
    def entry(action: Action, by: str) -> Envelope[Audit]:
        return envelope(Audit(subject="report/TASK-1", action=action, by=by))

    assert report_read(entry(Action.REPORT_READ, "ann"), ORIGIN) == ReportRead(
        at_ms=START_MS, origin=ORIGIN, reader="ann"
    )
    assert report_read(entry(Action.MODE_SET, "ann"), ORIGIN) is None


@pytest.mark.parametrize(("by", "reader"), [("", "unknown"), ("a" * 300, "a" * 200)])
def test_a_reader_has_a_name_that_an_alert_may_have(by: str, reader: str) -> None:
    entry = Audit(subject="report/TASK-1", action=Action.REPORT_READ, by=by)
    found = report_read(envelope(entry), ORIGIN)
    assert found is not None
    assert found.reader == reader


def test_a_policy_that_the_ledger_would_not_take_sets_no_rules() -> None:
    record = envelope(Audit(subject="policy", action=Action.POLICY_SET, by="ann", policy={"a": 1}))
    with pytest.raises(InvalidFieldError, match=r"^data\.policy\.version: 'absent' is not allowed"):
        from_audit(record, ORIGIN)

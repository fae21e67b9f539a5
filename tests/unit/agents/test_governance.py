"""The agent `governance`: a change of a task is written down, and looked at beside all others."""

import msgspec
from msgspec import Raw

from schemas.audit import Action, Audit
from schemas.envelope import Envelope
from schemas.outputs import Lifecycle
from schemas.topics import Topic
from streams.agents.governance import SIGNALS, tidy, watch_importance, watch_shares
from streams.agents.stages import Inbound, Outbound
from streams.insight.signals import Signal, Tick, decode_signal
from tests.unit.budget.story import story
from tests.unit.insight.told import records

# The user's scenario 6: four of five call themselves critical.
INFLATED = "\n".join(
    f'start TASK-{number} importance={"low" if number % 5 == 0 else "critical"} why="urgent"'
    for number in range(25)
)


def told(text: str) -> list[Outbound]:
    """Tell a history; return what the first stage sends."""
    entries: dict[str, object] = {}
    found: list[Outbound] = []
    changes = [record for topic, record in records(story(text)) if topic is Topic.LIFECYCLE]
    for offset, record in enumerate(changes):
        inbound = Inbound(Topic.LIFECYCLE, 3, offset, 0, record.subject, record)
        found += watch_importance(entries, inbound)  # type: ignore[arg-type]
        assert tidy(entries) == ()  # type: ignore[arg-type]
    return found


def edges(found: list[Outbound]) -> list[str]:
    alerts = [msgspec.json.decode(one.value or b"") for one in found if one.topic == Topic.ALERTS]
    return [f"{one['subject']} {one['data']['state']}" for one in alerts]


class Shares:
    """The second stage, and what it keeps."""

    def __init__(self) -> None:
        self.entries: dict[str, Raw] = {}
        self._offset = 0

    def read(self, topic: str, data: Signal | Tick | Envelope[Audit]) -> list[Outbound]:
        self._offset += 1
        inbound = Inbound(topic, 0, self._offset, 0, "key", data)
        return list(watch_shares(self.entries, inbound))  # type: ignore[arg-type]


def test_a_start_as_critical_is_noted_and_signalled() -> None:
    found = told('start TASK-1 importance=critical why="it loses data" owner=ann')
    assert {one.topic for one in found} == {Topic.AUDIT, SIGNALS.topic}
    entry = next(one for one in found if one.topic == Topic.AUDIT)
    assert entry.key == b"TASK-1"
    audit = msgspec.json.decode(entry.value or b"", type=Envelope[Audit]).data
    assert (audit.action, audit.by) == (Action.TASK_CLASSIFIED, "ann")


def test_inflation_fires_once_and_is_resolved_when_time_has_passed() -> None:
    signals = [
        decode_signal(one.value or b"") for one in told(INFLATED) if one.topic == SIGNALS.topic
    ]
    shares = Shares()
    found = [one for signal in signals for one in shares.read(SIGNALS.topic, signal)]
    assert edges(found) == ["importance_inflation/all firing"]
    now_ms = max(signal.at_ms for signal in signals)
    later = [
        one
        for day in range(1, 10)
        for one in shares.read(SIGNALS.topic, Tick(at_ms=now_ms + day * 86_400_000))
    ]
    assert "importance_inflation/all resolved" in edges(later)


def test_who_reads_very_many_reports_is_noticed() -> None:
    shares = Shares()
    found: list[Outbound] = []
    for number in range(70):
        read = Audit(subject=f"report/TASK-{number}", action=Action.REPORT_READ, by="eve")
        entry = Envelope(
            id=f"read-{number}",
            source="cli",
            type="stoploss.audit",
            subject=read.subject,
            time="2026-11-26T17:00:00.000Z",
            data=read,
        )
        found += shares.read(Topic.AUDIT, entry)
    assert edges(found) == ["access_anomaly/eve firing"]


def test_a_change_of_something_else_is_not_a_signal() -> None:
    said = Audit(subject="mode", action=Action.MODE_SET, by="ann")
    entry = Envelope(
        id="1",
        source="cli",
        type="stoploss.audit",
        subject="mode",
        time="2026-11-26T17:00:00Z",
        data=said,
    )
    assert Shares().read(Topic.AUDIT, entry) == []


def test_a_partition_has_no_class() -> None:
    record = Envelope(
        id="3-7-0",
        source="ledger",
        type="stoploss.lifecycle",
        subject="partition/3",
        time="2026-11-26T17:00:00.000Z",
        data=Lifecycle(change="partition_checkpoint"),
    )
    entries: dict[str, object] = {}
    inbound = Inbound(Topic.LIFECYCLE, 3, 0, 0, "partition/3", record)
    assert list(watch_importance(entries, inbound)) == []  # type: ignore[arg-type]

"""The agent's two stages together: whatever order and crashes, the reports are those of a calm run."""

import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.envelope import Envelope, epoch_ms_of
from schemas.reports import Report
from schemas.topics import Topic
from streams.agents import reports
from streams.agents.folding import fold_batch
from streams.agents.stages import Stage
from streams.agents.ticking import Overtaken
from streams.agents.watchdog import Standing
from streams.insight.notices import notice_of_completion
from streams.kafka.settings import Settings
from tests.unit.budget.story import story
from tests.unit.insight.told import TELL, records

PREFIX = "x."
PARTITION = 1
AGENT = reports.agent("https://budget.example/{task_id}")
GATHER, WRITE = AGENT.stages
NOW_S = 1_800_000_000.0
HISTORY = """
    start  TASK-1 planned=THINK,IMPLEMENT owner=ann team=red task_type=fix
    start  TASK-2 parent=TASK-1 planned=THINK
    begin  TASK-1 THINK
    usage  TASK-1 THINK 9_000 files=30
    usage  TASK-2 THINK 5_000
    explain TASK-1 "the plan missed the migration"
    end    TASK-1 THINK backtracked ms=10000
    begin  TASK-1 THINK +1m
    usage  TASK-1 THINK 9_000
    end    TASK-1 THINK completed ms=20000
    finish TASK-1 completed
    usage  TASK-2 THINK 700
    finish TASK-2 failed
    start  TASK-3
    usage  TASK-3 THINK 100
    finish TASK-3
"""


@dataclass
class Record:
    """A record as it is read."""

    topic: str
    partition: int
    offset: int
    timestamp: float
    value: bytes | None
    key: bytes | None = None
    headers: Any = ()


def of_the_ledger() -> dict[str, list[Record]]:
    """What the ledger wrote, by topic, long before it is read."""
    return {topic: list(told) for topic, told in _of_the_ledger().items()}


@cache
def _of_the_ledger() -> dict[str, list[Record]]:
    topics: dict[str, list[Record]] = defaultdict(list)
    for topic, envelope in records(story(HISTORY)):
        value = msgspec.json.encode(envelope, order=None)
        at = len(topics[topic])
        topics[topic].append(
            Record(f"{PREFIX}{topic}", PARTITION, at, epoch_ms_of(envelope.time) / 1000, value)
        )
    return topics


class Run:
    """A broker and a worker in memory: topics, stored entries, offsets, and a clock of its own."""

    def __init__(self, ledger: dict[str, list[Record]]) -> None:
        self.topics: dict[str, list[Record]] = defaultdict(list) | ledger
        self.done: dict[str, int] = defaultdict(int)
        self.stored: dict[str, dict[bytes, bytes]] = {GATHER.name: {}, WRITE.name: {}}
        self.now_s = NOW_S
        self._overtaken = Overtaken()

    def step(
        self, stage: Stage, topic: str, count: int, *, crash: random.Random | None = None
    ) -> None:
        """Read up to so many records of a topic; a crash keeps some entries and no offsets."""
        batch = self.topics[topic][self.done[topic] : self.done[topic] + count]
        stored = self.stored[stage.name]
        folded = fold_batch(stage, PREFIX, batch, lambda _: stored)
        assert folded.refused == 0
        for output in folded.outputs:
            self.append(output.topic, output.value)
        changes = folded.changes
        if crash is not None:
            changes = changes[: crash.randint(0, len(changes))]
        for change in changes:
            if change.value is None:
                del stored[change.key]
            else:
                stored[change.key] = change.value
        if crash is None:
            self.done[topic] += len(batch)

    def append(self, topic: str, value: bytes | None) -> None:
        into = self.topics[topic]
        into.append(Record(f"{PREFIX}{topic}", 0, len(into), self.now_s, value))

    def tick(self) -> None:
        """Let a second pass, and say so once all is read that was there before, as `ticking` does."""
        self.now_s += reports.TICK_EVERY_S
        standings = {
            (source.topic, PARTITION): Standing(
                self.done[source.topic], len(self.topics[source.topic])
            )
            for source in GATHER.sources
        }
        reached_ms = self._overtaken.look(round(self.now_s * 1000), standings)
        if reached_ms is not None:
            self.append(reports.DUE.topic, reports.tick(reached_ms))

    def settle(self) -> None:
        """Read everything, and let a while pass."""
        for _ in range(12):
            for source in GATHER.sources:
                self.step(GATHER, source.topic, 1_000)
            self.step(WRITE, reports.DUE.topic, 1_000)
            self.tick()
        self.step(WRITE, reports.DUE.topic, 1_000)

    @property
    def written(self) -> list[Envelope[Report]]:
        return [
            msgspec.json.decode(record.value or b"", type=Envelope[Report])
            for record in self.topics[Topic.REPORTS]
        ]

    @property
    def last(self) -> dict[str, Report]:
        return {each.subject: each.data for each in self.written}


@cache
def calm() -> Run:
    run = Run(of_the_ledger())
    run.settle()
    return run


def test_each_task_that_has_ended_has_one_report_with_its_link() -> None:
    run = calm()
    assert [each.subject for each in run.written] == ["TASK-1", "TASK-2", "TASK-3"]
    assert {each.data.revision for each in run.written} == {1}
    assert run.last["TASK-1"].link == "https://budget.example/TASK-1"
    assert run.last["TASK-1"].metrics["tokens"].used == 23_700  # type: ignore[index]
    assert all(notice_of_completion(each) is not None for each in run.written)


@pytest.mark.parametrize("late", list(TELL))
def test_the_first_report_is_whole_though_one_topic_is_read_last(late: Topic) -> None:
    """The backlog of one topic is read for half a minute after that of the others."""
    run = Run(of_the_ledger())
    for topic in TELL:
        if topic is not late:
            run.step(GATHER, topic, 1_000)
    while run.done[late] < len(run.topics[late]):
        run.tick()
        run.step(WRITE, reports.DUE.topic, 1_000)
        run.step(GATHER, late, 1)
    run.settle()
    assert run.last == calm().last
    assert [each.data.revision for each in run.written] == [1, 1, 1]


@given(st.integers(0, 2**32))
def test_crashes_and_any_order_are_not_seen_in_what_comes_out(seed: int) -> None:
    chance = random.Random(seed)
    run = Run(of_the_ledger())
    topics = [*TELL, reports.DUE.topic]
    while any(run.done[topic] < len(run.topics[topic]) for topic in TELL):
        topic = chance.choice(topics)
        stage = WRITE if topic == reports.DUE.topic else GATHER
        crash = chance if chance.random() < 0.3 else None
        run.step(stage, topic, chance.randint(1, 9), crash=crash)
        if chance.random() < 0.3:
            run.tick()
    run.settle()
    expected = calm().last
    assert {task: whole(report) for task, report in run.last.items()} == {
        task: whole(report) for task, report in expected.items()
    }
    told = {each.id for each in run.written if notice_of_completion(each) is not None}
    assert len(told) == 3, "a repeated notice has the same id"


def whole(report: Report) -> Report:
    """The report, whichever revision it is."""
    return msgspec.structs.replace(report, revision=1)


def test_decisions_that_the_ledger_deletes_are_passed_over() -> None:
    ledger = of_the_ledger()
    decisions = ledger[Topic.DECISIONS]
    decisions.append(
        Record(f"{PREFIX}decisions", PARTITION, len(decisions), NOW_S, None, b"TASK-1")
    )
    run = Run(ledger)
    run.settle()
    assert run.last == calm().last


def test_the_link_is_what_the_settings_say() -> None:
    assert reports.AGENT.set_up is not None
    links: Sequence[str | None] = [None, "https://x.example/{task_id}"]
    for link in links:
        made = reports.AGENT.set_up(Settings(report_url=link))
        assert made.name == reports.AGENT.name
        run = Run(of_the_ledger())
        for source in GATHER.sources:
            run.step(GATHER, source.topic, 1_000)
        for _ in range(8):
            run.tick()
            run.step(made.stages[1], reports.DUE.topic, 1_000)
        assert run.last["TASK-1"].link == (None if link is None else "https://x.example/TASK-1")

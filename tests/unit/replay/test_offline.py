"""History through the fold: what stands in the end, what was said on the way, and the sums."""

import json
from collections import Counter
from decimal import Decimal
from typing import Any

import msgspec
import pytest

from schemas.decode import Refusal, decode_event
from schemas.events import Event
from schemas.fields import Mode, Verdict
from streams.budget.policy import Policy, policy_from_toml, policy_json
from streams.importers.base import import_events
from streams.importers.demo import DEMO_KIND, demo_path
from streams.replay import offline
from streams.replay.offline import replay
from streams.replay.result import ReplayedTask, ReplayResult

# THINK: 6,000 tokens for a medium task; a task of THINK alone is blocked at 12,000.
THINK: dict[str, Any] = {"planned_phases": ["THINK"]}
MONDAY, TUESDAY, FRIDAY = "2026-03-02", "2026-03-03", "2026-03-06"


class Story:
    """Events told one after the other; each a second after the last of its day."""

    def __init__(self) -> None:
        self.events: list[Event | Refusal] = []
        self._day, self._seconds = MONDAY, Counter[str]()

    def on(self, day: str) -> "Story":
        self._day = day
        return self

    def at(
        self, kind: str, subject: str, *, partitionkey: str | None = None, **data: object
    ) -> "Story":
        self._seconds[self._day] += 1
        second = self._seconds[self._day]
        event = {
            "specversion": "1.0",
            "id": f"{self._day}-{second}-{subject}",
            "source": "story",
            "type": f"stoploss.{kind}",
            "subject": subject,
            "time": f"{self._day}T10:{second // 60:02d}:{second % 60:02d}Z",
            "partitionkey": partitionkey,
            "data": data,
        }
        self.events.append(decode_event(json.dumps(event).encode()))
        return self

    def usage(self, task: str, tokens: int, **data: Any) -> "Story":  # noqa: ANN401 - JSON
        return self.at("phase.usage", task, phase="THINK", input_tokens=tokens, **data)


def row(result: ReplayResult, task_id: str) -> ReplayedTask:
    return next(task for task in result.tasks if task.task_id == task_id)


def a_policy(tokens: int) -> Policy:
    return policy_from_toml(
        f'version = "p{tokens}"\n[phases.THINK]\ntokens = {tokens}\nlatency_ms = 1000\nweight = 1\n',
        "test",
    )


def policy_set(policy: Policy) -> dict[str, Any]:
    document = msgspec.json.decode(policy_json(policy))
    return {"policy": document, "version": policy.version, "hash": policy.hash, "by": "ada"}


def test_a_row_says_what_stands_and_what_was_used_at_the_crossing_event() -> None:
    story = Story().at("task.started", "T", **THINK).usage("T", 5_000)
    story.usage("T", 8_000, cost_usd=0.5, duration_ms=70).usage("T", 1_000)
    assert replay(story.events).tasks == [
        ReplayedTask(
            task_id="T",
            verdict=Verdict.BLOCK,
            peak=Verdict.BLOCK,
            used={"tokens": 14_000, "latency_ms": 70, "cost_usd": Decimal("0.5")},
            limit={"tokens": 6_000, "latency_ms": 135_000},
            blocked_at={"tokens": 13_000, "latency_ms": 70, "cost_usd": Decimal("0.5")},
        )
    ]


def test_a_grant_in_the_log_lowers_the_verdict_and_keeps_the_peak() -> None:
    story = Story().at("task.started", "T", **THINK).usage("T", 12_000)
    story.at("task.granted", "T", by="ada", reason="needed", multiplier=4)
    result = replay(story.events)
    task = row(result, "T")
    assert (task.verdict, task.peak) == (Verdict.CONTINUE, Verdict.BLOCK)
    assert task.limit["tokens"] == 24_000
    assert task.blocked_at is not None
    assert result.summary.verdicts[Verdict.BLOCK] == 1


def test_a_task_that_was_never_blocked_has_no_blocked_at() -> None:
    result = replay(Story().at("task.started", "T", **THINK).usage("T", 9_000).events)
    assert (row(result, "T").verdict, row(result, "T").blocked_at) == (Verdict.REVIEW, None)


def test_a_child_counts_in_its_parent_and_once_in_the_sum() -> None:
    story = Story().at("task.started", "P", **THINK)
    story.at("task.started", "C", parent_task_id="P", partitionkey="P")
    story.at("task.started", "G", parent_task_id="C")
    story.usage("P", 1_000).usage("C", 100).usage("G", 10, cost_usd=0.25)
    result = replay(story.events)
    used = {task.task_id: task.used["tokens"] for task in result.tasks}
    assert used == {"P": 1_110, "C": 110, "G": 10}
    assert result.summary.used == {"tokens": 1_110, "latency_ms": 0, "cost_usd": 0.25}


def test_a_block_of_the_parent_is_one_of_its_open_child() -> None:
    story = Story().at("task.started", "P", **THINK)
    story.at("task.started", "C", parent_task_id="P", partitionkey="P").usage("C", 7)
    task = row(replay(story.usage("P", 12_000).events), "C")
    assert task.peak is Verdict.BLOCK
    assert task.blocked_at == {"tokens": 7, "latency_ms": 0, "cost_usd": 0}


def test_sessions_of_earlier_days_that_come_later_are_judged_by_their_own_clock() -> None:
    late, early = Story().on(FRIDAY), Story().on(MONDAY)
    for story, task in ((late, "LATE"), (early, "EARLY")):
        story.at("task.started", task, **THINK).at("phase.started", task, phase="THINK")
        story.at("phase.ended", task, phase="THINK").at("task.ended", task)
    apart = [*replay(late.events).tasks, *replay(early.events).tasks]
    assert replay([*late.events, *early.events]).tasks == apart
    assert apart[1].used["latency_ms"] == 1_000


def test_events_of_one_family_out_of_order_are_not_historical() -> None:
    story = Story().on(FRIDAY).at("task.started", "T", **THINK)
    story.on(MONDAY).at("phase.started", "T", phase="THINK")
    story.on(TUESDAY).usage("T", 1)
    story.on(FRIDAY).at("task.explained", "T", by="ada", text="time passes")
    # The open phase runs from the highest time seen: one second until the last event.
    assert row(replay(story.events), "T").used["latency_ms"] == 1_000


def test_usage_long_after_the_end_still_belongs_to_the_task() -> None:
    story = Story().at("task.started", "T", **THINK).usage("T", 1).at("task.ended", "T")
    story.on(FRIDAY).usage("T", 10)
    result = replay(story.events)
    assert [task.used["tokens"] for task in result.tasks] == [11]
    assert result.summary.reopened == 0


def test_what_comes_for_a_family_put_away_is_added_to_its_row(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(offline, "FAMILIES_MAX", 1)
    story = Story().at("task.started", "T", **THINK).usage("T", 12_000)
    story.usage("OTHER", 1).usage("T", 100, cost_usd=0.5)
    result = replay(story.events)
    assert [task.task_id for task in result.tasks] == ["T", "OTHER"]
    task = row(result, "T")
    assert task.used == {"tokens": 12_100, "latency_ms": 0, "cost_usd": Decimal("0.5")}
    assert (task.verdict, task.peak) == (Verdict.CONTINUE, Verdict.BLOCK)
    assert task.blocked_at == {"tokens": 12_000, "latency_ms": 0, "cost_usd": 0}
    assert result.summary.reopened == 1
    assert result.summary.used["tokens"] == 12_101


def test_a_block_after_reopening_adds_what_was_used_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(offline, "FAMILIES_MAX", 1)
    story = Story().usage("T", 5).usage("OTHER", 1).usage("T", 100_000)
    assert row(replay(story.events), "T").blocked_at == {
        "tokens": 100_005,
        "latency_ms": 0,
        "cost_usd": 0,
    }


def test_a_policy_of_the_log_counts_for_the_tasks_that_start_after_it() -> None:
    story = Story().usage("BEFORE", 1).at("policy.set", "partition/3", **policy_set(a_policy(50)))
    story.usage("BEFORE", 1).usage("AFTER", 100)
    result = replay(story.events)
    assert row(result, "BEFORE").limit["tokens"] == 23_400
    assert row(result, "AFTER").limit["tokens"] == 50
    assert result.summary.policy.version == "p50"


def test_a_policy_that_is_given_is_the_only_one() -> None:
    story = Story().at("policy.set", "partition/3", **policy_set(a_policy(50))).usage("T", 100)
    result = replay(story.events, a_policy(70))
    assert row(result, "T").limit["tokens"] == 70
    assert result.summary.policy.hash == a_policy(70).hash


def test_what_was_written_to_every_partition_counts_once() -> None:
    story = Story().at("task.started", "T", **THINK)
    for partition in range(3):
        story.at("all.granted", f"partition/{partition}", by="a", reason="b", multiplier=2)
    assert row(replay(story.events), "T").limit["tokens"] == 12_000


def test_a_grant_to_all_is_for_those_who_are_there() -> None:
    story = Story().at("task.started", "T", **THINK)
    story.at("all.granted", "partition/0", by="a", reason="b", multiplier=2)
    story.at("task.started", "LATER", **THINK)
    assert row(replay(story.events), "LATER").limit["tokens"] == 6_000


@pytest.mark.parametrize(
    ("mode", "said", "held"),
    [
        pytest.param(None, None, 0, id="nobody is held in observe"),
        pytest.param(None, "enforce", 1, id="the mode of the log holds"),
        pytest.param(Mode.ENFORCE, "observe", 1, id="a mode that is given is the only one"),
    ],
)
def test_who_is_held_follows_from_the_mode(mode: Mode | None, said: str | None, held: int) -> None:
    story = Story().at("task.started", "T", **THINK)
    if said is not None:
        story.at("mode.set", "partition/0", mode=said, by="ada", reason="b")
    result = replay(story.usage("T", 12_000).events, mode=mode)
    assert result.summary.held == held
    assert result.summary.mode is (mode or Mode(said or "observe"))


def test_a_tick_lets_time_pass_for_open_phases_of_all_families() -> None:
    story = Story().at("task.started", "T", **THINK).at("phase.started", "T", phase="THINK")
    story.on(TUESDAY).at("clock.tick", "partition/7")
    # Over a day in one phase is impossible, hence 0; its levels were reached on the way.
    assert row(replay(story.events), "T").peak is Verdict.REVIEW


def test_refused_and_repeated_events_are_counted_and_change_nothing() -> None:
    story = Story().usage("T", 1)
    story.events.append(story.events[0])
    story.at("phase.usage", "T", phase="SLEEP", input_tokens=1)
    story.at("phase.usage", "NONE", phase="SLEEP", input_tokens=1)
    story.events.append(decode_event(b"no json"))
    story.at("mode.set", "partition/0", mode="enforce", by="a", reason="b")
    story.events.append(story.events[-1])
    story.at("all.granted", "partition/0", by="a", reason="b", multiplier=0)
    summary = replay(story.events).summary
    assert summary.refused == {"invalid_field": 3, "not_json": 1}
    assert (summary.events, summary.repeated, summary.tasks) == (8, 2, 1)
    assert summary.used["tokens"] == 1


def test_unknown_usage_is_a_share_of_calls() -> None:
    story = Story().usage("T", 1).usage("T", 1)
    story.at("phase.usage", "T", phase="THINK", usage_known=False)
    summary = replay(story.events).summary
    assert (summary.model_calls, summary.unknown_usage_share) == (3, 0.3333)


def test_nothing_gives_an_empty_result() -> None:
    result = replay([])
    assert result.tasks == []
    assert result.summary.unknown_usage_share == 0
    assert set(result.summary.verdicts) == set(Verdict)


def test_the_sums_of_the_real_sessions_are_those_of_their_import() -> None:
    log = import_events(DEMO_KIND, [demo_path()])
    result = replay(log)
    tokens = log.summary.tokens
    metered = tokens.uncached_input + tokens.cache_write + tokens.output
    assert Decimal(str(result.summary.used["tokens"])) == metered + tokens.cache_read / Decimal(10)
    assert Decimal(str(result.summary.used["cost_usd"])) == log.summary.cost_usd
    assert result.summary.tasks == log.summary.sessions == len(result.tasks)
    assert result.summary.model_calls == log.summary.calls
    assert result.summary.refused == {}


def test_a_task_of_the_real_sessions_is_blocked_at_twice_its_limit_and_no_earlier() -> None:
    result = replay(import_events(DEMO_KIND, [demo_path()]))
    roots = [
        task for task in result.tasks if task.blocked_at and task.blocked_at["tokens"] >= 46_800
    ]
    assert len(roots) >= 20
    for task in result.tasks:
        if not task.blocked_at:
            assert task.used["tokens"] < 46_800
    peaks = Counter(task.peak for task in result.tasks)
    assert {level: peaks[level] for level in Verdict} == result.summary.verdicts


def test_each_file_alone_gives_the_same_rows_as_all_together() -> None:
    events = list(import_events(DEMO_KIND, [demo_path()]))
    ids = {event.subject for event in events if not event.partitionkey}
    apart = {
        task.task_id: task
        for root in ids
        for task in replay(e for e in events if (e.partitionkey or e.subject) == root).tasks
    }
    assert {task.task_id: task for task in replay(events).tasks} == apart


def test_the_json_is_that_of_the_wire_contract() -> None:
    result = replay(Story().at("task.started", "T", **THINK).usage("T", 1).events)
    told = msgspec.json.decode(msgspec.json.encode(result))
    assert set(told) == {"summary", "tasks"}
    assert set(told["tasks"][0]) >= {"task_id", "verdict", "used", "limit", "blocked_at"}
    assert told["tasks"][0]["blocked_at"] is None


def test_a_rebuilt_record_of_a_partition_happened_to_no_task() -> None:
    story = Story().usage("T", 100)
    story.at("task.recovered", "partition/0", by="a", reason="b", action="refold", key="policy/1")
    result = replay(story.events)
    assert [task.task_id for task in result.tasks] == ["T"]
    assert result.summary.refused == {}

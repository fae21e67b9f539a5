"""Where a task would be stopped is where the fold stops it, under every share of the limit."""

from collections import Counter
from collections.abc import Iterable
from itertools import islice

import pytest
from msgspec.structs import replace

from schemas.events import Event, PhaseUsage, TaskStarted
from schemas.fields import Cause, Metric, Scope, Verdict
from streams.budget.policy import Policy, builtin_policy
from streams.importers.base import import_events
from streams.importers.demo import DEMO_KIND, demo_path
from streams.insight.gate import WouldBe, amounts_json
from streams.insight.savings import SHARES
from streams.replay import offline
from streams.replay.judging import Judgement, LogJudged, judge
from streams.replay.offline import replay
from streams.replay.result import ReplayedTask, ReplayResult
from tests.unit.replay.test_offline import THINK, Story, a_policy

DEMO_EVENTS = 4_000


def demo() -> list[Event]:
    return list(islice(import_events(DEMO_KIND, [demo_path()]), DEMO_EVENTS))


def roomy() -> Policy:
    """Return a policy under which the demo's sessions end on both sides of their limits."""
    return a_policy(60_000)


def in_think(events: Iterable[Event]) -> list[Event]:
    """Return the events with all usage in the one phase of `roomy`."""
    found = []
    for event in events:
        if isinstance(event, PhaseUsage):
            event = replace(event, data=replace(event.data, phase="THINK"))  # noqa: PLW2901
        found.append(event)
    return found


def roots(events: Iterable[Event], result: ReplayResult) -> list[ReplayedTask]:
    """Return the tasks that are below no other: what stops a sub-agent may be its parent's block."""
    below = {
        event.subject
        for event in events
        if isinstance(event, TaskStarted) and event.data.parent_task_id is not None
    }
    return [task for task in result.tasks if task.task_id not in below]


def blocked_at(policy: Policy, share: int) -> Policy:
    """Return the policy with a task's block, and nothing else, at another share of its limit."""
    ladders = dict(policy.ladders)
    for metric in (Metric.TOKENS, Metric.COST_USD):
        ladders[Scope.TASK, metric] = (None, None, None, share)
    return replace(policy, ladders=ladders)


def one(story: Story, policy: Policy | None = None) -> WouldBe:
    """Return what would be said of the story's task T."""
    (judgement,) = judge(story.events, [policy or builtin_policy()]).judgements
    return judgement.would_be["T"]


def test_what_would_be_said_of_each_task_is_what_a_replay_says() -> None:
    events = in_think(demo())
    result = replay(events, roomy())
    (judgement,) = judge(events, [roomy()]).judgements
    assert judgement.summary == result.summary
    assert judgement.would_be.keys() == {task.task_id for task in result.tasks}
    assert len(Counter(task.peak for task in result.tasks)) >= 3, "a demo of one verdict shows less"
    for task in roots(events, result):
        said = judgement.would_be[task.task_id]
        assert said.peak is task.peak
        assert amounts_json(said.used) == task.used
        assert (said.block is None) == (task.blocked_at is None)
        if said.block is not None and task.blocked_at is not None:
            assert amounts_json(said.block.used) == task.blocked_at


@pytest.mark.parametrize("share", [5_000, 10_000, 17_500, 25_000, 60_000, 200_000])
def test_a_stop_at_a_share_is_where_a_policy_with_that_block_stops(share: int) -> None:
    events = in_think(demo())
    (judgement,) = judge(events, [roomy()]).judgements
    result = replay(events, blocked_at(roomy(), share))
    stopped = 0
    for task in roots(events, result):
        stop = judgement.would_be[task.task_id].stops.get(share)
        assert (stop is None) == (task.blocked_at is None), task.task_id
        if stop is not None and task.blocked_at is not None:
            stopped += 1
            assert amounts_json(stop.used) == task.blocked_at
    assert stopped or share > 60_000


def test_one_reading_tells_each_policy_what_it_would_be_told_alone() -> None:
    events = in_think(demo())
    policies = [roomy(), a_policy(500), a_policy(900_000)]
    found = judge(events, policies)
    assert found.judgements == [judge(events, [each]).judgements[0] for each in policies]
    assert found.tasks == judge(events, policies[:1]).tasks


def test_a_block_says_where_it_comes_from() -> None:
    story = Story().at("task.started", "T", **THINK).usage("T", 5_000, output_tokens=900)
    said = one(story.usage("T", 8_000, output_tokens=900, duration_ms=70))
    assert said.block is not None
    assert (said.peak, said.reports, said.limit[Metric.TOKENS]) == (Verdict.BLOCK, 2, 6_000_000)
    block = said.block
    assert (block.metric, block.at, block.limit) == (Metric.TOKENS, 12_000_000, 6_000_000)
    assert (block.phase, block.cause) == ("THINK", Cause.UNCLASSIFIED)
    assert block.used == {Metric.TOKENS: 14_800_000, Metric.LATENCY_MS: 70, Metric.COST_USD: 0}
    assert [share for share in SHARES if share in said.stops][-1] == 22_500


def test_a_task_that_is_almost_done_is_stopped_later_under_every_share() -> None:
    story = Story().at("task.started", "T", planned_phases=["THINK", "PR"])
    story.at("phase.started", "T", phase="THINK")
    story.at("phase.ended", "T", phase="THINK", outcome="completed")
    story.at("phase.usage", "T", phase="PR", input_tokens=13_799)
    # 6,900 of both; of one that is almost done a block waits for the 900 of PR.
    said = one(story)
    assert (said.limit[Metric.TOKENS], said.block) == (6_900_000, None)
    assert max(said.stops) == 17_500
    assert said.stops[17_500].at == 12_975_000


def test_a_task_with_a_limit_of_cost_is_stopped_by_what_comes_first() -> None:
    story = Story().at(
        "task.started", "T", planned_phases=["THINK"], budget_overrides={"task": {"cost_usd": 1}}
    )
    said = one(story.usage("T", 7_000, cost_usd=3))
    assert said.block is not None
    assert (said.block.metric, said.block.at, said.block.limit) == (
        Metric.COST_USD,
        2_000_000_000,
        1_000_000_000,
    )
    assert max(said.stops) == 30_000
    assert said.stops[10_000].metric is Metric.TOKENS
    assert said.stops[20_000].metric is Metric.COST_USD


def test_usage_of_a_child_is_a_report_of_its_parent_and_stops_it() -> None:
    story = Story().at("task.started", "T", **THINK)
    story.at("task.started", "C", parent_task_id="T", partitionkey="T")
    story.usage("C", 12_000).usage("T", 1)
    (judgement,) = judge(story.events, [builtin_policy()]).judgements
    said = judgement.would_be["T"]
    assert said.reports == 2
    assert said.block is not None
    assert said.block.used[Metric.TOKENS] == 12_000_000
    assert judgement.would_be["C"].block is None


def test_a_repeated_or_refused_report_is_none() -> None:
    story = Story().at("task.started", "T", **THINK).usage("T", 1)
    again = [*story.events, story.events[-1]]
    (judgement,) = judge(again, [builtin_policy()]).judgements
    assert judgement.would_be["T"].reports == 1


def test_a_task_that_was_put_away_and_opened_anew_goes_on_where_it_was(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(offline, "FAMILIES_MAX", 1)
    story = Story().at("task.started", "T", **THINK).usage("T", 8_000).usage("T", 500)
    story.usage("OTHER", 1).usage("T", 47_000)
    said = one(story)
    assert said.used[Metric.TOKENS] == 55_500_000
    assert said.block is not None
    assert said.block.used[Metric.TOKENS] == 55_500_000


def test_a_log_tells_how_its_tasks_ended() -> None:
    story = Story().at("task.started", "T", labels={"resolved": "true"}, **THINK).usage("T", 1)
    story.at("task.ended", "T").at("task.started", "OPEN").usage("OPEN", 1)
    found = judge(story.events, [builtin_policy()])
    assert [(each.task_id, each.success) for each in found.tasks] == [("T", True)]
    assert found.judgements[0].would_be.keys() == {"T", "OPEN"}


def test_of_no_events_nothing_is_said() -> None:
    found = judge([], [builtin_policy()])
    assert isinstance(found, LogJudged)
    assert (found.tasks, [type(each) for each in found.judgements]) == ([], [Judgement])
    assert found.judgements[0].would_be == {}

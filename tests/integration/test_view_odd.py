"""Whatever odd things the topics say that are allowed: Redis takes them, and gives them back as they were."""

import asyncio
import itertools
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from decimal import Decimal
from typing import Any

import hypothesis
import hypothesis.strategies as st
import msgspec
import pytest

from schemas.alerts import Alert
from schemas.audit import Audit
from schemas.envelope import EPOCH_MS_MAX, EPOCH_MS_MIN, Envelope
from schemas.feedback import Feedback
from schemas.fields import (
    COUNT_MAX,
    LIMIT_MAX,
    NAME_LENGTH_MAX,
    Complexity,
    Importance,
    Metric,
    Mode,
    Scope,
    Verdict,
)
from schemas.outputs import (
    Breach,
    Cell,
    Decision,
    ExecutionRecord,
    InputRef,
    Lifecycle,
    PolicyRef,
)
from schemas.reports import Report
from schemas.topics import Topic
from streams.local.redis import RedisServer
from streams.view.keys import TASK_RECORDS
from streams.view.totals import Dimension
from tests.integration.view_store import Piece, Shelf, shelf
from tests.integration.view_world import (
    Said,
    alert,
    audit,
    baseline,
    feedback,
    health,
    now_ms,
    report,
)
from tests.unit.budget.histories import POLICY, anything, histories
from tests.unit.budget.world import World as Ledger
from tests.unit.view.records import DAY_MS, Kept, execution, record, task

pytestmark = pytest.mark.integration

EXAMPLES = hypothesis.settings(max_examples=30)
# What somebody might take apart, count in bytes, or print; and the longest there are.
ODD = [
    ":", "/", "{}", "a:{b}:c", "view:tasks", "*", "%s", "\\", '"', "\x00", "\r\n", "\x1b[2J", " ",
    "0", "-1", "\u202e", "e\u0301", "\U0001f4a5", "\U0001f4a5" * NAME_LENGTH_MAX,
    "\x00" * NAME_LENGTH_MAX, "nano_usd/ada", "TASK-1/0", "feed:decisions",
]  # fmt: skip
NAMES = st.sampled_from(ODD) | st.text(
    st.characters(exclude_categories=["Cs"]), min_size=1, max_size=NAME_LENGTH_MAX
)


def decimals(highest: int, places: int) -> st.SearchStrategy[Decimal]:
    """Amounts of any size, and the bounds."""
    unit = Decimal(1).scaleb(-places)
    whole = st.sampled_from([0, 1, highest * 10**places]) | st.integers(0, highest * 10**places)
    return whole.map(lambda number: number * unit)


def on_redis(url: str, check: Callable[[Shelf], Awaitable[None]]) -> None:
    """Have a check look at keys of its own."""

    async def checked() -> None:
        async with shelf(url, f"t-{uuid.uuid4().hex[:8]}.") as view:
            await check(view)

    asyncio.run(checked())


@st.composite
def runs(draw: st.DrawFn) -> list[Kept]:
    """Executions of extreme amounts under odd names, some published again, some tasks begun anew."""
    names = draw(st.lists(NAMES, min_size=1, max_size=2))
    end_ms = now_ms()
    revisions: Counter[tuple[str, str, int]] = Counter()
    records = []
    for number in range(draw(st.integers(1, 8))):
        of = draw(st.tuples(st.sampled_from(names), NAMES | st.just("A"), st.integers(1, 2)))
        revisions[of] = 1 if draw(st.integers(0, 4)) == 0 else revisions[of] + 1
        kept = execution(
            of[0],
            phase=of[1],
            attempt=of[2],
            revision=revisions[of],
            at_ms=end_ms - draw(st.integers(0, 2)) * DAY_MS,
            latency_ms=draw(st.sampled_from([0, LIMIT_MAX]) | st.integers(0, LIMIT_MAX)),
            metered_tokens=draw(decimals(10**16, 3)),
            counters={
                "cost_usd": draw(decimals(10**13, 9)),
                "input_tokens": draw(st.integers(0, 10**18)),
                "model_calls": draw(st.integers(0, COUNT_MAX)),
            },
            limits={Metric.TOKENS: draw(st.sampled_from([0, 1, Decimal("0.001"), LIMIT_MAX]))},
            owner=draw(st.none() | NAMES),
            team=draw(st.none() | NAMES),
            task_type=draw(st.none() | NAMES),
        )
        records.append(replace(kept, value=(kept.value or b"").replace(b'"0-0-0"', b'"0-%d-0"' % number)))  # fmt: skip
    return records


RUN = msgspec.json.Decoder(Envelope[ExecutionRecord])


def pieces_of(records: Sequence[Kept], cuts: set[int]) -> list[Piece]:
    at = [0, *sorted(cut for cut in cuts if cut < len(records)), len(records)]
    return [[(Topic.EXECUTIONS, each) for each in records[a:b]] for a, b in itertools.pairwise(at)]


@hypothesis.given(records=runs(), cuts=st.sets(st.integers(1, 7)))
@EXAMPLES
def test_executions_of_any_size_and_name_are_read_back_and_added_up(
    redis_server: RedisServer, records: list[Kept], cuts: set[int]
) -> None:
    async def check(view: Shelf) -> None:
        for piece in pieces_of(records, cuts):
            await view.show(piece)
        await assert_shown(view, records)

    on_redis(redis_server.url, check)


async def assert_shown(view: Shelf, records: Sequence[Kept]) -> None:
    """Hold executions and totals against what these records say."""
    last: dict[tuple[str, str, int], Envelope[ExecutionRecord]] = {}
    counted: list[ExecutionRecord] = []  # the last word of every life
    for each in (RUN.decode(kept.value or b"") for kept in records):
        of = (each.data.task_id, each.data.phase, each.data.attempt)
        if each.data.revision > 1:
            counted.remove(last[of].data)
        counted.append(each.data)
        last[of] = each
    for task_id in {name for name, _, _ in last}:
        found = await view.queries.task(task_id)
        assert found is not None
        expected = [each for of, each in last.items() if of[0] == task_id]
        assert sorted(found.executions, key=_id) == sorted(expected, key=_id)
    for by in Dimension:
        totals = {each.value: each for each in await view.queries.totals(by) if each.executions}
        assert totals.keys() == {getattr(data, by) for data in counted}
        for value, total in totals.items():
            of_value = [data for data in counted if getattr(data, by) == value]
            assert total.executions == len(of_value)
            assert total.metered_milli_tokens == sum(
                int(data.metered_tokens * 1_000) for data in of_value
            )
            assert total.cost_nano_usd == _sum(of_value, "cost_usd", 10**9)
            assert total.latency_ms == sum(data.latency_ms for data in of_value)
            assert total.input_tokens == _sum(of_value, "input_tokens", 1)
            assert total.model_calls == _sum(of_value, "model_calls", 1)
    utilisation = await view.queries.utilisation()
    with_limit = [data for data in counted if data.limits.get(Metric.TOKENS)]
    assert sum(share.count for share in utilisation.executions) == len(with_limit)


def _id(each: Envelope[ExecutionRecord]) -> str:
    return each.id


def _sum(runs: list[ExecutionRecord], name: str, unit: int) -> int:
    return sum(int(data.counters.get(name, 0) * unit) for data in runs)


STEPS_MAX = 10
LISTED = (Topic.DECISIONS, Topic.BREACHES, Topic.LIFECYCLE)


def of_task(said: Piece, topic: Topic, task_id: str) -> list[Any]:
    """Return the last records of a task in a topic."""
    found = [
        msgspec.json.decode(kept.value, type=KINDS[topic])
        for place, kept in said
        if place is topic and kept.key == task_id.encode() and kept.value is not None
    ]
    return found[-TASK_RECORDS:]


@hypothesis.given(
    st.lists(anything(), min_size=1, max_size=STEPS_MAX)
    | histories(events_max=STEPS_MAX).map(lambda history: [each.value for each in history])
)
@EXAMPLES
def test_whatever_events_say_what_the_ledger_makes_of_them_is_read_back(
    redis_server: RedisServer, events: list[bytes]
) -> None:
    ledger = Ledger(POLICY)
    for event in events:
        ledger.take(event, now_ms())
    said = [(topic, Kept(one.key, one.value)) for topic, one in ledger.output]
    said += [(Topic.TASKS, Kept(key.encode(), value)) for key, value in ledger.records.items()]

    async def check(view: Shelf) -> None:
        await view.show(said)
        runs = [kept for topic, kept in said if topic is Topic.EXECUTIONS and kept.value]
        await assert_shown(view, runs)
        letters = Counter(each.reason for each in ledger.letters())
        assert await view.queries.dead_letters() == letters
        for task_id in {each.task_id for each in ledger.lifecycles() if each.task_id is not None}:
            found = await view.queries.task(task_id)
            assert found is not None
            assert {
                Topic.DECISIONS: found.decisions,
                Topic.BREACHES: found.breaches,
                Topic.LIFECYCLE: found.changes,
            } == {topic: of_task(said, topic, task_id) for topic in LISTED}
            assert (found.state is not None) == (task_id in ledger.records)

    on_redis(redis_server.url, check)


def said_about(name: str, other: str, at_ms: int) -> Piece:
    """Return a record of every kind, about a task, a source, an owner and a person of that name."""
    cell, policy, at = Cell(Scope.PHASE, Metric.TOKENS, name), PolicyRef(name, name), InputRef(0, 7)
    decision = Decision(
        task_id=name, number=1, verdict=Verdict.BLOCK, previous=Verdict.CONTINUE, enforced=True,
        cell=cell, message=name, mode=Mode.ENFORCE, policy=policy, limits_version=1, input=at,
    )  # fmt: skip
    breach = Breach(
        task_id=name, cell=cell, used=Decimal("0.001"), limit=LIMIT_MAX, ratio=0.0,
        limits_version=1, level=Verdict.WARN, input=at,
    )  # fmt: skip
    ended = Lifecycle(
        change="ended", task_id=name, parent_task_id=other, owner=name, team=other, task_type=name,
        complexity=Complexity.TINY, importance=Importance.LOW, labels={"": "", name[:64]: ""},
    )  # fmt: skip
    by_agents: list[Said] = [
        alert(1, name), report(name, 1), audit(name, name), feedback(name, false_positive=True),
        (Topic.BASELINES, name, baseline(3)[2]),
        health(name, COUNT_MAX, transition_ms={-(10**9): COUNT_MAX, 10**9: 1}),
    ]  # fmt: skip
    said: list[Said] = [
        (Topic.DECISIONS, name, decision),
        (Topic.BREACHES, name, breach),
        (Topic.LIFECYCLE, name, ended),
        *by_agents,
    ]
    return [
        (Topic.TASKS, task(name, used=3 * LIMIT_MAX)),
        (Topic.TASKS, task(other, used=0, status="ended")),
        *((topic, record(key, data, at_ms=at_ms)) for topic, key, data in said),
    ]


@hypothesis.given(name=NAMES, other=NAMES)
@EXAMPLES
def test_whatever_something_is_called_it_is_found_by_that_name(
    redis_server: RedisServer, name: str, other: str
) -> None:
    hypothesis.assume(name != other)
    said = said_about(name, other, now_ms())

    async def check(view: Shelf) -> None:
        await view.show(said)
        ask, found = view.queries, await view.queries.task(name)
        assert found is not None
        assert found.state is not None
        assert found.report is not None
        firing, sources = (await ask.alerts()).firing, (await ask.health(2)).sources
        assert {
            Topic.DECISIONS: found.decisions,
            Topic.BREACHES: found.breaches,
            Topic.LIFECYCLE: found.changes,
            Topic.ALERTS: firing,
            Topic.REPORTS: [found.report],
            Topic.AUDIT: (await ask.audit(name)).entries,
            Topic.FEEDBACK: await ask.feedback(name),
        } == {topic: [each] for topic, each in decoded(said).items()}
        assert [each.source for each in sources] == [name]
        assert sources[0].transition_ms.count == COUNT_MAX + 1
        assert [*await ask.baselines()] == [name]
        parent = await ask.task(other)
        assert parent is not None
        assert parent.children == [name]
        assert [each.task_id for each in await ask.below(other)] == [name]
        assert [each.task_id for each in (await ask.open_tasks()).tasks] == [name]
        assert [each.task_id for each in (await ask.ended_tasks()).tasks] == [other]
        assert {each.value: each.tasks for each in await ask.totals(Dimension.OWNER)} == {name: 1}
        assert await ask.decisions() == found.decisions
        assert await ask.breaches() == found.breaches

    on_redis(redis_server.url, check)


KINDS: dict[Topic, Any] = {
    Topic.DECISIONS: Envelope[Decision],
    Topic.BREACHES: Envelope[Breach],
    Topic.LIFECYCLE: Envelope[Lifecycle],
    Topic.ALERTS: Envelope[Alert],
    Topic.REPORTS: Envelope[Report],
    Topic.AUDIT: Envelope[Audit],
    Topic.FEEDBACK: Envelope[Feedback],
}


def decoded(said: Piece) -> dict[Topic, Any]:
    """Return what the records of these kinds say."""
    return {
        topic: msgspec.json.decode(kept.value or b"", type=KINDS[topic])
        for topic, kept in said
        if topic in KINDS
    }


# Named, since the test's processes collect it at different times.
@pytest.mark.parametrize(
    "at_ms",
    [
        pytest.param(EPOCH_MS_MIN, id="the first year"),
        pytest.param(0, id="1970"),
        pytest.param(now_ms() + 365 * DAY_MS, id="next year"),
        pytest.param(EPOCH_MS_MAX, id="the last year"),
    ],
)
async def test_whenever_something_was_its_keys_end(
    redis_server: RedisServer, topic_prefix: str, at_ms: int
) -> None:
    async with shelf(redis_server.url, topic_prefix) as view:
        await view.show([*said_about("TASK-1", "TASK-2", at_ms), (Topic.EXECUTIONS, execution(at_ms=at_ms))])  # fmt: skip
        is_long_ago = at_ms <= 0
        ended = 0
        async for key in view.redis.scan_iter(match=f"{view.keys.root}*:*"):
            kind = key.removeprefix(view.keys.root.encode()).partition(b":")[0]
            if kind != b"feed":
                assert 0 < await view.redis.ttl(key) <= 100 * DAY_MS // 1_000, key
                ended += 1
        assert (ended == 0) == is_long_ago
        assert [each.data.scope for each in (await view.queries.alerts()).firing] == ["TASK-1"]

"""What is refused, and that it leaves no trace (which `World` checks after each event)."""

import pytest

from schemas.topics import Topic
from streams.budget.policy import policy_from_toml, policy_json
from tests.unit.budget.story import all_said, story
from tests.unit.budget.world import OWN_SUBJECT, START_MS, World, record

OTHER = policy_from_toml('version = "other"', "other.toml")


@pytest.mark.parametrize(
    ("line", "field"),
    [
        pytest.param(
            "usage TASK-1 THINK 5 read=6",
            "data.cache_read_tokens + cache_write_tokens",
            id="a part larger than its whole",
        ),
        pytest.param("usage TASK-1 THINK out=5 thought=6", "data.reasoning_tokens", id="thought"),
        pytest.param("usage TASK-1 THINK cost=-1.5", "data.cost_usd", id="money back"),
        pytest.param("usage TASK-1 THINK cost=NaN", "data.cost_usd", id="no number"),
        pytest.param("usage TASK-1 THINK -5", "data.input_tokens", id="tokens back"),
        pytest.param("usage partition/3 THINK 5", "subject", id="the partition as a task"),
        pytest.param("start policy/abc", "subject", id="a policy as a task"),
        pytest.param("garbage", "value", id="no JSON"),
    ],
)
def test_bad_input_is_refused(line: str, field: str) -> None:
    world = story(f"""
        start TASK-1
        {line}
    """)
    assert all_said(world, Topic.DEAD_LETTERS) == [f"refused {field}"]
    assert list(world.state.tasks) == ["TASK-1"]


def test_a_dead_letter_names_its_task_where_it_has_one() -> None:
    world = story("""
        usage TASK-1 SLEEP 5
        grant-all ×0.5
        garbage
    """)
    assert [letter.task_id for letter in world.letters()] == ["TASK-1", None, None]
    first = world.letters()[0]
    assert (first.reason, first.detail.value) == ("invalid_field", "SLEEP")
    assert first.detail.allowed.startswith("one of STRATEGIZE, SPEC, ")


@pytest.mark.parametrize("kind", ["all.granted", "mode.set", "policy.set", "clock.tick"])
def test_an_event_for_another_partition_is_refused(kind: str) -> None:
    world = World()
    data = {
        "all.granted": {"by": "ada", "reason": "x", "multiplier": 2},
        "mode.set": {"by": "ada", "reason": "x", "mode": "enforce"},
        "policy.set": {"policy": OTHER.document, "version": "other", "hash": OTHER.hash, "by": "a"},
        "clock.tick": None,
    }[kind]
    world.take(record(kind, "partition/4", "e", data, START_MS))
    assert all_said(world) == ["refused subject"]


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        pytest.param({"hash": "0" * 16}, "data.hash", id="another hash than its content's"),
        pytest.param({"policy": {}}, "data.policy.version", id="an empty policy"),
        pytest.param({"policy": 5}, "data.policy.policy", id="no policy at all"),
        pytest.param(
            {"policy": OTHER.document | {"colour": 1}}, "data.policy.colour", id="a misspelt key"
        ),
    ],
)
def test_a_bad_policy_is_refused_and_the_running_one_stays(
    changes: dict[str, object], field: str
) -> None:
    world = story("policy other", other=OTHER)
    data = {"policy": OTHER.document, "version": "other", "hash": OTHER.hash, "by": "ada"}
    world.take(record("policy.set", OWN_SUBJECT, "e-x", data | changes, START_MS))
    assert all_said(world)[-1] == f"refused {field}"
    assert world.state.active_policy.hash == OTHER.hash


@pytest.mark.parametrize("depth", [15, 17, 200, 300, 900])
def test_where_a_policy_is_nested_too_deeply_does_not_depend_on_the_stack(depth: int) -> None:
    nested = b'{"a":' * depth + b"1" + b"}" * depth
    world = story("policy other", other=OTHER)
    data = {"policy": "HERE", "version": "x", "hash": "x", "by": "ada"}
    text = record("policy.set", OWN_SUBJECT, "e-x", data, START_MS)
    world.take(text.replace(b'"HERE"', nested))
    assert all_said(world)[-1].startswith("refused")


@pytest.mark.parametrize(
    "number", [b"1e99999999999999999999", b"1e999999", b"-1", b"1e-5", b"true"]
)
def test_a_policy_may_hold_any_number(number: bytes) -> None:
    world = World()
    assert b'"weight":1.5' in policy_json(OTHER)
    policy = policy_json(OTHER).replace(b'"weight":1.5', b'"weight":' + number)
    data = {"policy": "HERE", "version": "x", "hash": "x", "by": "ada"}
    text = record("policy.set", OWN_SUBJECT, "e-x", data, START_MS)
    world.take(text.replace(b'"HERE"', policy))
    assert all_said(world)[-1].startswith("refused data.policy.")


@pytest.mark.parametrize(
    ("time", "shown"),
    [
        ("0001-01-01T00:00:00+14:00", "0001-01-01T00:00:00.000Z"),
        ("0999-12-31T00:00:00Z", "0999-12-31T00:00:00.000Z"),
        ("9999-12-31T23:59:59-14:00", "9999-12-31T23:59:59.999Z"),
        ("1969-12-31T23:59:59.9999Z", "1969-12-31T23:59:59.999Z"),
    ],
)
def test_a_producers_clock_may_say_what_it_likes(time: str, shown: str) -> None:
    world = World()
    for kind in ("phase.started", "phase.ended"):
        text = record(kind, "TASK-1", kind, {"phase": "THINK"}, START_MS)
        world.take(text.replace(b"2026-01-01T00:00:00.000Z", time.encode()))
    (run,) = world.executions()
    assert (run.started, run.ended, run.latency_ms) == (shown, shown, 0)


@pytest.mark.parametrize("bad", [b'"\xff"', b'{"\xff": {"tokens": 1}}', b'{"THINK": "\xc3"}'])
def test_a_start_whose_overrides_are_no_utf_8_is_no_json(bad: bytes) -> None:
    world = World()
    data = {"budget_overrides": "HERE"}
    world.take(record("task.started", "TASK-1", "e", data, START_MS).replace(b'"HERE"', bad))
    assert [letter.reason for letter in world.letters()] == ["not_json"]
    assert list(world.state.tasks) == []


@pytest.mark.parametrize("bad", [b'"\xff"', b'{"\xff": 1}', b'{"version": "\xc3"}'])
def test_a_policy_that_is_no_utf_8_is_no_json(bad: bytes) -> None:
    world = World()
    data = {"policy": "HERE", "version": "other", "hash": OTHER.hash, "by": "ada"}
    value = record("policy.set", OWN_SUBJECT, "e", data, START_MS).replace(b'"HERE"', bad)
    world.take(value)
    assert [letter.reason for letter in world.letters()] == ["not_json"]
    assert world.state.policy is None

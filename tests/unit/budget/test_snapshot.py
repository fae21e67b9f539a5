"""What stands in `tasks`, and what a restart says of a record that is not the ledger's."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from schemas.errors import Remedy
from streams.budget.policy import policy_from_toml
from streams.budget.restore import TornStateError, restore, restore_awake, torn_in
from streams.budget.snapshot import drain_changes, task_state
from streams.budget.state import PartitionState
from tests.unit.budget.story import story
from tests.unit.budget.world import OWN_SUBJECT, PARTITION, World

STORY = """
    start TASK-0
    start TASK-1 planned=THINK,PR parent=TASK-0 override.THINK.cost_usd=1.5 owner=ada x=0.5
    begin TASK-1 THINK seq=1
    usage TASK-1 THINK 2_000 cost=0.5 seq=2
    grant TASK-1 ×1.5
    grant TASK-1 task.tokens=10000
    policy own
    begin TASK-1 PR +10s seq=3
"""
OWN = policy_from_toml('version = "own"', "own.toml")


def stored(key: str) -> dict[str, Any]:
    world = story(STORY, own=OWN)
    return msgspec.json.decode(world.records[key])["data"]  # type: ignore[no-any-return]


def test_a_task_is_stored_whole_and_readable() -> None:
    data = stored("TASK-1")
    assert data["cells"] == [
        {"scope": "task", "metric": "tokens", "used": 2_000, "limit": 10_000, "level": "continue"},
        {
            "scope": "task",
            "metric": "latency_ms",
            "used": 10_000,
            "limit": 114_750,
            "level": "continue",
        },
        {
            "scope": "phase",
            "metric": "tokens",
            "used": 2_000,
            "limit": 4_500,
            "level": "continue",
            "phase": "THINK",
        },
        {
            "scope": "phase",
            "metric": "latency_ms",
            "used": 10_000,
            "limit": 101_250,
            "level": "continue",
            "phase": "THINK",
        },
        {
            "scope": "phase",
            "metric": "cost_usd",
            "used": 0.5,
            "limit": 2.25,
            "level": "continue",
            "phase": "THINK",
        },
        {
            "scope": "phase",
            "metric": "tokens",
            "used": 0,
            "limit": 675,
            "level": "continue",
            "phase": "PR",
        },
        {
            "scope": "phase",
            "metric": "latency_ms",
            "used": 0,
            "limit": 13_500,
            "level": "continue",
            "phase": "PR",
        },
    ]
    assert data["phases"]["THINK"]["attempts"] == 1
    assert data["phases"]["THINK"]["counters"] == {
        "model_calls": 1,
        "input_tokens": 2_000,
        "cost_usd": 0.5,
    }
    assert data["grants"] == [
        {"multiplier": "1.5"},
        {"limits": {"task": {"tokens": 10_000}}},
    ]
    assert (data["status"], data["verdict"], data["last_offset"], data["limits_version"]) == (
        "open",
        "continue",
        7,
        3,
    )
    assert data["parent_task_id"] == "TASK-0"
    assert data["dedupe"]["sequences"] == {"enforcer": 3}
    assert len(data["dedupe"]["recent"]) == 3


def test_usage_of_children_is_stored_with_the_parent() -> None:
    assert stored("TASK-0")["rolled"] == [2_000_000, 500_000_000]


def test_a_record_of_a_version_that_kept_one_block_is_read_as_it_was_meant() -> None:
    policy = policy_from_toml("[ladders.phase.tokens]\nreview = 1.8\nblock = 2.0", "phase.toml")
    world = story("start T planned=THINK,PR\nusage T PR 1_800\nusage T THINK 12_000", policy=policy)
    envelope = msgspec.json.decode(world.records["T"])
    data = envelope["data"]
    blocks = [tuple(data["block"]), *map(tuple, data.pop("later_blocks"))]
    assert blocks == [
        ("PR", 0, 1_800_000),
        ("THINK", 0, 12_000_000),
        (None, 0, 13_800_000),
    ]

    def restored_with(**fields: object) -> list[tuple[str | None, int, int]]:
        record = msgspec.json.encode(envelope | {"data": data | fields})
        found = restore(PARTITION, list((world.records | {"T": record}).items()), policy)
        return [(one.phase, one.metric, one.used) for one in found.tasks["T"].blocks]

    assert restored_with() == blocks[:1]
    assert restored_with(block=["THINK", 1, 90_000]) == [], "it does not stand at block"
    assert restored_with(block=None) == []


def test_the_partition_is_stored_with_its_next_offset() -> None:
    data = stored(OWN_SUBJECT)
    assert (data["next_offset"], data["mode"], data["policy"]["version"]) == (8, "observe", "own")


def test_the_ids_of_what_is_stored_follow_from_the_last_input_not_from_the_batch() -> None:
    world = story("start TASK-2\nstart TASK-1\nusage TASK-2 PR 5\ntick +1m")
    ids = {effect.key: (effect.offset, effect.index) for effect in drain_changes(world.state)}
    assert ids == {"TASK-2": (2, 0), "TASK-1": (1, 0), OWN_SUBJECT: (3, 0)}
    assert [effect.key for effect in drain_changes(world.state)] == [OWN_SUBJECT]


def test_a_limit_is_taken_as_it_was_stored_even_where_the_formula_has_changed() -> None:
    world = story(STORY, own=OWN)
    change(world, "TASK-1", lambda data: data["cells"][0].update(limit=9_000))
    state = restored(world)
    cell = state.tasks["TASK-1"].tokens
    assert cell.line is not None
    assert (cell.line.limit, cell.line.at[3]) == (9_000_000, 18_000_000)


def restored(world: World) -> PartitionState:
    return restore(PARTITION, list(world.records.items()), world.default_policy)


def change(world: World, key: str, edit: Callable[[Any], object]) -> None:
    record = msgspec.json.decode(world.records[key])
    edit(record["data"])
    world.records[key] = msgspec.json.encode(record)


@pytest.mark.parametrize(
    ("key", "edit", "reason"),
    [
        pytest.param(
            "TASK-1",
            lambda data: data.pop("cells"),
            "missing required field `cells`",
            id="a field is gone",
        ),
        pytest.param(
            "TASK-1",
            lambda data: data.update(parent_task_id="GONE"),
            "its parent GONE is not there",
            id="the parent is gone",
        ),
        pytest.param(
            "TASK-1",
            lambda data: data["policy"].update(hash="0"),
            "its policy 0 is not there",
            id="the policy is gone",
        ),
        pytest.param("TASK-1", lambda data: data.update(outcome="slept"), "slept", id="an outcome"),
        pytest.param(
            "TASK-1",
            lambda data: data.update(planned_phases=["NAP"]),
            "NAP",
            id="a phase that its policy does not list",
        ),
        pytest.param(
            "TASK-1",
            lambda data: data["phases"]["PR"]["executions"][0].__setitem__(5, 9),
            "IndexError",
            id="a source that it does not have",
        ),
        pytest.param(
            "TASK-1",
            lambda data: data["phases"]["THINK"]["counters"].update(file_read=1),
            "counters: 'file_read' is not allowed; use one of model_calls, ",
            id="a counter that there is not",
        ),
        pytest.param(
            "TASK-1",
            lambda data: data.update(open_phase="NAP"),
            "KeyError",
            id="an open phase that it does not have",
        ),
        pytest.param(
            "TASK-1",
            lambda data: data["grants"][0].update(multiplier="1/0"),
            "ZeroDivisionError",
            id="a grant of no number",
        ),
        pytest.param(
            "TASK-1",
            lambda data: data["cells"][0].update(used=0.5, limit=0.0001),
            "too many decimals",
            id="a limit that cannot be",
        ),
        pytest.param(
            OWN_SUBJECT,
            lambda data: data.update(partition=9),
            "it is partition 9's",
            id="another partition's",
        ),
        pytest.param(
            OWN_SUBJECT,
            lambda data: data.update(next_offset=7),
            "it goes on at offset 7; TASK-1 is at 7",
            id="an older one that came again",
        ),
        pytest.param(
            OWN_SUBJECT,
            lambda data: data["policy"].update(hash="0"),
            "its policy 0 is not there",
            id="the partition's policy is gone",
        ),
        pytest.param(
            f"policy/{OWN.hash}",
            lambda data: data["policy"].pop("fail"),
            "fail: 'absent' is not allowed",
            id="a policy with a hole",
        ),
    ],
)
def test_a_torn_record_is_named_with_what_to_do(
    key: str, edit: Callable[[Any], object], reason: str
) -> None:
    world = story(STORY, own=OWN)
    change(world, key, edit)
    with pytest.raises(TornStateError, match=reason) as torn:  # some is seen when a task is woken
        restore_awake(PARTITION, world.records.items(), world.default_policy)
    assert torn.value.key == key
    assert torn.value.remedy is Remedy.STOP
    assert f"`stoploss recover {key} --reason …` rebuilds it from events" in str(torn.value)


@pytest.mark.parametrize("value", [b"", b"{", b"null", b"[" * 5_000])
def test_what_is_no_json_is_torn(value: bytes) -> None:
    world = story("start TASK-1")
    world.records["TASK-1"] = value
    with pytest.raises(TornStateError, match=r"^tasks, partition 3, key TASK-1: "):
        restored(world)


@pytest.mark.parametrize("key", ["TASK-1", OWN_SUBJECT, f"policy/{OWN.hash}"])
def test_a_byte_that_is_no_utf8_tears_a_record_wherever_it_stands(key: str) -> None:
    """Also where the decoder would pass over it: the name of a field that is torn is another field's."""
    world = story(STORY, own=OWN)
    sound = world.records[key]
    named = Counter[str]()
    for place in range(len(sound)):
        torn = sound[:place] + b"\xff" + sound[place + 1 :]
        found = torn_in(PARTITION, (world.records | {key: torn}).items())
        named["nothing" if found is None else found.key] += 1
    assert named == {key: len(sound)}


def test_a_cell_that_a_record_does_not_name_has_no_limit_and_is_not_stored_either() -> None:
    world = story("""
        start TASK-1 planned=THINK
        usage TASK-1 THINK 2_000
    """)
    change(world, "TASK-1", lambda data: data.update(cells=[]))
    state = restore_awake(PARTITION, world.records.items(), world.default_policy)
    assert task_state(state.tasks["TASK-1"]).cells == []


def test_a_partition_that_was_never_written_is_empty() -> None:
    state = restore(PARTITION, [], World().default_policy)
    assert (state.next_offset, list(state.tasks), state.open_tasks) == (0, [], 0)


def test_tasks_without_the_record_of_their_partition_are_torn() -> None:
    world = story("start TASK-1")
    del world.records[f"partition/{PARTITION}"]
    with pytest.raises(TornStateError, match="key partition/3: it is not there, and tasks are"):
        restored(world)


def test_the_record_of_another_partition_is_named() -> None:
    world = story("start TASK-1")
    world.records["partition/9"] = world.records[f"partition/{PARTITION}"]
    with pytest.raises(
        TornStateError, match="key partition/3: another partition's partition/9 stands beside it"
    ):
        restored(world)


def test_what_a_restore_stops_at_is_told_and_nothing_where_all_is_sound() -> None:
    world = story("start TASK-1")
    assert torn_in(PARTITION, world.records.items()) is None
    world.records["TASK-1"] = b"{"
    torn = torn_in(PARTITION, world.records.items())
    assert torn is not None
    assert torn.key == "TASK-1"

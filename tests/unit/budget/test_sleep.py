"""Idle tasks sleep; nothing that is published shows it (`World` folds every story that way, too)."""

import pytest

from streams.budget.restore import Restoring, TornStateError, restore, restore_awake
from streams.budget.sleep import AT_ONCE_MAX, Patience, Sleep
from streams.budget.snapshot import drain_changes
from streams.budget.tasks import pack, unpack
from tests.unit.budget.story import story, tell
from tests.unit.budget.world import PARTITION, World, encoded, restored, snapshot

WEEK = Patience(idle_ms=7 * 86_400_000, crowded_idle_ms=60_000, awake_max=2, look_every_ms=1_000)


def told(text: str) -> World:
    """A story of which everything is stored."""
    world = story(text)
    drain_changes(world.state)
    return world


def test_a_record_is_unpacked_as_it_was_packed() -> None:
    record = b'{"data":{"task_id":"TASK-1"}}' * 100
    assert unpack(pack(record)) == record
    assert len(pack(record)) < len(record) // 2


def test_a_task_that_nothing_changed_for_long_sleeps_and_is_woken_by_who_asks() -> None:
    world = told("start TASK-1\nbegin TASK-1 PLAN\nusage TASK-1 PLAN 10\ntick +2s")
    before, tasks = snapshot(world.state), world.state.tasks
    sleep = Sleep(world.state, Patience(idle_ms=2_000))
    sleep.step()
    assert (list(tasks.awake), list(tasks.asleep)) == ([], ["TASK-1"])
    assert repr(tasks) == "<Tasks awake=0 asleep=1>"
    assert repr(sleep) == f"<Sleep {tasks!r} drowsy=0>"
    assert snapshot(world.state) == before
    assert (list(tasks.awake), list(tasks.asleep)) == (["TASK-1"], [])


def test_a_task_that_was_just_changed_stays_awake() -> None:
    world = told("start TASK-1\ntick +59s")
    Sleep(world.state, Patience(idle_ms=60_000)).step()
    assert list(world.state.tasks.awake) == ["TASK-1"]


def test_what_is_not_committed_yet_stays_awake() -> None:
    world = story("start TASK-1\ntick +1h")
    Sleep(world.state, Patience(idle_ms=60_000)).step()
    assert list(world.state.tasks.awake) == ["TASK-1"]


def test_a_crowd_is_put_to_sleep_sooner() -> None:
    world = told("start TASK-1\nstart TASK-2\ntick +1m")
    Sleep(world.state, WEEK).step()
    assert len(world.state.tasks.awake) == 2
    tell(world, "start TASK-3")
    drain_changes(world.state)
    Sleep(world.state, WEEK).step()
    assert list(world.state.tasks.awake) == ["TASK-3"]


def test_many_are_put_to_sleep_a_few_at_a_time_so_that_no_batch_waits() -> None:
    many = "\n".join(f"start TASK-{number}" for number in range(AT_ONCE_MAX + 1))
    world = told(f"{many}\ntick +1h")
    sleep = Sleep(world.state, Patience())
    sleep.step()
    assert len(world.state.tasks.awake) == 1
    world.state.touch(world.state.tasks["TASK-0"])  # it was drowsy
    drain_changes(world.state)
    sleep.step()
    assert list(world.state.tasks.awake) == ["TASK-0"]


def test_nobody_looks_again_before_it_is_time() -> None:
    world = told("start TASK-1")
    sleep = Sleep(world.state, Patience(idle_ms=0, look_every_ms=60_000))
    sleep.step()
    tell(world, "usage TASK-1 PLAN 1\ntick +59s")
    drain_changes(world.state)
    sleep.step()
    assert list(world.state.tasks.awake) == ["TASK-1"]
    tell(world, "tick +1s")
    sleep.step()
    assert list(world.state.tasks.asleep) == ["TASK-1"]


def test_who_is_held_stays_awake_so_that_a_change_of_mode_reaches_it() -> None:
    world = told("mode enforce\nstart TASK-1\nusage TASK-1 PLAN 1_000_000\ntick +1h")
    Sleep(world.state, Patience()).step()
    assert list(world.state.tasks.awake) == ["TASK-1"]
    tell(world, "mode observe")
    assert [one.enforced for one in world.decisions("TASK-1")][-2:] == [True, False]


def test_a_sleeping_task_is_woken_by_its_first_deadline_and_not_for_those_it_had_before() -> None:
    world = told("start TASK-1\nbegin TASK-1 PLAN")
    sleep = Sleep(world.state, Patience(idle_ms=0, look_every_ms=0))
    for _ in range(2):
        sleep.step()
        tell(world, "end TASK-1 PLAN +1s\nbegin TASK-1 PLAN")
        drain_changes(world.state)
    sleep.step()
    tell(world, "tick +40d")
    assert [one.change for one in world.lifecycles("TASK-1")] == ["started", "stuck", "ended"]


def test_the_deadlines_of_sleeping_tasks_outlive_the_clearing_of_stale_ones(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("streams.budget.clock.STALE_MAX", -8)
    world = told("start TASK-1\nbegin TASK-1 PLAN")
    Sleep(world.state, Patience(idle_ms=0)).step()
    tell(world, "start TASK-2\nend TASK-2 PLAN +1h\ntick +40d")
    assert [one.change for one in world.lifecycles("TASK-1")] == ["started", "stuck", "ended"]


def test_a_restart_takes_of_each_key_the_last_record_and_forgets_what_was_removed() -> None:
    world = story("start TASK-1\nstart TASK-2\nusage TASK-2 PLAN 7")
    restoring = Restoring(PARTITION, world.default_policy)
    restoring.put("TASK-1", world.records["TASK-1"])
    restoring.put("TASK-2", b"an older one")
    assert repr(restoring) == f"<Restoring partition {PARTITION}, 2 tasks>"
    for key, value in world.records.items():
        restoring.put(key, value)
    restoring.put("TASK-1", None)
    for _ in restoring.finish():
        pass
    assert list(restoring.state.tasks) == ["TASK-2"]
    assert restoring.state.tasks["TASK-2"].tokens.used == 7_000


def test_a_record_under_the_key_of_another_task_is_torn() -> None:
    world = story("start TASK-1")
    records = {**world.records, "TASK-9": world.records["TASK-1"]}
    with pytest.raises(TornStateError, match="key TASK-9: it is the state of TASK-1"):
        restore(PARTITION, records.items(), world.default_policy)


def test_a_record_without_its_first_deadline_is_restored_awake() -> None:
    world = story("start TASK-1")
    effects = [one for one in drain_changes(world.state) if one.key == "TASK-1"]
    value = encoded(effects[0], world.clock_ms).value
    assert value is not None
    head, _, _ = value.partition(b',"due_ms"')
    world.records["TASK-1"] = head + b"}}"
    assert list(restored(world.records, world.default_policy).tasks.awake) == ["TASK-1"]


def test_a_task_that_nobody_knows_is_not_there() -> None:
    world = story("start TASK-1")
    assert world.state.tasks.get("TASK-2") is None
    with pytest.raises(KeyError, match="TASK-2"):
        world.state.tasks["TASK-2"]


def test_who_looks_for_what_is_torn_has_every_task_built() -> None:
    world = story("start TASK-1\nusage TASK-1 PLAN 7\nstart TASK-2")
    state = restore_awake(PARTITION, world.records.items(), world.default_policy)
    assert (sorted(state.tasks.awake), list(state.tasks.asleep)) == (["TASK-1", "TASK-2"], [])
    assert snapshot(state) == snapshot(world.state)

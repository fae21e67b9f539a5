"""What holds for every history."""

from collections.abc import Sequence
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from schemas.decode import Refusal, decode_event
from schemas.outputs import Breach, Decision, Lifecycle
from schemas.topics import Topic
from streams.budget.effects import Effect
from streams.budget.fold import fold, next_deadline_ms
from streams.budget.snapshot import drain_changes
from streams.budget.state import PartitionState, Task, new_partition
from tests.unit.budget.histories import POLICY, Happening, anything, examples, histories
from tests.unit.budget.story import tell
from tests.unit.budget.world import (
    PARTITION,
    START_MS,
    TICK,
    Cause,
    World,
    encoded,
    is_refused,
    record,
    restored,
    snapshot,
)


def empty() -> PartitionState:
    return new_partition(PARTITION, POLICY)


def times(history: Sequence[Happening]) -> list[int]:
    """When each record was appended."""
    at_ms, found = START_MS, []
    for happening in history:
        at_ms += happening.moves_ms
        found.append(at_ms)
    return found


def bare(effects: Sequence[Effect]) -> list[Any]:
    """What was published, but for the place of its input."""
    found = []
    for effect in effects:
        data = effect.data
        if isinstance(data, Lifecycle) and data.change == "partition_checkpoint":
            continue  # it says which input it came with
        if isinstance(data, Breach | Decision | Lifecycle):
            data = msgspec.structs.replace(data, input=None)
        found.append((effect.topic, effect.key, data))
    return found


@examples(20)
@given(histories())
def test_a_restart_after_every_event_is_invisible(history: list[Happening]) -> None:
    world = World(POLICY)  # it restarts before each event, and compares
    for happening in history:
        world.take(happening.value, world.clock_ms + happening.moves_ms)


@examples(40)
@given(histories(events_max=40), st.data())
def test_a_restart_after_any_prefix_is_invisible(
    history: list[Happening], data: st.DataObject
) -> None:
    cut = data.draw(st.integers(0, len(history)))
    state = empty()
    records: dict[str, bytes] = {}
    resumed: PartitionState | None = None
    for offset, (happening, at_ms) in enumerate(zip(history, times(history), strict=True)):
        if offset == cut:
            for effect in drain_changes(state):
                records[effect.key] = encoded(effect, at_ms).value or b""
            resumed = restored(records, POLICY)
        cause = Cause(offset, happening.value)
        effects = fold(state, decode_event(happening.value), offset=offset, append_ms=at_ms)
        output = [encoded(effect, at_ms, cause) for effect in effects]
        if resumed is None:
            for effect in effects:
                if effect.topic is Topic.TASKS:
                    value = encoded(effect, at_ms).value
                    records[effect.key] = value or b""
                    if value is None:
                        del records[effect.key]
        else:
            again = fold(resumed, decode_event(happening.value), offset=offset, append_ms=at_ms)
            assert [encoded(effect, at_ms, cause) for effect in again] == output
            assert snapshot(resumed) == snapshot(state)
            assert next_deadline_ms(resumed) == next_deadline_ms(state)


@examples(40)
@given(histories(events_max=30, moves_max_ms=1_000), st.data())
def test_duplicates_change_nothing_wherever_they_come(
    history: list[Happening], data: st.DataObject
) -> None:
    plain, repeated = empty(), empty()
    folded: list[bytes] = []
    for index, (happening, at_ms) in enumerate(zip(history, times(history), strict=True)):
        offset = index * 10
        event = decode_event(happening.value)
        effects = fold(plain, event, offset=offset, append_ms=at_ms)
        assert bare(fold(repeated, event, offset=offset, append_ms=at_ms)) == bare(effects)
        if not is_refused(effects):
            folded.append(happening.value)
        for place in range(data.draw(st.integers(0, 2)) if folded else 0):
            again = decode_event(data.draw(st.sampled_from(folded)))
            assert not fold(repeated, again, offset=offset + 1 + place, append_ms=at_ms)
    assert snapshot(repeated) == snapshot(plain)


@examples(40)
@given(histories(events_max=30), st.data())
def test_where_ticks_are_placed_does_not_matter(
    history: list[Happening], data: st.DataObject
) -> None:
    coarse, fine = empty(), empty()
    wanted: list[Any] = []
    found: list[Any] = []
    for index, (happening, at_ms) in enumerate(zip(history, times(history), strict=True)):
        offset = index * 10
        event = decode_event(happening.value)
        gap = happening.moves_ms
        for place, moved in enumerate(sorted(data.draw(st.lists(st.integers(0, gap), max_size=3)))):
            tick_ms = at_ms - gap + moved
            found += fold(fine, TICK, offset=offset + place, append_ms=tick_ms)
        wanted += fold(coarse, event, offset=offset + 5, append_ms=at_ms)
        found += fold(fine, event, offset=offset + 5, append_ms=at_ms)
    assert bare(found) == bare(wanted)
    assert standing(fine) == standing(coarse)


def standing(state: PartitionState) -> dict[str, Any]:
    """Where each task stands: verdict, flags, and what each cell has used and reached."""
    return {
        task_id: (
            task.verdict,
            sorted(task.flags),
            task.inherited_from,
            [(where, index, cell.used, cell.level) for where, index, cell in task.cells()],
        )
        for task_id, task in sorted((one.task_id, one) for one in state.tasks.values())
    }


class Watched:
    """A task's amounts and levels, before and after an event."""

    def __init__(self, task: Task) -> None:
        self.version = task.limits_version
        self.used = {(where, index): cell.used for where, index, cell in task.cells() if index != 1}
        self.levels = {(where, index): cell.level for where, index, cell in task.cells()}


@examples(50)
@given(histories(events_max=40))
def test_used_amounts_never_shrink_and_levels_only_rise_while_the_limits_stay(
    history: list[Happening],
) -> None:
    state = empty()
    for offset, (happening, at_ms) in enumerate(zip(history, times(history), strict=True)):
        before = {id(task): (task, Watched(task)) for task in state.tasks.values()}
        effects = fold(state, decode_event(happening.value), offset=offset, append_ms=at_ms)
        withdrawn = {
            (one.data.task_id, one.data.cell.phase)
            for one in effects
            if isinstance(one.data, Breach) and one.data.withdrawn
        }
        for task, was in before.values():
            now = Watched(task)
            assert all(now.used[cell] >= used for cell, used in was.used.items())
            if now.version == was.version:
                assert all(
                    now.levels[cell] >= level
                    for cell, level in was.levels.items()
                    if cell[1] != 1 or (task.task_id, cell[0]) not in withdrawn
                )
            assert task.verdict >= task.own


@examples(30)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["T0", "T1"]),
            st.sampled_from(["A", "B", "X"]),
            st.lists(st.integers(0, 60), min_size=1, max_size=4),
        ),
        max_size=8,
    )
)
def test_a_report_may_come_in_parts(reports: list[tuple[str, str, list[int]]]) -> None:
    states = []
    for in_parts in (False, True):
        state = tell(World(POLICY), "start T0 planned=A,B,C\nstart T1 parent=T0 x=0.5").state
        split = [
            (task_id, {"phase": phase, "input_tokens": tokens, "cost_usd": tokens / 1_000})
            for task_id, phase, parts in reports
            for tokens in (parts if in_parts else [sum(parts)])
        ]
        for index, (task_id, data) in enumerate(split):
            event = decode_event(record("phase.usage", task_id, f"u-{index}", data, START_MS))
            fold(state, event, offset=2 + index, append_ms=START_MS)
        states.append(state)
    assert standing(states[0]) == standing(states[1])


@examples(30)
@given(st.lists(st.tuples(anything(), st.sampled_from([0, 1_000, 700_000])), max_size=12))
def test_whatever_can_be_decoded_can_be_folded(records: list[tuple[bytes, int]]) -> None:
    world = World(POLICY)
    for value, moves_ms in records:
        assert not isinstance(decode_event(value), Refusal) or b"partition/" in value
        world.take(value, world.clock_ms + moves_ms)

"""The load of the comparison is what its description says."""

from collections import Counter

from bench.load import Load, of_lives
from schemas.decode import Refusal, decode_event
from schemas.topics import Topic
from streams.budget.fold import fold
from streams.budget.policy import builtin_policy
from streams.budget.state import new_partition

LOAD = Load(events=30_000, tasks=50)
START_MS = 1_767_225_600_000


def folded() -> tuple[Counter[Topic], Counter[str], int]:
    """Fold all of it; return records by topic, events by type, and the bytes of the events."""
    state = new_partition(0, builtin_policy())
    topics: Counter[Topic] = Counter()
    types: Counter[str] = Counter()
    size_bytes = 0
    for offset, (_, value) in enumerate(of_lives(LOAD)):
        event = decode_event(value)
        assert not isinstance(event, Refusal), event
        types[type(event).__name__] += 1
        size_bytes += len(value)
        effects = fold(state, event, offset=offset, append_ms=START_MS + offset // 100)
        topics.update(effect.topic for effect in effects)
    return topics, types, size_bytes


def test_two_percent_of_the_events_cause_a_decision_and_none_is_refused() -> None:
    topics, types, size_bytes = folded()
    count = sum(types.values())

    assert types["PhaseUsage"] == LOAD.events
    assert 0.018 < topics[Topic.DECISIONS] / count < 0.022
    assert topics[Topic.DEAD_LETTERS] == 0
    assert 330 < size_bytes / count < 370


def test_as_many_tasks_are_open_at_once_as_were_asked_for() -> None:
    _, types, _ = folded()

    open_at_the_end = types["TaskStarted"] - types["TaskEnded"]

    assert LOAD.tasks * 0.9 < open_at_the_end <= LOAD.tasks

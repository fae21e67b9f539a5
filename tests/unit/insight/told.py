"""What readers of the ledger's topics are told: the records of a history, as they travel."""

import random
from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from schemas.envelope import Envelope
from schemas.outputs import Breach, Decision, ExecutionRecord, Lifecycle
from schemas.topics import Topic
from streams.budget.policy import Policy
from streams.insight.task_facts import (
    TaskFacts,
    tell_breach,
    tell_child,
    tell_decision,
    tell_execution,
    tell_lifecycle,
)
from tests.unit.budget.story import story
from tests.unit.budget.world import World

Told = tuple[Topic, Envelope[Any]]
TELL: dict[Topic, tuple[type, Callable[[TaskFacts, Any], bool]]] = {
    Topic.LIFECYCLE: (Lifecycle, tell_lifecycle),
    Topic.EXECUTIONS: (ExecutionRecord, tell_execution),
    Topic.BREACHES: (Breach, tell_breach),
    Topic.DECISIONS: (Decision, tell_decision),
}


def records(world: World) -> list[Told]:
    """All that a history has published to the topics that agents read, in order."""
    return [
        (topic, msgspec.json.decode(made.value, type=Envelope[TELL[topic][0]]))  # type: ignore[misc]
        for topic, made in world.output
        if topic in TELL and made.value is not None
    ]


def shuffled(told: Iterable[Told], seed: int) -> list[Told]:
    """The same records as another reader sees them: in order within a topic, some of them twice."""
    chance = random.Random(seed)
    queues = {topic: [record for its_topic, record in told if its_topic is topic] for topic in TELL}
    seen = []
    while any(queues.values()):
        topic = chance.choice([each for each in TELL if queues[each]])
        count = chance.randint(1, len(queues[topic]))
        seen += [(topic, record) for record in queues[topic][:count]]
        if chance.random() < 0.8:  # else it was stopped before it had said how far it came
            del queues[topic][:count]
    return seen


def facts_of(told: Iterable[Told]) -> dict[str, TaskFacts]:
    """Tell each task's facts all of its records."""
    found: dict[str, TaskFacts] = {}
    for topic, record in told:
        task_id = record.data.task_id
        if task_id is None:
            continue
        facts = found.setdefault(task_id, TaskFacts(task_id=task_id))
        TELL[topic][1](facts, record)
        if topic is Topic.LIFECYCLE and (parent := record.data.parent_task_id) is not None:
            tell_child(found.setdefault(parent, TaskFacts(task_id=parent)), record)
    return found


def tasks_of(text: str, policy: Policy | None = None) -> dict[str, TaskFacts]:
    """Tell a history; return what is known of its tasks."""
    return facts_of(records(story(text, policy=policy)))

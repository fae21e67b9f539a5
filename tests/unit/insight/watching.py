"""Readers of the ledger's topics that watch tasks: what they publish, and what they tell others."""

from collections.abc import Iterable, Mapping, Sequence

from schemas.alerts import Alert, Origin
from schemas.envelope import Envelope
from schemas.topics import Topic
from streams.insight.signals import Signal
from streams.insight.task_alerts import TaskWatch, fold_task
from tests.unit.insight.told import TELL, Told

Placed = tuple[Origin, Told]


def placed(told: Iterable[Told]) -> list[Placed]:
    """The records with their places in their topics."""
    next_offset = dict.fromkeys(TELL, 0)
    found = []
    for topic, record in told:
        found.append((Origin(topic.value, 3, next_offset[topic]), (topic, record)))
        next_offset[topic] += 1
    return found


def interleaved(told: Sequence[Placed], chances: Sequence[float]) -> list[Placed]:
    """The same records, in order within a topic, from whichever topic chance has it."""
    queues: dict[Topic, list[Placed]] = {topic: [] for topic in TELL}
    for one in told:
        queues[one[1][0]].append(one)
    seen = []
    for chance in chances:
        waiting = [queue for queue in queues.values() if queue]
        if waiting:
            queue = waiting[int(chance * len(waiting)) % len(waiting)]
            seen.append(queue.pop(0))
    return seen + [one for queue in queues.values() for one in queue]


class Watcher:
    """One reader: `tasks` is what it keeps, the rest is what it has sent."""

    def __init__(self) -> None:
        self.tasks: dict[str, TaskWatch] = {}
        self.alerts: list[Envelope[Alert]] = []
        self.signals: list[Signal] = []

    def read(self, told: Iterable[Placed]) -> "Watcher":
        for origin, (_, record) in told:
            task_id = record.data.task_id or ""
            watch, alerts, signals = fold_task(self.tasks.get(task_id), record, origin)
            if watch is not None:
                self.tasks[task_id] = watch
            self.alerts += alerts
            self.signals += signals
        return self

    def edges(self) -> list[str]:
        """What was sent, such as `budget_breach TASK-1 firing 1`."""
        return [edge_text(alert.data) for alert in self.alerts]

    def by_scope(self) -> Mapping[str, list[str]]:
        """The edges of each alert, in the order in which they were sent."""
        found: dict[str, list[str]] = {}
        for alert in self.alerts:
            found.setdefault(alert.subject, []).append(edge_text(alert.data))
        return found


def edge_text(alert: Alert) -> str:
    return f"{alert.name} {alert.scope} {alert.state} {alert.number}"

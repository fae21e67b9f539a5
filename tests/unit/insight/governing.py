"""Readers of `lifecycle` that govern, and histories about what tasks call themselves."""

from collections.abc import Iterable

from hypothesis import strategies as st
from msgspec.structs import replace

from schemas.alerts import Alert, Origin
from schemas.audit import Audit
from schemas.envelope import Envelope
from schemas.outputs import Lifecycle
from schemas.topics import Topic
from streams.insight.governance import GovernedTask, fold_governed
from streams.insight.signals import Signal
from tests.unit.budget.story import story
from tests.unit.budget.world import World
from tests.unit.insight.told import records
from tests.unit.insight.watching import edge_text

Told = tuple[Origin, Envelope[Lifecycle]]


def told(world: World, partition: int = 3) -> list[Told]:
    """The records of `lifecycle` of a history, with their places, as if it were that partition's."""
    lifecycle = [record for topic, record in records(world) if topic is Topic.LIFECYCLE]
    return [
        (Origin("lifecycle", partition, offset), record) for offset, record in enumerate(lifecycle)
    ]


class Governor:
    """One reader: `tasks` is what it keeps, the rest is what it has sent."""

    def __init__(self) -> None:
        self.tasks: dict[str, GovernedTask] = {}
        self.alerts: list[Envelope[Alert]] = []
        self.signals: list[Signal] = []
        self.audits: list[Envelope[Audit]] = []

    def read(self, told: Iterable[Told]) -> "Governor":
        for origin, record in told:
            key = record.subject
            self.tasks[key], alerts, signals, audits = fold_governed(
                self.tasks.get(key), record, origin
            )
            self.alerts += alerts
            self.signals += signals
            self.audits += audits
        return self

    @property
    def edges(self) -> list[str]:
        return [edge_text(alert.data) for alert in self.alerts]

    @property
    def messages(self) -> list[str]:
        return [alert.data.message for alert in self.alerts]

    @property
    def firing(self) -> set[str]:
        """The tasks that have jumped, and nobody has looked at it."""
        last = {alert.data.scope: alert.data.state.value for alert in self.alerts}
        return {scope for scope, state in last.items() if state == "firing"}


def governed(text: str) -> Governor:
    return Governor().read(told(story(text)))


LINES = (
    "start {task}",
    "start {task} importance=low",
    "start {task} importance=critical",
    "start {task} importance=critical why=outage-{number}",
    "usage {task} THINK 5",
    "reclassify {task} importance=low reason=r{number}",
    "reclassify {task} importance=high reason=r{number}",
    "reclassify {task} importance=critical reason=r{number}",
    "reclassify {task} complexity=tiny reason=r{number}",
    "review {task} approve",
    "review {task} refuse",
    "explain {task} so-it-was",
    "finish {task}",
    "tick +20h",
)


@st.composite
def classifying(draw: st.DrawFn) -> World:
    """A history in which people classify tasks, review that, and use ids again."""
    lines = draw(st.lists(st.sampled_from(LINES), max_size=12))
    tasks = draw(st.lists(st.sampled_from(["T0", "T1"]), min_size=len(lines), max_size=len(lines)))
    return story(
        "\n".join(
            line.format(task=task, number=number)
            for number, (line, task) in enumerate(zip(lines, tasks, strict=True))
        )
    )


def renamed(signals: Iterable[Signal], partition: int) -> list[Signal]:
    """The same signals of tasks of another partition."""
    found = []
    for signal in signals:
        name = getattr(signal, "task_id", None)
        found.append(signal if name is None else replace(signal, task_id=f"{name}-{partition}"))
    return found

"""What happens from now on, as `watch` shows it: from whichever source."""

from typing import Protocol

from msgspec import Struct

from schemas.outputs import Decision
from streams.cli.edges import AlertRow
from streams.cli.facts import AnsweredFrom, TasksAnswer


class Told(Struct, frozen=True):
    """A decision, and when it was made by the partition's clock."""

    time: str
    decision: Decision


class News(Struct, frozen=True):
    """Decisions that are new, in their order; some `were_missed` where more came than are kept."""

    decisions: list[Told]
    source: AnsweredFrom
    were_missed: bool = False


class Moment(Struct, frozen=True):
    """What there is to see at one moment."""

    tasks: TasksAnswer
    firing: list[AlertRow]


class Live(Protocol):
    """Follows one source.

    Both raise `UnavailableError` where it has gone away, or shows what is too old.
    """

    async def news(self) -> News:
        """Wait until there may be something new; return the decisions since the last time."""

    async def moment(self, *, ended_too: bool, most: int) -> Moment:
        """Return how all stands now, with at most so many tasks."""

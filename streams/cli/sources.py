"""Where commands look: in the view in Redis, or in the topics, which say the same and take longer.

A command asks one `Source` and does not know which one it is. By default that is the view; the topics
where Redis is away, has no view of this system, or shows what is too old (`view.too_old`), and where
the view fails in the middle or does not know what it is asked for.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Protocol, TypeVar

import msgspec

from schemas.topics import Topic
from streams.cli.audits import AuditAnswer, AuditFilter
from streams.cli.edges import AlertsAnswer
from streams.cli.facts import AnsweredFrom, From, TaskAnswer, TasksAnswer
from streams.cli.from_topics import TopicsSource
from streams.cli.from_view import ViewSource
from streams.cli.live import Live
from streams.cli.materials import TaskMaterial
from streams.cli.operating import UnknownTaskError
from streams.cli.place import Place
from streams.cli.reading import LOOKED_AT, LedgerView, opened
from streams.cli.shot import ask_at
from streams.cli.view import NotInViewError, NoView, NoViewError, View, view_of
from streams.view.store import RedisUnavailableError

ASKED_FOR = "asked for"

Answer = TypeVar("Answer", TaskAnswer, TasksAnswer, AlertsAnswer, AuditAnswer)
Anything = TypeVar("Anything")


class Source(Protocol):
    """What is asked of the view or of the topics; both give equal answers about equal systems.

    All of it raises `UnavailableError` where the part that is asked has gone away.
    """

    @property
    def answered_from(self) -> AnsweredFrom:
        """Which of both this is, and how old."""

    async def tasks(self, *, ended_too: bool, most: int | None = None) -> TasksAnswer:
        """Return the tasks, the nearest to its limit first; at most `most` of them."""

    async def task(self, task_id: str) -> TaskAnswer:
        """Return everything about a task; of its decisions and breaches the last ones.

        Raises:
            UnknownTaskError: there is no such task.
        """

    async def alerts(self, edges: int = 0) -> AlertsAnswer:
        """Return what fires now, and so many of the last edges."""

    async def report(self, task_id: str) -> TaskMaterial:
        """Return the report of a task as it was written, else what one is made of.

        Raises:
            UnknownTaskError: there is no such task.
            NotInViewError: the view has not all of it.
        """

    async def audit(self, which: AuditFilter, limit: int) -> AuditAnswer:
        """Return the newest entries that are meant, at most `limit`.

        Raises:
            NotInViewError: there may be entries that the view has no longer.
        """

    async def ledger(self) -> LedgerView:
        """Return all open tasks, where each partition stands, and the policies."""

    def live(self) -> contextlib.AbstractAsyncContextManager[Live]:
        """Give what happens from now on."""


def ask_source(
    folder: Path,
    timeout_s: float,
    wanted: From | None,
    question: Callable[[Source], Awaitable[Answer]],
    topics: Sequence[Topic] = LOOKED_AT,
) -> Answer:
    """Return what a source answers, with which one it was.

    Args:
        folder: of the local cluster, where no Kafka is named.
        timeout_s: for all of it; the view gets half of it at most.
        wanted: which source; None for the view, and the topics where it cannot be asked.
        question: asked once or twice.
        topics: what the question needs where the topics are asked.

    Raises:
        NoViewError: the view is wanted, and cannot be asked.
        UnavailableError: Kafka or a topic cannot be reached in time.
        StoplossError: as the question itself.
    """

    async def at(place: Place) -> Answer:
        answer, source = await answer_at(place, timeout_s, wanted, question, topics)
        return msgspec.structs.replace(answer, source=source)

    return ask_at(folder, timeout_s, at)


async def answer_at(
    place: Place,
    timeout_s: float,
    wanted: From | None,
    question: Callable[[Source], Awaitable[Anything]],
    topics: Sequence[Topic] = LOOKED_AT,
) -> tuple[Anything, AnsweredFrom]:
    """Return what a source answers, and which one it was; as `ask_source`."""
    async with found_at(place, wanted) as found:
        return await answered(place, found, question, wanted, timeout_s / 2, topics)


@contextlib.asynccontextmanager
async def found_at(place: Place, wanted: From | None) -> AsyncIterator[View | NoView]:
    """Give the view to ask, or why the topics are asked instead.

    Raises:
        NoViewError: the view is wanted, and there is none.
    """
    if wanted is From.TOPICS:
        yield NoView(ASKED_FOR, "", is_expected=False)
        return
    async with view_of(place, old_too=wanted is From.VIEW) as found:
        if wanted is From.VIEW and isinstance(found, NoView):
            raise NoViewError(f"--from view: {found.why}")
        yield found


@contextlib.asynccontextmanager
async def source_of(
    place: Place, wanted: From | None, why: str | None = None
) -> AsyncIterator[Source]:
    """Give the source to follow.

    Args:
        place: where Kafka is.
        wanted: which source; None for the view, and the topics where it cannot be asked.
        why: the topics are wanted, where nobody has asked for them.

    Raises:
        NoViewError: the view is wanted, and cannot be asked.
        UnavailableError: Kafka does not answer, or a topic is missing.
    """
    async with found_at(place, wanted) as found:
        if isinstance(found, View):
            yield ViewSource(found)
            return
        async with opened(place.settings, LOOKED_AT) as log:
            yield TopicsSource(log, why or found.why)


async def answered(
    place: Place,
    found: View | NoView,
    question: Callable[[Source], Awaitable[Anything]],
    wanted: From | None,
    view_within_s: float,
    topics: Sequence[Topic] = LOOKED_AT,
) -> tuple[Anything, AnsweredFrom]:
    """Return what the view answers, else what the topics do, and which it was.

    Raises:
        UnavailableError: Kafka or a topic is away; or Redis, where the view is wanted.
        StoplossError: as the question itself.
    """
    why = found.why if isinstance(found, NoView) else ""
    if isinstance(found, View):
        source = ViewSource(found)
        try:
            async with asyncio.timeout(view_within_s):
                return await question(source), source.answered_from
        except (RedisUnavailableError, UnknownTaskError, NotInViewError, TimeoutError) as error:
            if wanted is From.VIEW:
                raise
            why = _why(error)
    async with opened(place.settings, topics) as log:
        from_topics = TopicsSource(log, why)
        return await question(from_topics), from_topics.answered_from


def _why(error: Exception) -> str:
    match error:
        case UnknownTaskError():  # it may be newer than what is shown
            return "the view does not know it"
        case TimeoutError():
            return "Redis takes too long"
        case _:
            return str(error)

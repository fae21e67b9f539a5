"""What people look at, read from the topics: slower than the view, and as new as the topics."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

from streams.cli.audits import AuditAnswer, AuditFilter, Newest
from streams.cli.edges import AlertsAnswer, Edges, alerts_answer
from streams.cli.facts import (
    AnsweredFrom,
    From,
    TaskAnswer,
    TasksAnswer,
    task_answer,
    tasks_answer,
)
from streams.cli.following import Followed, follow
from streams.cli.live import Live, Moment, News
from streams.cli.materials import TaskMaterial, task_material
from streams.cli.operating import find_task
from streams.cli.reading import LedgerView, Log


class TopicsSource:
    """Answers from the topics; see `Source`.

    Args:
        log: with the topics that the questions need.
        why: the topics are asked, and not the view.
    """

    def __init__(self, log: Log, why: str) -> None:
        self._log = log
        self.answered_from = AnsweredFrom(part=From.TOPICS, age_ms=0, why=why)

    def __repr__(self) -> str:
        return f"<TopicsSource {self._log}>"

    async def tasks(self, *, ended_too: bool, most: int | None = None) -> TasksAnswer:
        """See `Source.tasks`."""
        return tasks_answer(await self._log.ledger_view(), ended_too=ended_too, most=most)

    async def task(self, task_id: str) -> TaskAnswer:
        """See `Source.task`."""
        view = await self._log.ledger_view()
        seen = find_task(view, task_id)
        return task_answer(
            seen,
            view.partitions.get(seen.partition),
            children=[
                name
                for name, each in view.tasks.items()
                if each.state.parent_task_id == seen.state.task_id
            ],
            decisions=await self._log.decisions(seen.partition, task_id),
            breaches=await self._log.breaches(seen.partition, task_id),
        )

    async def alerts(self, edges: int = 0) -> AlertsAnswer:
        """See `Source.alerts`."""
        found = Edges(edges)
        async for key, edge in self._log.alerts():
            found.take(key, edge)
        return alerts_answer(found.firing, found.recent)

    async def report(self, task_id: str) -> TaskMaterial:
        """See `Source.report`."""
        return await task_material(self._log, task_id)

    async def audit(self, which: AuditFilter, limit: int) -> AuditAnswer:
        """See `Source.audit`."""
        found = Newest(which, limit)
        async for entry in self._log.audits(which.since_ms):
            found.take(entry)
        return found.answer()

    async def ledger(self) -> LedgerView:
        """See `Source.ledger`."""
        return await self._log.ledger_view()

    @contextlib.asynccontextmanager
    async def live(self) -> AsyncIterator[Live]:
        """See `Source.live`."""
        # Without a bound: whoever prints each decision takes them as they come.
        followed = Followed(feed_length=None)
        async with asyncio.TaskGroup() as group:
            following = group.create_task(follow(self._log.settings, self._log, followed))
            try:
                yield LiveTopics(followed, self.answered_from)
            finally:
                following.cancel()


class LiveTopics:
    """Follows the topics; see `Live`."""

    def __init__(self, followed: Followed, source: AnsweredFrom) -> None:
        self._followed, self._source = followed, source

    def __repr__(self) -> str:
        return f"<LiveTopics {self._followed}>"

    async def news(self) -> News:
        """See `Live.news`."""
        await self._followed.changed.wait()
        self._followed.changed.clear()
        told = list(self._followed.feed)
        self._followed.feed.clear()
        return News(told, self._source)

    async def moment(self, *, ended_too: bool, most: int) -> Moment:
        """See `Live.moment`."""
        tasks = tasks_answer(self._followed.view, ended_too=ended_too, most=most)
        firing = alerts_answer(self._followed.edges.firing, ()).firing
        return Moment(tasks, firing)

"""What people look at, read from the view in Redis."""

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import AsyncIterator, Iterable

from schemas.envelope import Envelope
from schemas.outputs import Decision
from streams.cli.audits import AuditAnswer, AuditFilter, newest
from streams.cli.edges import AlertsAnswer, alerts_answer
from streams.cli.facts import (
    AnsweredFrom,
    From,
    TaskAnswer,
    TasksAnswer,
    modes_of,
    task_answer,
    task_rows,
)
from streams.cli.live import Live, Moment, News, Told
from streams.cli.materials import TaskMaterial
from streams.cli.operating import UnknownTaskError
from streams.cli.reading import LedgerView, Seen
from streams.cli.view import NotInViewError, NoViewError, View, too_old
from streams.cli.view_material import view_material
from streams.view.answers import ListedTask
from streams.view.keys import FEED_RECORDS
from streams.view.queries import Queries

ALL_TASKS = 1_000_000_000  # more than any Redis has
LOOK_EVERY_S = 0.25
DECISIONS_READ_BACK = 20
# Asked for at once; only where all of them are new there may be more.
FEW_DECISIONS = 50


class ViewSource:
    """Answers from the view; see `Source`.

    Of a task it has the last 64 decisions and breaches.
    """

    def __init__(self, view: View) -> None:
        self._queries = view.queries
        self.answered_from = answered_from(view.freshness.age_ms)

    def __repr__(self) -> str:
        return f"<ViewSource {self._queries}>"

    async def tasks(self, *, ended_too: bool, most: int | None = None) -> TasksAnswer:
        """See `Source.tasks`."""
        count = ALL_TASKS if most is None else most
        open_page = await self._queries.open_tasks(0, count)
        ended_page = await self._queries.ended_tasks(0, count if ended_too else 1)
        partitions = await self._queries.partitions()
        # One that has ended between both questions is in both pages.
        found = _seen([*open_page.tasks, *(ended_page.tasks if ended_too else ())])
        rows = task_rows(found.values(), partitions, ended_too=ended_too)
        return TasksAnswer(rows[:most], open_page.total, ended_page.total, modes_of(partitions))

    async def task(self, task_id: str) -> TaskAnswer:
        """See `Source.task`."""
        found = await self._queries.task(task_id)
        if found is None or found.state is None or found.partition is None:
            raise UnknownTaskError(task_id)
        return task_answer(
            Seen(found.partition, found.state),
            found.partition_state,
            children=found.children,
            decisions=found.decisions,
            breaches=found.breaches,
        )

    async def alerts(self, edges: int = 0) -> AlertsAnswer:
        """See `Source.alerts`."""
        found = await self._queries.alerts(max(edges, 1))
        return alerts_answer(found.firing, found.recent[:edges])

    async def report(self, task_id: str) -> TaskMaterial:
        """See `Source.report`."""
        return await view_material(self._queries, task_id, time.time_ns() // 1_000_000)

    async def audit(self, which: AuditFilter, limit: int) -> AuditAnswer:
        """See `Source.audit`."""
        found = await self._queries.audit(which.task_id)
        shown = newest(found.entries, which, limit)
        older_too = found.all_since_ms > (which.since_ms or 0)
        if older_too and shown.count < limit:
            raise NotInViewError(
                f"the view keeps {shown.count} of these entries, and not older ones"
            )
        return shown.answer(older_too=older_too)

    async def ledger(self) -> LedgerView:
        """See `Source.ledger`."""
        ledger = LedgerView()
        ledger.tasks = _seen((await self._queries.open_tasks(0, ALL_TASKS)).tasks)
        ledger.partitions = await self._queries.partitions()
        ledger.policies = await self._queries.policies()
        return ledger

    @contextlib.asynccontextmanager
    async def live(self) -> AsyncIterator[Live]:
        """See `Source.live`."""
        yield LiveView(self, self._queries)


class LiveView:
    """Follows the view by looking again and again; see `Live`.

    Decisions are found in the feed of the last thousand: of more between two looks some are missed.
    """

    def __init__(self, source: ViewSource, queries: Queries) -> None:
        self._source, self._queries = source, queries
        self._known: deque[str] = deque(maxlen=2 * FEED_RECORDS)
        self._has_looked = False

    def __repr__(self) -> str:
        return f"<LiveView {self._queries}>"

    async def news(self) -> News:
        """See `Live.news`.

        Raises:
            NoViewError: what is shown is too old by now.
        """
        if self._has_looked:
            await asyncio.sleep(LOOK_EVERY_S)
        freshness = await self._queries.freshness()
        if freshness is None:
            raise NoViewError("Redis has nothing of these topics any more")
        if (why := too_old(freshness)) is not None:
            raise NoViewError(why)
        found = await self._new_decisions()
        were_missed = self._has_looked and len(found) == FEED_RECORDS
        self._has_looked = True
        self._known.extend(each.id for each in found)
        told = [Told(each.time, each.data) for each in found]
        return News(told, answered_from(freshness.age_ms), were_missed)

    async def _new_decisions(self) -> list[Envelope[Decision]]:
        """Return the decisions that are not known yet, the oldest first."""
        if not self._has_looked:
            return (await self._queries.decisions(DECISIONS_READ_BACK))[::-1]
        found = await self._unknown(FEW_DECISIONS)
        if len(found) == FEW_DECISIONS:
            found = await self._unknown(FEED_RECORDS)
        return found[::-1]

    async def _unknown(self, count: int) -> list[Envelope[Decision]]:
        """Return which of the newest are not known yet."""
        known = set(self._known)
        return [each for each in await self._queries.decisions(count) if each.id not in known]

    async def moment(self, *, ended_too: bool, most: int) -> Moment:
        """See `Live.moment`."""
        tasks = await self._source.tasks(ended_too=ended_too, most=most)
        firing = (await self._source.alerts()).firing
        return Moment(tasks, firing)


def answered_from(age_ms: int | None) -> AnsweredFrom:
    """Return what is said of an answer of the view."""
    assert age_ms is not None, "while a view is rebuilt it is not asked"
    return AnsweredFrom(part=From.VIEW, age_ms=age_ms)


def _seen(tasks: Iterable[ListedTask]) -> dict[str, Seen]:
    return {each.task_id: Seen(each.partition, each.state) for each in tasks}

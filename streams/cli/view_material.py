"""What a report is made of, from the view: the same as from the topics, or nothing.

Of each kind the view keeps a task's last records, for some weeks. A report that is made of a part of
them would say something else than that of the topics: where there may have been more, the topics are
asked.
"""

from collections.abc import Sequence

from schemas.baselines import Baseline
from schemas.envelope import Envelope, epoch_ms_of
from schemas.feedback import Feedback
from schemas.reports import Report
from schemas.state import TaskStateData
from schemas.topics import DAY_MS
from streams.cli.facts import ENDED
from streams.cli.materials import SLACK_MS, TaskMaterial, Told, facts_of
from streams.cli.operating import UnknownTaskError
from streams.cli.view import NotInViewError
from streams.insight.reports import Material, used_below
from streams.insight.similar import Baselines
from streams.view.answers import TaskBelow, TaskFound
from streams.view.keys import KEPT_DAYS, TASK_RECORDS
from streams.view.queries import Queries


async def view_material(queries: Queries, task_id: str, now_ms: int) -> TaskMaterial:
    """Return what is there for the report of a task.

    Args:
        queries: of the view.
        task_id: of which.
        now_ms: milliseconds since 1970.

    Raises:
        UnknownTaskError: the view has neither the task nor its report.
        NotInViewError: the view may have a part alone of what a report is made of.
        RedisUnavailableError: Redis is away.
    """
    found = await queries.task(task_id)
    if found is None:
        raise UnknownTaskError(task_id)
    if (written := written_of(found)) is not None:
        return TaskMaterial(written)
    if found.state is None:
        raise UnknownTaskError(task_id)
    feedback = await queries.feedback(task_id)
    check_all_there(found, found.state, feedback, now_ms)
    below = await queries.below(task_id)
    baselines = await queries.baselines()
    return TaskMaterial(material=material_of(found, feedback, below, list(baselines.values())))


def written_of(found: TaskFound) -> Report | None:
    """Return the last report of a task that has ended, not that of an earlier task of the same id."""
    report, state = found.report, found.state
    if report is None or state is None:
        return None if report is None else report.data
    if state.status != ENDED or state.ended_ms is None:
        return None
    return report.data if epoch_ms_of(report.time) >= state.ended_ms - SLACK_MS else None


def check_all_there(
    found: TaskFound, state: TaskStateData, feedback: Sequence[object], now_ms: int
) -> None:
    """Refuse what may be a part.

    Raises:
        NotInViewError: the view may have a part alone of what a report is made of.
    """
    if now_ms - state.started_ms > KEPT_DAYS * DAY_MS:
        raise NotInViewError(f"the view keeps the last {KEPT_DAYS} days of a task")
    for records in (found.changes, found.breaches, found.decisions, feedback):
        if len(records) >= TASK_RECORDS:
            raise NotInViewError(f"the view keeps the last {TASK_RECORDS} records of a task")
    if not found.changes:
        raise NotInViewError("the view does not know how the task began")


def material_of(
    found: TaskFound,
    feedback: Sequence[Envelope[Feedback]],
    below: Sequence[TaskBelow],
    baselines: Sequence[Baseline],
) -> Material:
    """Return what a report is made of."""
    told = Told(found.changes, found.executions, found.breaches, found.decisions, feedback)
    facts = facts_of(found.task_id, told)
    # A task whose id is used again has no children of before: their runs are older than its start.
    family = [
        facts_of(each.task_id, Told(each.changes, each.executions), born=facts.born)
        for each in below
    ]
    return Material(
        facts=facts,
        baselines=Baselines(baselines),
        below=used_below(family),
        state=found.state,
    )

"""When the view has all that a report is made of, and which report is that of the task."""

import msgspec
import pytest

from schemas.envelope import Envelope, rfc3339
from schemas.fields import Complexity, Importance, Verdict
from schemas.outputs import Lifecycle
from schemas.reports import Report
from schemas.state import TaskStateData
from streams.cli.view import NotInViewError
from streams.cli.view_material import check_all_there, written_of
from streams.view.answers import TaskFound
from tests.unit.view.records import DAY_MS, START_MS, task

HOUR_MS = 3_600_000
_STATE = msgspec.json.Decoder(Envelope[TaskStateData])
_STARTED = Envelope(
    id="0-0-0",
    source="test",
    type="stoploss.lifecycle",
    subject="TASK-1",
    time=rfc3339(START_MS),
    data=Lifecycle(change="started", task_id="TASK-1"),
)


def state_of(status: str, ended_ms: int | None = None) -> TaskStateData:
    state = _STATE.decode(task(status=status).value or b"").data
    return msgspec.structs.replace(state, ended_ms=ended_ms)


def report_of(at_ms: int) -> Envelope[Report]:
    data = Report(
        task_id="TASK-1",
        revision=1,
        final=True,
        status="ended",
        verdict=Verdict.CONTINUE,
        complexity=Complexity.MEDIUM,
        importance=Importance.MEDIUM,
        summary=["Within budget.", "Nothing stood out.", "Nothing to do."],
        metrics={},
        phases=[],
    )
    return Envelope(
        id="r",
        source="test",
        type="stoploss.report",
        subject="TASK-1",
        time=rfc3339(at_ms),
        data=data,
    )


def found(
    state: TaskStateData | None, report: Envelope[Report] | None = None, changes: int = 1
) -> TaskFound:
    return TaskFound(
        task_id="TASK-1",
        partition=0,
        state=state,
        partition_state=None,
        executions=[],
        decisions=[],
        breaches=[],
        changes=[_STARTED] * changes,
        children=[],
        report=report,
    )


@pytest.mark.parametrize(
    ("state", "report", "is_its_own"),
    [
        pytest.param(None, report_of(START_MS), True, id="the task has left"),
        pytest.param(None, None, False, id="nothing is left"),
        pytest.param(state_of("open"), report_of(START_MS), False, id="an open one is told anew"),
        pytest.param(state_of("ended", START_MS), None, False, id="not written yet"),
        pytest.param(state_of("ended", START_MS), report_of(START_MS), True, id="written"),
        pytest.param(
            state_of("ended", START_MS),
            report_of(START_MS - HOUR_MS),
            True,
            id="written by a clock that is an hour behind",
        ),
        pytest.param(
            state_of("ended", START_MS),
            report_of(START_MS - HOUR_MS - 1),
            False,
            id="of an earlier task of the same id",
        ),
    ],
)
def test_the_written_report_is_that_of_the_task_once_it_has_ended(
    state: TaskStateData | None,
    report: Envelope[Report] | None,
    is_its_own: bool,  # noqa: FBT001 - a row of the table
) -> None:
    assert (written_of(found(state, report)) is not None) == is_its_own


@pytest.mark.parametrize(
    ("changes", "feedback", "age_ms", "why"),
    [
        pytest.param(63, 63, 28 * DAY_MS, None, id="all of it"),
        pytest.param(64, 0, 0, "the last 64 records", id="as many changes as are kept"),
        pytest.param(1, 64, 0, "the last 64 records", id="as many answers as are kept"),
        pytest.param(1, 0, 28 * DAY_MS + 1, "the last 28 days", id="older than what is kept"),
        pytest.param(0, 0, 0, "how the task began", id="newer than its changes"),
    ],
)
def test_a_report_is_not_made_of_a_part(
    changes: int, feedback: int, age_ms: int, why: str | None
) -> None:
    state = state_of("open")
    asked = (found(state, changes=changes), state, [None] * feedback, START_MS + age_ms)
    if why is None:
        check_all_there(*asked)
    else:
        with pytest.raises(NotInViewError, match=why):
            check_all_there(*asked)
